import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from recsys.errors import OrdinalError, ShapeError
from recsys.models.ordinal import (
    LEAST_GAP,
    fit_calibration,
    item_base_logits,
    log_sigmoid_difference,
    nested_ordinal_loss,
    thresholds_from_counts,
)


def draw_logits(rows: int, depth: int, seed: int, *, least_gap: float = 0.05) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    gaps = least_gap + 2 * torch.rand(rows, depth, generator=rng, dtype=torch.float64)
    return 3 * torch.randn(rows, 1, generator=rng, dtype=torch.float64) - gaps.cumsum(1)


def brute_loss(logits: list[float], level: int) -> float:
    """Write every reading's class probabilities out and take the log of the observed one."""
    reach = [1.0] + [1 / (1 + math.exp(-z)) for z in logits]
    total = 0.0
    for reading in range(1, len(logits) + 1):
        classes = [reach[c] - reach[c + 1] for c in range(reading)] + [reach[reading]]
        assert math.isclose(sum(classes), 1.0)
        total -= math.log(classes[min(level, reading)])
    return total


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 6])
def test_loss_equals_the_written_out_readings(depth: int) -> None:
    logits = draw_logits(60, depth, seed=depth)
    levels = torch.arange(60) % (depth + 1)
    expected = [brute_loss(z, level) for z, level in zip(logits.tolist(), levels.tolist(), strict=True)]
    np.testing.assert_allclose(nested_ordinal_loss(logits, levels).numpy(), expected, rtol=1e-9)


def test_one_level_is_binary_cross_entropy() -> None:
    logits, levels = draw_logits(50, 1, seed=0), torch.arange(50) % 2
    expected = binary_cross_entropy_with_logits(logits[:, 0], levels.double(), reduction="none")
    torch.testing.assert_close(nested_ordinal_loss(logits, levels), expected)


def test_two_levels_are_the_sum_of_the_papers_two_losses() -> None:
    logits = torch.tensor([[0.3, -1.1]], dtype=torch.float64).repeat(3, 1)
    first, second = logits[0].sigmoid().tolist()
    expected = [
        -math.log(1 - first) - math.log(1 - first),
        -math.log(first) - math.log(first - second),
        -math.log(first) - math.log(second),
    ]
    np.testing.assert_allclose(nested_ordinal_loss(logits, torch.arange(3)).numpy(), expected, rtol=1e-12)


def test_loss_and_gradient_stay_finite_where_subtraction_would_not() -> None:
    logits = torch.tensor([[80.0, 79.98], [-80.0, -80.02], [0.0, -1e-6], [100.0, -100.0]], requires_grad=True)
    for level in (0, 1, 2):
        loss = nested_ordinal_loss(logits, torch.full((4,), level))
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert bool(torch.isfinite(loss).all()) and bool(torch.isfinite(gradient).all())


def test_shallow_levels_give_deeper_logits_no_gradient() -> None:
    logits = draw_logits(1, 4, seed=0).requires_grad_()
    nested_ordinal_loss(logits, torch.tensor([1])).backward()
    assert logits.grad is not None
    # Level 1 is told from level 2 by z_2, but nothing distinguishes z_3 and z_4.
    assert (logits.grad[0] != 0).tolist() == [True, True, False, False]


