import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import OrdinalError, ShapeError
from recsys.metrics import (
    calibration_error,
    containment,
    exact_level_nll,
    level_metrics,
    reliability_curve,
)
from recsys.metrics.calibration import brier_score, log_loss
from recsys.metrics.pointwise import POINTWISE
from recsys.types import Floats, Ints
from tests.helpers import slow_metrics


def draw_levels(seed: int, rows: int = 60) -> tuple[Floats, Ints, Ints]:
    """Probabilities of three levels in falling order, levels, and users."""
    rng = np.random.default_rng(seed)
    probabilities = -np.sort(-rng.uniform(0.05, 0.95, size=(rows, 3)), axis=1)
    return probabilities.astype(np.float32), rng.integers(0, 4, size=rows), rng.integers(0, 6, size=rows)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 50), bins=st.integers(1, 20), grid=st.booleans())
def test_calibration_log_loss_and_brier_equal_their_slow_twins(
    seed: int, rows: int, bins: int, grid: bool
) -> None:
    rng = np.random.default_rng(seed)
    probability = rng.integers(1, 8, size=rows) / 8 if grid else rng.uniform(0.01, 0.99, size=rows)
    happened = rng.random(rows) < 0.5
    p, h = probability.tolist(), happened.tolist()
    assert log_loss(probability, happened) == pytest.approx(slow_metrics.log_loss(p, h), abs=1e-12)
    assert brier_score(probability, happened) == pytest.approx(slow_metrics.brier(p, h), abs=1e-12)
    by_width = calibration_error(probability, happened, bins=bins)
    assert by_width == pytest.approx(slow_metrics.calibration(p, h, bins, False), abs=1e-12)
    by_mass = calibration_error(probability, happened, bins=bins, binning="mass")
    assert by_mass == pytest.approx(slow_metrics.calibration(p, h, bins, True), abs=1e-12)


def test_level_metrics_are_the_metrics_of_each_level_as_an_event() -> None:
    probabilities, levels, users = draw_levels(0)
    found = level_metrics(probabilities, levels, users)
    assert [row.level for row in found] == [1, 2, 3]
    for row in found:
        p, happened = probabilities[:, row.level - 1].astype(float).tolist(), (levels >= row.level).tolist()
        positives = [x for x, h in zip(p, happened, strict=True) if h]
        negatives = [x for x, h in zip(p, happened, strict=True) if not h]
        slow = slow_metrics.auc_by_user(p, happened, users.tolist())
        report = row.to_report()
        assert report.keys() == {"rate", "gauc", "auc", "log_loss", "ece_width", "ece_mass", "brier"}
        assert report["rate"] == sum(happened) / 60
        assert report["auc"] == pytest.approx(slow_metrics.pair_auc(positives, negatives), abs=1e-12)
        weight = sum(n for _, n in slow.values())
        assert report["gauc"] == pytest.approx(sum(v * n for v, n in slow.values()) / weight, abs=1e-12)
        assert report["log_loss"] == pytest.approx(slow_metrics.log_loss(p, happened), abs=1e-9)
        assert report["ece_width"] == pytest.approx(
            slow_metrics.calibration(p, happened, 15, False), abs=1e-9
        )
        assert report["ece_mass"] == pytest.approx(slow_metrics.calibration(p, happened, 15, True), abs=1e-9)
        assert report["brier"] == pytest.approx(slow_metrics.brier(p, happened), abs=1e-9)
    assert {*found[0].to_report(), "nll"} == {*POINTWISE, "rate"}


def test_the_exact_level_nll_equals_its_slow_twin() -> None:
    probabilities, levels, _ = draw_levels(1)
    expected = slow_metrics.exact_nll(probabilities.astype(float).tolist(), levels.tolist())
    assert exact_level_nll(probabilities, levels) == pytest.approx(expected, abs=1e-9)


def test_one_level_has_the_log_loss_as_its_nll() -> None:
    probabilities, levels, _ = draw_levels(2)
    happened = levels > 0
    found = exact_level_nll(probabilities[:, :1].astype(np.float64), happened.astype(np.int64))
    assert found == pytest.approx(log_loss(probabilities[:, 0], happened), abs=1e-12)


