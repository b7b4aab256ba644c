"""How far wording counts, read off rated dialogues."""

from dataclasses import replace

import numpy as np
import pytest

from persona.rewards.attributes import ATTRIBUTES
from simulators.chat.model import ScriptedChat
from simulators.errors import MirrorError
from simulators.mirror import Manners, Wording, fit_levels
from simulators.mirror.beliefs import Gaussians
from simulators.mirror.wording import _likeliest
from simulators.types import Dialogue, Feedback, StopReason, Turn, Utterance
from simulators.users.mirror import MirrorUsers
from simulators.world import build_film_world
from tests.helpers.talking import SLOTS, reference_scale

USERS = 300
WORLD = build_film_world(60, USERS, seed=0, impressions_per_user=30)
PLANTED = Wording(interest=0.4, readiness=-0.5, stars=2.2, stars_item=0.7, stars_reply=0.6, noise=0.3)
SENTENCES = (
    "Try <title>.",
    "I would love for you to see <title>!",
    "<title> is slow because it takes its time with a family and its house, and it pays off at the end.",
    "Do you like a quiet film, such as <title>, or something louder?",
)


def sure(held: Gaussians) -> Gaussians:
    """The same means, without doubt."""
    size = held.mean.shape[1]
    return Gaussians(held.mean, np.broadcast_to(1e-12 * np.eye(size), (len(held.mean), size, size)))


FITTED = fit_levels(WORLD.log, WORLD.catalogue.features, n_users=USERS, n_factors=0, iterations=5, seed=0)
MODEL = replace(FITTED, users=sure(FITTED.users), items=sure(FITTED.items))
WEIGHTS = np.random.default_rng(0).normal(size=(USERS, len(ATTRIBUTES)))
MANNERS = Manners(sure(Gaussians(WEIGHTS, np.zeros((USERS, 0, 0)))), reference_scale())


def rated(wording: Wording, turns: int = 8) -> list[Dialogue]:
    """Dialogues in which every user rates some films in some words."""
    users = MirrorUsers(
        MODEL, WORLD.catalogue, ScriptedChat(lambda _: "", SLOTS), manners=MANNERS, wording=wording
    )
    rng = np.random.default_rng(1)
    dialogues = [Dialogue(user) for user in range(USERS)]
    for _ in range(turns):
        cards = [WORLD.catalogue.card(int(item)) for item in rng.integers(60, size=USERS)]
        raw = [" ".join(rng.permutation(SENTENCES)[: rng.integers(1, 5)]) for _ in range(USERS)]
        said = [Utterance(text, text.replace("<title>", c.title)) for text, c in zip(raw, cards, strict=True)]
        made = users.decide(dialogues, cards, said, seed=3)
        dialogues = [
            replace(d, turns=(*d.turns, Turn(reply, card, reply, Feedback(m.level, m.satisfaction, reply))))
            for d, card, reply, m in zip(dialogues, cards, said, made, strict=True)
        ]
    return [replace(d, stop=StopReason.MAX_TURNS) for d in dialogues]


def test_planted_effects_are_recovered() -> None:
    found = Wording.fit(MODEL, MANNERS, rated(PLANTED))
    np.testing.assert_allclose(found, PLANTED, atol=0.1)


def test_words_that_do_not_count_get_no_weight() -> None:
    found = Wording.fit(MODEL, MANNERS, rated(PLANTED._replace(interest=0.0, stars_reply=0.0)))
    assert found.interest < 0.05 and found.stars_reply < 0.03


def test_a_better_reply_never_gets_fewer_stars() -> None:
    mood = np.full(50, 0.3)
    stars = PLANTED.rate(np.zeros(50), np.linspace(-9, 9, 50), mood)
    assert (np.diff(stars) >= 0).all() and stars.min() == 1 and stars.max() == 5


def test_too_few_turns_are_refused() -> None:
    with pytest.raises(MirrorError, match="at least 50 rated turns; got 0"):
        Wording.fit(MODEL, MANNERS, [])


def test_a_likelihood_without_a_best_place_is_refused() -> None:
    with pytest.raises(MirrorError, match="the likelihood still rises by nan nats"):
        _likeliest(lambda _: float("nan"), [0.0])
