"""What is chosen on held-out users is chosen by this one figure: how surprising their choices are."""

import numpy as np
import torch
from torch import Tensor

from persona.data.comparisons import ComparisonTable, gather_pairs, sample_episodes
from persona.profiles import Profile

REPEATS = 4
"""Episodes drawn for each held-out user."""


@torch.no_grad()
def held_out_surprise(
    profile: Profile, table: ComparisonTable, features: Tensor, *, max_context: int, seed: int
) -> float:
    """Mean negative log-probability of users' targets, each after a random context; the same at every call.

    Args:
        profile: What is judged.
        table: Comparisons of held-out users.
        features: Plain features of every reply. Shape (N, D).
        max_context: Largest context, in pairs; 0 judges the average user.
        seed: Draws contexts and targets; one seed gives the same episodes to every profile.

    Returns:
        Nats a target.
    """
    rng = np.random.default_rng((seed, 2))
    users = np.tile(table.user_ids, REPEATS)
    episodes = sample_episodes(table, users, max_context=max_context, max_targets=len(table), rng=rng)
    lifted = profile.lift(features)
    target = gather_pairs(table, lifted, episodes.target)
    posterior = profile.encode(gather_pairs(table, lifted, episodes.context))
    probability = profile.predict(posterior, target)[target.mask]
    return -probability.clamp_min(torch.finfo(probability.dtype).tiny).log().mean().item()
