"""Users learned from a log take part in dialogues, as consistent persons, by the fitted chances."""

import numpy as np
import pytest

from persona.rewards.attributes import ATTRIBUTES
from recsys.types import histories_from_log
from simulators.chat.model import Completion, ScriptedChat
from simulators.checks import check_simulated_user
from simulators.errors import MirrorError
from simulators.mirror import fit_levels
from simulators.mirror.beliefs import Gaussians
from simulators.mirror.manner import Manners
from simulators.rollout import rollout
from simulators.types import Dialogue, Feedback, StopReason, Turn, Utterance
from simulators.users.mirror import MirrorUsers
from tests.helpers.talking import SLOTS, reference_scale, talking_world

WORLD, AGENT, _ = talking_world(40)
MODEL = fit_levels(WORLD.log, WORLD.catalogue.features, n_users=40, n_factors=1, iterations=4, seed=0)
CHAT = ScriptedChat(lambda conversation: f"I want something <genre>. {len(conversation)}", SLOTS)
VIEWERS = MirrorUsers(MODEL, WORLD.catalogue, CHAT, patience=3)
SAID = Utterance("hello", "hello")


def decided(users: list[int], items: list[int], seed: int = 0) -> list[tuple[int, float]]:
    cards = [WORLD.catalogue.card(item) for item in items]
    made = VIEWERS.decide([Dialogue(user) for user in users], cards, [SAID] * len(users), seed=seed)
    return [(d.level, d.utility) for d in made]


def test_a_rollout_runs_and_ends() -> None:
    users = list(range(12))
    histories = histories_from_log(WORLD.log, users, len(WORLD.catalogue))
    found = rollout(users, AGENT, VIEWERS, histories=histories, condition=None, seed=2)
    assert [d.user for d in found] == users
    for dialogue in found:
        levels = [turn.feedback.level for turn in dialogue.turns]
        assert (dialogue.stop is StopReason.ACCEPTED) == (levels[-1] >= 3)
        assert (dialogue.stop is StopReason.OUT_OF_PATIENCE) == (levels[-1] < 3 and levels.count(0) == 3)
        assert [turn.feedback.satisfaction for turn in dialogue.turns] == [1 + level for level in levels]
    again = rollout(users[3:5], AGENT, VIEWERS, histories=histories[3:5], condition=None, seed=2)
    assert again == found[3:5]


def test_company_and_order_do_not_matter() -> None:
    assert decided([3, 7, 3], [5, 6, 8])[1:] == decided([7, 3], [6, 8])
    assert decided([3], [5], seed=1) != decided([3], [5], seed=2)


def test_over_seeds_levels_follow_the_fitted_probabilities() -> None:
    users, items = np.arange(40).repeat(5), np.arange(200)
    expected = 1 - MODEL.probabilities(users, items)[:, 0]
    rounds = [[level > 0 for level, _ in decided(users.tolist(), items.tolist(), seed)] for seed in range(40)]
    found = np.mean(rounds)
    # 8,000 draws; rows of a user share a person, so the error is well below twice that of independent draws.
    assert found == pytest.approx(expected.mean(), abs=4 * np.sqrt(0.2 * 0.8 / 8000))


def test_a_model_of_other_levels_or_films_is_refused() -> None:
    log = WORLD.log.assign(level=np.minimum(WORLD.log["level"], 1))
    binary = fit_levels(
        log, WORLD.catalogue.features, n_users=40, n_levels=2, n_factors=0, iterations=1, seed=0
    )
    with pytest.raises(MirrorError, match=r"5 levels .* got 2 levels"):
        MirrorUsers(binary, WORLD.catalogue, CHAT)


def test_a_user_without_words_is_marked() -> None:
    class Dead(ScriptedChat):
        def complete(self, conversations: object, **settings: object) -> list[Completion]:
            return [Completion("", "down")] * len(settings["seeds"])  # type: ignore[arg-type]

    viewers = MirrorUsers(MODEL, WORLD.catalogue, Dead(lambda _: ""), patience=3)
    ignored = next(u for u, (level, _) in enumerate(decided(list(range(40)), [0] * 40)) if level == 0)
    made = viewers.react([Dialogue(ignored)], [WORLD.catalogue.card(0)], [SAID], seed=0)[0]
    assert made.stop is StopReason.MODEL_FAILED and made.utterance.failure


def test_patience_ends_a_dialogue() -> None:
    ignored = next(u for u, (level, _) in enumerate(decided(list(range(40)), [0] * 40)) if level == 0)
    card = WORLD.catalogue.card(0)
    turn = Turn(SAID, card, SAID, Feedback(0, 1.0, SAID))
    impatient = MirrorUsers(MODEL, WORLD.catalogue, CHAT, patience=1)
    assert impatient.react([Dialogue(ignored)], [card], [SAID], seed=0)[0].stop is StopReason.OUT_OF_PATIENCE
    last = Dialogue(ignored, (turn,) * 4)
    stop = MirrorUsers(MODEL, WORLD.catalogue, CHAT, patience=9).react([last], [card], [SAID], seed=0)[0].stop
    assert stop in (StopReason.MAX_TURNS, StopReason.ACCEPTED)


def _mannered(weight: float) -> MirrorUsers:
    """Users who are sure to like (or, below 0, to dislike) long replies, and heed nothing else."""
    mean = np.zeros((40, len(ATTRIBUTES)))
    mean[:, ATTRIBUTES.index("brevity")] = -weight
    sure = np.broadcast_to(1e-12 * np.eye(len(ATTRIBUTES)), (40, len(ATTRIBUTES), len(ATTRIBUTES)))
    manners = Manners(Gaussians(mean, sure), reference_scale())
    return MirrorUsers(MODEL, WORLD.catalogue, CHAT, manners=manners, patience=3)


def test_wording_moves_ratings_and_levels_as_manners_have_it() -> None:
    card = WORLD.catalogue.card(0)
    short = "Try <title>."
    long = " ".join(["Try <title>, a story that takes its time and rewards whoever stays with it."] * 4)
    replies = [Utterance(text, text.replace("<title>", card.title)) for text in (short, long)]
    dialogues, cards = [Dialogue(user) for user in range(40)], [card] * 40
    wordy = _mannered(1.0)
    terse, lengthy = (wordy.decide(dialogues, cards, [reply] * 40, seed=1) for reply in replies)
    assert all(
        a.satisfaction <= b.satisfaction and a.level <= b.level for a, b in zip(terse, lengthy, strict=True)
    )
    assert np.mean([d.satisfaction for d in lengthy]) > np.mean([d.satisfaction for d in terse]) + 1
    assert {d.complaint for d in terse} <= {("brevity", 1), None} and ("brevity", 1) in {
        d.complaint for d in terse
    }
    hurried = _mannered(-1.0).decide(dialogues, cards, [replies[1]] * 40, seed=1)
    assert ("brevity", -1) in {d.complaint for d in hurried}


def test_users_with_manners_keep_the_contract() -> None:
    cards = [WORLD.catalogue.card(item) for item in range(5)]
    check_simulated_user(_mannered(1.0), [3, 1, 4], cards, max_turns=5)
