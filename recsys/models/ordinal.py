"""The arithmetic of nested ordinal regression, with no probability ever subtracted from another.

Levels run 0..C, 0 being shown and ignored; `LevelTree` says which level each one deepens. A model gives C logits,
z_k being that of reaching level k; each must lie below that of its parent.
Source: GNOLR (KDD 2025, arXiv 2505.20900), its cumulative logits, data-derived thresholds and nested loss.
"""

import math
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from recsys.errors import OrdinalError, ShapeError

# Thresholds closer than this many logits would leave the steps between levels no room in float32.
LEAST_GAP = 0.02


class LevelTree:
    """Which level each level deepens: usually a chain, or branches that deepen one level in parallel.

    A viewer may, having clicked, go on to like or to hate: levels 1 click, 2 like, 3 hate have parents (0, 1, 1).

    Args:
        parents: Parent of level 1..C, each smaller than the level itself; 0 is the root, being shown.

    Raises:
        OrdinalError: There is no level, or a parent does not come before its child.
    """

    def __init__(self, parents: tuple[int, ...]) -> None:
        """Check the parents."""
        if not parents or any(not 0 <= parent <= place for place, parent in enumerate(parents)):
            raise OrdinalError(
                f"`parents` must name an earlier level for each level 1..C; got {list(parents)}. "
                "A chain of three is (0, 1, 2)."
            )
        self.parents = tuple(parents)

    @classmethod
    def chain(cls, levels: int) -> "LevelTree":
        """Levels 1..`levels`, each deepening the one before."""
        return cls(tuple(range(levels)))

    @property
    def levels(self) -> int:
        """Number C of levels above 0."""
        return len(self.parents)

    @property
    def is_chain(self) -> bool:
        """Whether every level deepens the one before it."""
        return self.parents == tuple(range(len(self.parents)))

    @cached_property
    def paths(self) -> Tensor:
        """1 where level j + 1 lies on the way from the root to level k + 1, itself included. Shape (C, C), float32."""
        found = torch.eye(self.levels)
        for place, parent in enumerate(self.parents):
            if parent > 0:
                found[place] += found[parent - 1]
        return found

    @cached_property
    def reached(self) -> Tensor:
        """1 where a row of level l has reached level k + 1. Shape (C + 1, C), float32."""
        return torch.cat([torch.zeros(1, self.levels), self.paths])

    @cached_property
    def edges(self) -> Tensor:
        """Takes values of levels to their differences from the parents' (root: 0). Shape (C, C), float32."""
        found = torch.eye(self.levels)
        for place, parent in enumerate(self.parents):
            if parent > 0:
                found[place, parent - 1] = -1.0
        return found

    @cached_property
    def roots(self) -> Tensor:
        """Whether level k + 1 deepens level 0 itself. Shape (C,), bool."""
        return torch.tensor([parent == 0 for parent in self.parents])

    @cached_property
    def leaves(self) -> Tensor:
        """Whether nothing deepens level k + 1. Shape (C,), bool."""
        return torch.tensor([level not in self.parents for level in range(1, self.levels + 1)])

    def ignored_readings(self, *, nested: bool) -> Tensor:
        """How many readings of the loss let a row of level 0 stop short of level k + 1. Shape (C,), float32."""
        counted = self.paths if nested else self.paths[self.leaves]
        return counted.sum(0) * self.roots

    @cached_property
    def terms(self) -> Tensor:
        """Which log-probability reading c gives a row of level l.

        k - 1 stands for reaching level k, C + k - 1 for reaching its parent but not it. Shape (C, C + 1), int64.
        """
        found = torch.empty(self.levels, self.levels + 1, dtype=torch.int64)
        for aim in range(self.levels):
            path = self.paths[aim].nonzero()[:, 0].tolist()
            for level in range(self.levels + 1):
                short = [step for step in path if self.reached[level, step] == 0]
                found[aim, level] = self.levels + short[0] if short else aim
        return found


