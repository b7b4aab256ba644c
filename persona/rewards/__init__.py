"""What a reply is worth: attributes that anyone can count, named objectives, criteria in words, one scale for all."""

from persona.rewards.attributes import ATTRIBUTES, AttributeScale, measure_attributes
from persona.rewards.context_aware import ContextAwareReward
from persona.rewards.multi_objective import MultiObjectiveReward, explained_variance, fit_multi_objective
from persona.rewards.win_probability import win_probability

__all__ = [
    "ATTRIBUTES",
    "AttributeScale",
    "ContextAwareReward",
    "MultiObjectiveReward",
    "explained_variance",
    "fit_multi_objective",
    "measure_attributes",
    "win_probability",
]
