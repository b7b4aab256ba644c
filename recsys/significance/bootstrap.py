"""How sure a mean over users is: percentile bootstrap with users, and perhaps seeds, drawn again."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ShapeError

DRAWS_AT_ONCE = 2_000_000

Values = NDArray[np.float64]


class Interval(NamedTuple):
    """A mean over users and the range that resampling users gives it.

    value: Mean.
    low: Lower end.
    high: Upper end.
    n: Number of users.
    """

    value: float
    low: float
    high: float
    n: int

    def to_report(self) -> dict[str, float | int | list[float]]:
        """As a report holds it: value, ci95 and n. Meant for intervals of level 0.95."""
        return {"value": self.value, "ci95": [self.low, self.high], "n": self.n}


def bootstrap_interval(
    values: NDArray[np.floating], *, seed: int, n_boot: int = 2000, level: float = 0.95
) -> Interval:
    """Mean of one value a user, with a percentile bootstrap interval over users.

    Args:
        values: One finite value for each user. Shape (U,).
        seed: Draws the users.
        n_boot: Number of resamples.
        level: Coverage asked for, above 0 and below 1.

    Returns:
        The interval. Same values and seed, same bits.

    Raises:
        ShapeError: There is no value, one is not finite, or `values` is not one-dimensional.

    Source: Efron and Tibshirani (1993), "An Introduction to the Bootstrap", percentile interval.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or len(numbers) == 0 or not np.isfinite(numbers).all():
        finite = int(np.isfinite(numbers).sum())
        raise ShapeError(
            f"`values` must be one finite number for each user; got shape {numbers.shape} with {finite} finite. "
            "Leave out users without a value."
        )
    rng = np.random.default_rng(seed)
    at_once = max(1, DRAWS_AT_ONCE // len(numbers))
    means = [
        numbers[rng.integers(len(numbers), size=(min(at_once, n_boot - start), len(numbers)))].mean(1)
        for start in range(0, n_boot, at_once)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(numbers.mean()), float(low), float(high), len(numbers))


def paired_difference(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    *,
    seed: int,
    n_boot: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Mean of `first` minus `second` over the same users, with a bootstrap interval over users.

    Args:
        first: Shape (U,).
        second: The same users in the same order. Shape (U,).
        seed: Draws the users.
        n_boot: Number of resamples.
        level: Coverage asked for.

    Returns:
        An interval clear of 0 says that the two differ.

    Raises:
        ShapeError: The two do not describe the same users, or hold no finite values.
    """
    if np.shape(first) != np.shape(second):
        raise ShapeError(
            f"`first` and `second` must describe the same users; got shapes {np.shape(first)} and {np.shape(second)}. "
            "Measure both on one set of users."
        )
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return bootstrap_interval(difference, seed=seed, n_boot=n_boot, level=level)


def combine_seeds(
    values: NDArray[np.floating], *, seed: int, n_boot: int = 2000, level: float = 0.95
) -> Interval:
    """Mean over training seeds and users, with an interval that holds the doubt of both.

    Each resample draws S seeds and, apart from them, U users, both with replacement, and takes the mean of the table
    of drawn seeds by drawn users. With one seed it is `bootstrap_interval`. Drawing few seeds again understates
    their spread, by sqrt((S - 1) / S): at three seeds, read the interval as a little too narrow.

    Args:
        values: One row a training seed, one column a user, the same users in each. Finite. Shape (S, U).
        seed: Draws seeds and users.
        n_boot: Number of resamples.
        level: Coverage asked for, above 0 and below 1.

    Returns:
        The interval; n counts users.

    Raises:
        ShapeError: `values` is not a table of finite numbers with a row and a column or more.

    Source: the two-way ("pigeonhole") bootstrap, Owen (2007), "The Pigeonhole Bootstrap", Annals of Applied
    Statistics 1(2).
    """
    table = check_table("values", values)
    means = resampled_means([table], seed=seed, n_boot=n_boot)[:, 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(table.mean()), float(low), float(high), table.shape[1])


def resampled_means(tables: Sequence[Values], *, seed: int, n_boot: int) -> Values:
    """Mean of every table under the same resamples of users, each table's seeds drawn on their own.

    Users are drawn as `bootstrap_interval` draws them at this seed.

    Args:
        tables: Rows are training seeds, columns the same users in all. Shape (S, U) each, S its own.
        seed: Draws users and seeds.
        n_boot: Number of resamples.

    Returns:
        One column a table. Shape (n_boot, number of tables).
    """
    users = tables[0].shape[1]
    rng, seeds_rng = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    stacked = np.concatenate(tables).T
    ends = np.cumsum([len(table) for table in tables])[:-1]
    at_once = max(1, DRAWS_AT_ONCE // users)
    means = []
    for start in range(0, n_boot, at_once):
        size = min(at_once, n_boot - start)
        drawn = rng.integers(users, size=(size, users)) + users * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users)
        by_seed = np.split(counts.astype(np.float64) @ stacked / users, ends, axis=1)
        means.append(np.stack([_mean_of_drawn(part, seeds_rng) for part in by_seed], axis=1))
    return np.concatenate(means)


def check_table(name: str, values: NDArray[np.floating]) -> Values:
    """`values` as float64 with one row a seed, one row where it has one dimension.

    Raises:
        ShapeError: It is no table of finite numbers with a row and a column or more.
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or table.size == 0 or not np.isfinite(table).all():
        finite = int(np.isfinite(table).sum())
        raise ShapeError(
            f"`{name}` must be finite numbers, one row a seed, one column a user; got shape {np.shape(values)} with "
            f"{finite} finite. Leave out users without a value."
        )
    return table


def _mean_of_drawn(by_seed: Values, rng: np.random.Generator) -> Values:
    """Mean over as many seeds as there are, drawn with replacement for each row. Shape (rows,)."""
    rows, seeds = by_seed.shape
    picked: Values = np.take_along_axis(by_seed, rng.integers(seeds, size=(rows, seeds)), axis=1)
    means: Values = picked.mean(1)
    return means
