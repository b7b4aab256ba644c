"""From evidence about a user to a condition: beliefs over latents, and directions set by hand.

Every profile learned from comparisons of features satisfies `Profile`: it turns a context into a belief and a belief
into predictions. Zero is always the average user. Two profiles read texts instead, through a language model:
`few_shot` (FSPO) and `user_tokens` (P-RLHF).
"""

from typing import Protocol

from torch import Tensor

from persona.profiles.amortised import AmortisedProfile
from persona.profiles.criteria import CriteriaProfile
from persona.profiles.direction import (
    combine_directions,
    decorrelation,
    direction_as_text,
    direction_from_sliders,
    direction_reward,
)
from persona.profiles.general_preference import GeneralPreferenceProfile, skew_products
from persona.profiles.hierarchical_bayes import (
    HierarchicalBayes,
    LengthRule,
    fit_hierarchical_bayes,
    fit_length_rule,
)
from persona.profiles.inferred_direction import DirectionBelief, InferredDirection, summarise_direction
from persona.profiles.laplace import logistic_posterior, predictive_probability, project_posterior
from persona.profiles.latent import LatentProfile
from persona.profiles.mixture_of_rewards import MixtureOfRewards
from persona.profiles.pal import IdealPoints, PalProfile, PromptCosines
from persona.profiles.particles import Particles
from persona.profiles.pooled import PooledReward, bradley_terry_weights, fit_pooled
from persona.profiles.prompt_weights import PromptWeights, describe_weights
from persona.profiles.simplex import mixing_weights, simplex_posterior
from persona.types import Posterior, ReplyPairs


class Profile(Protocol):
    """What every profile over comparisons offers."""

    @property
    def latent_dim(self) -> int:
        """Size Z of a user's latent."""
        ...

    def lift(self, features: Tensor) -> Tensor:
        """From plain features (..., D) to those that `encode` and `predict` take."""
        ...

    def encode(self, pairs: ReplyPairs) -> Posterior:
        """Belief about B users: mean (B, Z), zero for an empty context, and covariance (B, Z, Z)."""
        ...

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
        """Probability (B, T) that each user prefers the first reply of each pair."""
        ...


__all__ = [
    "AmortisedProfile",
    "CriteriaProfile",
    "DirectionBelief",
    "GeneralPreferenceProfile",
    "HierarchicalBayes",
    "IdealPoints",
    "InferredDirection",
    "LatentProfile",
    "LengthRule",
    "MixtureOfRewards",
    "PalProfile",
    "Particles",
    "PooledReward",
    "Profile",
    "PromptCosines",
    "PromptWeights",
    "bradley_terry_weights",
    "combine_directions",
    "decorrelation",
    "describe_weights",
    "direction_as_text",
    "direction_from_sliders",
    "direction_reward",
    "fit_hierarchical_bayes",
    "fit_length_rule",
    "fit_pooled",
    "logistic_posterior",
    "mixing_weights",
    "predictive_probability",
    "project_posterior",
    "simplex_posterior",
    "skew_products",
    "summarise_direction",
]
