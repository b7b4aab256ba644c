"""Losses: one file an objective, each a pure function of named tensors that returns one unreduced tensor."""

from persona.objectives.dpo import TurnLogProbs, dpo_loss, multi_turn_dpo_loss
from persona.objectives.elbo import anneal_beta, expected_log_sigmoid, gaussian_kl, negative_elbo_loss
from persona.objectives.sft import sft_loss

__all__ = [
    "TurnLogProbs",
    "anneal_beta",
    "dpo_loss",
    "expected_log_sigmoid",
    "gaussian_kl",
    "multi_turn_dpo_loss",
    "negative_elbo_loss",
    "sft_loss",
]
