"""Learns given replies by their likelihood: supervised fine-tuning of the conditioned policy, LoRA and gate alone."""

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from persona.errors import DataError, ShapeError
from persona.objectives.sft import sft_loss
from persona.policy.conditioned import ConditionedPolicy
from persona.policy.language_model import TokenRow
from persona.recipes.policy import PolicyConfig, endless_batches, rate_factor
from persona.types import Condition

ROWS_AT_ONCE = 16
"""Rows whose gradient is taken at once; a step adds up as many such parts as it needs, to bound memory."""


class ImitationConfig(BaseModel):
    """Settings of `imitate`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Optimiser steps.
    steps: int = Field(default=32, ge=1)
    # Rows in a step.
    rows_per_step: int = Field(default=16, ge=1)
    # Peak learning rate of the LoRA.
    lora_lr: float = Field(default=2e-3, gt=0)
    # Peak learning rate of the gate.
    gate_lr: float = Field(default=3e-3, gt=0)
    # Largest norm of the gradient.
    max_grad_norm: float = Field(default=1.0, gt=0)


def imitate(
    policy: ConditionedPolicy,
    rows: Sequence[TokenRow],
    condition: Condition,
    config: ImitationConfig,
    rng: np.random.Generator,
) -> list[float]:
    """Train LoRA and gate in place; the base model is not touched.

    Args:
        policy: The policy to train. Its gate takes the scale of conditions from the first that it ever sees.
        rows: N rows whose policy tokens are learned.
        condition: What the policy knows of each row's user, N rows.
        config: Settings.
        rng: Draws the batches; on the CPU one state gives the same bits.

    Returns:
        Nats a token of each step's rows.

    Raises:
        DataError: There is nothing to learn.
        ShapeError: There is not one condition a row.
    """
    if not rows:
        raise DataError("Imitation needs at least one reply; got 0. Keep replies to be learned first.")
    if len(condition) != len(rows):
        raise ShapeError(
            f"`condition` must have one row for each of {len(rows)} replies; got {len(condition)}. Select its rows."
        )
    policy.gate.fit_scale(condition.latent, condition.direction)
    groups = [
        {"params": policy.adapter_parameters(), "lr": config.lora_lr},
        {"params": list(policy.gate.parameters()), "lr": config.gate_lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    schedule = PolicyConfig(steps=config.steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, schedule))
    batches = endless_batches(np.asarray([len(row.ids) for row in rows]), config.rows_per_step, rng)
    losses: list[float] = []
    for _ in range(config.steps):
        index = next(batches)
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for start in range(0, len(index), ROWS_AT_ONCE):
            part = index[start : start + ROWS_AT_ONCE]
            log_probs, mask = policy.token_log_probs([rows[i] for i in part], condition.select(part))
            loss = sft_loss(log_probs, mask).sum() / len(index)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_([p for p in trained if p.grad is not None], config.max_grad_norm)
        optimizer.step()
        scheduler.step()
        losses.append(total)
    return losses
