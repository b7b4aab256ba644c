"""Whether a simulator knows which items a user accepts: AUC of its answer for what the real user did.

An over-agreeable simulator accepts everything and has an AUC of one half, however high its accuracy looks.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.metrics import auc, grouped_auc
from recsys.significance import Interval, bootstrap_interval
from simulators.errors import FaithfulnessError
from simulators.faithfulness.resampling import RESAMPLES, Values, bootstrap_statistic, cells_by_user

_MOST_SCORES = 512
"""Distinct scores that resamples tell apart; more are cut into as many bins of equal mass, for the interval alone."""


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
    pooled = bootstrap_statistic(_by_score(scores, happened, owner), _auc_of_counts, seed=seed, n_boot=n_boot)
    return AcceptanceFit(pooled._replace(value=auc(scores, happened)), within, len(scores))


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
    return _auc_of_counts(np.concatenate([positive, negative], axis=1))


def _by_score(scores: Values, happened: NDArray[np.bool_], owner: NDArray[np.int64]) -> Values:
    """Accepted rows, then refused ones, at each score of each user. Shape (U, 2 G)."""
    edges = np.unique(scores)
    if len(edges) > _MOST_SCORES:
        edges = np.unique(np.quantile(scores, np.linspace(0, 1, _MOST_SCORES)))
    place = np.searchsorted(edges, scores)
    return cells_by_user(owner, place, len(edges), happened, ~happened)[1]


def _auc_of_counts(counts: Values) -> Values:
    """AUC from accepted, then refused rows by rising score, shape (R, 2 G); NaN where one class is missing."""
    positive, negative = np.split(counts, 2, axis=-1)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(1) * negative.sum(1)
    found: Values = np.divide(
        (positive * below).sum(1), pairs, out=np.full(len(pairs), np.nan), where=pairs > 0
    )
    return found