def test_log_difference_equals_high_precision() -> None:
    upper = torch.tensor([2.0, 0.7, -3.0, 5.0], dtype=torch.float64)
    lower = torch.tensor([1.0, 0.65, -3.5, -5.0], dtype=torch.float64)
    expected = torch.log(torch.sigmoid(upper) - torch.sigmoid(lower))
    torch.testing.assert_close(log_sigmoid_difference(upper, lower), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("logits", "levels", "error", "message"),
    [
        (torch.zeros(2), torch.zeros(2).long(), ShapeError, r"\(B, C\) and \(B,\); got \(2,\) and \(2,\)"),
        (torch.zeros(2, 1), torch.zeros(3).long(), ShapeError, r"got \(2, 1\) and \(3,\)"),
        (torch.zeros(1, 0), torch.zeros(1).long(), ShapeError, r"got \(1, 0\)"),
        (torch.zeros(2, 1), torch.tensor([2, -1]), OrdinalError, r"lie in 0\.\.1; got \[2, -1\]"),
        (
            torch.tensor([[1.0, 0.0], [1.0, 1.0]]),
            torch.tensor([0, 0]),
            OrdinalError,
            r"\[1\.0, 1\.0\] in row 1",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    logits: torch.Tensor, levels: torch.Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        nested_ordinal_loss(logits, levels)


def test_thresholds_are_minus_the_logit_of_the_base_rates() -> None:
    counts = torch.tensor([799.5, 149.5, 39.5, 9.5])  # 800, 150, 40, 10 after half a row each
    expected = [math.log(800 / 200), math.log(950 / 50), math.log(990 / 10)]
    np.testing.assert_allclose(thresholds_from_counts(counts).numpy(), expected, rtol=1e-6)


def test_sampled_rows_scale_the_odds_of_the_first_level() -> None:
    counts = torch.tensor([800, 200])
    plain = thresholds_from_counts(counts)
    mixed = thresholds_from_counts(counts, extra_ignored=3.0)
    # 800 level-0 rows become 3,800.
    assert math.isclose(float(mixed[0] - plain[0]), math.log(3800.5 / 800.5), rel_tol=1e-5)


def test_thresholds_increase_even_for_levels_never_seen() -> None:
    found = thresholds_from_counts(torch.tensor([10**9, 10**9, 0, 0, 0]))
    assert bool(torch.isfinite(found).all())
    assert bool((found.diff() >= 0.99 * LEAST_GAP).all())


@pytest.mark.parametrize("counts", [[5.0], [5.0, -1.0]])
def test_counts_that_are_none_are_refused(counts: list[float]) -> None:
    with pytest.raises(OrdinalError, match="two levels or more, none negative; got"):
        thresholds_from_counts(torch.tensor(counts))


def test_item_rates_lie_between_their_own_and_the_logs() -> None:
    counts = torch.tensor([[80, 20, 0], [0, 0, 0], [0, 0, 1000]])
    found = item_base_logits(counts).sigmoid()
    own = torch.tensor([0.2, 0.0])
    whole = found[1]  # nothing is known about item 1
    torch.testing.assert_close(whole, torch.tensor([1020 / 1100, 1000 / 1100]), rtol=2e-3, atol=0)
    assert bool(((found[0] > own) & (found[0] < whole)).all())
    assert bool((found.diff(dim=1) <= 0).all())


def test_calibration_undoes_stretched_logits_and_wrong_base_rates() -> None:
    rng = torch.Generator().manual_seed(0)
    truth = 0.5 * torch.randn(40_000, 1, generator=rng).repeat(1, 2)
    thresholds = torch.tensor([1.0, 2.5])
    reach = torch.sigmoid(truth - thresholds)
    levels = (torch.rand(40_000, 1, generator=rng) < reach).sum(1)
    fitted = fit_calibration(truth / 0.4, levels, torch.tensor([3.0, 4.2]))
    assert abs(float(fitted.scale) - 0.4) < 0.03
    torch.testing.assert_close(fitted.thresholds, thresholds, rtol=0, atol=0.05)


def test_calibration_keeps_the_order_of_levels() -> None:
    rng = torch.Generator().manual_seed(1)
    training = torch.tensor([1.0, 1.5, 3.0])
    # Steps of levels 2 and 3 just below the old gaps, and levels whose base rates lie closer than those gaps.
    steps = torch.rand(500, 3, generator=rng) * torch.tensor([4.0, 0.49, 1.49])
    levels = torch.randint(0, 2, (500,), generator=rng) * 3
    fitted = fit_calibration(steps.cumsum(1), levels, training)
    logits = fitted.scale * steps.cumsum(1) - fitted.thresholds
    assert bool((logits.diff(dim=1) < 0).all())
