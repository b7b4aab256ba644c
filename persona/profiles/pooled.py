"""The reward without users: one Bradley-Terry model for everybody, the zero point of all personal ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from persona.data.comparisons import ComparisonTable
from persona.errors import DataError, ShapeError
from persona.profiles.laplace import logistic_posterior
from persona.types import Posterior, ReplyPairs

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

    def encode(self, pairs: ReplyPairs) -> Posterior:
        """The empty belief: mean (B, 0) and covariance (B, 0, 0), whatever the users chose."""
        rows = len(pairs.mask)
        return Posterior(pairs.chosen.new_zeros(rows, 0), pairs.chosen.new_zeros(rows, 0, 0))

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
        """Probability that the first reply is preferred. Shape (B, T)."""
        return torch.sigmoid(asked.difference @ self.weights)


def fit_pooled(
    table: ComparisonTable,
    features: Tensor,
    *,
    seed: int,
    penalties: Sequence[float] = PENALTIES,
    folds: int = 5,
) -> PooledReward:
    """Penalised maximum likelihood; the penalty is the one under which held-out users' choices are likeliest.

    Args:
        table: Comparisons of training users, at least two of them.
        features: Features of every reply. Shape (N, D), float32.
        seed: Deals the users into folds.
        penalties: Candidates, positive; the loss is NLL + l2/2 |weights|^2, with the NLL summed over
            comparisons.
        folds: Parts of the users, each held out once; the final weights use all users.

    Raises:
        DataError: A penalty that is not positive, or fewer than two folds or users.
    """
    if not penalties or min(penalties) <= 0:
        raise DataError(
            f"`penalties` must be positive, at least one; got {list(penalties)}. Use {list(PENALTIES)}."
        )
    users = table.user_ids
    if min(folds, len(users)) < 2:
        raise DataError(
            f"`folds` and the number of users must be at least 2; got {folds} and {len(users)}. Collect "
            "comparisons of more users."
        )
    chosen, rejected = torch.from_numpy(table.chosen), torch.from_numpy(table.rejected)
    difference = features[chosen.to(features.device)] - features[rejected.to(features.device)]
    dealt = np.random.default_rng(seed).permutation(len(users)) % folds
    fold = torch.from_numpy(dealt[np.searchsorted(users, table.users)]).to(features.device)
    losses = [
        sum(_held_out_nats(difference, fold == part, l2) for part in range(min(folds, len(users))))
        for l2 in penalties
    ]
    best = penalties[int(np.argmin(losses))]
    return PooledReward(bradley_terry_weights(difference, best), best)


def _held_out_nats(difference: Tensor, held_out: Tensor, l2: float) -> float:
    weights = bradley_terry_weights(difference[~held_out], l2)
    return float(-logsigmoid(difference[held_out] @ weights).sum())


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
