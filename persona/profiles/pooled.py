"""The reward without users: one Bradley-Terry model for everybody, the zero point of all personal ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from persona.data.comparisons import ComparisonTable
from persona.data.splits import hold_out_users
from persona.errors import DataError, ShapeError
from persona.profiles.laplace import logistic_posterior
from persona.types import ContextPairs, Posterior

PENALTIES = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)


@dataclass(frozen=True, slots=True, eq=False)
class PooledReward:
    """A linear reward that is the same for all users; as a profile, its latent has no dimensions.

    Attributes:
        weights: Reward of one unit of each feature, in logits. Shape (D,), float32.
        l2: Penalty that held-out users chose, in nats for a squared weight of 2.
    """

    weights: Tensor
    l2: float

    @property
    def latent_dim(self) -> int:
        """Always 0."""
        return 0

    def lift(self, features: Tensor) -> Tensor:
        """The features as they are: this profile learns none of its own."""
        return features

    def encode(self, pairs: ContextPairs) -> Posterior:
        """The empty belief: mean (B, 0) and covariance (B, 0, 0), whatever the users chose."""
        rows = len(pairs.mask)
        return Posterior(pairs.difference.new_zeros(rows, 0), pairs.difference.new_zeros(rows, 0, 0))

    def predict(self, posterior: Posterior, difference: Tensor) -> Tensor:
        """Probability that the first reply is preferred, `difference` (B, T, D); shape (B, T)."""
        return torch.sigmoid(difference @ self.weights)


def fit_pooled(
    table: ComparisonTable,
    features: Tensor,
    *,
    seed: int,
    penalties: Sequence[float] = PENALTIES,
    held_out_share: float = 0.2,
) -> PooledReward:
    """Penalised maximum likelihood; the penalty is the one under which held-out users' choices are likeliest.

    Args:
        table: Comparisons of training users, at least two of them.
        features: Features of every reply. Shape (N, D), float32.
        seed: Draws the held-out users.
        penalties: Candidates, positive; the loss is NLL + l2/2 |weights|^2, with the NLL summed over
            comparisons.
        held_out_share: Share of users that choose the penalty; all users are used for the final weights.

    Raises:
        DataError: A penalty that is not positive, or fewer than two users.
    """
    if not penalties or min(penalties) <= 0:
        raise DataError(
            f"`penalties` must be positive, at least one; got {list(penalties)}. Use {list(PENALTIES)}."
        )
    stay, _ = hold_out_users(table, held_out_share, np.random.default_rng(seed))
    chosen, rejected = torch.from_numpy(table.chosen), torch.from_numpy(table.rejected)
    difference = features[chosen.to(features.device)] - features[rejected.to(features.device)]
    kept = torch.from_numpy(np.isin(table.users, stay)).to(features.device)
    losses = [
        float(-logsigmoid(difference[~kept] @ bradley_terry_weights(difference[kept], l2)).mean())
        for l2 in penalties
    ]
    best = penalties[int(np.argmin(losses))]
    return PooledReward(bradley_terry_weights(difference, best), best)


def bradley_terry_weights(difference: Tensor, l2: float) -> Tensor:
    """Weights w that minimise sum_i -log sigmoid(w . difference_i) + l2/2 |w|^2.

    Args:
        difference: Features of the chosen reply minus those of the rejected one. Shape (M, D), float.
        l2: Penalty, positive.

    Returns:
        Shape (D,), dtype of `difference`.

    Raises:
        ShapeError: `difference` is not two-dimensional.

    Source: Bradley & Terry (1952), "Rank Analysis of Incomplete Block Designs", Biometrika 39.
    """
    if difference.ndim != 2:
        raise ShapeError(
            f"`difference` must have shape (M, D); got {tuple(difference.shape)}. Pass one row for each "
            "comparison."
        )
    # A penalty of l2 is a normal prior of variance 1/l2: scaling the features makes it the standard one.
    scale = 1.0 / math.sqrt(l2)
    pairs = difference[None] * scale
    everything = torch.ones(pairs.shape[:2], dtype=torch.bool, device=pairs.device)
    return logistic_posterior(pairs, pairs.new_zeros(pairs.shape[:2]), everything).mean[0] * scale
