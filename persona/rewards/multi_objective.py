"""A reward for each named objective, predicted from features of a reply: linear heads, fitted in closed form.

Ratings of several data sets are joined as published: each scale is mapped to 0..100, and a reply has only the
ratings of its own data set, the others are NaN. Heads are trained on standardised ratings, so that one unit of
every score is one standard deviation of that rating.

Source: Wang et al. (2024), "Arithmetic Control of LLMs for Diverse User Preferences: Directional Preference Alignment
with Multi-Objective Rewards", arXiv 2402.18571, section 3.1; Wang et al. (2024), "Interpretable Preferences via
Multi-Objective Reward Modeling and Mixture-of-Experts", arXiv 2406.12845, for frozen features and for taking length
out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from persona.artefacts import load_artefact, save_artefact
from persona.errors import DataError, ShapeError

Values = NDArray[np.float64]

PENALTIES = (0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0)
BISECTIONS = 40
LARGEST_MULTIPLE = 16.0


@dataclass(frozen=True, slots=True, eq=False)
class MultiObjectiveReward:
    """One linear head for each named objective.

    Attributes:
        names: The A objectives.
        weight: Standardised rating for one unit of each feature. Shape (D, A), float32.
        bias: Shape (A,), float32.
        label_mean: Mean of the training ratings, 0..100. Shape (A,), float32.
        label_std: Their standard deviation, positive. Shape (A,), float32.
    """

    names: tuple[str, ...]
    weight: Tensor
    bias: Tensor
    label_mean: Tensor
    label_std: Tensor

    def __post_init__(self) -> None:
        """Check that there is a head for each name.

        Raises:
            ShapeError: There is not.
        """
        count = len(self.names)
        shapes = [tuple(part.shape) for part in (self.bias, self.label_mean, self.label_std)]
        if self.weight.ndim != 2 or self.weight.shape[1] != count or set(shapes) != {(count,)}:
            raise ShapeError(
                f"`weight` must have shape (D, {count}), the other parts ({count},), one head for each name; "
                f"got {tuple(self.weight.shape)} and {shapes}. Name every objective once."
            )

    def score(self, features: Tensor) -> Tensor:
        """Standardised scores of replies; features (..., D) of any float type to (..., A), float32.

        Raises:
            ShapeError: There is another number of features.
        """
        if features.shape[-1:] != self.weight.shape[:1]:
            raise ShapeError(
                f"`features` must have {len(self.weight)} columns, as the heads were fitted with; got shape "
                f"{tuple(features.shape)}. Use the same featurizer."
            )
        return features.to(self.weight.dtype) @ self.weight + self.bias

    def rate(self, features: Tensor) -> Tensor:
        """Predicted ratings on the common scale of 0..100, not cut at its ends; (..., D) to (..., A)."""
        return self.score(features) * self.label_std + self.label_mean

    def without(self, name: str, multiples: Tensor) -> "MultiObjectiveReward":
        """The same heads, less `multiples` (A,) times the score of objective `name`; still linear.

        Raises:
            DataError: There is no such objective.
        """
        if name not in self.names:
            raise DataError(f"`name` must be one of {', '.join(self.names)}; got `{name}`. Correct the name.")
        column = self.names.index(name)
        return replace(
            self,
            weight=self.weight - self.weight[:, [column]] * multiples,
            bias=self.bias - self.bias[column] * multiples,
        )

    def freed_from(self, name: str, features: Tensor, *, limit: float = 0.03) -> "MultiObjectiveReward":
        """The same heads, all but `name` without what they share with it, such as verbosity.

        Args:
            name: The objective that stands for length; its own head stays.
            features: Of reference replies. Shape (N, D), float.
            limit: Largest rank correlation with it that may remain among these replies, see
                `length_multiples`.

        Raises:
            DataError: There is no such objective, or another one says the same.
        """
        if name not in self.names:
            raise DataError(f"`name` must be one of {', '.join(self.names)}; got `{name}`. Correct the name.")
        scores, column = self.score(features), self.names.index(name)
        others = [place for place in range(len(self.names)) if place != column]
        multiples = torch.zeros_like(self.bias)
        multiples[others] = length_multiples(scores[:, others], scores[:, column], limit=limit).to(multiples)
        return self.without(name, multiples)

    def save(self, folder: Path, name: str = "multi_objective") -> None:
        """Write `name`.safetensors and `name`.json into `folder`."""
        parts = ("weight", "bias", "label_mean", "label_std")
        tensors = {part: getattr(self, part) for part in parts}
        facts = {"names": list(self.names)}
        save_artefact(folder, name, kind="multi-objective reward", tensors=tensors, facts=facts)

    @classmethod
    def load(cls, folder: Path, name: str = "multi_objective") -> "MultiObjectiveReward":
        """The heads that `save` wrote.

        Raises:
            DataError: The files are missing or damaged.
        """
        tensors, facts = load_artefact(folder, name, kind="multi-objective reward")
        return cls(tuple(facts["names"]), **tensors)


def rating_to_hundred(rating: Tensor, *, lowest: int, highest: int) -> Tensor:
    """Whole-number ratings as the middles of equal parts of 0..100: 0..4 becomes 10, 30, 50, 70, 90, as published.

    Args:
        rating: NaN where missing. Any shape, float.
        lowest: Worst rating of the scale.
        highest: Best rating.

    Raises:
        DataError: A rating outside the scale, or a scale without two points.

    Example:
        >>> rating_to_hundred(torch.tensor([1.0, 5.0]), lowest=1, highest=5)
        tensor([10., 90.])
    """
    outside = rating[(rating < lowest) | (rating > highest)]
    if highest <= lowest or len(outside):
        raise DataError(
            f"Ratings must lie in `lowest`..`highest` with two points at least; got {lowest}..{highest} and "
            f"{len(outside)} ratings outside, such as {outside[:3].tolist()}. Pass the scale of this data set."
        )
    return 100.0 * (rating - lowest + 0.5) / (highest - lowest + 1)


def fit_multi_objective(
    features: Tensor,
    labels: Tensor,
    prompt_of: Tensor,
    *,
    names: Sequence[str],
    seed: int,
    penalties: Sequence[float] = PENALTIES,
    folds: int = 5,
) -> MultiObjectiveReward:
    """Ridge regression for each objective on the replies that have its label.

    Each objective takes the penalty under which held-out prompts are predicted best; prompts are dealt into
    folds whole. Costs one eigendecomposition (D, D) for each fold and each pattern of missing labels.

    Args:
        features: Shape (N, D), float.
        labels: Ratings on 0..100, NaN where missing. Shape (N, A), float.
        prompt_of: Prompt of each reply. Shape (N,), int64.
        names: The A objectives.
        seed: Deals prompts into folds.
        penalties: Candidates, positive, in units of one reply with features of unit size.
        folds: Parts of the prompts, each held out once.

    Raises:
        ShapeError: The shapes do not fit one another.
        DataError: An objective with fewer than two different labels, fewer prompts than folds, or a penalty
            that is not positive.
    """
    _check_labels(features, labels, prompt_of, names)
    if not penalties or min(penalties) <= 0:
        raise DataError(
            f"`penalties` must be positive, at least one; got {list(penalties)}. Use {PENALTIES}."
        )
    _, group = prompt_of.unique(return_inverse=True)
    prompts = int(group.max()) + 1
    if not 2 <= folds <= prompts:
        raise DataError(
            f"`folds` must be at least 2 and at most the number of prompts ({prompts}); got {folds}. Lower it, "
            "or rate replies to more prompts."
        )
    dealt = torch.from_numpy(np.random.default_rng(seed).permutation(prompts) % folds)
    fold = dealt.to(group.device)[group]
    x = features.double()
    known = ~labels.isnan()
    mean, std = _standards(labels.double(), known)
    target = (labels.double() - mean) / std
    weight, bias = x.new_zeros(x.shape[1], len(names)), x.new_zeros(len(names))
    patterns, pattern_of = known.unique(dim=1, return_inverse=True)
    for pattern in range(patterns.shape[1]):
        columns = (pattern_of == pattern).nonzero()[:, 0]
        rows = patterns[:, pattern]
        part, wanted = x[rows], target[rows][:, columns]
        error = torch.stack(
            [_held_out_errors(part, wanted, fold[rows] == held, penalties) for held in range(folds)]
        ).sum(0)
        candidates, offsets = _ridge(part, wanted, penalties)
        best, place = error.argmin(0), torch.arange(len(columns), device=x.device)
        weight[:, columns] = candidates[best, :, place].T
        bias[columns] = offsets[best, place]
    return MultiObjectiveReward(tuple(names), weight.float(), bias.float(), mean.float(), std.float())


def explained_variance(predicted: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, float]:
    """R2 of each objective over the replies that have its label.

    Args:
        predicted: In the units of the labels. Shape (N, A), float.
        labels: NaN where missing. Shape (N, A), float.
        names: The A objectives.

    Returns:
        1 is perfect, 0 is no better than the mean of these labels; NaN where the labels do not vary.

    Raises:
        ShapeError: The shapes do not fit one another.
    """
    if predicted.shape != labels.shape or predicted.shape[1:] != (len(names),):
        raise ShapeError(
            f"`predicted` and `labels` must have shape (N, {len(names)}); got {tuple(predicted.shape)} and "
            f"{tuple(labels.shape)}. Predict one column for each name."
        )
    truth = labels.double()
    residual = (predicted.double() - truth).square().nansum(0)
    total = (truth - truth.nanmean(0)).square().nansum(0)
    share = torch.where(total > 0, 1 - residual / total, torch.nan)
    return dict(zip(names, share.tolist(), strict=True))


def length_multiples(scores: Tensor, length: Tensor, *, limit: float = 0.03) -> Tensor:
    """How much of the length score to take from each objective so that it no longer says who is longer.

    The rank correlation of score - c length with length only falls as c rises, for each pair of replies
    changes sides once; so the smallest c in size that brings it within `limit` is found by halving.

    Args:
        scores: Scores of reference replies. Shape (N, A), float.
        length: Their score for length, in like units. Shape (N,), float.
        limit: Largest rank correlation that may remain, in size; at least 0.01.

    Returns:
        Shape (A,), float32; 0 where the correlation is small as it is.

    Raises:
        ShapeError: There is not one length for each row.
        DataError: `limit` is too small, or an objective is the length itself.

    Source: Wang et al. (2024), arXiv 2406.12845, section 3.2, who try a list of multiples.
    """
    if scores.ndim != 2 or length.shape != scores.shape[:1]:
        raise ShapeError(
            "`scores` must have shape (N, A) and `length` (N,); got "
            f"{tuple(scores.shape)} and {tuple(length.shape)}. Score the length of the same replies."
        )
    if limit < 0.01:
        raise DataError(f"`limit` must be at least 0.01; got {limit}. Use 0.03.")
    values, ruler = scores.double().cpu().numpy(), length.double().cpu().numpy()
    start = _rank_correlation(values, ruler)
    sign = np.sign(start)
    low, high = np.zeros(values.shape[1]), np.full(values.shape[1], LARGEST_MULTIPLE)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        left = sign * _rank_correlation(values - sign * middle * ruler[:, None], ruler) > limit
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    multiples = np.where(np.abs(start) > limit, sign * high, 0.0)
    freed = values - multiples * ruler[:, None]
    remaining = np.abs(_rank_correlation(freed, ruler))
    stuck = (remaining > limit) | (freed.std(0) < 1e-3 * values.std(0))
    if stuck.any():
        raise DataError(
            f"Without their length, objectives must still vary, with a rank correlation of at most {limit}; got "
            f"{remaining.max():.2f} or no variation in columns {np.flatnonzero(stuck)[:3].tolist()}. Leave out "
            "objectives that are the length itself, or score more replies."
        )
    return torch.from_numpy(multiples).float()


def _rank_correlation(values: Values, ruler: Values) -> Values:
    """Spearman's correlation of each column (N, A) with `ruler` (N,); 0 for a constant column."""
    ranks, own = rankdata(values, axis=0), rankdata(ruler)
    ranks, own = ranks - ranks.mean(0), own - own.mean()
    size = np.sqrt((ranks**2).sum(0) * (own**2).sum())
    shares: Values = np.divide(own @ ranks, size, out=np.zeros(ranks.shape[1]), where=size > 0)
    return shares