def test_a_sure_miss_and_a_broken_order_cost_a_finite_amount() -> None:
    assert log_loss(np.array([0.0]), np.array([True])) == pytest.approx(15 * math.log(10))
    assert log_loss(np.array([1.0]), np.array([False])) == pytest.approx(15 * math.log(10), rel=1e-2)
    assert exact_level_nll(np.array([[0.2, 0.4]]), np.array([1])) == pytest.approx(15 * math.log(10))


def test_probabilities_that_are_the_rates_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    happened = np.concatenate([np.arange(1000) < 250, np.arange(1000) < 700])
    probability = np.repeat([0.25, 0.7], 1000)
    order = rng.permutation(2000)
    curve = reliability_curve(probability[order], happened[order])
    assert curve.rows.tolist() == [1000, 1000]
    np.testing.assert_allclose(curve.mean, [0.25, 0.7])
    np.testing.assert_allclose(curve.rate, [0.25, 0.7])
    assert curve.error == pytest.approx(0, abs=1e-12)
    assert calibration_error(np.full(2000, 0.475), happened, binning="mass") == pytest.approx(0, abs=1e-12)


def test_bins_of_equal_mass_hold_equal_numbers() -> None:
    probability = np.random.default_rng(0).random(300) ** 4
    curve = reliability_curve(probability, probability > 0.5, bins=15, binning="mass")
    assert curve.rows.tolist() == [20] * 15
    assert (np.diff(curve.mean) > 0).all()


def test_bins_hold_their_lower_edge_and_the_last_one_holds_one() -> None:
    curve = reliability_curve(np.array([0.0, 0.5, 0.5, 1.0]), np.array([False, True, False, True]), bins=2)
    assert curve.rows.tolist() == [1, 3]
    assert curve.rate.tolist() == [0.0, 2 / 3]


def test_containment_counts_what_is_ordered_and_what_was_seen() -> None:
    probabilities = np.array([[0.8, 0.4], [0.6, 0.6], [0.2, 0.5], [0.4, 0.1]])
    found = containment(probabilities, np.array([0, 1, 2, 2]))
    assert found.ordered.tolist() == [0.5] and found.all_ordered == 0.5
    np.testing.assert_allclose(found.predicted, [1.6 / 2.0])
    np.testing.assert_allclose(found.going_deeper, [2 / 3])
    assert found.shallow_given_deep.tolist() == [1.0]


def test_containment_sees_signals_that_contradict_one_another() -> None:
    flags = np.array([[True, True], [False, True], [True, False], [False, True]])
    found = containment(np.full((4, 2), 0.5), flags)
    np.testing.assert_allclose(found.shallow_given_deep, [1 / 3])
    np.testing.assert_allclose(found.going_deeper, [1 / 2])
    unseen = containment(np.full((2, 2), 0.5), np.zeros((2, 2), dtype=bool))
    assert np.isnan(unseen.going_deeper).all() and np.isnan(unseen.shallow_given_deep).all()


def test_arguments_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"0\.\.1; got \[1\.5, nan\]\. Pass probabilities"):
        log_loss(np.array([0.5, 1.5, np.nan]), np.ones(3, dtype=bool))
    with pytest.raises(ShapeError, match=r"got shapes \(2,\) and \(3,\)"):
        brier_score(np.ones(2), np.ones(3, dtype=bool))
    with pytest.raises(ShapeError, match=r"at least one; got shapes \(0,\) and \(0,\)"):
        brier_score(np.ones(0), np.ones(0, dtype=bool))
    with pytest.raises(ShapeError, match="`bins` must be at least 1; got 0"):
        calibration_error(np.ones(1), np.ones(1, dtype=bool), bins=0)


def test_levels_that_do_not_fit_are_refused() -> None:
    probabilities, levels, users = draw_levels(0)
    with pytest.raises(OrdinalError, match=r"lie in 0\.\.2, .* got \[3, 3, 3\]"):
        level_metrics(probabilities[:, :2], np.full(60, 3), users)
    with pytest.raises(OrdinalError, match=r"lie in 0\.\.3, .* got \[-1, -1, -1\]"):
        exact_level_nll(probabilities, np.full(60, -1))
    with pytest.raises(ShapeError, match=r"got \(60, 3\) and \(59,\)"):
        exact_level_nll(probabilities, levels[1:])
    with pytest.raises(ShapeError, match=r"got shapes \(60, 2\) and \(60, 3\)"):
        containment(probabilities, np.ones((60, 2), dtype=bool))
