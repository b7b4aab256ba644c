"""Prompts that each ask for one objective most, and on which replies do badly at just that one.

A prompt has a topic, one for each objective, seen through mixed and noisy features. On topic t objective t
decides most, and all replies score low on it: a harmful request gets replies that are all rather harmful, and
which of them is less so is what counts. Users tilt the weights in log space and choose by Bradley-Terry.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.data.comparisons import ComparisonTable

REPLIES = 4
PROMPT_DIM = 8


@dataclass(frozen=True)
class OrchestratedWorld:
    """Comparisons with scores for learners, and the truth for judges.

    Attributes:
        table: Comparisons of all users.
        features: Objective scores, then prompt features. Shape (N, K + 8).
        topics: The objective that each prompt asks for. Shape (prompts,).
        prompt_features: Shape (prompts, 8).
        tilts: Users' true log-weights, rows sum to zero. Shape (U, K).
        advantage: True utility of the chosen reply minus that of the rejected one. Shape (M,).
    """

    table: ComparisonTable
    features: Tensor
    topics: NDArray[np.int64]
    prompt_features: Tensor
    tilts: NDArray[np.float64]
    advantage: NDArray[np.float64]


def make_orchestrated_world(
    *,
    objectives: int = 3,
    users: int = 80,
    comparisons: int = 40,
    prompts: int = 300,
    spread: float = 1.0,
    scale: float = 3.0,
    focus: float = 2.0,
    seed: int = 0,
) -> OrchestratedWorld:
    """Draw a world; `focus` is the log-weight that a prompt adds to its own objective."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(objectives, size=prompts)
    told = np.eye(objectives)[topics]
    prompt_features = told @ rng.normal(size=(objectives, PROMPT_DIM)) + 0.2 * rng.normal(
        size=(prompts, PROMPT_DIM)
    )
    owner = np.repeat(np.arange(prompts), REPLIES)
    scores = rng.normal(size=(prompts * REPLIES, objectives)) - 2.0 * told[owner]
    tilts = spread * rng.normal(size=(users, objectives))
    tilts -= tilts.mean(1, keepdims=True)
    who, prompt = np.repeat(np.arange(users), comparisons), rng.integers(prompts, size=users * comparisons)
    first = rng.integers(REPLIES, size=len(who))
    second = prompt * REPLIES + (first + rng.integers(1, REPLIES, size=len(who))) % REPLIES
    first = prompt * REPLIES + first
    weights = np.exp(focus * told[prompt] + tilts[who])
    weights /= weights.sum(1, keepdims=True)
    advantage = scale * (weights * (scores[first] - scores[second])).sum(1)
    keeps = rng.random(len(who)) < 1.0 / (1.0 + np.exp(-advantage))
    table = ComparisonTable(who, prompt, np.where(keeps, first, second), np.where(keeps, second, first))
    features = np.concatenate([scores, prompt_features[owner]], axis=1)
    return OrchestratedWorld(
        table,
        torch.from_numpy(features).float(),
        topics,
        torch.from_numpy(prompt_features).float(),
        tilts,
        np.where(keeps, advantage, -advantage),
    )
