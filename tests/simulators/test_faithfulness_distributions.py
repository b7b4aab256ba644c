"""Distances of distributions: arithmetic by hand, and scipy as the twin."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp
from scipy.stats import wasserstein_distance as scipy_wasserstein

from simulators.errors import FaithfulnessError
from simulators.faithfulness import compare_distributions, compare_mixes, jensen_shannon, ks_distance
from simulators.faithfulness.distributions import MOST_VALUES, wasserstein_distance
from tests.helpers.level_counts import draw_levels

RNG = np.random.default_rng(0)


def test_distances_by_hand() -> None:
    # Shares 1/2, 1/2, 0 against 0, 1/2, 1/2: cumulative gaps 1/2, 1/2, 0.
    one, other = np.array([2.0, 2.0, 0.0]), np.array([0.0, 3.0, 3.0])
    assert ks_distance(one, other) == 0.5
    # Steps of 1 and of 3 between the values 0, 1 and 4.
    assert wasserstein_distance(one, other, np.array([0.0, 1.0, 4.0])) == 0.5 * 1 + 0.5 * 3
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 7.0])) == 1.0
    # Middle (3/4, 1/4): (log2(4/3) + (log2(2/3) + log2(2)) / 2) / 2.
    by_hand = (np.log2(4 / 3) + (np.log2(2 / 3) + 1) / 2) / 2
    assert jensen_shannon(np.array([5.0, 0.0]), np.array([1.0, 1.0])) == pytest.approx(np.sqrt(by_hand))


def test_an_empty_side_has_no_distance() -> None:
    empty, full = np.zeros(3), np.ones(3)
    assert np.isnan(ks_distance(empty, full)) and np.isnan(jensen_shannon(full, empty))


def test_comparison_equals_scipy_on_raw_values() -> None:
    users = [RNG.integers(30, size=n) for n in (400, 250)]
    values = [RNG.poisson(2, size=400), RNG.poisson(2.5, size=250)]
    found = compare_distributions(
        (users[0], values[0]), (users[1], values[1]), seed=0, n_boot=200, n_permutations=99
    )
    assert found.ks.value == pytest.approx(ks_2samp(*values).statistic)
    assert found.wasserstein.value == pytest.approx(scipy_wasserstein(*values))
    assert found.mean_gap.value == pytest.approx(values[0].mean() - values[1].mean())
    assert found.simulated.sum() == pytest.approx(1) and len(found.support) == len(found.real)
    kinds, one, other, distance = compare_mixes(
        (users[0], values[0]), (users[1], values[1]), seed=0, n_boot=50
    )
    assert distance.value == pytest.approx(jensenshannon(one, other, base=2))
    assert kinds.tolist() == sorted({str(v) for v in np.concatenate(values)})


def test_few_users_with_many_rows_do_not_look_sure() -> None:
    # Both sides draw users from one population; rows of a user are all alike, so rows alone would tell them apart.
    levels = RNG.integers(5, size=24)
    users = np.repeat(np.arange(12), 200)
    one, other = (np.repeat(levels[start : start + 12], 200) for start in (0, 12))
    assert ks_2samp(one, other).pvalue < 1e-6
    names = [np.char.add(side, users.astype(str)) for side in ("a", "b")]
    found = compare_distributions((names[0], one), (names[1], other), seed=0, n_boot=50)
    assert found.p > 0.05


@pytest.mark.parametrize("values", [[], [1.0, np.nan]])
def test_sides_without_finite_values_are_refused(values: list[float]) -> None:
    with pytest.raises(FaithfulnessError, match=f"got {len(values)} values"):
        compare_distributions((["a"] * len(values), values), (["b"], [1.0]), seed=0)


def test_many_distinct_values_hardly_change_by_their_grid() -> None:
    users, values = np.arange(3000) % 100, [RNG.normal(size=3000), RNG.normal(0.3, size=3000)]
    found = compare_distributions(
        (users, values[0]), (users, values[1]), seed=0, n_boot=50, n_permutations=20
    )
    assert len(found.support) <= MOST_VALUES
    assert found.ks.value == pytest.approx(ks_2samp(*values).statistic, abs=0.005)
    assert found.wasserstein.value == pytest.approx(scipy_wasserstein(*values), abs=0.02)


@pytest.mark.parametrize("sizes", [(20, 20, 5), (60, 60, 5), (100, 40, 1)])
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3, 0.8])
def test_intervals_of_distances_cover_the_truth_and_hold_their_own_value(
    sizes: tuple[int, int, int], shift: float
) -> None:
    rng, support, repeats = np.random.default_rng(1), np.arange(5.0), 80
    everyone = [draw_levels(100_000, 4, own, rng).sum(0) for own in (shift, 0.0)]
    truth = {
        "ks": float(ks_distance(*everyone)),
        "wasserstein": float(wasserstein_distance(everyone[0], everyone[1], support)),
    }
    covered = dict.fromkeys(truth, 0)
    for seed in range(repeats):
        one, other = draw_levels(sizes[0], sizes[2], shift, rng), draw_levels(sizes[1], sizes[2], 0.0, rng)
        rows = [
            (
                np.repeat(np.arange(len(side)), sizes[2]),
                np.repeat(np.tile(support, len(side)), side.ravel().astype(int)),
            )
            for side in (one, other)
        ]
        found = compare_distributions(rows[0], rows[1], seed=seed, n_boot=200, n_permutations=1)
        for name, true in truth.items():
            interval = getattr(found, name)
            assert 0 <= interval.low <= interval.value <= interval.high
            covered[name] += interval.low <= true + 1e-3 and true - 1e-3 <= interval.high
    # Of 80 intervals that cover with probability .95, fewer than 70 do so once in ten thousand times.
    assert min(covered.values()) >= 70


def test_two_users_who_all_do_the_same_may_differ_all_the_same() -> None:
    alike = (["a", "a", "b"], [3, 3, 3])
    found = compare_distributions(alike, alike, seed=0, n_boot=50, n_permutations=20)
    assert (found.ks.value, found.ks.low, found.ks.high) == (0.0, 0.0, 1.0)
    many = (np.arange(60), np.full(60, 3))
    assert compare_distributions(many, many, seed=0, n_boot=50, n_permutations=20).ks.high == pytest.approx(
        0.05
    )


def test_a_single_user_has_no_interval() -> None:
    found = compare_distributions(
        (["a", "a"], [3, 1]), (["b", "c"], [3, 3]), seed=0, n_boot=50, n_permutations=20
    )
    assert found.ks.value == 0.5 and found.ks.n == 1
    ends = [(i.low, i.high) for i in (found.ks, found.wasserstein, found.mean_gap)]
    assert np.isnan(ends).all()


def test_mixes_that_are_one_are_found_to_be() -> None:
    rng, apart = np.random.default_rng(3), 0
    for seed in range(40):
        one, other = (rng.integers(4, size=80).astype(str) for _ in range(2))
        distance = compare_mixes((np.arange(80), one), (np.arange(80), other), seed=seed, n_boot=100)[3]
        apart += distance.low > 0
        assert distance.low <= distance.value <= distance.high
    assert apart <= 4
