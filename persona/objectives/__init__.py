"""Losses: one file an objective, each a pure function of named tensors that returns one unreduced tensor."""

from persona.objectives.dpo import TurnLogProbs, dpo_loss, multi_turn_dpo_loss
from persona.objectives.elbo import (
    anneal_beta,
    cyclical_beta,
    expected_log_sigmoid,
    gaussian_kl,
    negative_elbo_loss,
    standard_normal_kl,
)
from persona.objectives.hedge import hedge_loss, hedge_target
from persona.objectives.ipo import ipo_loss, mean_log_probs
from persona.objectives.kto import KtoWeights, kto_baseline, kto_loss, multi_turn_kto_loss
from persona.objectives.masked_mse import masked_squared_error
from persona.objectives.mixture_of_rewards import mixture_of_rewards_loss
from persona.objectives.preferred_scores import preferred_score_loss, preferred_score_target
from persona.objectives.reward_gaps import reward_gap_loss
from persona.objectives.score_gap import hinge_loss, logistic_loss, moderated_gap
from persona.objectives.sft import sft_loss
from persona.objectives.swap_guidance import swap_guidance_loss
from persona.objectives.ties import davidson_loss, rao_kupper_loss, rated_loss

__all__ = [
    "KtoWeights",
    "TurnLogProbs",
    "anneal_beta",
    "cyclical_beta",
    "davidson_loss",
    "dpo_loss",
    "expected_log_sigmoid",
    "gaussian_kl",
    "hedge_loss",
    "hedge_target",
    "hinge_loss",
    "ipo_loss",
    "kto_baseline",
    "kto_loss",
    "logistic_loss",
    "masked_squared_error",
    "mean_log_probs",
    "mixture_of_rewards_loss",
    "moderated_gap",
    "multi_turn_dpo_loss",
    "multi_turn_kto_loss",
    "negative_elbo_loss",
    "preferred_score_loss",
    "preferred_score_target",
    "rao_kupper_loss",
    "rated_loss",
    "reward_gap_loss",
    "sft_loss",
    "standard_normal_kl",
    "swap_guidance_loss",
]
