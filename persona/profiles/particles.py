"""Training users as particles: a new user is believed to be like some of those already known.

The prior puts equal mass on the weight vectors of the training users (and on their opposites, where that foretells
held-out users better), and the belief about a new user is Bayes' rule over them: no Gaussian is assumed, and nothing
is optimised for a new user. A latent is where the belief's mean lies along the leading directions of the particles.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from persona.artefacts import load_artefact, save_artefact
from persona.errors import DataError, ShapeError
from persona.profiles.kinds import belief_over_kinds, gaussian_belief
from persona.types import Posterior, ReplyPairs

KIND = "particles"
_FLOOR = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Particles:
    """Users who could be the new one.

    Attributes:
        weights: What each particle's user wants, in logits a unit of feature. Shape (S, D), float32.
        places: Where each particle lies in the latent space; their mean is zero. Shape (S, Z), float32.
    """

    weights: Tensor
    places: Tensor

    @classmethod
    def of_users(cls, weights: Tensor, *, latent_dim: int, is_symmetric: bool) -> "Particles":
        """Particles from the weights (U, D) of known users.

        Args:
            weights: One row a user, at least two.
            latent_dim: Leading directions kept for the latent; fewer where the users span fewer.
            is_symmetric: Add everybody's opposite.

        Raises:
            DataError: Fewer than two users, or none of them wants anything.
        """
        if len(weights) < 2:
            raise DataError(f"`weights` must hold at least 2 users; got {len(weights)}. Collect more users.")
        points = torch.cat([weights, -weights]) if is_symmetric else weights
        centred = (points - points.mean(0)).double()
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(points))
        # What is left of no spread at all is rounding.
        kept = min(latent_dim, int((values > _FLOOR * values[-1].clamp_min(_FLOOR)).sum()))
        if kept == 0:
            raise DataError(
                f"`weights` must differ between users; got {len(weights)} equal rows. Collect more users."
            )
        values, vectors = values[-kept:].flip(0), vectors[:, -kept:].flip(1)
        return cls(points, (centred @ vectors * values.rsqrt()).float())

    @property
    def latent_dim(self) -> int:
        """Size of a user's latent Z."""
        return self.places.shape[1]

    def lift(self, features: Tensor) -> Tensor:
        """The features as they are: this profile learns none of its own."""
        return features

    def encode(self, pairs: ReplyPairs) -> Posterior:
        """Belief about each user: moments over the latent, and `weights` (B, S) over the particles.

        Costs O(P S D) a user.

        Raises:
            ShapeError: The pairs have another number of features.
        """
        prior = self.weights.new_full((len(self.weights),), -float(np.log(len(self.weights))))
        belief = belief_over_kinds(lambda part: logsigmoid(self._odds(part)), prior, pairs)
        return gaussian_belief(belief, self.places, belief)

    def belief_at(self, latent: Tensor) -> Posterior:
        """The belief of whom nothing but a latent is known: particles near it, by a Gaussian of their usual spacing.

        Args:
            latent: Shape (B, Z).

        Returns:
            As `encode`.
        """
        distinct = self.places.unique(dim=0)
        spacing = torch.cdist(distinct, distinct).fill_diagonal_(torch.inf).amin(1).median()
        near = -0.5 * (torch.cdist(latent, self.places) / spacing) ** 2
        belief = near.softmax(1)
        return gaussian_belief(belief, self.places, belief)

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
        """Probability that each user prefers the first reply, averaged over the particles. Shape (B, T).

        Raises:
            ShapeError: The belief is another profile's.
        """
        belief = posterior.weights
        if belief is None or belief.shape[1] != len(self.weights):
            raise ShapeError(
                f"`posterior` must have weights over {len(self.weights)} particles; got "
                f"{None if belief is None else tuple(belief.shape)}. Take it from this profile's `encode`."
            )
        return torch.einsum("bts,bs->bt", torch.sigmoid(self._odds(asked)), belief)

    def save(self, folder: Path, name: str = "particles") -> None:
        """Write `name`.safetensors and `name`.json into `folder`."""
        tensors = {"weights": self.weights, "places": self.places}
        save_artefact(folder, name, kind=KIND, tensors=tensors, facts={})

    @classmethod
    def load(cls, folder: Path, name: str = "particles") -> "Particles":
        """The profile that `save` wrote.

        Raises:
            DataError: The files are missing or damaged.
        """
        return cls(**load_artefact(folder, name, kind=KIND)[0])

    def _odds(self, pairs: ReplyPairs) -> Tensor:
        if pairs.chosen.shape[-1] != self.weights.shape[1]:
            raise ShapeError(
                f"`pairs` must have {self.weights.shape[1]} features, as the particles have; got "
                f"{pairs.chosen.shape[-1]}. Use the same featurizer."
            )
        return pairs.difference @ self.weights.T
