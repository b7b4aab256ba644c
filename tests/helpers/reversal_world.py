"""Pairs whose preference turns around with the criterion, so that who is not told it can only guess.

Replies have hidden attributes, seen through mixed features with noise. A criterion is a direction over the
attributes, seen through features of its text: another mixture, with noise. Criteria of training are drawn;
unseen ones are sums of two of those. Each test pair is judged twice, by two unseen criteria that disagree.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.data.comparisons import ComparisonTable

ATTRIBUTES = 6
TEXT_DIM = 24


@dataclass(frozen=True)
class ReversalWorld:
    """Judged comparisons; the table's users are rows of `criteria`.

    Attributes:
        train: Judged by seen criteria, with Bradley-Terry noise, on replies of the first half.
        reversals: Each pair of replies of the second half twice in a row, judged by criteria that disagree.
        features: Shape (N, D).
        criteria: Text features, seen criteria first. Shape (Z, 24).
        directions: True directions. Shape (Z, 6).
        attributes: Shape (N, 6).
        seen: Number of seen criteria.
    """

    train: ComparisonTable
    reversals: ComparisonTable
    features: Tensor
    criteria: Tensor
    directions: NDArray[np.float64]
    attributes: NDArray[np.float64]
    seen: int


def make_reversal_world(
    *,
    seen: int = 40,
    unseen: int = 30,
    replies: int = 1200,
    pairs: int = 6000,
    tests: int = 1000,
    seed: int = 0,
) -> ReversalWorld:
    """Draw a world."""
    rng = np.random.default_rng(seed)
    attributes = rng.normal(size=(replies, ATTRIBUTES))
    features = attributes @ rng.normal(size=(ATTRIBUTES, 16)) / ATTRIBUTES**0.5
    features = np.concatenate(
        [features + 0.1 * rng.normal(size=features.shape), rng.normal(size=(replies, 8))], 1
    )
    directions = rng.normal(size=(seen, ATTRIBUTES))
    both = np.array([rng.choice(seen, size=2, replace=False) for _ in range(unseen)])
    directions = np.concatenate([directions, directions[both].sum(1)])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    text = directions @ rng.normal(size=(ATTRIBUTES, TEXT_DIM)) + 0.1 * rng.normal(
        size=(len(directions), TEXT_DIM)
    )
    half = replies // 2

    judge = rng.integers(seen, size=pairs)
    first = rng.integers(half, size=pairs)
    second = (first + rng.integers(1, half, size=pairs)) % half
    gain = np.einsum("ma,ma->m", attributes[first] - attributes[second], directions[judge])
    wins = rng.random(pairs) < 1.0 / (1.0 + np.exp(-4.0 * gain))
    train = ComparisonTable(judge, first, np.where(wins, first, second), np.where(wins, second, first))

    draws = 8 * tests
    one = half + rng.integers(half, size=draws)
    other = half + (one - half + rng.integers(1, half, size=draws)) % half
    judges = seen + rng.integers(unseen, size=(draws, 2))
    gains = np.einsum("ma,mja->mj", attributes[one] - attributes[other], directions[judges])
    # Replies that a criterion hardly tells apart are left to chance by any judge.
    rows = np.flatnonzero((gains[:, 0] > 0.5) & (gains[:, 1] < -0.5))[:tests]
    a, b = one[rows], other[rows]
    reversals = ComparisonTable(
        judges[rows].ravel(),
        np.repeat(a, 2),
        np.stack([a, b], axis=1).ravel(),
        np.stack([b, a], axis=1).ravel(),
    )
    return ReversalWorld(
        train,
        reversals,
        torch.from_numpy(features).float(),
        torch.from_numpy(text).float(),
        directions,
        attributes,
        seen,
    )
