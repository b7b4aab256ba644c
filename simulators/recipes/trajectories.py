"""Trains the conditioned policy on whole dialogues: multi-turn DPO on pairs, multi-turn KTO on single ones.

After Xiong et al. (2024), "Building Math Agents with Multi-Turn Iterative Preference Learning" (arXiv 2409.02392).
Departures, each with its reason:

1. The environment is a simulated user, whose answers are random; the paper's losses are exact for deterministic ones.
   So the dialogues of a pair are of one user under the same random numbers.
2. Each turn is scored behind the prompt that was read when it was drawn, not as part of one long text: the prompt holds
   a card, and a part of the history only.
3. The reference is the policy as training finds it, each dialogue under its own condition, as in the paper's rounds;
   its log-probabilities are computed once.
4. The baseline of KTO is that of Ethayarajh et al. (2024): replies to other users' prompts, turn by turn.
5. Only dialogues of the policy as the round begins are learned from; the paper may mix in those of earlier rounds. Its
   optional likelihood term is left out.
6. Tokens behind the last whole sentence, which the user never saw, are scored with their turn: they are what the policy
   drew.
7. Learning rates are those of a LoRA on a small model, far above those of full fine-tuning.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from persona.objectives.dpo import TurnLogProbs, multi_turn_dpo_loss, sum_turns
from persona.objectives.kto import KtoWeights, kto_baseline, multi_turn_kto_loss
from persona.policy.conditioned import ConditionedPolicy
from persona.policy.language_model import TokenRow
from persona.recipes.policy import PolicyConfig, endless_batches, rate_factor
from persona.types import Condition
from simulators.recipes.trajectory_pairs import LabelledTrajectories, Trajectory, TrajectoryPairs

AT_ONCE = 8
"""Dialogues whose gradient is taken at once; a step adds up as many such parts as it needs, to bound memory."""

Report = Callable[[Mapping[str, float]], None]


class TrajectoryConfig(BaseModel):
    """Settings of `train_on_pairs` and `train_on_outcomes`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Optimiser steps.
    steps: int = Field(default=60, ge=1)
    # Pairs, or single dialogues, a step.
    examples_per_step: int = Field(default=16, ge=2)
    # Pull towards the reference, 1 / nats.
    beta: float = Field(default=0.1, gt=0)
    # Peak learning rate of the LoRA.
    lora_lr: float = Field(default=1e-3, gt=0)
    # Peak learning rate of the gate.
    gate_lr: float = Field(default=1e-3, gt=0)
    # Share of the steps over which learning rates rise to their peak; they then fall as a cosine.
    warmup: float = Field(default=0.1, ge=0, lt=1)
    # Largest norm of the gradient.
    max_grad_norm: float = Field(default=1.0, gt=0)


class _Part(NamedTuple):
    """Some examples of a step: losses to be summed, shape (B,), and implicit rewards, shape (B,), of each."""

    loss: Tensor
    reward: Tensor


