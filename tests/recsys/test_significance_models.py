import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from recsys.errors import RecsysError, ShapeError
from recsys.significance import (
    bootstrap_interval,
    combine_seeds,
    compare_models,
    definition_of_better,
    holm,
    paired_difference,
    permutation_test,
    wilcoxon_test,
)
from tests.helpers import slow_metrics


def draw_models(seed: int, users: int = 400) -> dict[str, NDArray[np.float64]]:
    """Three models: two alike, one better by half a standard deviation of the differences."""
    rng = np.random.default_rng(seed)
    common = rng.random(users)
    noise = {name: 0.1 * rng.normal(size=users) for name in ("plain", "twin", "good")}
    return {name: common + noise[name] + 0.07 * (name == "good") for name in noise}


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), users=st.integers(1, 9))
def test_random_flips_come_near_to_trying_them_all(seed: int, users: int) -> None:
    differences = np.random.default_rng(seed).integers(-3, 5, size=users) / 10
    expected = slow_metrics.sign_flips(differences.tolist())
    assert permutation_test(differences, seed=0)[0] == pytest.approx(expected, abs=0.03)


def test_columns_are_tested_under_the_same_flips_as_alone() -> None:
    table = np.random.default_rng(0).normal(0.1, 1, size=(50, 3))
    together = permutation_test(table, seed=4, n_permutations=500)
    assert together.tolist() == [permutation_test(c, seed=4, n_permutations=500)[0] for c in table.T]


def test_no_difference_has_a_p_of_one_and_a_plain_one_the_smallest_possible() -> None:
    assert permutation_test(np.zeros(20), seed=0).tolist() == [1.0]
    assert permutation_test(np.ones(60), seed=0, n_permutations=999).tolist() == [1 / 1000]
    assert wilcoxon_test(np.zeros(20)).tolist() == [1.0]


def test_wilcoxon_is_scipys_by_column() -> None:
    table = np.random.default_rng(1).normal(0.2, 1, size=(80, 2))
    table[::5, 0] = 0
    expected = [wilcoxon(column[column != 0]).pvalue for column in table.T]
    assert wilcoxon_test(table).tolist() == expected


@settings(max_examples=40, deadline=None)
@given(p=st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.2, 0.5, 1.0]), max_size=8))
def test_holm_equals_its_slow_twin(p: list[float]) -> None:
    np.testing.assert_allclose(holm(np.array(p, dtype=np.float64)), slow_metrics.holm(p), rtol=1e-12)


def test_better_is_said_where_it_holds_and_nowhere_else() -> None:
    rows = compare_models(draw_models(0), seed=0)
    assert len(rows) == 3 and rows[0].first == rows[1].first == "good"
    for row in rows:
        assert row.is_better == (row.first == "good") and not row.is_worse
        assert row.p_holm >= row.p


def test_against_a_baseline_worse_is_said_too() -> None:
    rows = compare_models(draw_models(0), seed=0, baseline="good")
    assert [(row.first, row.second) for row in rows] == [("plain", "good"), ("twin", "good")]
    assert all(row.is_worse and not row.is_better and row.high < 0 for row in rows)


def test_the_interval_of_a_pair_is_that_of_the_paired_difference() -> None:
    values = draw_models(1)
    (row,) = compare_models({"a": values["good"], "b": values["plain"]}, seed=3, baseline="b", n_boot=700)
    expected = paired_difference(values["good"], values["plain"], seed=3, n_boot=700)
    np.testing.assert_allclose([row.difference, row.low, row.high], expected[:3], rtol=1e-9)


def test_both_tests_and_the_same_seed_give_the_same_rows() -> None:
    values = draw_models(2)
    signed = compare_models(values, seed=0, test="wilcoxon")
    assert [row.is_better for row in signed] == [row.is_better for row in compare_models(values, seed=0)]
    apart = values[signed[0].first] - values[signed[0].second]
    assert signed[0].p == wilcoxon(apart).pvalue
    assert compare_models(values, seed=5) == compare_models(values, seed=5)


def test_one_seed_combined_is_the_interval_over_users_and_pieces_do_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(0).random(60)
    whole = combine_seeds(values[None], seed=1, n_boot=300)
    np.testing.assert_allclose(whole, bootstrap_interval(values, seed=1, n_boot=300), rtol=1e-9)
    monkeypatch.setattr("recsys.significance.bootstrap.DRAWS_AT_ONCE", 1000)
    np.testing.assert_allclose(combine_seeds(values[None], seed=1, n_boot=300), whole, rtol=1e-9)


