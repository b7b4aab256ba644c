"""Particles from training users: see `persona.profiles.particles`."""

import numpy as np
import torch
from torch import Tensor

from persona.data.comparisons import ComparisonTable, context_pairs
from persona.data.splits import hold_out_users
from persona.errors import DataError
from persona.profiles.hierarchical_bayes import USERS_PER_BLOCK, HierarchicalBayes, fit_hierarchical_bayes
from persona.profiles.particles import Particles
from persona.recipes.held_out import held_out_surprise

_HELD_OUT = 0.25
_MAX_CONTEXT = 16


def fit_particles(
    table: ComparisonTable, features: Tensor, *, seed: int, latent_dim: int = 8, iterations: int = 30
) -> Particles:
    """Particles at the training users' posterior means under hierarchical Bayes.

    Whether opposites are added is what makes held-out users' choices likelier, each read from a random context.

    Args:
        table: Comparisons of training users.
        features: Features of every reply. Shape (N, D), float32.
        seed: Draws the held-out users.
        latent_dim: Size of the latent, at most.
        iterations: EM steps of hierarchical Bayes.

    Raises:
        DataError: Fewer than four users.
    """
    if len(table.user_ids) < 4:
        raise DataError(
            f"Comparisons must come from at least 4 users; got {len(table.user_ids)}. Collect comparisons of more "
            "users."
        )
    stay, held_out = hold_out_users(table, _HELD_OUT, np.random.default_rng(seed))
    model = fit_hierarchical_bayes(table, features, seed=seed, iterations=iterations)
    known = _user_weights(model, table.select(np.isin(table.users, stay)), features)
    judged = table.select(np.isin(table.users, held_out))

    def surprise(is_symmetric: bool) -> float:
        particles = Particles.of_users(known, latent_dim=latent_dim, is_symmetric=is_symmetric)
        return held_out_surprise(particles, judged, features, max_context=_MAX_CONTEXT, seed=seed)

    everyone = _user_weights(model, table, features)
    return Particles.of_users(everyone, latent_dim=latent_dim, is_symmetric=surprise(True) <= surprise(False))


def _user_weights(model: HierarchicalBayes, table: ComparisonTable, features: Tensor) -> Tensor:
    users = table.user_ids
    blocks = (users[start : start + USERS_PER_BLOCK] for start in range(0, len(users), USERS_PER_BLOCK))
    with torch.no_grad():
        return torch.cat(
            [model.encode(context_pairs(table, features, block)).mean + model.mean for block in blocks]
        )
