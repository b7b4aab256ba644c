from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from persona.errors import DataError, ShapeError
from persona.hypervolume import front_mask, hypervolume, sampled_hypervolume


def by_inclusion_and_exclusion(points: NDArray[np.float64]) -> float:
    """Volume of the union of the boxes from zero to each point, subset by subset."""
    total = 0.0
    for size in range(1, len(points) + 1):
        shared = [points[list(some)].min(0).prod() for some in combinations(range(len(points)), size)]
        total += (-1) ** (size + 1) * sum(shared)
    return total


@pytest.mark.parametrize("rewards", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("seed", range(3))
def test_the_exact_volume_is_that_of_the_union_of_boxes(rewards: int, seed: int) -> None:
    points = np.random.default_rng(seed).random((9, rewards))
    got = hypervolume(points - 1.5, np.full(rewards, -1.5))
    assert got == pytest.approx(by_inclusion_and_exclusion(points), rel=1e-9)


def test_points_that_share_values_are_counted_once() -> None:
    points = np.random.default_rng(0).integers(1, 4, size=(10, 3)).astype(float)
    assert hypervolume(points, np.zeros(3)) == pytest.approx(by_inclusion_and_exclusion(points))


def test_what_does_not_lie_above_the_reference_adds_nothing() -> None:
    assert hypervolume([[1.0, 2.0], [5.0, 0.0], [-1.0, 9.0]], [0.0, 0.0]) == 2.0
    assert hypervolume([[1.0, -2.0]], [0.0, 0.0]) == 0.0
    assert hypervolume(np.zeros((0, 3)), np.zeros(3)) == 0.0


def test_a_dominated_point_changes_nothing_and_a_new_trade_off_adds() -> None:
    front = np.array([[3.0, 1.0, 1.0], [1.0, 3.0, 1.0]])
    before = hypervolume(front, np.zeros(3))
    assert hypervolume([*front, [0.5, 0.5, 0.5]], np.zeros(3)) == before == 3 + 3 - 1
    assert hypervolume([*front, [1.0, 1.0, 3.0]], np.zeros(3)) == before + 2


def test_the_front_keeps_equal_points_and_drops_dominated_ones() -> None:
    points = [[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [1.0, 2.0]]
    assert front_mask(points).tolist() == [True, True, False, True]


def test_sampling_agrees_with_the_exact_volume_and_states_its_error() -> None:
    points, zero = np.random.default_rng(1).random((12, 4)), np.zeros(4)
    exact = hypervolume(points, zero)
    guesses = [sampled_hypervolume(points, zero, samples=2000, seed=seed) for seed in range(60)]
    errors = np.array([(value - exact) / error for value, error in guesses])
    assert abs(errors.mean()) < 3 / 60**0.5
    assert 0.7 < errors.std() < 1.3
    assert sampled_hypervolume(points, zero, samples=9000, seed=3) == sampled_hypervolume(
        points, zero, samples=9000, seed=3
    )
    assert sampled_hypervolume(-points, zero, samples=10, seed=0) == (0.0, 0.0)


def test_faults_are_named() -> None:
    with pytest.raises(ShapeError, match=r"got \(3,\)"):
        front_mask([1.0, 2.0, 3.0])
    with pytest.raises(ShapeError, match=r"got \(1, 2\) and \(3,\)"):
        hypervolume([[1.0, 2.0]], np.zeros(3))
    with pytest.raises(DataError, match="got 1 values in `points` and 2 in `reference`"):
        hypervolume([[1.0, np.nan]], [np.inf, np.nan])
    with pytest.raises(DataError, match="at least 1; got 0"):
        sampled_hypervolume([[1.0, 2.0]], np.zeros(2), samples=0, seed=0)