def _standards(labels: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    count = known.sum(0)
    mean = labels.nansum(0) / count
    return mean, ((labels - mean).square().nansum(0) / count).sqrt()


def _check_labels(features: Tensor, labels: Tensor, prompt_of: Tensor, names: Sequence[str]) -> None:
    rows = len(features)
    if features.ndim != 2 or labels.shape != (rows, len(names)) or prompt_of.shape != (rows,):
        raise ShapeError(
            f"`features` must have shape (N, D), `labels` (N, {len(names)}) and `prompt_of` (N,); got "
            f"{tuple(features.shape)}, {tuple(labels.shape)} and {tuple(prompt_of.shape)}. Use NaN for missing "
            "labels."
        )
    known = ~labels.isnan()
    spread = torch.where(known, labels, -torch.inf).amax(0) - torch.where(known, labels, torch.inf).amin(0)
    if flat := [name for name, wide in zip(names, (spread > 0).tolist(), strict=True) if not wide][:3]:
        raise DataError(
            f"Every objective must have at least two different labels; got fewer for {', '.join(flat)}. Leave "
            "it out, or rate more replies."
        )


def _ridge(x: Tensor, y: Tensor, penalties: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Weights (L, D, A) and intercepts (L, A) under each of L penalties."""
    centre, mean = x.mean(0), y.mean(0)
    values, vectors = torch.linalg.eigh((x - centre).T @ (x - centre))
    turned = vectors.T @ ((x - centre).T @ (y - mean))
    strength = torch.as_tensor(penalties, dtype=x.dtype, device=x.device)[:, None, None]
    weight = vectors @ (turned / (values.clamp_min(0)[:, None] + strength))
    return weight, mean - centre @ weight


def _held_out_errors(x: Tensor, y: Tensor, held: Tensor, penalties: Sequence[float]) -> Tensor:
    """Summed squared error on the held-out rows, under each penalty. Shape (L, A)."""
    if not held.any() or held.all():
        return x.new_zeros(len(penalties), y.shape[1])
    weight, bias = _ridge(x[~held], y[~held], penalties)
    return (x[held] @ weight + bias[:, None] - y[held]).square().sum(1)