def train_on_pairs(
    policy: ConditionedPolicy,
    pairs: TrajectoryPairs,
    config: TrajectoryConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> list[dict[str, float]]:
    """M-DPO: raise whole dialogues that ended well over the same user's that did not. Changes the policy in place.

    Args:
        policy: The policy to train; as it stands, it is the reference.
        pairs: What ended well and what did not.
        config: Settings.
        seed: Draws the order of pairs.
        report: Called after each step with its metrics.

    Returns:
        Metrics of each step: `step`, `loss`, `accuracy` (share of pairs whose chosen side has the larger implicit
        reward), `margin` (difference of implicit rewards, nats), `grad_norm`, `lr` (of the LoRA). The same seed on the
        CPU gives the same bits.
    """
    policy.gate.fit_scale(pairs.condition.latent, pairs.condition.direction)
    sides = (pairs.chosen, pairs.rejected)
    reference = [_reference(policy, side, pairs.condition) for side in sides]

    def part(index: list[int], _: Tensor) -> _Part:
        both = [
            _scored(policy, side, known, pairs.condition, index)
            for side, known in zip(sides, reference, strict=True)
        ]
        loss = multi_turn_dpo_loss(both[0], both[1], beta=config.beta)
        rewards = [config.beta * (policy_sum - known) for policy_sum, known in map(sum_turns, both)]
        return _Part(loss, (rewards[0] - rewards[1]).detach())

    lengths = [sum(len(row.ids) for row in (*c, *r)) for c, r in zip(*sides, strict=True)]
    steps = _descend(policy, lengths, config, part, _no_baseline, seed=seed)
    history = []
    for figures, rewards, _ in steps:
        del figures["baseline"]
        figures |= {"accuracy": (rewards > 0).float().mean().item(), "margin": rewards.mean().item()}
        history.append(figures)
        if report is not None:
            report(figures)
    return history


def train_on_outcomes(
    policy: ConditionedPolicy,
    examples: LabelledTrajectories,
    config: TrajectoryConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> list[dict[str, float]]:
    """M-KTO: raise dialogues that ended well and lower those that did not, without pairs. Changes the policy in place.

    Good and bad dialogues weigh alike in sum, however many there are of each.

    Args:
        policy: The policy to train; as it stands, it is the reference.
        examples: Dialogues with their outcomes.
        config: Settings.
        seed: Draws the order of dialogues.
        report: Called after each step with its metrics.

    Returns:
        Metrics of each step: `step`, `loss`, `baseline` (z0, nats), `margin` (mean implicit reward of good less that of
        bad dialogues, nats; NaN in a step of one kind only), `grad_norm`, `lr`. The same seed on the CPU gives the same
        bits.
    """
    dialogues, condition = examples.dialogues, examples.condition
    policy.gate.fit_scale(condition.latent, condition.direction)
    strangers = mismatched(dialogues)
    reference = _reference(policy, dialogues, condition)
    stranger_reference = _reference(policy, strangers, condition)
    share = (
        examples.desirable.double().mean().clamp(min=0.5 / len(examples), max=1 - 0.5 / len(examples)).item()
    )
    weights = KtoWeights(0.5 / share, 0.5 / (1 - share))

    def baseline(index: list[int]) -> Tensor:
        with torch.no_grad():
            turns = _scored(policy, strangers, stranger_reference, condition, index)
        return kto_baseline(*sum_turns(turns))

    def part(index: list[int], moved: Tensor) -> _Part:
        turns = _scored(policy, dialogues, reference, condition, index)
        good = examples.desirable[index].to(turns.policy.device)
        loss = multi_turn_kto_loss(turns, good, moved, beta=config.beta, weights=weights)
        policy_sum, known = sum_turns(turns)
        return _Part(loss, config.beta * (policy_sum - known).detach())

    lengths = [sum(len(row.ids) for row in dialogue) for dialogue in dialogues]
    history = []
    for figures, rewards, index in _descend(policy, lengths, config, part, baseline, seed=seed):
        good = examples.desirable[index]
        figures["margin"] = (rewards[good].mean() - rewards[~good].mean()).item()
        history.append(figures)
        if report is not None:
            report(figures)
    return history


def mismatched(dialogues: Sequence[Trajectory]) -> list[Trajectory]:
    """Every dialogue's prompts with the replies of the one half of them away, turn by turn.

    Neighbours are mostly attempts of one user, whose prompts begin alike: their replies would be no strangers.
    """
    found = []
    for number, dialogue in enumerate(dialogues):
        other = dialogues[number - max(len(dialogues) // 2, 1)]
        rows = []
        for turn, row in enumerate(dialogue):
            stranger = other[turn % len(other)]
            prompt = row.ids[: row.policy.index(True)]
            reply = stranger.ids[stranger.policy.index(True) :]
            rows.append(TokenRow((*prompt, *reply), (False,) * len(prompt) + (True,) * len(reply)))
        found.append(tuple(rows))
    return found


def turn_log_probs(
    policy: ConditionedPolicy, dialogues: Sequence[Trajectory], condition: Condition
) -> tuple[Tensor, Tensor]:
    """Log-probability of what the policy drew at each turn, and which turns there are.

    Args:
        policy: Scores.
        dialogues: B dialogues.
        condition: One row a dialogue.

    Returns:
        Nats, zero where there is no turn, differentiable, and True where there is; both of shape (B, H), H being the
        number of turns of the longest.
    """
    owner = torch.tensor([row for row, dialogue in enumerate(dialogues) for _ in dialogue])
    turn = torch.tensor([number for dialogue in dialogues for number in range(len(dialogue))])
    rows = [row for dialogue in dialogues for row in dialogue]
    scores = policy.sequence_log_probs(rows, condition.select(owner))
    place = scores.device
    shape = (len(dialogues), max(len(dialogue) for dialogue in dialogues))
    there = (owner.to(place), turn.to(place))
    log_probs = torch.zeros(shape, dtype=scores.dtype, device=place).index_put(there, scores)
    return log_probs, torch.zeros(shape, dtype=torch.bool, device=place).index_put(
        there, torch.tensor(True, device=place)
    )


def _no_baseline(_: list[int]) -> Tensor:
    """The baseline of losses that need none."""
    return torch.zeros(())


def _reference(
    policy: ConditionedPolicy, dialogues: Sequence[Trajectory], condition: Condition
) -> list[Tensor]:
    """Log-probabilities of each dialogue's turns under the policy as it stands, each (H of the dialogue,)."""
    found: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, len(dialogues), AT_ONCE):
            rows = range(start, min(start + AT_ONCE, len(dialogues)))
            scores, _ = turn_log_probs(policy, [dialogues[row] for row in rows], condition.select(rows))
            found += [scores[i, : len(dialogues[row])].cpu() for i, row in enumerate(rows)]
    return found


def _scored(
    policy: ConditionedPolicy,
    dialogues: Sequence[Trajectory],
    reference: Sequence[Tensor],
    condition: Condition,
    index: list[int],
) -> TurnLogProbs:
    scores, mask = turn_log_probs(policy, [dialogues[i] for i in index], condition.select(index))
    known = torch.nn.utils.rnn.pad_sequence([reference[i] for i in index], batch_first=True)
    return TurnLogProbs(scores, known.to(scores), mask)


def _descend(
    policy: ConditionedPolicy,
    lengths: Sequence[int],
    config: TrajectoryConfig,
    part: Callable[[list[int], Tensor], _Part],
    baseline: Callable[[list[int]], Tensor],
    *,
    seed: int,
) -> Iterator[tuple[dict[str, float], Tensor, list[int]]]:
    """Take the steps; after each, its figures, the implicit rewards of its examples, and which these were."""
    groups = [
        {"params": policy.adapter_parameters(), "lr": config.lora_lr},
        {"params": list(policy.gate.parameters()), "lr": config.gate_lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = PolicyConfig(steps=config.steps, warmup=config.warmup)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, schedule))
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    batches = endless_batches(np.asarray(lengths), config.examples_per_step, np.random.default_rng(seed))
    for step in range(config.steps):
        index = next(batches)
        optimizer.zero_grad(set_to_none=True)
        moved = baseline(index)
        losses, rewards = [], []
        for start in range(0, len(index), AT_ONCE):
            found = part(index[start : start + AT_ONCE], moved)
            (found.loss.sum() / len(index)).backward()
            losses.append(found.loss.detach().cpu())
            rewards.append(found.reward.cpu())
        norm = torch.nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
        figures = {
            "step": float(step),
            "loss": torch.cat(losses).mean().item(),
            "baseline": moved.item(),
            "grad_norm": norm.item(),
            "lr": float(scheduler.get_last_lr()[0]),
        }
        optimizer.step()
        scheduler.step()
        yield figures, torch.cat(rewards), index
