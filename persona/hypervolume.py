"""How far a front of rewards reaches: the volume between a reference point and what a policy can give.

A policy that follows directions gives one vector of mean rewards for each direction. The volume that these points
dominate, above a fixed reference, grows when any trade-off gets better and none is lost; so rounds of training can
be compared by one number. All rewards are to be large.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from persona.errors import DataError, ShapeError

Values = NDArray[np.float64]

SAMPLES_AT_ONCE = 8192


class SampledVolume(NamedTuple):
    """An estimate of a hypervolume.

    value: In units of the product of all rewards.
    standard_error: Of `value`, from the binomial distribution.
    """

    value: float
    standard_error: float


def front_mask(points: ArrayLike) -> NDArray[np.bool_]:
    """True for each point that no other point dominates.

    A point dominates another if it is at least as large in every reward and larger in one. Of equal points all
    are kept. Costs O(N^2 A).

    Args:
        points: Rewards, larger is better. Shape (N, A).

    Returns:
        Shape (N,), bool.

    Raises:
        ShapeError: `points` is not two-dimensional.
    """
    values = _as_points(points)
    at_least = (values[:, None] >= values[None]).all(-1)
    larger = (values[:, None] > values[None]).any(-1)
    return np.asarray(~(at_least & larger).any(0))


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Volume of all that lies above `reference` and below at least one point, exactly.

    Two rewards are swept in O(N log N). Each further reward slices the volume at the points' values, which
    costs another factor N: meant for the few dozen points of a fan of directions. Use `sampled_hypervolume`
    for hundreds of points in more than three rewards.

    Args:
        points: Rewards, larger is better; those not above the reference in every reward add nothing.
            Shape (N, A).
        reference: The worst that counts, fixed before anything is compared. Shape (A,).

    Returns:
        At least 0, in units of the product of all rewards.

    Raises:
        ShapeError: `points` and `reference` do not have the same number of rewards.
        DataError: A value is not finite.

    Example:
        >>> hypervolume([[2.0, 1.0], [1.0, 3.0]], [0.0, 0.0])  # 2 x 1 + 1 x 3 - 1 x 1
        4.0

    Source: Zitzler & Thiele (1999), "Multiobjective Evolutionary Algorithms: A Comparative Case Study and the
    Strength Pareto Approach", IEEE TEC 3(4); slicing as in While et al. (2006), "A Faster Algorithm for
    Calculating Hypervolume", IEEE TEC 10(1).
    """
    return _volume(_above(points, reference))


def sampled_hypervolume(points: ArrayLike, reference: ArrayLike, *, samples: int, seed: int) -> SampledVolume:
    """The same volume by Monte Carlo, in O(samples N A) whatever the number of rewards.

    Args:
        points: Shape (N, A).
        reference: Shape (A,).
        samples: Random places in the box from the reference to the largest rewards, at least 1.
        seed: Draws the places.

    Returns:
        Estimate and standard error; both 0 if no point is above the reference.

    Raises:
        ShapeError: `points` and `reference` do not have the same number of rewards.
        DataError: A value is not finite, or no sample is asked for.
    """
    if samples < 1:
        raise DataError(
            f"`samples` must be at least 1; got {samples}. Use 100000 for an error of about 0.2 %."
        )
    heights = _above(points, reference)
    if not len(heights):
        return SampledVolume(0.0, 0.0)
    corner, rng, below = heights.max(0), np.random.default_rng(seed), 0
    for start in range(0, samples, SAMPLES_AT_ONCE):
        places = rng.random((min(SAMPLES_AT_ONCE, samples - start), len(corner))) * corner
        below += int((places[:, None] <= heights).all(-1).any(1).sum())
    share, box = below / samples, float(corner.prod())
    return SampledVolume(box * share, box * (share * (1 - share) / samples) ** 0.5)


def _volume(heights: Values) -> float:
    """Volume from zero up to the points of shape (N, A), all positive."""
    if not len(heights):
        return 0.0
    if heights.shape[1] == 1:
        return float(heights.max())
    order = np.argsort(-heights[:, -1], kind="stable")
    if heights.shape[1] == 2:
        # From the largest second reward down, each point adds the strip in which its first is a new record.
        first, second = heights[order].T
        reached = np.maximum.accumulate(np.concatenate([[0.0], first]))
        return float((np.diff(reached) * second).sum())
    heights = heights[order]
    depth = heights[:, -1] - np.append(heights[1:, -1], 0.0)
    slices = np.flatnonzero(depth)
    return sum(float(depth[last]) * _volume(_front(heights[: last + 1, :-1])) for last in slices.tolist())


def _front(heights: Values) -> Values:
    kept: Values = heights[front_mask(heights)]
    return kept


def _above(points: ArrayLike, reference: ArrayLike) -> Values:
    """The front as heights above the reference, without the points that do not lie above it."""
    values, floor = _as_points(points), np.asarray(reference, dtype=np.float64)
    if floor.shape != values.shape[1:]:
        raise ShapeError(
            f"`points` must have shape (N, A) and `reference` (A,) with one A; got {values.shape} and "
            f"{floor.shape}. Give the reference one value for each reward."
        )
    if not (np.isfinite(values).all() and np.isfinite(floor).all()):
        raise DataError(
            f"Rewards must be finite; got {int((~np.isfinite(values)).sum())} values in `points` and "
            f"{int((~np.isfinite(floor)).sum())} in `reference` that are not. Leave such replies out."
        )
    heights = values - floor
    return np.unique(_front(heights[(heights > 0).all(1)]), axis=0)


def _as_points(points: ArrayLike) -> Values:
    values = np.asarray(points, dtype=np.float64)
    if values.ndim != 2:
        raise ShapeError(
            f"`points` must have shape (N, A); got {values.shape}. Pass one row for each direction."
        )
    return values
