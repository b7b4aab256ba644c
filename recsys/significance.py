"""How sure a mean over users is: percentile bootstrap with users as the unit that is drawn again."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ShapeError

DRAWS_AT_ONCE = 2_000_000


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
