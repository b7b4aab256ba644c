"""How users like replies to be worded, as their own choices between replies tell.

A log of items is silent about wording, and choices between replies are silent about items: the two make one simulated
user (`simulators.users.mirror.MirrorUsers`). The weights are hierarchical Bayes over the measured attributes
(`persona.profiles.hierarchical_bayes`), so a user of whom little is known stays near the others.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from persona.data.comparisons import ComparisonTable, context_pairs
from persona.profiles.hierarchical_bayes import fit_hierarchical_bayes
from persona.rewards.attributes import ATTRIBUTES, AttributeScale
from simulators.errors import MirrorError
from simulators.mirror.beliefs import Gaussians


@dataclass(frozen=True, eq=False)
class Manners:
    """What is believed of each user's taste in wording.

    Attributes:
        weights: Log-odds of preferring a reply for each deviation of an attribute, a row a user of the population.
            Shapes (U, A), (U, A, A).
        scale: Standardises attributes as the weights expect them.
    """

    weights: Gaussians
    scale: AttributeScale

    @classmethod
    def fit(
        cls,
        table: ComparisonTable,
        attributes: NDArray[np.float64],
        scale: AttributeScale,
        *,
        n_users: int,
        seed: int,
    ) -> "Manners":
        """From choices between replies; a user without any has the population's Gaussian.

        Args:
            table: The choices. Its replies are rows of `attributes`, its users rows of the population.
            attributes: Standardised attributes of the replies. Shape (N, A).
            scale: How they were standardised.
            n_users: Users U of the population.
            seed: Of the fit's held-out users.

        Raises:
            MirrorError: `attributes` has other columns than `ATTRIBUTES`, or a user lies outside the population.
        """
        if attributes.ndim != 2 or attributes.shape[1] != len(ATTRIBUTES):
            raise MirrorError(
                f"`attributes` must have a column for each of {', '.join(ATTRIBUTES)}; got shape {attributes.shape}. "
                "Measure them with `measure_attributes` and standardise them."
            )
        if len(table.users) and table.users.max() >= n_users:
            raise MirrorError(
                f"Users of the choices must be rows of the population, 0..{n_users - 1}; got {table.users.max()}. "
                "Number them as the population does."
            )
        measured = torch.from_numpy(attributes).float()
        model = fit_hierarchical_bayes(table, measured, seed=seed)
        with torch.inference_mode():
            belief = model.encode(context_pairs(table, measured, np.arange(n_users)))
            mean = (model.mean + belief.mean).double().numpy()
        return cls(Gaussians(mean, belief.covariance.double().numpy()), scale)

    @property
    def spread(self) -> float:
        """Standard deviation of a typical reply's worth over users: the root of the mean squared weight, summed."""
        return float(np.sqrt((self.weights.mean**2).sum(1).mean())) or 1.0

    def contributions(self, weights: NDArray[np.float64], attributes: ArrayLike) -> NDArray[np.float64]:
        """What each attribute of a reply adds to its worth, in units of `spread`. Shape (B, A).

        Args:
            weights: Of B users, as drawn from the beliefs. Shape (B, A).
            attributes: Standardised attributes of the replies. Shape (B, A).
        """
        return np.asarray(weights * np.asarray(attributes, np.float64) / self.spread)
