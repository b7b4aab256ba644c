"""A small world of users and replies with a known truth, for tests of everything that learns from
comparisons.

Replies have six hidden attributes, seen through noisy mixed features among features of pure noise. Users
weigh the
attributes: a common part, and an own part with five dimensions. They choose by Bradley-Terry.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.data.comparisons import ComparisonTable

ATTRIBUTES = 6
TASTE_DIMS = 5


@dataclass(frozen=True)
class PreferenceWorld:
    """Comparisons with features for learners, and the truth for judges.

    Attributes:
        table: Comparisons of all users, in random order of prompts.
        features: Standardised, shape (N, D).
        advantage: True utility of the chosen reply minus that of the rejected one. Shape (M,).
        attributes: Hidden attributes of the replies. Shape (N, 6).
    """

    table: ComparisonTable
    features: Tensor
    advantage: NDArray[np.float64]
    attributes: NDArray[np.float64]


def make_world(
    *,
    users: int = 450,
    comparisons: int = 40,
    prompts: int = 400,
    replies_per_prompt: int = 6,
    informative: int = 18,
    noise: int = 22,
    seed: int = 0,
) -> PreferenceWorld:
    """Draw a world; with the defaults the truth predicts about 88 % of the choices."""
    rng = np.random.default_rng(seed)
    replies = prompts * replies_per_prompt
    attributes = rng.normal(size=(replies, ATTRIBUTES))
    mixing = rng.normal(size=(ATTRIBUTES, informative)) / ATTRIBUTES**0.5
    seen = attributes @ mixing + 0.3 * rng.normal(size=(replies, informative))
    features = np.concatenate([seen, rng.normal(size=(replies, noise))], axis=1)
    features = (features - features.mean(0)) / features.std(0)
    common = rng.normal(size=ATTRIBUTES)
    common /= np.linalg.norm(common)
    basis, _ = np.linalg.qr(rng.normal(size=(ATTRIBUTES, TASTE_DIMS)))
    weights = 1.4 * common + 1.5 * rng.normal(size=(users, TASTE_DIMS)) @ basis.T
    who = np.repeat(np.arange(users), comparisons)
    prompt = rng.integers(prompts, size=len(who))
    first = rng.integers(replies_per_prompt, size=len(who))
    second = (first + rng.integers(1, replies_per_prompt, size=len(who))) % replies_per_prompt
    first, second = prompt * replies_per_prompt + first, prompt * replies_per_prompt + second
    advantage = np.einsum("ma,ma->m", attributes[first] - attributes[second], weights[who])
    keeps = rng.random(len(who)) < 1.0 / (1.0 + np.exp(-advantage))
    table = ComparisonTable(who, prompt, np.where(keeps, first, second), np.where(keeps, second, first))
    return PreferenceWorld(
        table, torch.from_numpy(features).float(), np.where(keeps, advantage, -advantage), attributes
    )
