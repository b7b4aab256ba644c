"""The arithmetic of nested ordinal regression, with no probability ever subtracted from another.

Levels run 0..C. A model gives C logits, z_k being that of P(level >= k); they must strictly decrease in k.
Source: GNOLR (KDD 2025, arXiv 2505.20900), its cumulative logits, data-derived thresholds and nested loss.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from recsys.errors import OrdinalError, ShapeError

# Thresholds closer than this many logits would leave the steps between levels no room in float32.
LEAST_GAP = 0.02


def nested_ordinal_loss(logits: Tensor, levels: Tensor) -> Tensor:
    """Negative log-likelihood of the levels, summed over C ever finer readings of them.

    Reading c keeps the classes {0}, .., {c-1} and merges everything from c up; with P_k = sigmoid(logits[:, k-1]),
    a row of level l costs -log P_c in it if l >= c, else -log(P_l - P_{l+1}), where P_0 = 1. So shallow logits
    learn from every reading and deep ones only from those that see them. C = 1 is binary cross-entropy.

    Args:
        logits: z_1..z_C of each row, strictly decreasing along the row. Shape (B, C), float.
        levels: Deepest level reached, 0..C. Shape (B,), int64.

    Returns:
        Loss of each row in nats, unreduced. Shape (B,), dtype of `logits`.

    Raises:
        ShapeError: The shapes do not fit.
        OrdinalError: A level lies outside 0..C, or logits do not decrease.

    Example:
        >>> loss = nested_ordinal_loss(torch.tensor([[0.0, -1.0]]), torch.tensor([1]))
        >>> round(loss.item(), 4)  # log 2 - log(1/2 - 1/(1 + e))
        2.1582
    """
    _check_rows(logits, levels)
    depth = logits.shape[1]
    rest = (depth - levels).to(logits.dtype)
    # Readings 1..l each add -log P_c; the C - l finer ones each add the same log-probability of class l itself.
    reached = torch.cat([logits.new_zeros(len(logits), 1), logsigmoid(logits).cumsum(1)], dim=1)
    inner = logsigmoid(-logits[:, :1])
    if depth > 1:
        inner = torch.cat([inner, log_sigmoid_difference(logits[:, :-1], logits[:, 1:])], dim=1)
    at_level = inner.gather(1, levels.clamp(max=depth - 1)[:, None])[:, 0]
    return -(reached.gather(1, levels[:, None])[:, 0] + rest * at_level)


def log_sigmoid_difference(upper: Tensor, lower: Tensor) -> Tensor:
    """log(sigmoid(upper) - sigmoid(lower)) for upper > lower, without cancellation.

    Uses sigmoid(x) - sigmoid(y) = sigmoid(x) sigmoid(-y) (1 - exp(y - x)).

    Args:
        upper: The larger logit, any shape.
        lower: The smaller logit, same shape.

    Returns:
        In nats, same shape; finite, with finite gradients, wherever `upper` > `lower` in floating point.
    """
    gap = upper - lower
    is_small = gap < math.log(2)
    # Each branch sees harmless values where the other is taken, or its infinite gradient would become NaN.
    near = torch.log(-torch.expm1(-torch.where(is_small, gap, torch.ones_like(gap))))
    far = torch.log1p(-torch.exp(-torch.where(is_small, torch.ones_like(gap), gap)))
    return logsigmoid(upper) + logsigmoid(-lower) + torch.where(is_small, near, far)


def thresholds_from_counts(counts: Tensor, *, extra_ignored: float = 0.0) -> Tensor:
    """Thresholds a_k = -logit P(level >= k) of a log, strictly increasing whatever the counts.

    Half a row is added to each level, so that one never seen still has a finite threshold, and neighbours are kept
    at least `LEAST_GAP` apart.

    Args:
        counts: Rows of each level 0..C. Shape (C + 1,).
        extra_ignored: Level-0 rows mixed in by sampling negatives, for each row of the log. Zero gives the
            thresholds of the log itself; the difference of the two is the correction for sampling.

    Returns:
        a_1..a_C in logits. Shape (C,), float32.

    Raises:
        OrdinalError: There are fewer than two levels, or a count is negative.

    Example:
        >>> thresholds_from_counts(torch.tensor([29.5, 9.5])).tolist()  # log(30 / 10)
        [1.0986123085021973]
    """
    if counts.ndim != 1 or len(counts) < 2 or bool((counts < 0).any()):
        raise OrdinalError(
            f"`counts` must hold the rows of two levels or more, none negative; got {counts.tolist()}. "
            "Count the log's levels with `minlength=C + 1`."
        )
    rows = counts.to(torch.float64) + 0.5
    rows[0] += extra_ignored * float(counts.sum())
    shallower = rows.cumsum(0)[:-1]
    raw = torch.log(shallower) - torch.log(rows.sum() - shallower)
    spaced = raw - LEAST_GAP * torch.arange(len(raw), dtype=torch.float64)
    return (spaced.cummax(0).values + LEAST_GAP * torch.arange(len(raw), dtype=torch.float64)).float()


def item_base_logits(counts: Tensor, *, extra_ignored: float = 0.0, prior_rows: float = 20.0) -> Tensor:
    """Each item's own logit P(level >= k), drawn towards that of the whole log by `prior_rows` rows of it.

    Args:
        counts: Rows of each item and level. Shape (I, C + 1).
        extra_ignored: Level-0 rows mixed in by sampling negatives evenly over items, for each row of the log.
        prior_rows: Strength of the prior, in rows of an item, above 0.

    Returns:
        Shape (I, C), float32; finite.
    """
    rows = counts.to(torch.float64)
    rows[:, 0] += extra_ignored * rows.sum() / max(1, len(rows))
    deeper = rows.flip(1).cumsum(1).flip(1)
    # As in `thresholds_from_counts`, half a row a level keeps a level never seen finite.
    whole = deeper.sum(0) + 0.5 * torch.arange(rows.shape[1], 0, -1, dtype=torch.float64)
    reached = deeper[:, 1:] + prior_rows * whole[1:] / whole[0]
    return torch.log(reached / (deeper[:, :1] + prior_rows - reached)).float()


class Calibration(NamedTuple):
    """Logits of shown items from sums of steps: z_k = scale * (step_1 + .. + step_k) - thresholds_k.

    scale: In 0..1, so that rankings keep their order. Shape (), float32.
    thresholds: Increasing. Shape (C,), float32.
    """

    scale: Tensor
    thresholds: Tensor


def fit_calibration(sums: Tensor, levels: Tensor, thresholds: Tensor) -> Calibration:
    """Scale and thresholds with the least nested loss on impressions that training did not see.

    Training mixes sampled rows in, which lowers base rates and stretches logits by how often an item is shown;
    both are undone here. Each new gap is scale * (old gap) plus something positive, so order still holds for any
    pair whose steps stay below the old gaps.

    Args:
        sums: step_1 + .. + step_k of each impression. Shape (N, C).
        levels: Level of each impression. Shape (N,), int64.
        thresholds: Those of training. Shape (C,).

    Returns:
        The fit; a local optimum found by L-BFGS in C + 1 numbers.
    """
    depth = sums.shape[1]
    counts = torch.bincount(levels, minlength=depth + 1).cpu()
    target = thresholds_from_counts(counts).to(sums.device)
    gaps = thresholds.diff()
    shrink = torch.full((), 2.0, device=sums.device, requires_grad=True)
    first = target[0].clone().requires_grad_(True)
    # Inverse of softplus, so that the fit starts at the impressions' own thresholds where they are far enough apart.
    extra = torch.log(torch.expm1((target.diff() - gaps).clamp(min=LEAST_GAP))).requires_grad_(True)

    def build() -> Calibration:
        scale = torch.sigmoid(shrink)
        return Calibration(
            scale, first + torch.cat([first.new_zeros(1), (scale * gaps + softplus(extra)).cumsum(0)])
        )

    optimizer = torch.optim.LBFGS([shrink, first, extra], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        fitted = build()
        loss = nested_ordinal_loss(fitted.scale * sums - fitted.thresholds, levels).mean()
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    return Calibration(*(part.detach() for part in build()))


def _check_rows(logits: Tensor, levels: Tensor) -> None:
    if logits.ndim != 2 or logits.shape[1] == 0 or levels.shape != logits.shape[:1]:
        raise ShapeError(
            f"`logits` and `levels` must have shapes (B, C) and (B,); got {tuple(logits.shape)} and "
            f"{tuple(levels.shape)}. Give one logit for each level above 0."
        )
    bad = (levels < 0) | (levels > logits.shape[1])
    if bool(bad.any()):
        raise OrdinalError(
            f"`levels` must lie in 0..{logits.shape[1]}; got {levels[bad][:3].tolist()}. "
            "Give as many logits as there are levels above 0."
        )
    flat = (logits[:, :-1] <= logits[:, 1:]).any(1)
    if bool(flat.any()):
        raise OrdinalError(
            f"`logits` must strictly decrease along each row; got {logits[flat][0].tolist()} in row "
            f"{int(flat.nonzero()[0])}. Keep each step between levels below the gap of their thresholds."
        )
