"""Trains the conditioned policy on preference pairs of many users: conditional DPO with a little SFT.

Departures from the papers of `persona/objectives/dpo.py`:
1. The policy is conditioned on the user, the reference is not: it is the frozen base, the same for everyone.
2. A part of the rows is trained with the condition withheld, so that an absent condition comes to mean what
   users agree on instead of staying whatever the shared LoRA happens to be.
3. A small likelihood term on the chosen reply keeps replies fluent while margins grow.
4. Learning rates are those of a LoRA on a small model, far above those of full fine-tuning.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from persona.errors import DataError, ShapeError
from persona.objectives.dpo import TurnLogProbs, multi_turn_dpo_loss
from persona.objectives.sft import sft_loss
from persona.policy.conditioned import ConditionedPolicy
from persona.policy.language_model import TokenRow
from persona.policy.scoring import policy_mask, sum_by_turn, turn_index
from persona.types import Condition, Conversation

PAIRS_AT_ONCE = 8
"""Pairs whose gradient is taken at once; a step adds up as many such parts as it needs, to bound memory."""

BUCKET_BATCHES = 8
"""Batches whose pairs are sorted by length together: more wastes less padding, fewer mixes pairs better."""


class PolicyConfig(BaseModel):
    """Settings of `train_policy`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Optimiser steps.
    steps: int = Field(default=120, ge=1)
    # Pairs a step; each is two rows.
    pairs_per_step: int = Field(default=16, ge=1)
    # Pull towards the reference, 1 / nats.
    beta: float = Field(default=0.1, gt=0)
    # Weight of the chosen reply's negative log-likelihood a token.
    sft_weight: float = Field(default=0.1, ge=0)
    # Peak learning rate of the LoRA.
    lora_lr: float = Field(default=2e-3, gt=0)
    # Peak learning rate of the gate.
    gate_lr: float = Field(default=3e-3, gt=0)
    # Share of pairs trained with their latent and direction withheld, 0..1.
    drop_condition: float = Field(default=0.1, ge=0, le=1)
    # Share of the steps over which learning rates rise to their peak; they then fall as a cosine.
    warmup: float = Field(default=0.1, ge=0, lt=1)
    # Largest norm of the gradient.
    max_grad_norm: float = Field(default=1.0, gt=0)
    # Decoupled decay of the LoRA, a share of the learning rate.
    weight_decay: float = Field(default=0.0, ge=0)