def test_seeds_that_differ_widen_the_interval_to_their_own_spread() -> None:
    rng = np.random.default_rng(0)
    seeds = np.array([0.0, 0.3, 0.6, 0.9])
    table = seeds[:, None] + 0.01 * rng.normal(size=(4, 500))
    found = combine_seeds(table, seed=0)
    assert found.value == pytest.approx(0.45, abs=0.01) and found.n == 500
    # The mean of four drawn with replacement has 1/sqrt(4) of their standard deviation.
    assert found.high - found.low == pytest.approx(2 * 1.96 * seeds.std() / 2, rel=0.1)
    assert combine_seeds(table, seed=0) == found


def test_a_gain_that_depends_on_the_seed_is_not_called_better() -> None:
    rng = np.random.default_rng(0)
    common = rng.random(500)
    lucky = common + np.array([[0.4], [-0.1], [-0.1]]) + 0.01 * rng.normal(size=(3, 500))
    steady = common + np.array([[0.1], [0.11], [0.09]]) + 0.01 * rng.normal(size=(3, 500))
    rows = compare_models({"lucky": lucky, "steady": steady, "base": common}, seed=0, baseline="base")
    assert [(row.first, row.is_better) for row in rows] == [("lucky", False), ("steady", True)]
    assert rows[0].p_holm < 0.05 and rows[0].low < 0 < rows[0].difference


def test_what_is_better_alone_need_not_be_among_many() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(20, 100))
    noise = (noise - noise.mean(1, keepdims=True)) / noise.std(1, keepdims=True)
    # Two and a half standard errors above the baseline: p is about .02.
    values = {
        "base": np.zeros(100),
        "good": noise[0] + 0.25,
        **{f"other {n}": noise[n] for n in range(1, 20)},
    }
    alone = compare_models({name: values[name] for name in ("base", "good")}, seed=0, baseline="base")[0]
    among = compare_models(values, seed=0, baseline="base")[0]
    assert alone.is_better and alone.p_holm == alone.p < 0.05
    assert not among.is_better and among.low > 0 and among.p_holm > 0.05


def test_a_report_can_print_what_better_means() -> None:
    sentence = definition_of_better(6, test="wilcoxon")
    assert (
        "paired wilcoxon test has p < 0.05" in sentence
        and "all 6 comparisons" in sentence
        and "95%" in sentence
    )


def test_comparisons_that_make_no_sense_are_refused() -> None:
    values = draw_models(0)
    with pytest.raises(RecsysError, match=r"two models or more; got \['good'\]"):
        compare_models({"good": values["good"]}, seed=0)
    with pytest.raises(RecsysError, match="one of plain, twin, good; got 'best'"):
        compare_models(values, seed=0, baseline="best")
    with pytest.raises(ShapeError, match=r"same users; got \{'a': 3, 'b': 2\}"):
        compare_models({"a": np.ones(3), "b": np.ones((4, 2))}, seed=0)
    with pytest.raises(
        ShapeError, match=r"one row a seed, one column a user; got shape \(2, 2\) with 3 finite"
    ):
        combine_seeds(np.array([[1, 2], [3, np.nan]]), seed=0)
    with pytest.raises(ShapeError, match=r"one row a user; got shape \(0,\) with 0 finite"):
        permutation_test(np.empty(0), seed=0)
    with pytest.raises(RecsysError, match="`n_permutations` must be at least 1; got 0"):
        permutation_test(np.ones(3), seed=0, n_permutations=0)
    with pytest.raises(ShapeError, match=r"p-values in 0\.\.1; got \[0\.5, 1\.5\]"):
        holm(np.array([0.5, 1.5]))


@pytest.mark.statistical
def test_models_that_are_alike_are_rarely_called_better() -> None:
    wrong = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values = {name: rng.exponential(size=150) for name in "abcd"}
        wrong += any(
            row.is_better for row in compare_models(values, seed=seed, n_boot=300, n_permutations=500)
        )
    # At most 5 % of the tables, and three standard errors.
    assert wrong / 200 <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


@pytest.mark.statistical
def test_intervals_over_seeds_and_users_cover_the_true_mean() -> None:
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        table = (
            1
            + 0.05 * rng.normal(size=(10, 1))
            + 0.5 * rng.normal(size=(1, 100))
            + 0.1 * rng.normal(size=(10, 100))
        )
        found = combine_seeds(table, seed=seed, n_boot=500)
        covered += found.low <= 1 <= found.high
    assert 0.89 <= covered / 200 <= 0.99
