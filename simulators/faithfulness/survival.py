"""How long sessions last and when users walk out: survival curves and the log-rank test, users drawn whole.

A session that was cut off from outside, such as by a limit of turns, says only that its user would have stayed at least
as long: it is censored, not ended.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.significance import Interval
from simulators.errors import FaithfulnessError
from simulators.faithfulness.resampling import (
    PERMUTATIONS,
    RESAMPLES,
    Values,
    bootstrap_gap,
    cells_by_user,
    permutation_p,
    resampled_sums,
    unseen_share,
)

LONGEST = 200
"""Length at which the watch ends; the few sessions beyond would cost memory and tell little of users."""


class Sessions(NamedTuple):
    """Sessions, one a row.

    users: Whose it was. Shape (N,).
    length: Exchanges or rows that it lasted, at least 1. Shape (N,).
    ended: True where the user ended it in the way that is asked about, False where it was cut off. Shape (N,).
    """

    users: ArrayLike
    length: ArrayLike
    ended: ArrayLike


class SurvivalGap(NamedTuple):
    """Two survival curves and how far apart they are.

    times: Lengths at which a session ended or was cut off on either side, ascending. Shape (T,).
    simulated: Share of simulated sessions that outlast each time. Shape (T,).
    real: The same of the real side. Shape (T,).
    simulated_band: 95 % percentile bounds over users. Shape (2, T).
    real_band: The same. Shape (2, T).
    gap: Largest distance of the two curves; its upper end is 3 / users at least, as in `DistributionGap`.
    log_rank: The log-rank statistic, a squared normal deviate where sessions are independent.
    p: Chance of such a statistic if it made no difference which side a user is on.
    """

    times: Values
    simulated: Values
    real: Values
    simulated_band: Values
    real_band: Values
    gap: Interval
    log_rank: float
    p: float


def compare_survival(
    simulated: Sessions,
    real: Sessions,
    *,
    seed: int,
    n_boot: int = RESAMPLES,
    n_permutations: int = PERMUTATIONS,
) -> SurvivalGap:
    """Compare how long simulated and real sessions last.

    Args:
        simulated: Sessions of simulated users.
        real: Sessions of real users.
        seed: Draws users and sides.
        n_boot: Number of resamples.
        n_permutations: Number of deals for p.

    Raises:
        FaithfulnessError: A side has no session, or one whose length is not a positive number.

    Source: Kaplan and Meier (1958); the log-rank test of Mantel (1966) with the variance of the hypergeometric
    distribution, as `scipy.stats.logrank`, its p by dealing users to sides.
    """
    simulated, real = _watched(simulated, "simulated"), _watched(real, "real")
    times = np.union1d(simulated.length, real.length).astype(np.float64)
    first, second = (_counts(side, times) for side in (simulated, real))
    bands = [
        np.quantile(
            np.concatenate(
                [
                    survival_curve(block)
                    for block in resampled_sums(sums, rng=np.random.default_rng([seed, n]), n_boot=n_boot)
                ]
            ),
            [0.025, 0.975],
            axis=0,
        )
        for n, (_, sums) in enumerate((first, second))
    ]
    gap = bootstrap_gap(first[1], second[1], largest_gap, seed=seed, n_boot=n_boot, strayed=_gap_astray)
    return SurvivalGap(
        times,
        survival_curve(first[1].sum(0)),
        survival_curve(second[1].sum(0)),
        bands[0],
        bands[1],
        gap._replace(high=max(gap.high, unseen_share(gap.n))),
        float(log_rank(first[1].sum(0)[None], second[1].sum(0)[None])[0]),
        permutation_p(first, second, log_rank, seed=seed, n_permutations=n_permutations),
    )


def survival_curve(counts: Values) -> Values:
    """Kaplan-Meier estimate: S(t) = product over s <= t of (1 - ended_s / at_risk_s).

    Args:
        counts: Sessions that ended at each time, then sessions that left in any way. Shape (..., 2 T).

    Returns:
        Share that outlasts each time. Shape (..., T); where nobody is left at risk, the last share stays.

    Example:
        Two of four sessions end at the first time, one is cut off there, the last ends at the second.

        >>> survival_curve(np.array([2.0, 1.0, 3.0, 1.0])).tolist()
        [0.5, 0.0]
    """
    ended, at_risk = _ended_and_at_risk(counts)
    stays: Values = np.cumprod(
        1 - np.divide(ended, at_risk, out=np.zeros_like(ended), where=at_risk > 0), axis=-1
    )
    return stays


def largest_gap(simulated: Values, real: Values) -> Values:
    """Largest distance of two survival curves over the times when both sides have a session left.

    Args:
        simulated: As in `survival_curve`.
        real: As in `survival_curve`.
    """
    distance: Values = np.abs(_watched_gap(simulated, real)).max(axis=-1)
    return distance


def log_rank(simulated: Values, real: Values) -> Values:
    """Squared deviation of the simulated sessions that ended from those expected, over its variance.

    At each time, d of n sessions end, n_1 of them simulated: expected d n_1 / n, variance
    d (n_1 / n) (1 - n_1 / n) (n - d) / (n - 1).

    Args:
        simulated: As in `survival_curve`. Shape (R, 2 T).
        real: As in `survival_curve`. Shape (R, 2 T).

    Returns:
        0 or more, shape (R,); 0 where nothing ended.
    """
    (own, own_risk), (other, other_risk) = _ended_and_at_risk(simulated), _ended_and_at_risk(real)
    ended, at_risk = own + other, own_risk + other_risk
    share = np.divide(own_risk, at_risk, out=np.zeros_like(at_risk), where=at_risk > 0)
    left = np.divide(at_risk - ended, at_risk - 1, out=np.zeros_like(at_risk), where=at_risk > 1)
    deviation = (own - ended * share).sum(axis=-1)
    variance = (ended * share * (1 - share) * left).sum(axis=-1)
    squared: Values = np.divide(deviation**2, variance, out=np.zeros_like(variance), where=variance > 0)
    return squared


def _watched_gap(simulated: Values, real: Values) -> Values:
    """Difference of the curves, 0 at times when a side has no session left. Shape (..., T)."""
    watched = (_ended_and_at_risk(simulated)[1] > 0) & (_ended_and_at_risk(real)[1] > 0)
    return np.asarray((survival_curve(simulated) - survival_curve(real)) * watched)


def _gap_astray(one: Values, other: Values, first: Values, second: Values) -> Values:
    return np.asarray(np.abs(_watched_gap(one, other) - _watched_gap(first, second)).max(axis=-1))


def _ended_and_at_risk(counts: Values) -> tuple[Values, Values]:
    ended, left = np.split(np.asarray(counts, dtype=np.float64), 2, axis=-1)
    return ended, np.flip(np.cumsum(np.flip(left, axis=-1), axis=-1), axis=-1)


def _watched(side: Sessions, name: str) -> Sessions:
    """The sessions as far as they are watched: longer ones are cut off at `LONGEST`."""
    length = np.asarray(side.length, dtype=np.float64)
    if not len(length) or not (np.isfinite(length) & (length > 0)).all():
        raise FaithfulnessError(
            f"The {name} sessions must have positive lengths, and there must be one; got {len(length)} sessions, the "
            f"shortest {length.min(initial=np.inf):g}. Drop sessions in which nothing happened."
        )
    ended = np.asarray(side.ended, dtype=bool) & (length <= LONGEST)
    return Sessions(side.users, np.minimum(length, LONGEST), ended)


def _counts(side: Sessions, times: Values) -> tuple[NDArray[np.str_], Values]:
    """Ids of users, and for each user the sessions that ended and that left at each time, shape (U, 2 T)."""
    place = np.searchsorted(times, np.asarray(side.length, dtype=np.float64))
    return cells_by_user(side.users, place, len(times), side.ended, 1)
