"""Replies learned by their likelihood, each under its own user's condition."""

import numpy as np
import pytest
import torch

from persona.errors import DataError, ShapeError
from persona.policy import ConditionedPolicy
from persona.recipes.imitation import ImitationConfig, imitate
from persona.types import Condition, Conversation
from tests.helpers.tiny_models import tiny_language_model

BASE = tiny_language_model()
ASKED: Conversation = [{"role": "user", "content": "Do you want more like it?"}]
CONFIG = ImitationConfig(steps=30, rows_per_step=4, lora_lr=1e-2, gate_lr=1e-2)


def build() -> ConditionedPolicy:
    return ConditionedPolicy.build(BASE, latent_dim=1, direction_dim=2, hidden=16, seed=0)


def told(rows: int) -> Condition:
    """Users of two kinds, turn and turn about."""
    direction = torch.eye(2)[torch.arange(rows) % 2]
    return Condition(torch.zeros(rows, 1), direction, (None,) * rows)


def test_each_kind_of_user_gets_the_reply_that_was_shown_for_it() -> None:
    policy, condition = build(), told(8)
    replies = ["yes" if row % 2 == 0 else "no" for row in range(8)]
    rows = policy.encode_replies([ASKED] * 8, replies, condition)
    losses = imitate(policy, rows, condition, CONFIG, np.random.default_rng(0))
    assert len(losses) == CONFIG.steps and losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        both = [policy.log_probs([ASKED] * 2, [word] * 2, told(2)) for word in ("yes", "no")]
    assert both[0][0] > both[1][0] and both[1][1] > both[0][1]


def test_the_same_seed_gives_the_same_bits() -> None:
    def weights() -> list[torch.Tensor]:
        policy, condition = build(), told(4)
        rows = policy.encode_replies([ASKED] * 4, ["yes", "no", "warm", "slow"], condition)
        imitate(policy, rows, condition, ImitationConfig(steps=2), np.random.default_rng(1))
        return [parameter.detach().clone() for parameter in policy.adapter_parameters()]

    assert all(torch.equal(a, b) for a, b in zip(weights(), weights(), strict=True))


def test_nothing_to_learn_and_other_conditions_are_refused() -> None:
    policy = build()
    with pytest.raises(DataError, match="at least one reply; got 0"):
        imitate(policy, [], told(0), CONFIG, np.random.default_rng(0))
    rows = policy.encode_replies([ASKED], ["yes"], told(1))
    with pytest.raises(ShapeError, match="one row for each of 1 replies; got 2"):
        imitate(policy, rows, told(2), CONFIG, np.random.default_rng(0))