@dataclass(frozen=True, eq=False)
class PreferencePairs:
    """Pairs of replies, or of whole dialogues, as tokens.

    Attributes:
        chosen: P rows whose policy tokens are preferred.
        rejected: P rows whose policy tokens are not.
        condition: The users that judged, one row a pair; zeros where the average user did.
        weight: Weight of each pair, shape (P,); None for equal weights.
        reference: log p of chosen and rejected turns under the reference, each (P, H); None until computed.
    """

    chosen: Sequence[TokenRow]
    rejected: Sequence[TokenRow]
    condition: Condition
    weight: Tensor | None = None
    reference: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        """Check that all parts have one entry a pair."""
        sizes = {"chosen": len(self.chosen), "rejected": len(self.rejected), "condition": len(self.condition)}
        if self.weight is not None:
            sizes["weight"] = len(self.weight)
        if self.reference is not None:
            sizes |= {"reference[0]": len(self.reference[0]), "reference[1]": len(self.reference[1])}
        if len(set(sizes.values())) != 1:
            raise ShapeError(f"All parts must have one entry a pair; got {sizes}. Drop what has no partner.")
        if not self.chosen:
            raise DataError("Training needs at least one preference pair; got 0. Collect comparisons first.")
        if self.weight is not None and not (self.weight > 0).all():
            raise DataError(
                f"`weight` must be positive; got {float(self.weight.min()):g}. Drop pairs that should not "
                "count."
            )

    def __len__(self) -> int:
        """Number of pairs P."""
        return len(self.chosen)

    @classmethod
    def from_replies(
        cls,
        policy: ConditionedPolicy,
        conversations: Sequence[Conversation],
        chosen: Sequence[str],
        rejected: Sequence[str],
        condition: Condition,
        *,
        weight: Tensor | None = None,
    ) -> "PreferencePairs":
        """Pairs of replies to one conversation each, text conditions included.

        Raises:
            ShapeError: The parts have not one entry a pair.
            ModelError: A conversation does not fit the model's window.
        """
        return cls(
            policy.encode_replies(conversations, chosen, condition),
            policy.encode_replies(conversations, rejected, condition),
            condition,
            weight,
        )

    @property
    def turns(self) -> int:
        """H, the largest number of turns in any row."""
        cpu = torch.device("cpu")
        return 1 + max(int(turn_index(rows, cpu).max()) for rows in (self.chosen, self.rejected))

    def with_reference(self, policy: ConditionedPolicy) -> "PreferencePairs":
        """The same pairs with log-probabilities of the frozen base, computed once for all steps."""
        if self.reference is not None:
            return self
        count = self.turns
        chosen, rejected = (
            sum_by_turn(log_probs, turn_index(rows, log_probs.device), count)
            for rows in (self.chosen, self.rejected)
            for log_probs in [policy.reference_log_probs(rows)]
        )
        return replace(self, reference=(chosen, rejected))

    def against(self, policy: ConditionedPolicy) -> "PreferencePairs":
        """The same pairs, measured against the policy as it stands, each under its own condition, not against the base.

        For a policy that has learned by imitation first, as where the reference of a paper is the fine-tuned model.
        """
        count = self.turns
        with torch.no_grad():
            chosen, rejected = (
                sum_by_turn(log_probs, turn_index(rows, log_probs.device), count)
                for rows in (self.chosen, self.rejected)
                for log_probs in [policy.token_log_probs(rows, self.condition)[0]]
            )
        return replace(self, reference=(chosen, rejected))


Report = Callable[[Mapping[str, float]], None]


def train_policy(
    policy: ConditionedPolicy,
    pairs: PreferencePairs,
    config: PolicyConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> list[dict[str, float]]:
    """Train LoRA and gate in place; the base model is not touched.

    Args:
        policy: The policy to train. Its gate takes the scale of conditions from the first pairs it ever sees.
        pairs: What users preferred.
        config: Settings.
        seed: Draws the order of pairs and which conditions are withheld.
        report: Called after each step with its metrics.

    Returns:
        Metrics of each step: `step`, `loss`, `dpo`, `nll` (nats a token), `accuracy` (share of pairs whose
        chosen side has the larger implicit reward), `margin` (difference of implicit rewards, nats),
        `grad_norm`, `lr` (of the LoRA). The same seed on the CPU gives the same bits.
    """
    pairs = pairs.with_reference(policy)
    policy.gate.fit_scale(pairs.condition.latent, pairs.condition.direction)
    groups = [
        {
            "params": policy.adapter_parameters(),
            "lr": config.lora_lr,
            "weight_decay": config.weight_decay,
        },
        {"params": list(policy.gate.parameters()), "lr": config.gate_lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, config))
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    order_rng, drop_rng = np.random.default_rng(seed).spawn(2)
    lengths = [max(len(c.ids), len(r.ids)) for c, r in zip(pairs.chosen, pairs.rejected, strict=True)]
    batches = endless_batches(np.asarray(lengths), config.pairs_per_step, order_rng)
    turns = pairs.turns
    history: list[dict[str, float]] = []
    for step in range(config.steps):
        index = next(batches)
        withheld = torch.from_numpy(drop_rng.random(len(index)) < config.drop_condition)
        weight = torch.ones(len(index)) if pairs.weight is None else pairs.weight[index]
        weight = weight / weight.sum()
        optimizer.zero_grad(set_to_none=True)
        parts = []
        for rows in torch.arange(len(index)).split(PAIRS_AT_ONCE):
            part = [index[row] for row in rows.tolist()]
            terms = _step_terms(policy, pairs, part, withheld[rows], turns=turns, beta=config.beta)
            (weight[rows].to(terms.dpo) @ (terms.dpo + config.sft_weight * terms.nll)).backward()
            parts.append(torch.stack([terms.dpo, terms.nll, terms.margin]).detach().cpu())
        losses, likelihoods, margins = torch.cat(parts, dim=1)
        dpo, nll = weight @ losses, weight @ likelihoods
        norm = torch.nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
        metrics = {
            "step": float(step),
            "loss": (dpo + config.sft_weight * nll).item(),
            "dpo": dpo.item(),
            "nll": nll.item(),
            "accuracy": (margins > 0).float().mean().item(),
            "margin": margins.mean().item(),
            "grad_norm": norm.item(),
            "lr": float(scheduler.get_last_lr()[0]),
        }
        optimizer.step()
        scheduler.step()
        history.append(metrics)
        if report is not None:
            report(metrics)
    return history


def steps_for(rows: int, epochs: float, per_step: int) -> int:
    """Optimiser steps that so many passes over the rows take, at least 1."""
    return max(1, math.ceil(epochs * rows / per_step))


def rate_factor(step: int, config: PolicyConfig) -> float:
    """Share of the peak learning rate at a step: a linear rise, then half a cosine towards zero."""
    rise = math.ceil(config.warmup * config.steps)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, config.steps - rise)))


