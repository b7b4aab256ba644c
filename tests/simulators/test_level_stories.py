"""A light model in the simulator moves the fitted probabilities, and only as far as its weight says."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from persona.policy import ConditionedPolicy
from simulators.chat.model import ScriptedChat
from simulators.errors import MirrorError
from simulators.mirror import fit_levels
from simulators.mirror.adjustment import Adjustment
from simulators.mirror.level_stories import LevelStories, level_scene
from simulators.mirror.light_model import LightModel
from simulators.types import Decision, Dialogue, Utterance
from simulators.users.mirror import MirrorUsers
from simulators.world import build_film_world
from tests.helpers.tiny_models import tiny_language_model

WORLD = build_film_world(60, 20, seed=0, impressions_per_user=30)
MODEL = fit_levels(WORLD.log, WORLD.catalogue.features, n_users=20, n_factors=0, iterations=3, seed=0)
CHAT = ScriptedChat(lambda conversation: "hello", ["<genre>"])
HISTORIES = [[f"film of user {user}"] for user in range(20)]
SAID = Utterance("hello", "hello")
USERS = list(range(20))


class Keen:
    """A light model that is sure of the deepest level."""

    def options_by_rationale(
        self, scenes: Sequence[str], labels: Sequence[Sequence[str]], *, rationales: int, seeds: Sequence[int]
    ) -> NDArray[np.float64]:
        return np.tile([0.0, 0.0, 0.0, 0.0, 1.0], (len(scenes), rationales, 1))


def tiny_light() -> LightModel:
    return LightModel(
        # Rotary positions go on beyond the window that its configuration names.
        ConditionedPolicy.build(
            replace(tiny_language_model(), window=600), latent_dim=0, direction_dim=0, rank=2, seed=0
        ),
        max_new_tokens=4,
    )


def decided(stories: LevelStories | None, users: Sequence[int] = USERS, seed: int = 0) -> list[Decision]:
    viewers = MirrorUsers(MODEL, WORLD.catalogue, CHAT, stories=stories)
    cards = [WORLD.catalogue.card(user) for user in users]
    return viewers.decide([Dialogue(user) for user in users], cards, [SAID] * len(users), seed=seed)


def levels(stories: LevelStories | None, users: Sequence[int] = USERS, seed: int = 0) -> list[int]:
    return [decision.level for decision in decided(stories, users, seed)]


def test_without_weight_every_decision_is_the_choice_models_and_no_word_is_written() -> None:
    silent = LevelStories(None, Adjustment(), HISTORIES)  # type: ignore[arg-type]
    for seed in range(20):
        assert levels(silent, seed=seed) == levels(None, seed=seed)


def test_levels_follow_the_moved_probabilities() -> None:
    adjustment = Adjustment(0.7, 0.4)
    stories = LevelStories(Keen(), adjustment, HISTORIES, rationales=3)  # type: ignore[arg-type]
    drawn = np.asarray([levels(stories, seed=seed) for seed in range(300)])
    # One pseudo-rationale of four knows nothing: .05 for each level, .8 for the deepest.
    words = np.tile([0.05, 0.05, 0.05, 0.05, 0.8], (20, 1))
    expected = []
    for seed in range(300):
        utility = [decision.utility for decision in decided(None, seed=seed)]
        base = MODEL.choice.probabilities(np.asarray(utility))
        powers = base**0.7 * words**0.4
        expected.append(powers / powers.sum(axis=1, keepdims=True))
    chances = np.mean(expected, axis=(0, 1))
    shares = np.bincount(drawn.ravel(), minlength=5) / drawn.size
    # 6,000 draws with chances known: five standard errors are below .033.
    np.testing.assert_allclose(shares, chances, atol=0.033)
    assert shares[4] > 2 * np.mean([level == 4 for seed in range(300) for level in levels(None, seed=seed)])


def test_stories_of_a_turn_do_not_depend_on_company() -> None:
    stories = LevelStories(tiny_light(), Adjustment(1.0, 5.0), HISTORIES, rationales=1)
    together = levels(stories)
    assert together == levels(stories)
    assert levels(stories, [11, 4]) == [together[11], together[4]]


def test_the_scene_holds_history_and_item_and_every_level() -> None:
    card = WORLD.catalogue.card(3)
    scene = level_scene(["a warm comedy"], card)
    assert "- a warm comedy" in scene and card.title in scene and card.facts["genre"] in scene
    assert "[A] passes over it" in scene and "[E] loves it" in scene


def test_a_user_without_history_is_refused() -> None:
    stories = LevelStories(Keen(), Adjustment(1.0, 1.0), HISTORIES[:3])  # type: ignore[arg-type]
    with pytest.raises(MirrorError, match=r"one entry a user, 3 here; got users \[7, 9\]"):
        stories.words([1, 7, 9], [WORLD.catalogue.card(0)] * 3, seeds=[0, 1, 2])
