"""A light model in the simulator: how deep a user goes with one item, told and then weighed against the choice model.

The item that a turn shows is a scene whose options are the levels. The fitted level model says how likely each is; a
trained `LightModel` tells how the user decides; a fitted `Adjustment` says how far that may move the probabilities.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simulators.errors import MirrorError
from simulators.mirror.adjustment import Adjustment
from simulators.mirror.light_model import LightModel, mean_over_rationales
from simulators.mirror.rationales import option_labels, scene_text
from simulators.types import LEVELS, ItemCard

Values = NDArray[np.float64]

BEHAVIOURS = ("passes over it", "opens it", "saves it for later", "watches it", "loves it")
"""What each of `simulators.types.LEVELS` looks like."""

LEVEL_LABELS = option_labels(len(LEVELS))


def level_scene(history: Sequence[str], card: ItemCard) -> str:
    """What a light model is told of one item shown to a user: labels are `LEVEL_LABELS`, slots are levels.

    Args:
        history: What the user met before, oldest first, one a line.
        card: The item.
    """
    facts = "; ".join([card.title, *card.facts.values()])
    return f"Shown: {facts}\n{scene_text(history, BEHAVIOURS)}"


class LevelStories:
    """Moves the level model's probabilities by what a light model tells.

    A turn costs `rationales` texts to write and as many to read.

    Args:
        light: Trained on scenes of `level_scene`, the level reached being the option taken.
        adjustment: Fitted on users whom neither model was trained on.
        histories: What each user met before, oldest first, in words; a row a user.
        rationales: Drawn for a decision; the published number is 5.
    """

    def __init__(
        self,
        light: LightModel,
        adjustment: Adjustment,
        histories: Sequence[Sequence[str]],
        *,
        rationales: int = 5,
    ) -> None:
        self._light = light
        self._adjustment = adjustment
        self._histories = histories
        self._rationales = rationales

    def words(self, users: Sequence[int], cards: Sequence[ItemCard], *, seeds: Sequence[int]) -> Values:
        """P(level) of the light model alone, as `fit_adjustment` needs it. Shape (B, K).

        Args:
            users: Rows of the users.
            cards: Item shown to each.
            seeds: One a row; they draw the rationales.

        Raises:
            MirrorError: A user without a history, which may be empty.
        """
        unknown = [user for user in users if not 0 <= user < len(self._histories)]
        if unknown:
            raise MirrorError(
                f"`histories` must have one entry a user, {len(self._histories)} here; got users {unknown[:3]}. Give "
                "an empty one to a user of whom nothing is known."
            )
        scenes = [level_scene(self._histories[user], card) for user, card in zip(users, cards, strict=True)]
        labels = [LEVEL_LABELS] * len(scenes)
        given = self._light.options_by_rationale(scenes, labels, rationales=self._rationales, seeds=seeds)
        return mean_over_rationales(given, [len(LEVEL_LABELS)] * len(scenes))

    def moved(
        self, base: Values, users: Sequence[int], cards: Sequence[ItemCard], *, seeds: Sequence[int]
    ) -> Values:
        """The level model's probabilities, moved by the words; nothing is written where words have no weight.

        Args:
            base: P(level) of the level model. Shape (B, K).
            users: Rows of the users.
            cards: Item shown to each.
            seeds: One a row.
        """
        words = (
            self.words(users, cards, seeds=seeds)
            if self._adjustment.weight
            else np.full_like(base, 1 / base.shape[1])
        )
        return self._adjustment.apply(base, words)
