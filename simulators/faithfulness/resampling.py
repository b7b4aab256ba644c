"""Intervals and tests that draw users, for any statistic of sums over users.

Rows of one user hang together, so users are the unit drawn. A statistic that can be had from sums over users, such as
a histogram or counts of successes, needs one matrix product for all resamples.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.significance import Interval
from simulators.errors import FaithfulnessError

Values = NDArray[np.float64]
Gap = Callable[[Values, Values], Values]
"""From sums of the simulated and of the real side, shapes (R, D) and (R, D), to R numbers."""
Strayed = Callable[[Values, Values, Values, Values], Values]
"""From resampled sums of both sides, shapes (R, D) and (R, D), and their observed sums, (D,) and (D,), to R numbers."""

RESAMPLES = 1000
PERMUTATIONS = 999
_DRAWS_AT_ONCE = 2_000_000
_RULE_OF_THREE = 3.0


def sums_by_user(users: ArrayLike, columns: ArrayLike) -> tuple[NDArray[np.str_], Values]:
    """Column sums of each user's rows.

    Args:
        users: Id of each row's user. Shape (N,).
        columns: Numbers to add up. Shape (N,) or (N, D).

    Returns:
        The users' ids as texts, ascending, and their sums, shape (U, D).

    Raises:
        FaithfulnessError: There is no row, or not one user a row.
    """
    table = np.asarray(columns, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    names = np.asarray(users).astype(np.str_)
    if len(names) != len(table) or not len(names):
        raise FaithfulnessError(
            f"Each row must have one user, and there must be a row; got {len(names)} users for {len(table)} rows. "
            "Take both from the same table."
        )
    ids, owner = np.unique(names, return_inverse=True)
    sums = np.zeros((len(ids), table.shape[1]))
    np.add.at(sums, owner, table)
    return ids, sums


def cells_by_user(
    users: ArrayLike, places: NDArray[np.int64], width: int, *weights: ArrayLike
) -> tuple[NDArray[np.str_], Values]:
    """For each user and each of `width` places, the sum of each weight over the user's rows there.

    Args:
        users: Id of each row's user. Shape (N,).
        places: In 0..width - 1. Shape (N,).
        width: Number of places W.
        weights: Each of shape (N,), or one number for all rows.

    Returns:
        The users' ids as texts, ascending, and the sums, one block of columns a weight. Shape (U, W * weights).
    """
    ids, owner = np.unique(np.asarray(users).astype(np.str_), return_inverse=True)
    cell, cells = owner * width + places, len(ids) * width
    blocks = [
        np.bincount(
            cell, weights=np.broadcast_to(np.asarray(weight, np.float64), cell.shape), minlength=cells
        )
        for weight in weights
    ]
    return ids, np.concatenate([block.reshape(len(ids), width) for block in blocks], axis=1)


def resampled_sums(sums: Values, *, rng: np.random.Generator, n_boot: int) -> Iterator[Values]:
    """Sums over users drawn with replacement, in blocks of rows that make `n_boot` in all.

    Args:
        sums: Shape (U, D).
        rng: Draws the users.
        n_boot: Number of resamples.

    Yields:
        Shape (block, D).
    """
    users = len(sums)
    at_once = max(1, _DRAWS_AT_ONCE // users)
    for start in range(0, n_boot, at_once):
        size = min(at_once, n_boot - start)
        drawn = rng.integers(users, size=(size, users)) + users * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users)
        yield counts.astype(np.float64) @ sums


def unseen_share(users: int) -> float:
    """Largest share of users that may do what none of so many did, at 95 %: 3 / U, at most 1.

    Source: Hanley and Lippman-Hand (1983), "If Nothing Goes Wrong, Is Everything All Right?", the rule of three.
    """
    return min(1.0, _RULE_OF_THREE / users)


def bootstrap_statistic(
    sums: Values,
    statistic: Callable[[Values], Values],
    *,
    seed: int,
    n_boot: int = RESAMPLES,
    strayed: Callable[[Values, Values], Values] | None = None,
) -> Interval:
    """A statistic of one side with its 95 % percentile interval over users; without ends for a single user.

    Args:
        sums: Shape (U, D).
        statistic: From (R, D) to (R,).
        seed: Draws the users.
        n_boot: Number of resamples; those without a value (NaN) are left out.
        strayed: For a statistic that cannot be negative, such as a distance: from resampled sums (R, D) and the
            observed ones (D,), how far the former may have moved it at most; see `bootstrap_gap`.
    """
    observed = sums.sum(0)
    drawn, moved = [], []
    for block in resampled_sums(sums, rng=np.random.default_rng(seed), n_boot=n_boot):
        drawn.append(statistic(block))
        if strayed is not None:
            moved.append(strayed(block, observed))
    value = float(statistic(observed[None])[0])
    return _interval(value, np.concatenate(drawn), len(sums), np.concatenate(moved) if moved else None)


def bootstrap_gap(
    simulated: Values,
    real: Values,
    gap: Gap,
    *,
    seed: int,
    n_boot: int = RESAMPLES,
    strayed: Strayed | None = None,
) -> Interval:
    """A comparison of two sides with its 95 % percentile interval, the users of each drawn on their own.

    A gap that cannot be negative, such as a distance d, leans upwards when resampled: noise adds to it. Its upper end
    is that of the percentile interval all the same, which leans to the safe side. Its lower end is d less the 97.5 %
    quantile of how far noise moves it, at least 0: by the triangle inequality, the true distance lies no further off.
    So the interval holds d itself, and covers the truth at 0 too, where a distance has no slope and percentiles fail.

    Args:
        simulated: Sums of the simulated users. Shape (U, D).
        real: Sums of the real users. Shape (V, D).
        gap: What compares them.
        seed: Draws the users.
        n_boot: Number of resamples.
        strayed: For a distance, how far resampling may have moved it at most; for a norm of a difference, the norm of
            the change of that difference.

    Returns:
        The interval; n counts the users of the smaller side, and it has no ends where that is a single user.
    """
    rngs = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    # Blocks of the two sides differ in length where one has more users, so they are joined first.
    sides = [
        np.concatenate(list(resampled_sums(sums, rng=rng, n_boot=n_boot)))
        for sums, rng in zip((simulated, real), rngs, strict=True)
    ]
    one, other = simulated.sum(0), real.sum(0)
    moved = None if strayed is None else strayed(sides[0], sides[1], one, other)
    observed = float(gap(one[None], other[None])[0])
    return _interval(observed, gap(*sides), min(len(simulated), len(real)), moved)


def permutation_p(
    simulated: tuple[NDArray[np.str_], Values],
    real: tuple[NDArray[np.str_], Values],
    gap: Gap,
    *,
    seed: int,
    n_permutations: int = PERMUTATIONS,
) -> float:
    """Chance of a gap as large if it made no difference which side a user's behaviour is on.

    Args:
        simulated: Ids and sums of users, shapes (U,) and (U, D).
        real: The same of the real side.
        gap: What compares sums; larger is farther apart.
        seed: Draws the sides.
        n_permutations: Number of draws; p is at least 1 / (n_permutations + 1).

    Returns:
        In (0, 1]; NaN where there is no gap to speak of.
    """
    (sim_ids, sim_sums), (real_ids, real_sums) = simulated, real
    observed = float(gap(sim_sums.sum(0)[None], real_sums.sum(0)[None])[0])
    if np.isnan(observed):
        return float("nan")
    stacked = np.concatenate([sim_sums, real_sums])
    rng = np.random.default_rng([seed, 2])
    at_once = max(1, _DRAWS_AT_ONCE // len(stacked))
    as_far = 0
    for start in range(0, n_permutations, at_once):
        size = min(at_once, n_permutations - start)
        is_simulated = exchanged_sides(sim_ids, real_ids, rng=rng, size=size).astype(np.float64)
        drawn = gap(is_simulated @ stacked, (1 - is_simulated) @ stacked)
        as_far += int((drawn >= observed - 1e-12).sum())
    return (1 + as_far) / (1 + n_permutations)


def exchanged_sides(
    simulated: NDArray[np.str_], real: NDArray[np.str_], *, rng: np.random.Generator, size: int
) -> NDArray[np.bool_]:
    """Sides dealt anew: users on both sides swap their two rows or not, the others are shuffled among themselves.

    Args:
        simulated: Ids of users. Shape (U,), distinct.
        real: Shape (V,), distinct.
        rng: Source of every draw.
        size: Number of deals R.

    Returns:
        Whether each row of simulated then real users counts as simulated. Shape (R, U + V).
    """
    _, first, second = np.intersect1d(simulated, real, return_indices=True)
    dealt = np.zeros((size, len(simulated) + len(real)), dtype=bool)
    keeps = rng.random((size, len(first))) < 0.5
    dealt[:, first] = keeps
    dealt[:, len(simulated) + second] = ~keeps
    is_alone = np.ones(dealt.shape[1], dtype=bool)
    is_alone[first] = is_alone[len(simulated) + second] = False
    alone = np.flatnonzero(is_alone)
    n_simulated = len(simulated) - len(first)
    if len(alone) and n_simulated > 0:
        order = np.argsort(rng.random((size, len(alone))), axis=1)
        dealt[np.arange(size)[:, None], alone[order[:, :n_simulated]]] = True
    return dealt


def _interval(value: float, drawn: Values, n: int, moved: Values | None) -> Interval:
    found = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(found) or n < 2:  # a single user drawn again is the same user
        return Interval(value, float("nan"), float("nan"), n)
    low, high = np.quantile(found, [0.025, 0.975])
    if moved is not None:
        reach = float(np.nanquantile(moved, 0.975))
        low, high = max(0.0, value - reach), max(high, value)
    return Interval(value, float(low), float(high), n)
