import math

import pytest
import torch
from torch import Tensor

from recsys.models.calibration import MOST_SCALE, Calibration, calibrated_logits, fit_calibration
from recsys.models.ordinal import LEAST_GAP, LevelTree, nested_ordinal_loss, thresholds_from_counts

CHAIN, BRANCH = LevelTree((0, 1)), LevelTree((0, 1, 1))


def draw_levels(logits: Tensor, rng: torch.Generator) -> Tensor:
    """Levels of a chain with these logits."""
    return (torch.rand(len(logits), 1, generator=rng) < logits.sigmoid()).sum(1)


def unbounded(blocks: int) -> Tensor:
    return torch.full((3, blocks), math.inf)


def test_logits_are_scaled_parts_summed_along_the_way() -> None:
    parts = torch.tensor([[[1.0, 2.0, 3.0], [0.1, 0.2, 0.3], [10.0, 20.0, 30.0]]])
    calibration = Calibration(torch.tensor([1.0, 10.0, 0.1]), torch.tensor([0.5, 1.5, 2.5]))
    # Steps 3, 6 and 9.
    found = calibrated_logits(parts, calibration, BRANCH.paths)
    torch.testing.assert_close(found, torch.tensor([[2.5, 7.5, 9.5]]))
    single = calibrated_logits(parts[:, :, :1], calibration, torch.ones(3, 1))
    torch.testing.assert_close(single, torch.tensor([[2.5, 1.5, 0.5]]))


def test_stretched_parts_and_wrong_base_rates_are_undone() -> None:
    rng = torch.Generator().manual_seed(0)
    truth = torch.randn(40_000, 3, 1, generator=rng)
    wanted, thresholds = torch.tensor([0.4, 1.2, 0.9]), torch.tensor([1.0, 2.5])
    levels = draw_levels((truth[:, :, 0] @ wanted)[:, None] - thresholds, rng)
    start = Calibration(torch.ones(3), torch.tensor([3.0, 4.2]))
    mixing = torch.ones(2, 1)
    fitted = fit_calibration(truth, levels, start, CHAIN, mixing, unbounded(1))
    torch.testing.assert_close(fitted.scales, wanted, rtol=0, atol=0.06)
    torch.testing.assert_close(fitted.thresholds, thresholds, rtol=0, atol=0.06)


def test_mean_probability_is_the_rate_of_the_rows() -> None:
    rng = torch.Generator().manual_seed(1)
    parts = 0.3 * torch.randn(5_000, 3, 1, generator=rng)
    levels = torch.arange(5_000) % 10 // 9  # a tenth at level 1
    start = Calibration(torch.ones(3), torch.tensor([-1.0]))
    tree, mixing = LevelTree((0,)), torch.ones(1, 1)
    fitted = fit_calibration(parts, levels, start, tree, mixing, unbounded(1))
    mean = float(calibrated_logits(parts, fitted, mixing).sigmoid().mean())
    assert abs(mean - 0.1) < 1e-3


@pytest.mark.parametrize("tree", [LevelTree((0, 1, 2)), BRANCH])
@pytest.mark.parametrize("structure", ["gnolr", "v0", "nolr"])
def test_order_holds_for_parts_at_their_bounds(tree: LevelTree, structure: str) -> None:
    rng = torch.Generator().manual_seed(2)
    thresholds = thresholds_from_counts(torch.tensor([900.0, 60.0, 30.0, 10.0]), tree)
    gaps = thresholds @ tree.edges.T
    mixing = {"gnolr": tree.paths, "v0": torch.eye(3), "nolr": torch.ones(3, 1)}[structure]
    blocks = mixing.shape[1]
    # As towers bound them: a root's step of "gnolr", and the only one of "nolr", are free.
    most = unbounded(blocks)
    if structure == "gnolr":
        ceilings = torch.where(tree.roots, math.inf, 0.98 * gaps)
        most = torch.stack([torch.full((3,), 0.1), (ceilings - 0.1) / 2, (ceilings - 0.1) / 2])
    elif structure == "v0":
        most = torch.stack([torch.full((3,), 0.49 * float(gaps[1:].min())), torch.zeros(3), torch.zeros(3)])
    signs = torch.randint(0, 2, (800, 3, blocks), generator=rng) * 2 - 1
    signs[:, 1:] = 1
    parts = signs * torch.where(torch.isfinite(most), most, 3.0)
    # Levels whose base rates lie far closer together than the thresholds of training.
    levels = torch.randint(0, 2, (800,), generator=rng) * 3
    start = Calibration(torch.ones(3), thresholds)
    fitted = fit_calibration(parts, levels, start, tree, mixing, most)
    logits = calibrated_logits(parts, fitted, mixing)
    children = [place for place, parent in enumerate(tree.parents) if parent]
    parents = [tree.parents[place] - 1 for place in children]
    assert bool((logits[:, children] < logits[:, parents]).all())
    assert bool((fitted.thresholds[children] - fitted.thresholds[parents] >= LEAST_GAP / 2 - 1e-6).all())


def test_the_fit_is_no_worse_than_its_start_and_scales_stay_in_bounds() -> None:
    rng = torch.Generator().manual_seed(3)
    parts = torch.randn(500, 3, 2, generator=rng).clamp(max=0.2)
    levels = torch.randint(0, 3, (500,), generator=rng)
    start = Calibration(torch.ones(3), torch.tensor([0.5, 1.6]))
    most = torch.tensor([[math.inf, 0.2]] * 3)
    fitted = fit_calibration(parts, levels, start, CHAIN, CHAIN.paths, most)

    def loss(calibration: Calibration) -> float:
        logits = calibrated_logits(parts, calibration, CHAIN.paths)
        return float(nested_ordinal_loss(logits, levels, CHAIN).mean())

    assert loss(fitted) < loss(start)
    assert bool(((fitted.scales > 0) & (fitted.scales < MOST_SCALE)).all())
    again = fit_calibration(parts, levels, start, CHAIN, CHAIN.paths, most)
    assert all(torch.equal(a, b) for a, b in zip(fitted, again, strict=True))


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("rows", [1, 200])
def test_rows_of_one_level_alone_give_finite_numbers(level: int, rows: int) -> None:
    parts = torch.randn(rows, 3, 2, generator=torch.Generator().manual_seed(4)).clamp(max=0.1)
    start = Calibration(torch.ones(3), torch.tensor([1.0, 2.0]))
    most, levels = torch.tensor([[math.inf, 0.1]] * 3), torch.full((rows,), level)
    fitted = fit_calibration(parts, levels, start, CHAIN, CHAIN.paths, most)
    assert all(bool(torch.isfinite(part).all()) for part in fitted)
    logits = calibrated_logits(parts, fitted, CHAIN.paths)
    assert bool((logits[:, 1] < logits[:, 0]).all())
