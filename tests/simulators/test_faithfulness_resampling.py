"""Drawing users: sums, intervals, deals of sides, and rates that are never 0 for sure."""

import numpy as np
import pytest
from numpy.typing import NDArray

from simulators.errors import FaithfulnessError
from simulators.faithfulness.rates import compare_means, compare_rates
from simulators.faithfulness.resampling import (
    bootstrap_gap,
    bootstrap_statistic,
    cells_by_user,
    exchanged_sides,
    permutation_p,
    sums_by_user,
)

Values = NDArray[np.float64]


def mean(sums: Values) -> Values:
    return np.asarray(sums[:, 0] / sums[:, 1])


def gap(one: Values, other: Values) -> Values:
    return np.abs(mean(one) - mean(other))


def test_sums_are_those_of_each_users_rows() -> None:
    ids, sums = sums_by_user(["b", "a", "b"], np.array([1.0, 2.0, 4.0]))
    assert ids.tolist() == ["a", "b"] and sums.tolist() == [[2.0], [5.0]]
    ids, cells = cells_by_user(["b", "a", "b"], np.array([1, 0, 1]), 2, 1, [1.0, 2.0, 4.0])
    # Counts at places 0 and 1, then the weights there.
    assert cells.tolist() == [[1, 0, 2, 0], [0, 2, 0, 5]]


def test_users_that_do_not_fit_the_rows_are_refused() -> None:
    with pytest.raises(FaithfulnessError, match="got 1 users for 2 rows"):
        sums_by_user(["a"], np.array([1.0, 2.0]))


def test_interval_of_a_mean_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(size=400)
    found = bootstrap_statistic(np.stack([values, np.ones(400)], 1), mean, seed=1, n_boot=4000)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean()) and found.n == 400
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_rows_of_one_user_are_drawn_together() -> None:
    # Ten users of a hundred equal rows each are worth ten values, not a thousand.
    flags = np.repeat(np.arange(10) % 2, 100)
    found = compare_rates((np.repeat(np.arange(10), 100), flags), (np.arange(4), [0, 1, 0, 1]), seed=0)
    assert found.simulated.high - found.simulated.low > 0.5


def test_same_seed_gives_the_same_bits_and_sides_may_differ_in_size() -> None:
    rng = np.random.default_rng(0)
    one, other = (np.stack([rng.normal(size=n), np.ones(n)], 1) for n in (50, 80))
    assert bootstrap_gap(one, other, gap, seed=3) == bootstrap_gap(one, other, gap, seed=3)
    assert bootstrap_gap(one, other, gap, seed=3).n == 50


def test_statistic_without_a_value_has_no_interval() -> None:
    found = bootstrap_statistic(np.ones((3, 1)), lambda sums: np.full(len(sums), np.nan), seed=0)
    assert np.isnan([found.value, found.low, found.high]).all()


def test_a_single_user_gives_no_interval() -> None:
    one = bootstrap_statistic(np.array([[3.0, 1.0]]), mean, seed=0)
    assert one.value == 3 and np.isnan([one.low, one.high]).all() and one.n == 1
    two = bootstrap_gap(np.array([[3.0, 1.0]]), np.ones((50, 2)), gap, seed=0)
    assert two.value == 2 and np.isnan([two.low, two.high]).all() and two.n == 1


def test_a_distance_lies_within_its_interval_and_no_lower_than_noise_may_have_moved_it() -> None:
    rng = np.random.default_rng(2)
    one, other = (np.stack([rng.normal(size=50), np.ones(50)], 1) for _ in range(2))

    def strayed(a: Values, b: Values, first: Values, second: Values) -> Values:
        return np.abs((mean(a) - mean(b)) - (mean(first[None]) - mean(second[None])))

    plain = bootstrap_gap(one, other, gap, seed=3)
    found = bootstrap_gap(one, other, gap, seed=3, strayed=strayed)
    reach = 1.96 * np.sqrt(one[:, 0].var() / 50 + other[:, 0].var() / 50)
    assert found.value == plain.value and found.high == max(plain.high, plain.value)
    assert found.low == pytest.approx(max(0.0, found.value - reach), abs=0.15 * reach)


def test_users_on_both_sides_swap_and_the_others_are_shuffled() -> None:
    dealt = exchanged_sides(
        np.array(["a", "b", "c"]), np.array(["b", "d"]), rng=np.random.default_rng(0), size=500
    )
    assert dealt.shape == (500, 5)
    assert (dealt[:, 1] != dealt[:, 3]).all()
    assert (dealt[:, [0, 2, 4]].sum(1) == 2).all()
    assert abs(dealt[:, 1].mean() - 0.5) < 0.1 and abs(dealt[:, 4].mean() - 2 / 3) < 0.1


def test_permutation_p_of_two_users_a_side_is_the_share_of_deals_as_far_apart() -> None:
    # Of the 6 ways to deal values 0, 0, 1, 1 in pairs, 2 are as far apart as the observed one.
    one, other = np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([[0.0, 1.0], [0.0, 1.0]])
    ids = np.array(["a", "b"]), np.array(["c", "d"])
    p = permutation_p((ids[0], one), (ids[1], other), gap, seed=0, n_permutations=4000)
    assert p == pytest.approx(1 / 3, abs=0.03)


def test_permutation_p_is_even_where_sides_are_alike() -> None:
    rng = np.random.default_rng(5)
    p = []
    for seed in range(60):
        sides = [np.stack([rng.normal(size=20), np.ones(20)], 1) for _ in range(2)]
        names = [np.asarray([f"{side}{n:02}" for n in range(20)]) for side in "ab"]
        p.append(permutation_p((names[0], sides[0]), (names[1], sides[1]), gap, seed=seed, n_permutations=99))
    assert 0.35 < np.mean(p) < 0.65 and min(p) > 0


def test_what_was_never_seen_among_sixty_users_may_be_one_in_twenty() -> None:
    found = compare_rates((np.arange(60), np.zeros(60)), (np.arange(60), np.zeros(60)), seed=0)
    assert found.simulated.high == pytest.approx(0.05)
    assert found.gap.low == pytest.approx(-0.05) and found.gap.high == pytest.approx(0.05)
    always = compare_rates((np.arange(60), np.ones(60)), (np.arange(60), np.zeros(60)), seed=0)
    assert always.gap.value == 1 and always.gap.low == pytest.approx(0.95)


def test_means_that_happen_to_be_one_are_no_certainty() -> None:
    found = compare_means((np.arange(4), [0, 2, 1, 1]), (np.arange(4), [0, 0, 0, 8]), seed=0)
    assert (found.simulated.value, found.real.value, found.gap.value) == (1.0, 2.0, -1.0)
    assert found.simulated.high > 1 and found.real.high > 2
