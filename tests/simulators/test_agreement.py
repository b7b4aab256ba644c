"""Cohen's kappa against its table form, scikit-learn and hand-derived cases."""

import numpy as np
import pytest
from numpy.typing import NDArray

from simulators.agreement import cohen_kappa
from simulators.errors import JudgeError


def table_kappa(a: NDArray[np.int64], b: NDArray[np.int64], *, quadratic: bool) -> float:
    """The textbook form, over the table of both raters."""
    size = int(max(a.max(), b.max())) + 1
    table = np.zeros((size, size))
    for x, y in zip(a, b, strict=True):
        table[x, y] += 1 / len(a)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0))
    i, j = np.indices(table.shape)
    cost = (i - j) ** 2 if quadratic else (i != j).astype(float)
    return float(1 - (cost * table).sum() / (cost * expected).sum())


@pytest.mark.parametrize("quadratic", [False, True])
def test_it_equals_its_table_form(quadratic: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a = rng.integers(0, 5, 60)
        b = np.where(rng.random(60) < 0.6, a, rng.integers(0, 5, 60))
        found = cohen_kappa(a, b, weights="quadratic" if quadratic else "none")
        assert found == pytest.approx(table_kappa(a, b, quadratic=quadratic), abs=1e-12)


def test_it_equals_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is an extra")
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    assert cohen_kappa(a, b) == pytest.approx(metrics.cohen_kappa_score(a, b))
    assert cohen_kappa(a, b, weights="quadratic") == pytest.approx(
        metrics.cohen_kappa_score(a, b, weights="quadratic")
    )


def test_hand_derived_cases() -> None:
    # Agreement 3/4; chance 1/2 * 3/4 + 1/2 * 1/4 = 1/2.
    assert cohen_kappa([0, 0, 1, 1], [0, 0, 1, 0]) == (3 / 4 - 1 / 2) / (1 - 1 / 2)
    assert cohen_kappa([1, 2, 3], [1, 2, 3], weights="quadratic") == 1.0
    assert cohen_kappa([0, 1], [1, 0]) == -1.0
    assert np.isnan(cohen_kappa([2, 2], [2, 2]))
    assert cohen_kappa([2, 2], [3, 3]) == 0.0


def test_wrong_ratings_are_told() -> None:
    with pytest.raises(JudgeError, match=r"got \(2,\) and \(3,\)"):
        cohen_kappa([1, 2], [1, 2, 3])
    with pytest.raises(JudgeError, match=r"at least 1; got \(0,\)"):
        cohen_kappa([], [])
