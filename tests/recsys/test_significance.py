import re

import numpy as np
import pytest

from recsys.errors import ShapeError
from recsys.significance import bootstrap_interval, paired_difference


def test_the_interval_of_a_large_sample_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=4000)
    found = bootstrap_interval(values, seed=0)
    half = 1.96 * values.std() / np.sqrt(4000)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert found.n == 4000


def test_equal_values_leave_no_doubt() -> None:
    assert bootstrap_interval(np.full(7, 0.25), seed=0) == (0.25, 0.25, 0.25, 7)


def test_the_same_seed_gives_the_same_interval_and_pieces_do_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(0).random(50)
    whole = bootstrap_interval(values, seed=1, n_boot=300)
    assert (
        whole
        == bootstrap_interval(values, seed=1, n_boot=300)
        != bootstrap_interval(values, seed=2, n_boot=300)
    )
    monkeypatch.setattr("recsys.significance.bootstrap.DRAWS_AT_ONCE", 1000)
    assert bootstrap_interval(values, seed=1, n_boot=300) == whole


def test_pairing_removes_what_users_have_in_common() -> None:
    rng = np.random.default_rng(0)
    common = 10 * rng.random(500)
    found = paired_difference(common + 0.1 + 0.01 * rng.random(500), common, seed=0)
    assert found.value == pytest.approx(0.105, abs=0.001)
    assert 0.104 < found.low < found.high < 0.106


def test_a_report_holds_value_interval_and_number() -> None:
    found = bootstrap_interval(np.array([0.0, 1.0]), seed=0)
    assert found.to_report() == {"value": 0.5, "ci95": [0.0, 1.0], "n": 2}


@pytest.mark.parametrize("values", [np.array([]), np.array([1.0, np.nan]), np.ones((2, 2))])
def test_values_that_are_none_are_refused(values: np.ndarray) -> None:
    with pytest.raises(
        ShapeError, match=f"one finite number for each user; got shape {re.escape(str(values.shape))}"
    ):
        bootstrap_interval(values, seed=0)


def test_pairs_of_other_users_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"same users; got shapes \(3,\) and \(2,\)"):
        paired_difference(np.ones(3), np.ones(2), seed=0)


@pytest.mark.statistical
def test_intervals_cover_the_true_mean_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        found = bootstrap_interval(rng.exponential(size=200), seed=seed, n_boot=500)
        covered += found.low <= 1.0 <= found.high
    assert 0.90 <= covered / 300 <= 0.98
