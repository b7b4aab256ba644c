"""Whether a simulator knows which items a user accepts: AUC of its answer for what the real user did.

An over-agreeable simulator accepts everything and has an AUC of one half, however high its accuracy looks.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from recsys.metrics import auc, grouped_auc
from recsys.significance import Interval, bootstrap_interval
from simulators.errors import FaithfulnessError
from simulators.faithfulness.resampling import RESAMPLES, Values

_CELLS_AT_ONCE = 4_000_000


class AcceptanceFit(NamedTuple):
    """How well simulated answers tell what real users accepted.

    pooled: Chance that an accepted row has a higher answer than a refused one, over all rows; ties count half.
    within_user: The same among the rows of one user, mean over users with both; None where there is no such user.
    pairs: Number of rows.
    """

    pooled: Interval
    within_user: Interval | None
    pairs: int


def acceptance_auc(
    answers: ArrayLike, accepted: ArrayLike, users: ArrayLike, *, seed: int, n_boot: int = RESAMPLES
) -> AcceptanceFit:
    """AUC of the simulator's answers for what real users accepted, rows being the same user and item.

    An answer that is itself one draw, such as a level, carries the luck of that draw, so even a perfect simulator
    stays below the AUC of its probabilities; probabilities show more.

    Args:
        answers: Probability of acceptance, or a simulated level, larger where acceptance is likelier. Shape (N,).
        accepted: Whether the real user accepted. Shape (N,).
        users: Id of each row's user. Shape (N,).
        seed: Draws users.
        n_boot: Number of resamples.

    Raises:
        FaithfulnessError: Nothing was accepted, or everything.
    """
    scores, happened = np.asarray(answers, dtype=np.float64), np.asarray(accepted, dtype=bool)
    if happened.all() or not happened.any():
        raise FaithfulnessError(
            f"Some rows must be accepted and some refused; got {int(happened.sum())} accepted of {len(happened)}. "
            "Lower the level from which a row counts as accepted, or take more rows."
        )
    _, owner = np.unique(np.asarray(users).astype(np.str_), return_inverse=True)
    by_user = grouped_auc(scores, happened, owner.astype(np.int64)).values
    within = bootstrap_interval(by_user, seed=seed, n_boot=n_boot) if len(by_user) else None
    drawn = _resampled_auc(scores, happened, owner, seed=seed, n_boot=n_boot)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    pooled = Interval(auc(scores, happened), float(low), float(high), int(owner.max()) + 1)
    return AcceptanceFit(pooled, within, len(scores))


def weighted_auc(scores: Values, happened: Values, weights: Values) -> Values:
    """AUC when each row counts as often as its weight says, for many weightings at once.

    Args:
        scores: Shape (N,).
        happened: 1 where the event happened, else 0. Shape (N,).
        weights: At least 0. Shape (R, N).

    Returns:
        Shape (R,); NaN where the weights leave only one of the two classes.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)
    positive = np.add.reduceat(weights[:, order] * happened[order], starts, axis=1)
    negative = np.add.reduceat(weights[:, order] * (1 - happened[order]), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(1) * negative.sum(1)
    won = (positive * below).sum(1)
    found: Values = np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    return found


def _resampled_auc(
    scores: Values, happened: np.ndarray, owner: np.ndarray, *, seed: int, n_boot: int
) -> Values:
    users = int(owner.max()) + 1
    rng = np.random.default_rng(seed)
    at_once = max(1, _CELLS_AT_ONCE // len(scores))
    found = []
    for start in range(0, n_boot, at_once):
        size = min(at_once, n_boot - start)
        drawn = rng.integers(users, size=(size, users)) + users * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users).astype(np.float64)
        found.append(weighted_auc(scores, happened.astype(np.float64), counts[:, owner]))
    return np.concatenate(found)
