"""Per-user logistic regression: every user by themselves, shrunk towards no preference at all.

Nothing is learned from other users but how strongly to shrink: the variance of the isotropic prior under which the
choices of held-out users are likeliest. It shows what a population adds.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from persona.data.comparisons import ComparisonTable, gather_pairs, sample_episodes
from persona.data.splits import hold_out_users
from persona.errors import DataError
from persona.profiles.hierarchical_bayes import HierarchicalBayes

VARIANCES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
_HELD_OUT = 0.3
_MAX_CONTEXT = 16
_REPEATS = 4


@torch.no_grad()
def fit_logistic(
    table: ComparisonTable, features: Tensor, *, seed: int, variances: Sequence[float] = VARIANCES
) -> HierarchicalBayes:
    """Independent users with weights from N(0, variance I), as hierarchical Bayes with that population.

    Args:
        table: Comparisons of training users, at least two of them.
        features: Features of every reply. Shape (N, D), float32.
        seed: Draws the users, contexts and targets that choose the variance.
        variances: Candidates, positive.

    Raises:
        DataError: No variance, one that is not positive, or fewer than two users.
    """
    if not variances or min(variances) <= 0:
        raise DataError(
            f"`variances` must be positive, at least one; got {list(variances)}. Use {list(VARIANCES)}."
        )
    rng = np.random.default_rng(seed)
    _, users = hold_out_users(table, _HELD_OUT, rng)
    repeated = np.tile(users, _REPEATS)
    episodes = sample_episodes(table, repeated, max_context=_MAX_CONTEXT, max_targets=_MAX_CONTEXT, rng=rng)
    context = gather_pairs(table, features, episodes.context)
    target = gather_pairs(table, features, episodes.target)
    losses = []
    for variance in variances:
        model = _isotropic(variance, features)
        likelihood = model.predict(model.encode(context), target)[target.mask]
        losses.append(-float(likelihood.clamp_min(1e-12).log().mean()))
    return _isotropic(variances[int(np.argmin(losses))], features)


def _isotropic(variance: float, features: Tensor) -> HierarchicalBayes:
    size = features.shape[1]
    return HierarchicalBayes(
        features.new_zeros(size), variance**0.5 * torch.eye(size).to(features.device, features.dtype)
    )