def nested_ordinal_loss(
    logits: Tensor, levels: Tensor, tree: LevelTree | None = None, *, nested: bool = True
) -> Tensor:
    """Negative log-likelihood of the levels, summed over C ever finer readings of them.

    Reading c keeps the classes {0}, .., {c-1} and merges everything from c up; with P_k = sigmoid(logits[:, k-1]),
    a row of level l costs -log P_c in it if l >= c, else -log(P_l - P_{l+1}), where P_0 = 1. So shallow logits
    learn from every reading and deep ones only from those that see them. C = 1 is binary cross-entropy. In a tree,
    reading c follows the way to level c and merges what branches off into the level where it does.

    Args:
        logits: z_1..z_C of each row, each below its parent's. Shape (B, C), float.
        levels: Deepest level reached, 0..C. Shape (B,), int64.
        tree: None is a chain.
        nested: False keeps the finest readings only, those of the leaves: the likelihood of ordinal regression.

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
    known = LevelTree.chain(logits.shape[-1]) if tree is None else tree
    _check_rows(logits, levels, known)
    terms = torch.cat([logsigmoid(logits), _stop_log_probabilities(logits, known)], dim=1)
    table = known.terms if nested else known.terms[known.leaves]
    return -terms.gather(1, table.to(levels.device).T[levels]).sum(1)


def _stop_log_probabilities(logits: Tensor, tree: LevelTree) -> Tensor:
    """log(P of the parent - P of the level) for each level. Shape (B, C)."""
    columns = []
    for place, parent in enumerate(tree.parents):
        own = logits[:, place]
        columns.append(
            logsigmoid(-own) if parent == 0 else log_sigmoid_difference(logits[:, parent - 1], own)
        )
    return torch.stack(columns, dim=1)


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


def thresholds_from_counts(
    counts: Tensor, tree: LevelTree | None = None, *, extra_ignored: float = 0.0
) -> Tensor:
    """Thresholds a_k = -logit P(level k is reached) of a log, each above its parent's whatever the counts.

    Half a row is added to each level, so that one never seen still has a finite threshold, and neighbours are kept
    at least `LEAST_GAP` apart.

    Args:
        counts: Rows of each level 0..C. Shape (C + 1,).
        tree: None is a chain.
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
    known = LevelTree.chain(len(counts) - 1) if tree is None else tree
    rows = counts.to(torch.float64) + 0.5
    rows[0] += extra_ignored * float(counts.sum())
    reached = rows @ known.reached.double()
    raw = (torch.log(rows.sum() - reached) - torch.log(reached)).tolist()
    found: list[float] = []
    for value, parent in zip(raw, known.parents, strict=True):
        found.append(value if parent == 0 else max(value, found[parent - 1] + LEAST_GAP))
    return torch.tensor(found, dtype=torch.float64).float()


def smoothed_logits(counts: Tensor, rates: Tensor, prior_rows: float, tree: LevelTree) -> Tensor:
    """Each row's own logit P(level k is reached), drawn towards `rates` by `prior_rows` rows of them.

    Args:
        counts: Rows of each level. Shape (..., C + 1).
        rates: P(level k is reached) of the whole log, inside 0..1. Shape (C,).
        prior_rows: Strength of the prior, above 0.
        tree: Says what a row of each level has reached.

    Returns:
        Shape (..., C); finite.
    """
    membership = tree.reached.to(counts)
    reached = counts @ membership + prior_rows * rates
    # Counted rather than taken as the rest: the rest of many rows that all reached a level may round to nothing.
    missed = counts @ (1.0 - membership) + prior_rows * (1.0 - rates)
    return torch.log(reached / missed)


def _check_rows(logits: Tensor, levels: Tensor, tree: LevelTree) -> None:
    if logits.ndim != 2 or logits.shape[1] != tree.levels or levels.shape != logits.shape[:1]:
        raise ShapeError(
            f"`logits` and `levels` must have shapes (B, {tree.levels}) and (B,); got {tuple(logits.shape)} and "
            f"{tuple(levels.shape)}. Give one logit for each level above 0."
        )
    bad = (levels < 0) | (levels > logits.shape[1])
    if bool(bad.any()):
        raise OrdinalError(
            f"`levels` must lie in 0..{logits.shape[1]}; got {levels[bad][:3].tolist()}. "
            "Give as many logits as there are levels above 0."
        )
    for place, parent in enumerate(tree.parents):
        if parent == 0:
            continue
        flat = logits[:, parent - 1] <= logits[:, place]
        if bool(flat.any()):
            raise OrdinalError(
                f"`logits` must strictly decrease along each row; got {logits[flat][0].tolist()} in row "
                f"{int(flat.nonzero()[0])}. Keep each step between levels below the gap of their thresholds."
            )
