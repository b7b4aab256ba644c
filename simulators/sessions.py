"""Sessions without words: only the model of choices acts, for all users at once, as arrays.

What a dialogue says is left out, and what remains is fast: whom to show what, how deep each item goes, how content the
user is, and when it leaves. The rules of leaving are those of `simulators.users.FilmViewers`, with replies of average
wording.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from persona.rewards.attributes import ATTRIBUTES
from simulators.errors import RolloutError
from simulators.randomness import keyed_uniforms
from simulators.types import DISSATISFIED, SUCCESS_LEVEL, StopReason

STOPS = (None, StopReason.ACCEPTED, StopReason.OUT_OF_PATIENCE, StopReason.MAX_TURNS)
"""Why a session ended, by code; 0 while it goes on."""

_LEVEL, _RATING = 301, 302


class ChoiceModel(Protocol):
    """Reactions of users to items; the world's `Oracle` and `simulators.mirror.LearnedChoices` are two.

    Arguments have one entry a row.
    """

    @property
    def n_users(self) -> int:
        """Number of users."""
        ...

    def levels(
        self, users: ArrayLike, items: ArrayLike, uniforms: ArrayLike, *, position: ArrayLike = 0
    ) -> NDArray[np.int64]:
        """Level of interest in an item at a 0-based place of a slate. Shape (B,)."""
        ...

    def satisfaction(
        self, users: ArrayLike, items: ArrayLike, attributes: ArrayLike, uniforms: ArrayLike
    ) -> NDArray[np.float64]:
        """Rating of a turn, 1 to 5; `attributes` (B, A) of the wording, 0 being average. Shape (B,)."""
        ...

    def patience(self, users: ArrayLike) -> NDArray[np.int64]:
        """Unsatisfying turns that each user puts up with. Shape (B,)."""
        ...


class SessionStep(NamedTuple):
    """What one step brought to each of N sessions, K being the length of the slates.

    levels: Depth of interest in each item shown, 0 for the second showing of an item in one slate, -1 in a session
        that was over before. Shape (N, K), int64.
    satisfaction: The user's rating of the item that went deepest, the first of equals, 1 to 5; NaN in a session that
        was over before. Shape (N,), float64.
    stopped: Whether the session is over now. Shape (N,), bool.
    """

    levels: NDArray[np.int64]
    satisfaction: NDArray[np.float64]
    stopped: NDArray[np.bool_]


class Sessions:
    """N sessions that advance together.

    A user's level for an item follows from the seed, the user and the item, so an item shown again, or at another
    place, meets the same luck, and two rankers can be compared under it. Ratings follow from the seed, the user and the
    turn. Company does not matter.

    Args:
        choice: How users react.
        users: User of each session. Shape (N,).
        seeds: Seed of each session, or one for all. Shape () or (N,).
        max_turns: Steps after which a session ends, at least 1.

    Raises:
        RolloutError: A shape does not fit, or `max_turns` is below 1.
    """

    def __init__(
        self, choice: ChoiceModel, users: ArrayLike, *, seeds: ArrayLike, max_turns: int = 5
    ) -> None:
        self.users: NDArray[np.int64] = np.array(users, np.int64)
        if self.users.ndim != 1 or np.shape(seeds) not in {(), self.users.shape} or max_turns < 1:
            raise RolloutError(
                "`users` must have shape (N,), `seeds` that or (), and `max_turns` be at least 1; got "
                f"{self.users.shape}, {np.shape(seeds)} and {max_turns}."
            )
        count = len(self.users)
        self._choice = choice
        self._seeds: NDArray[np.int64] = np.broadcast_to(np.asarray(seeds, np.int64), count).copy()
        self._max_turns = max_turns
        self._patience = choice.patience(self.users)
        self._poor = np.zeros(count, np.int64)
        self.turns = np.zeros(count, np.int64)
        self.stops = np.zeros(count, np.int8)

    def __len__(self) -> int:
        """Number of sessions N."""
        return len(self.users)

    @property
    def stopped(self) -> NDArray[np.bool_]:
        """Which sessions are over; `stops` says why, as an index of `STOPS`. Shape (N,)."""
        return self.stops > 0

    def restart(self, rows: ArrayLike, users: ArrayLike, seeds: ArrayLike) -> None:
        """Put new sessions in the place of some.

        Args:
            rows: Places of M sessions. Shape (M,), int, or (N,), bool.
            users: Their new users. Shape (M,).
            seeds: Their new seeds. Shape (M,).
        """
        place = np.asarray(rows)
        self.users[place] = users
        self._seeds[place] = seeds
        self._patience[place] = self._choice.patience(self.users[place])
        for counter in (self._poor, self.turns, self.stops):
            counter[place] = 0

    def step(self, items: ArrayLike) -> SessionStep:
        """Show every user an item or a slate; what is shown in sessions that are over is not read.

        Args:
            items: Rows of the items, shape (N,) or, the first place first, (N, K).

        Raises:
            RolloutError: There is not one item or slate a session.
        """
        shown = np.asarray(items, np.int64)
        shown = shown[:, None] if shown.ndim == 1 else shown
        if shown.ndim != 2 or len(shown) != len(self) or not shown.shape[1]:
            raise RolloutError(
                f"`items` must have shape ({len(self)},) or ({len(self)}, K); got {np.shape(items)}. Give finished "
                "sessions any item."
            )
        live = np.flatnonzero(~self.stopped)
        if len(live) == len(self):
            levels, stars = self._react(slice(None), shown)
            return SessionStep(levels, stars, self.stopped)
        all_levels = np.full(shown.shape, -1, np.int64)
        all_stars = np.full(len(self), np.nan)
        all_levels[live], all_stars[live] = self._react(live, shown[live])
        return SessionStep(all_levels, all_stars, self.stopped)

    def _react(
        self, rows: slice | NDArray[np.int64], shown: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        users, seeds = self.users[rows], self._seeds[rows]
        count, width = shown.shape
        luck = keyed_uniforms(seeds[:, None], users[:, None], shown, _LEVEL)
        levels = self._choice.levels(
            np.repeat(users, width), shown.ravel(), luck.ravel(), position=np.tile(np.arange(width), count)
        ).reshape(shown.shape)
        if width > 1:
            levels[_seen_before(shown)] = 0
        best = levels.argmax(axis=1)
        deepest = levels[np.arange(count), best]
        stars = self._choice.satisfaction(
            users,
            shown[np.arange(count), best],
            np.zeros((count, len(ATTRIBUTES))),
            keyed_uniforms(seeds, users, self.turns[rows], _RATING),
        )
        self._count(rows, deepest, stars)
        return levels, stars

    def _count(
        self, rows: slice | NDArray[np.int64], deepest: NDArray[np.int64], stars: NDArray[np.float64]
    ) -> None:
        self.turns[rows] += 1
        self._poor[rows] += stars <= DISSATISFIED
        reasons = [
            deepest >= SUCCESS_LEVEL,
            self._poor[rows] >= self._patience[rows],
            self.turns[rows] >= self._max_turns,
        ]
        self.stops[rows] = np.select(reasons, (1, 2, 3), 0)


def _seen_before(shown: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where an item stands that stands further left in its row too. Shape as `shown`."""
    order = np.argsort(shown, axis=1, kind="stable")
    arranged = np.take_along_axis(shown, order, axis=1)
    again = np.zeros(shown.shape, bool)
    again[:, 1:] = arranged[:, 1:] == arranged[:, :-1]
    found = np.empty_like(again)
    np.put_along_axis(found, order, again, axis=1)
    return found
