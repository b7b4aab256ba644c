"""Users learned from a log for `simulators.sessions.Sessions` and the slate environments: reactions without words.

What the log tells is fitted: how deep an item goes, and how attention falls along a slate. What it does not tell is
assumed as for `simulators.users.MirrorUsers`: stars follow from utility by `Wording`, fitted to rated dialogues or
assumed, at average words; and patience is given.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulators.errors import MirrorError
from simulators.mirror.level_model import LevelModel, check_rows
from simulators.mirror.persons import draw_items, draw_tastes
from simulators.mirror.steps import Ints, Values
from simulators.mirror.wording import Wording
from simulators.types import LEVELS

ASSUMED = Wording()


class LearnedChoices:
    """One person for each user of a fitted model, as a `simulators.sessions.ChoiceModel`.

    P(level) of a person is `model.choice` at the utility that the seed drew for it, position effect included, and the
    mean over seeds is `model.probabilities`. Persons are those of `MirrorUsers` under the same seed, and stay the same
    over sessions: draw others by another seed. `MirrorUsers` counts ignored films against patience, sessions count
    turns of at most `DISSATISFIED` stars.

    Args:
        model: The fitted model, with the five levels of `simulators.types.LEVELS`.
        wording: How stars follow from utility, and what being in a dialogue adds to each step of interest; by default
            assumed, and nothing.
        patience: Unsatisfying turns that a user puts up with, at least 1; one for all or shape (U,). A log does not
            tell it.
        seed: Draws the persons.

    Raises:
        MirrorError: The model has other levels, or `patience` does not fit its users.
    """

    def __init__(
        self, model: LevelModel, *, wording: Wording = ASSUMED, patience: ArrayLike = 4, seed: int
    ) -> None:
        if model.n_levels != len(LEVELS):
            raise MirrorError(
                f"`model` must have the {len(LEVELS)} levels {', '.join(LEVELS)}; got {model.n_levels}. Fit it on a "
                "log with these."
            )
        count = len(model.users.mean)
        given = np.asarray(patience, np.int64)
        if given.shape not in {(), (count,)} or (given < 1).any():
            raise MirrorError(
                f"`patience` must be one number of turns, or one for each of {count} users, and at least 1; got shape "
                f"{given.shape} with {given.min(initial=1)} as the least."
            )
        self._choice = model.choice
        self._wording = wording
        self._patience: Ints = np.broadcast_to(given, count).copy()
        self._tastes = draw_tastes(model, np.arange(count), seed)
        self._vectors, self._effects = draw_items(model, np.arange(len(model.features)), seed)

    @property
    def n_users(self) -> int:
        """Number of users U."""
        return len(self._tastes)

    def utility(self, users: ArrayLike, items: ArrayLike) -> Values:
        """Utility of each item for its person, in logits of the first step. Shape (B,).

        Args:
            users: Shape (B,).
            items: Shape (B,).

        Raises:
            MirrorError: A row that the model does not hold, or arrays of different shapes.
        """
        who, what = np.asarray(users, np.int64), np.asarray(items, np.int64)
        check_rows(who, what, n_users=self.n_users, n_items=len(self._vectors))
        liking: Values = np.einsum("bd,bd->b", self._tastes[who], self._vectors[what])
        return liking + self._effects[what]

    def levels(
        self, users: ArrayLike, items: ArrayLike, uniforms: ArrayLike, *, position: ArrayLike = 0
    ) -> NDArray[np.int64]:
        """Level of interest in an item at a 0-based place of a slate. Shape (B,), int64.

        Args:
            users: Shape (B,).
            items: Shape (B,).
            uniforms: Independent draws from U(0, 1). Shape (B,).
            position: One for all or shape (B,).

        Raises:
            MirrorError: A row that the model does not hold, or arrays of different shapes.
        """
        utility = self.utility(users, items)
        shift = self._wording.shift(np.zeros(len(utility)))
        return self._choice.sample(utility, _draws(uniforms, len(utility)), position=position, shift=shift)

    def satisfaction(
        self, users: ArrayLike, items: ArrayLike, attributes: ArrayLike, uniforms: ArrayLike
    ) -> NDArray[np.float64]:
        """Rating of a turn in whole stars, 1 to 5. Shape (B,).

        Args:
            users: Shape (B,).
            items: Shape (B,).
            attributes: Not read: a log tells of no taste in wording.
            uniforms: Independent draws from U(0, 1). Shape (B,).

        Raises:
            MirrorError: A row that the model does not hold, or arrays of different shapes.
        """
        utility = self.utility(users, items)
        return self._wording.rate(utility, np.zeros(len(utility)), _draws(uniforms, len(utility)))

    def patience(self, users: ArrayLike) -> NDArray[np.int64]:
        """Unsatisfying turns that each user puts up with. Shape (B,), int64.

        Raises:
            MirrorError: A user that the model does not hold.
        """
        who = np.asarray(users, np.int64)
        check_rows(who, np.zeros_like(who), n_users=self.n_users, n_items=1)
        return self._patience[who]


def _draws(uniforms: ArrayLike, rows: int) -> Values:
    drawn = np.asarray(uniforms, np.float64)
    if drawn.shape != (rows,):
        raise MirrorError(
            f"`uniforms` must have one number for each of {rows} rows; got shape {drawn.shape}."
        )
    return drawn
