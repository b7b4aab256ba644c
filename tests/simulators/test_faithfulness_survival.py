"""Survival curves and the log-rank test: by hand, and scipy as the twin."""

import numpy as np
import pytest
from scipy.stats import CensoredData, ecdf, logrank

from simulators.errors import FaithfulnessError
from simulators.faithfulness import Sessions, compare_survival
from simulators.faithfulness.survival import LONGEST, largest_gap, log_rank, survival_curve


def drawn(seed: int, n: int, mean: float) -> Sessions:
    rng = np.random.default_rng(seed)
    length = rng.geometric(1 / mean, size=n)
    return Sessions(np.arange(n), np.minimum(length, 8), length <= 8)


def censored(side: Sessions) -> CensoredData:
    length, ended = np.asarray(side.length, float), np.asarray(side.ended, bool)
    return CensoredData(uncensored=length[ended], right=length[~ended])


def test_curves_by_hand() -> None:
    # Five sessions: two end at 1, one is cut off at 1, one ends at 2, one is cut off at 3.
    counts = np.array([2.0, 1.0, 0.0, 3.0, 1.0, 1.0])
    assert survival_curve(counts).tolist() == [
        1 - 2 / 5,
        (1 - 2 / 5) * (1 - 1 / 2),
        (1 - 2 / 5) * (1 - 1 / 2),
    ]
    nobody = np.array([0.0, 0.0, 0.0, 5.0, 0.0, 0.0])
    # The second side has nobody left after the first time, so only that time counts.
    assert largest_gap(counts[None], nobody[None])[0] == pytest.approx(2 / 5)


def test_log_rank_by_hand() -> None:
    # One simulated session ends at 1, one real session ends at 2: at 1, half of one end is expected, variance 1/4; at 2
    # only the real one is left, expectation and variance 0. Statistic (1 - 1/2)^2 / (1/4).
    one, other = np.array([[1.0, 0.0, 1.0, 0.0]]), np.array([[0.0, 1.0, 0.0, 1.0]])
    assert log_rank(one, other)[0] == pytest.approx(1.0)


def test_comparison_equals_scipy() -> None:
    one, other = drawn(0, 90, 3.0), drawn(1, 70, 4.5)
    found = compare_survival(one, other, seed=0, n_boot=50, n_permutations=400)
    for curve, side in ((found.simulated, one), (found.real, other)):
        expected = ecdf(censored(side)).sf.evaluate(found.times)
        np.testing.assert_allclose(curve, expected, atol=1e-12)
    twin = logrank(censored(one), censored(other))
    assert found.log_rank == pytest.approx(twin.statistic**2)
    # Lengths are of separate users, where dealing sides and the normal approximation must agree.
    assert found.p == pytest.approx(twin.pvalue, abs=0.05)
    assert (found.simulated_band[0] <= found.simulated).all() and (found.real <= found.real_band[1]).all()


def test_sides_that_nobody_leaves_are_alike() -> None:
    side = Sessions(["a", "b"], [3, 3], [False, False])
    found = compare_survival(side, side, seed=0, n_boot=20, n_permutations=20)
    assert found.gap.value == 0 and found.log_rank == 0 and found.p == 1


@pytest.mark.parametrize(("length", "count"), [([], 0), ([0, 2], 2)])
def test_sessions_without_a_length_are_refused(length: list[int], count: int) -> None:
    side = Sessions(["a"] * count, length, [True] * count)
    with pytest.raises(
        FaithfulnessError, match=f"simulated sessions must have positive lengths.*got {count}"
    ):
        compare_survival(side, Sessions(["a"], [1], [True]), seed=0)


def test_very_long_sessions_are_watched_to_the_limit() -> None:
    one = Sessions(["a", "b"], [LONGEST + 50, 10], [True, True])
    found = compare_survival(one, one, seed=0, n_boot=20, n_permutations=20)
    assert found.times.tolist() == [10, LONGEST] and found.real.tolist() == [0.5, 0.5]
