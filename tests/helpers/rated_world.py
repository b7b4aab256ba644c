"""Replies rated 1 to 5 on four aspects that go together, and users who weigh the aspects: a truth to be recovered.

The marginals lean to the upper end and most aspects of a reply agree, as in published four-aspect ratings of
model answers; replies to one prompt often tie.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.data.comparisons import ComparisonTable

ASPECTS = ("instruction_following", "truthfulness", "honesty", "helpfulness")
SHARE_BELOW = (0.05, 0.15, 0.38, 0.72)
"""Share of replies rated below 2, 3, 4 and 5."""


@dataclass(frozen=True)
class RatedWorld:
    """Ratings for learners, and the truth for judges.

    Attributes:
        ratings: Whole numbers 1..5. Shape (N, 4), float32.
        prompt_of: Prompt of each reply. Shape (N,), int64.
        table: Comparisons of all users.
        weights: Each user's utility of one point of each rating, in logits. Shape (U, 4).
        advantage: True utility of the chosen reply minus that of the rejected one. Shape (M,).
    """

    ratings: Tensor
    prompt_of: Tensor
    table: ComparisonTable
    weights: NDArray[np.float64]
    advantage: NDArray[np.float64]


def rate_replies(
    *, prompts: int = 1000, replies: int = 4, correlation: float = 0.65, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Ratings (N, 4) and prompts (N,); `correlation` is that of the aspects before they are cut into points."""
    rng = np.random.default_rng(seed)
    count = prompts * replies
    prompt_of = np.repeat(np.arange(prompts), replies)
    hardness = 0.5 * rng.normal(size=(prompts, 1))[prompt_of]
    quality = rng.normal(size=(count, 1)) * correlation**0.5
    own = rng.normal(size=(count, len(ASPECTS))) * (1 - correlation) ** 0.5
    latent = hardness + quality + own
    cuts = np.quantile(latent, SHARE_BELOW)
    return torch.from_numpy(1.0 + np.searchsorted(cuts, latent)).float(), torch.from_numpy(prompt_of)


def make_rated_world(
    weights: NDArray[np.float64],
    ratings: Tensor,
    prompt_of: Tensor,
    *,
    comparisons: int,
    seed: int = 0,
) -> RatedWorld:
    """Users with the given weights (U, 4) choose between random replies to one prompt, by Bradley-Terry.

    Pairs that tie in every aspect are kept: the choice between them is a coin flip.
    """
    rng = np.random.default_rng((seed, 1))
    each = int(np.bincount(prompt_of.numpy())[0])
    who = np.repeat(np.arange(len(weights)), comparisons)
    prompt = rng.integers(len(ratings) // each, size=len(who))
    first = rng.integers(each, size=len(who))
    second = (first + rng.integers(1, each, size=len(who))) % each
    first, second = prompt * each + first, prompt * each + second
    values = ratings.double().numpy()
    advantage = np.einsum("ma,ma->m", values[first] - values[second], weights[who])
    keeps = rng.random(len(who)) < 1.0 / (1.0 + np.exp(-advantage))
    table = ComparisonTable(who, prompt, np.where(keeps, first, second), np.where(keeps, second, first))
    return RatedWorld(ratings, prompt_of, table, weights, np.where(keeps, advantage, -advantage))


def unit_vectors(count: int, seed: int, size: int = len(ASPECTS)) -> NDArray[np.float64]:
    """Directions even over the sphere. Shape (count, size)."""
    drawn = np.random.default_rng((seed, 2)).normal(size=(count, size))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