class _Terms(NamedTuple):
    """Per pair of a step, shape (B,): DPO loss, likelihood term, difference of implicit rewards."""

    dpo: Tensor
    nll: Tensor
    margin: Tensor


def _step_terms(
    policy: ConditionedPolicy,
    pairs: PreferencePairs,
    index: list[int],
    withheld: Tensor,
    *,
    turns: int,
    beta: float,
) -> _Terms:
    rows = [pairs.chosen[i] for i in index] + [pairs.rejected[i] for i in index]
    condition = pairs.condition.select(index)
    shown = (~withheld).float()[:, None]
    condition = Condition(condition.latent * shown, condition.direction * shown, condition.text)
    log_probs, mask = policy.token_log_probs(rows, Condition.concatenate([condition, condition]))
    place, count = log_probs.device, len(index)
    by_turn = sum_by_turn(log_probs, turn_index(rows, place), turns)
    present = _turn_mask(rows, turns).to(place)
    assert pairs.reference is not None  # filled before the first step
    reference = torch.cat([side[index] for side in pairs.reference]).to(place)
    sides = TurnLogProbs(by_turn, reference, present)
    chosen, rejected = (
        TurnLogProbs(*(part[half] for part in sides)) for half in (slice(count), slice(count, None))
    )
    reward = beta * (by_turn - reference).sum(1).detach()
    return _Terms(
        multi_turn_dpo_loss(chosen, rejected, beta=beta),
        sft_loss(log_probs[:count], mask[:count]),
        reward[:count] - reward[count:],
    )


def _turn_mask(rows: Sequence[TokenRow], turns: int) -> Tensor:
    cpu = torch.device("cpu")
    last = (turn_index(rows, cpu) * policy_mask(rows, cpu)).amax(1)
    return torch.arange(turns) <= last[:, None]


def endless_batches(lengths: NDArray[np.int64], size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Batches of row indexes, epoch after epoch; rows of like length share a batch, batches come in random order.

    Args:
        lengths: Tokens of each row. Shape (P,).
        size: Rows a batch, except for the last of a bucket.
        rng: Draws the order.
    """
    size = min(size, len(lengths))
    while True:
        order = rng.permutation(len(lengths))
        batches: list[list[int]] = []
        for start in range(0, len(order), size * BUCKET_BATCHES):
            bucket = order[start : start + size * BUCKET_BATCHES]
            bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
            batches += [bucket[at : at + size].tolist() for at in range(0, len(bucket), size)]
        for batch in rng.permutation(len(batches)):
            yield batches[batch]
