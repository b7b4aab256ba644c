import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from recsys.errors import ShapeError
from recsys.metrics import auc, full_list_auc, grouped_auc
from tests.helpers import slow_metrics


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(0, 40), ties=st.integers(1, 6))
def test_auc_equals_counting_pairs_in_all_rows_and_by_user(seed: int, rows: int, ties: int) -> None:
    rng = np.random.default_rng(seed)
    scores, users = rng.integers(ties, size=rows) / 7, rng.integers(5, 9, size=rows)
    is_positive = rng.random(rows) < 0.4
    expected = slow_metrics.pair_auc(scores[is_positive].tolist(), scores[~is_positive].tolist())
    found = auc(scores, is_positive)
    assert math.isnan(found) if expected is None else found == pytest.approx(expected, abs=1e-12)
    slow = slow_metrics.auc_by_user(scores.tolist(), is_positive.tolist(), users.tolist())
    grouped = grouped_auc(scores, is_positive, users)
    assert grouped.users.tolist() == list(slow)
    assert grouped.skipped == len(np.unique(users)) - len(slow)
    np.testing.assert_allclose(grouped.values, [value for value, _ in slow.values()], rtol=0, atol=1e-12)
    total = sum(weight for _, weight in slow.values())
    mean = sum(value * weight for value, weight in slow.values()) / total if total else float("nan")
    assert grouped.mean == pytest.approx(mean, abs=1e-12, nan_ok=True)


def test_auc_stays_under_any_rising_change_of_scores_and_turns_under_a_falling_one() -> None:
    rng = np.random.default_rng(0)
    scores, is_positive = rng.normal(size=200).round(1), rng.random(200) < 0.3
    assert auc(np.exp(scores), is_positive) == auc(scores, is_positive)
    assert auc(-scores, is_positive) == pytest.approx(1 - auc(scores, is_positive), abs=1e-12)
    assert auc(np.zeros(200), is_positive) == 0.5


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), ties=st.integers(2, 20))
def test_the_full_list_auc_equals_counting_pairs_user_by_user(seed: int, ties: int) -> None:
    rng = np.random.default_rng(seed)
    scores = (rng.integers(-ties, ties, size=(7, 11)) / 3).astype(np.float32)
    scores[rng.random((7, 11)) < 0.3] = -np.inf
    held_out = rng.integers(1, 5, size=(7, 11)) * (rng.random((7, 11)) < rng.choice([0, 0.3, 1], size=(7, 1)))
    found = full_list_auc(scores, csr_array(held_out.astype(np.float32)), 2)
    expected = {}
    for user in range(7):
        relevant = [item for item in range(11) if held_out[user, item] >= 3]
        others = [float(s) for i, s in enumerate(scores[user]) if i not in relevant and s != -np.inf]
        value = slow_metrics.pair_auc([float(scores[user, item]) for item in relevant], others)
        if value is not None:
            expected[user] = (value, len(relevant))
    assert found.users.tolist() == list(expected) and found.skipped == 7 - len(expected)
    np.testing.assert_allclose(found.values, [value for value, _ in expected.values()], rtol=0, atol=1e-12)
    assert found.weights.tolist() == [weight for _, weight in expected.values()]


def test_blocks_of_users_do_not_change_the_full_list_auc(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(30, 12)).astype(np.float32)
    held_out = csr_array((rng.integers(1, 4, (30, 12)) * (rng.random((30, 12)) < 0.3)).astype(np.float32))
    whole = full_list_auc(scores, held_out, 1)
    monkeypatch.setattr("recsys.metrics.discrimination.ROWS_AT_ONCE", 7)
    assert np.array_equal(full_list_auc(scores, held_out, 1).values, whole.values)


def test_no_user_has_no_auc() -> None:
    found = full_list_auc(np.empty((0, 3), dtype=np.float32), csr_array((0, 3), dtype=np.float32), 1)
    assert found.values.tolist() == [] and math.isnan(found.mean)


def test_minus_zero_ties_with_zero() -> None:
    scores = np.array([[0.0, -0.0, -0.0]], dtype=np.float32)
    found = full_list_auc(scores, csr_array(np.array([[0, 2, 0]], dtype=np.float32)), 1)
    assert found.values.tolist() == [0.5]


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"got shapes \(2,\), \(3,\) and \(2,\)"):
        auc(np.ones(2), np.ones(3, dtype=bool))
    with pytest.raises(ShapeError, match="must be finite; got 1 that are not"):
        auc(np.array([1.0, np.nan]), np.array([True, False]))
    with pytest.raises(ShapeError, match=r"\(2, 4\); got \(2, 3\)"):
        full_list_auc(np.ones((2, 3), dtype=np.float32), csr_array((2, 4), dtype=np.float32), 1)
