"""The language-model policy: a frozen base, one LoRA, and a gate that each row's condition drives."""

from persona.policy.conditioned import ConditionedPolicy
from persona.policy.device import default_dtype, resolve_device
from persona.policy.gate import GateHooks, RankGate
from persona.policy.language_model import (
    LanguageModel,
    TokenRow,
    add_to_system,
    load_language_model,
    nano_folder,
)
from persona.policy.sampling import Sampling, sample_tokens

__all__ = [
    "ConditionedPolicy",
    "GateHooks",
    "LanguageModel",
    "RankGate",
    "Sampling",
    "TokenRow",
    "add_to_system",
    "default_dtype",
    "load_language_model",
    "nano_folder",
    "resolve_device",
    "sample_tokens",
]
