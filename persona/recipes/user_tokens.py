"""Personalised DPO with soft user tokens (P-RLHF, P-DPO).

Follows Li et al. (2024), "Personalized Language Modeling from Personalized Human Feedback", arXiv 2402.05133: for each
pair, alpha times DPO's loss with the user's own tokens plus 1 - alpha times that with the generic user's. Departures:

1. Users are numbers beside the tokens, and not text in the prompt that is decoded again.
2. The reference is the frozen base model without soft tokens, computed once.
3. Mixtures of clusters are taken relative to equal weights, so that the generic user is the middle of all users.
4. A new user's place is found by a few steps on that user's choices alone, with a ridge; the paper serves new users as
   the generic one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from persona.data.comparisons import Rows
from persona.errors import DataError, ShapeError
from persona.objectives.dpo import dpo_loss
from persona.policy.conditioned import ConditionedPolicy
from persona.policy.language_model import LanguageModel, TokenRow
from persona.profiles.user_tokens import GENERIC, UserTokenPolicy, UserTokens, embedding_table

Report = Callable[[Mapping[str, float]], None]
_START = "user preferences: reply in this person's own way"


class UserTokensConfig(BaseModel):
    """Settings of `train_user_tokens`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Vectors a user S.
    tokens: int = Field(default=10, ge=1)
    # Clusters that users are mixtures of; 0 gives every user an own offset.
    clusters: int = Field(default=0, ge=0)
    # Share of the loss that reads the user's own tokens, 0..1; the rest reads the generic ones.
    alpha: float = Field(default=0.5, ge=0, le=1)
    # Pull towards the reference, 1 / nats.
    beta: float = Field(default=0.5, gt=0)
    # Rank of the LoRA.
    rank: int = Field(default=8, ge=1)
    # Optimiser steps.
    steps: int = Field(default=150, ge=1)
    # Pairs in a step.
    pairs_per_step: int = Field(default=16, ge=1)
    # Step size of the LoRA.
    lora_lr: float = Field(default=2e-3, gt=0)
    # Step size of the users' tokens.
    token_lr: float = Field(default=1e-2, gt=0)
    # Largest norm of a gradient.
    clip_norm: float = Field(default=1.0, gt=0)


class UserPairs(NamedTuple):
    """Pairs of replies as tokens, and who judged them.

    users: Row of the user of each pair, from 0. Shape (P,).
    chosen: P rows whose policy tokens are preferred.
    rejected: P rows whose policy tokens are not.
    """

    users: Rows
    chosen: Sequence[TokenRow]
    rejected: Sequence[TokenRow]


def train_user_tokens(
    pairs: UserPairs,
    language_model: LanguageModel,
    config: UserTokensConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> UserTokenPolicy:
    """Train a LoRA and every user's soft tokens together.

    Args:
        pairs: What training users preferred.
        language_model: The frozen base.
        config: Settings.
        seed: Draws weights and batches; one seed gives one result.
        report: Gets `step`, `loss`, `own` and `generic` (DPO's losses with either tokens) after each step.

    Raises:
        ShapeError: The parts of `pairs` have not one entry a pair.
        DataError: There are no pairs.
    """
    sizes = {len(part) for part in pairs}
    if len(sizes) != 1:
        raise ShapeError(
            f"All parts of `pairs` must have one entry a pair; got {sorted(sizes)}. Drop what has no partner."
        )
    if not len(pairs.users):
        raise DataError("Training needs at least one preference pair; got 0. Collect comparisons first.")
    policy = ConditionedPolicy.build(language_model, 0, 0, rank=config.rank, seed=seed)
    users = int(pairs.users.max()) + 1
    start = _word_vectors(language_model, config.tokens)
    tokens = UserTokens(users, *start.shape, clusters=config.clusters, start=start, seed=seed)
    trained = UserTokenPolicy(policy, tokens, scale=config.beta)
    reference = [policy.reference_log_probs(rows).sum(1) for rows in (pairs.chosen, pairs.rejected)]
    optimiser = torch.optim.AdamW(
        [
            {"params": policy.adapter_parameters(), "lr": config.lora_lr},
            {"params": list(trained.tokens.parameters()), "lr": config.token_lr},
        ],
        weight_decay=0.0,
    )
    rng = np.random.default_rng(seed)
    for step in range(1, config.steps + 1):
        batch = rng.choice(len(pairs.users), min(config.pairs_per_step, len(pairs.users)), replace=False)
        own, generic = _losses(trained, pairs, batch, reference, config.beta)
        loss = config.alpha * own + (1.0 - config.alpha) * generic
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        for group in optimiser.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], config.clip_norm)
        optimiser.step()
        if report is not None:
            report({"step": step, "loss": loss.item(), "own": own.item(), "generic": generic.item()})
    return trained


def _losses(
    trained: UserTokenPolicy, pairs: UserPairs, batch: Rows, reference: Sequence[Tensor], beta: float
) -> tuple[Tensor, Tensor]:
    """Mean DPO loss of a batch with the users' own tokens, and with the generic user's."""
    device = trained.policy.device
    users = torch.from_numpy(pairs.users[batch]).to(device)
    who = torch.cat([users, torch.full_like(users, GENERIC)])
    prefix = trained.tokens(who)
    sides = [
        trained.log_probs([rows[i] for i in batch] * 2, prefix) for rows in (pairs.chosen, pairs.rejected)
    ]
    index = torch.from_numpy(np.concatenate([batch, batch])).to(device)
    loss = dpo_loss(sides[0], sides[1], reference[0][index], reference[1][index], beta)
    own, generic = loss.split(len(batch))
    return own.mean(), generic.mean()


def _word_vectors(language_model: LanguageModel, count: int) -> Tensor:
    """Embeddings of a few words, repeated to `count`: a start that the model can read."""
    ids = language_model.tokenizer(_START, add_special_tokens=False)["input_ids"]
    table = embedding_table(language_model)
    return table[[ids[i % len(ids)] for i in range(count)]].detach().float().cpu()
