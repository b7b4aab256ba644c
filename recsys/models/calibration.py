"""From what the towers say to probabilities that hold: a few numbers fitted to rows that training did not see."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from recsys.errors import ShapeError
from recsys.models.ordinal import LEAST_GAP, LevelTree, nested_ordinal_loss, thresholds_from_counts

# A part may be trusted up to this much more than training did.
MOST_SCALE = 1.5


class Calibration(NamedTuple):
    """Logits of shown items from the three parts of their steps.

    z_k = (sum of scale . (cosine, item, user) parts on the way to level k) - threshold_k.

    scales: Trust in cosine, item bias and user bias. Shape (3,), float32.
    thresholds: Each above its parent's. Shape (C,), float32.
    """

    scales: Tensor
    thresholds: Tensor


def fit_calibration(
    parts: Tensor,
    levels: Tensor,
    start: Calibration,
    tree: LevelTree,
    mixing: Tensor,
    most: Tensor,
    *,
    keeps_ranking: bool = False,
) -> Calibration:
    """Scales and thresholds with the least nested loss on impressions that training did not see.

    Training mixes sampled rows in, which lowers base rates and stretches logits by how often an item is shown, and
    it trusts a user's history as if the user came back at once; all are undone here. Each new gap is the largest
    step that the scales allow plus something positive, so the order of levels still holds for any pair.

    Args:
        parts: Cosine, item and user part of each impression's steps. Shape (N, 3, K).
        levels: Level of each impression. Shape (N,), int64.
        start: Scales of one and the thresholds of training.
        tree: The levels.
        mixing: Takes steps of blocks to levels. Shape (C, K).
        most: Upper bound of each part of each step, infinite where unbounded. Shape (3, K).
        keeps_ranking: One scale for all parts, so that every ranking stays that of training. Right where training
            drew negatives: those taught what is worth showing, which impressions know nothing of.

    Returns:
        The fit; a local optimum found by L-BFGS in at most C + 3 numbers. Same input, same bits.
    """
    edges, roots = tree.edges.to(parts), tree.roots.to(parts.device)
    counts = torch.bincount(levels, minlength=tree.levels + 1).cpu()
    target = thresholds_from_counts(counts, tree).to(parts)
    # A step reaches a level from its parent; where all levels share their steps, nothing lies between two of them.
    added = (edges @ mixing)[~roots]
    bounds = torch.where(torch.isfinite(most), most, 0.0)

    def needed(scales: Tensor) -> Tensor:
        """What the gaps must exceed. Shape (number of levels below another,)."""
        return _reach(added, scales[:, None] * bounds)

    raw = torch.full(
        (1 if keeps_ranking else 3,), _logit(1.0 / MOST_SCALE), device=parts.device, requires_grad=True
    )
    first = target[roots].clone().requires_grad_(True)
    gaps = (edges @ target)[~roots]
    room = (gaps - needed(start.scales)).clamp(min=LEAST_GAP)
    extra = (room + torch.log(-torch.expm1(-room))).requires_grad_(True)

    def build() -> Calibration:
        scales = (MOST_SCALE * torch.sigmoid(raw)).expand(3)
        steps = torch.zeros_like(target).masked_scatter(roots, first)
        steps = steps.masked_scatter(~roots, needed(scales).clamp(min=0.0) + LEAST_GAP / 2 + softplus(extra))
        return Calibration(scales, tree.paths.to(parts) @ steps)

    optimizer = torch.optim.LBFGS([raw, first, extra], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        fitted = build()
        loss = nested_ordinal_loss(calibrated_logits(parts, fitted, mixing), levels, tree).mean()
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    return Calibration(*(part.detach().clone() for part in build()))


def read_calibration(tensors: Mapping[str, Tensor], levels: int) -> Calibration:
    """A calibration from its saved parts.

    Args:
        tensors: Hold `scales` and `thresholds`.
        levels: The number C of levels.

    Raises:
        ShapeError: They are of another number of levels.
        KeyError: A part is missing.
    """
    found = Calibration(tensors["scales"], tensors["thresholds"])
    shapes = tuple(tuple(part.shape) for part in found)
    if shapes != ((3,), (levels,)):
        raise ShapeError(
            f"Scales and thresholds must have shapes (3,) and ({levels},); got {shapes}. Train the model again."
        )
    return found


def calibrated_logits(parts: Tensor, calibration: Calibration, mixing: Tensor) -> Tensor:
    """Logits of the levels. Shape (N, 3, K) to (N, C); arguments as for `fit_calibration`."""
    steps = (parts * calibration.scales[:, None]).sum(1)
    return steps @ mixing.T - calibration.thresholds


def _reach(added: Tensor, most: Tensor) -> Tensor:
    """The largest sum of parts that can separate a level from its parent.

    Where a step is taken away rather than added, its parts may be as small as minus their bound: cosines are
    symmetric, and nothing else is ever taken away.
    """
    return added.clamp(min=0.0) @ most.sum(0) + (-added).clamp(min=0.0) @ most[0]


def _logit(share: float) -> float:
    return float(torch.logit(torch.tensor(share)))
