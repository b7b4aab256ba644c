"""Rejection-sampling fine-tuning under directions, round after round: the policy learns from its own best replies.

Follows Wang et al. (2024), "Arithmetic Control of LLMs for Diverse User Preferences: Directional Preference Alignment",
arXiv 2402.18571, section 3.2: draw a direction, tell it to the policy, sample K replies, keep the one worth most along
the direction, learn the winners by their likelihood, repeat. Departures:

1. How the policy is told is a function that is passed in: by the gate (`tell_by_gate`), or as published, by whole
   numbers in the prompt (`tell_by_text`).
2. Directions come from a function too: an arc between two objectives as published, or any other law.
3. A part of the winners is learned with the condition withheld, so that the average user stays defined.
4. LoRA and gate on a frozen base in place of full fine-tuning; each round starts from the weights of the last, with a
   fresh optimiser, and learns this round's winners alone. How many rounds the paper ran, and with which K, is not known
   here.
5. A prompt whose K replies are worth the same teaches nothing and is left out of its round.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from persona.errors import DataError, ShapeError
from persona.policy.conditioned import ConditionedPolicy
from persona.profiles.direction import direction_as_text
from persona.recipes.imitation import ImitationConfig, imitate
from persona.types import Condition, Conversation

Measure: TypeAlias = Callable[[NDArray[np.int64], Sequence[str]], Tensor]
"""From rows of prompts (N,) and a reply to each to rewards (N, A): whitened ones, for directions to be distinct."""
DrawDirections: TypeAlias = Callable[[int, np.random.Generator], Tensor]
"""From a count and a source of randomness to directions (count, A)."""
Tell: TypeAlias = Callable[[Tensor], Condition]
"""From directions (B, A) to what the policy is told; a row of zeros is the average user."""
Report: TypeAlias = Callable[[Mapping[str, float]], None]


class RejectionSamplingConfig(BaseModel):
    """Settings of `train_rejection_sampling`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Rounds of sampling and learning.
    rounds: int = Field(default=3, ge=1)
    # Prompts of a round, each with a direction of its own; drawn without repetition where there are enough.
    prompts_per_round: int = Field(default=128, ge=1)
    # Replies K sampled for each of them.
    replies_per_prompt: int = Field(default=8, ge=2)
    # Temperature of these samples.
    temperature: float = Field(default=1.0, gt=0)
    # Most tokens of a reply.
    max_new_tokens: int = Field(default=48, ge=1)
    # Optimiser steps of a round.
    steps_per_round: int = Field(default=32, ge=1)
    # Winners in a step.
    winners_per_step: int = Field(default=16, ge=1)
    # Peak learning rate of the LoRA.
    lora_lr: float = Field(default=2e-3, gt=0)
    # Peak learning rate of the gate.
    gate_lr: float = Field(default=3e-3, gt=0)
    # Share of winners learned with the direction withheld, 0..1.
    drop_condition: float = Field(default=0.1, ge=0, le=1)
    # Largest norm of the gradient.
    max_grad_norm: float = Field(default=1.0, gt=0)

    @property
    def imitation(self) -> ImitationConfig:
        """How the winners of a round are learned."""
        return ImitationConfig(
            steps=self.steps_per_round,
            rows_per_step=self.winners_per_step,
            lora_lr=self.lora_lr,
            gate_lr=self.gate_lr,
            max_grad_norm=self.max_grad_norm,
        )


def train_rejection_sampling(
    policy: ConditionedPolicy,
    conversations: Sequence[Conversation],
    config: RejectionSamplingConfig,
    *,
    measure: Measure,
    draw: DrawDirections,
    tell: Tell,
    seed: int,
    banned: Sequence[Collection[str]] | None = None,
    report: Report | None = None,
) -> list[dict[str, float]]:
    """Train LoRA and gate in place; the base model is not touched.

    Args:
        policy: The policy to train.
        conversations: Prompts to train on.
        config: Settings.
        measure: Rewards of replies.
        draw: Directions to be followed.
        tell: How the policy is told of them.
        seed: Draws prompts, directions, replies and batches; on the CPU one seed gives the same bits.
        banned: For each conversation, slots that replies must not contain.
        report: Called after each round with its metrics.

    Returns:
        Metrics of each round: `round` (from 1), `sampled` and `kept` (mean worth of all replies and of the
        winners, in units of the rewards), `winners` (how many were learned), `nll_first` and `nll_last` (nats
        a token over the first and the last fourth of the steps).

    Raises:
        DataError: There is no prompt, or all replies of a round are worth the same.
        ShapeError: `draw` or `measure` gives other than one row for each direction or reply.
    """
    if not conversations:
        raise DataError("Training needs at least one prompt; got 0. Pass conversations to be answered.")
    history: list[dict[str, float]] = []
    for number in range(config.rounds):
        rng = np.random.default_rng((seed, number))
        rows = _draw_prompts(len(conversations), config.prompts_per_round, rng)
        directions = draw(len(rows), rng)
        replies, worth = _sample(
            policy, conversations, rows, directions, config,
            measure=measure, tell=tell, rng=rng, banned=banned,
        )  # fmt: skip
        best = worth.argmax(1)
        told_apart = (worth.amax(1) > worth.amin(1)).nonzero()[:, 0].tolist()
        if not told_apart:
            raise DataError(
                f"Replies to a prompt must differ in worth; got {worth.shape[1]} of equal worth for all "
                f"{len(rows)} prompts of round {number + 1}. Sample more replies, or at a higher temperature."
            )
        shown = rng.random(len(told_apart)) >= config.drop_condition
        kept = directions[told_apart] * torch.from_numpy(shown)[:, None].to(directions)
        condition = _told(tell, kept)
        winners = policy.encode_replies(
            [conversations[rows[i]] for i in told_apart],
            [replies[i * worth.shape[1] + int(best[i])] for i in told_apart],
            condition,
        )
        losses = imitate(policy, winners, condition, config.imitation, rng)
        part = max(len(losses) // 4, 1)
        metrics = {
            "round": float(number + 1),
            "sampled": worth.mean().item(),
            "kept": worth.amax(1).mean().item(),
            "winners": float(len(winners)),
            "nll_first": float(np.mean(losses[:part])),
            "nll_last": float(np.mean(losses[-part:])),
        }
        history.append(metrics)
        if report is not None:
            report(metrics)
    return history


def reward_front(
    policy: ConditionedPolicy,
    conversations: Sequence[Conversation],
    directions: Tensor,
    *,
    measure: Measure,
    tell: Tell,
    seed: int,
    temperature: float = 1.0,
    max_new_tokens: int = 48,
    banned: Sequence[Collection[str]] | None = None,
) -> Tensor:
    """Mean rewards that the policy gives under each direction: the points whose hypervolume tells how far it reaches.

    Args:
        policy: What to measure.
        conversations: Prompts, held out from training; all directions answer all of them.
        directions: A fan of F directions; a row of zeros is the average user. Shape (F, A).
        measure: Rewards of replies.
        tell: How the policy is told.
        seed: Draws the replies; a prompt has the same random numbers under all directions and policies.
        temperature: Of the samples; 0 takes the most likely reply.
        max_new_tokens: Most tokens of a reply.
        banned: For each conversation, slots that replies must not contain.

    Returns:
        Shape (F, A).
    """
    count, fan = len(conversations), len(directions)
    rows = np.tile(np.arange(count), fan)
    seeds = np.random.default_rng(seed).integers(2**62, size=count)[rows]
    replies = policy.generate(
        [conversations[i] for i in rows],
        _told(tell, directions.repeat_interleave(count, 0)),
        seeds=seeds.tolist(),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        banned=None if banned is None else [banned[i] for i in rows],
    )
    rewards = _measured(measure, rows, replies, directions.shape[1])
    return rewards.view(fan, count, -1).mean(1)


def tell_by_gate(*, latent_dim: int) -> Tell:
    """Directions as vectors that drive the gate."""
    return lambda directions: Condition.of_direction(directions, latent_dim=latent_dim)


def tell_by_text(names: Sequence[str], *, latent_dim: int) -> Tell:
    """Directions as whole numbers in the system message, the published form; the gate is told nothing."""

    def tell(directions: Tensor) -> Condition:
        absent = Condition.absent(len(directions), latent_dim=latent_dim, direction_dim=len(names))
        texts = tuple(direction_as_text(row, names=names) for row in directions)
        return Condition(absent.latent, absent.direction, texts)

    return tell


def _draw_prompts(available: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` rows, each used as often as any other, up to one."""
    rounds = -(-count // available)
    return np.concatenate([rng.permutation(available) for _ in range(rounds)])[:count]


def _sample(
    policy: ConditionedPolicy,
    conversations: Sequence[Conversation],
    rows: NDArray[np.int64],
    directions: Tensor,
    config: RejectionSamplingConfig,
    *,
    measure: Measure,
    tell: Tell,
    rng: np.random.Generator,
    banned: Sequence[Collection[str]] | None,
) -> tuple[list[str], Tensor]:
    """K replies to each prompt, prompt after prompt, and what each is worth along its direction, (B, K)."""
    if directions.ndim != 2 or len(directions) != len(rows):
        raise ShapeError(
            f"`draw` must give one direction for each of {len(rows)} prompts; got shape "
            f"{tuple(directions.shape)}. Return (count, A)."
        )
    several = config.replies_per_prompt
    repeated = rows.repeat(several)
    replies = policy.generate(
        [conversations[i] for i in repeated.tolist()],
        _told(tell, directions.repeat_interleave(several, 0)),
        seeds=rng.integers(2**62, size=len(repeated)).tolist(),
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        banned=None if banned is None else [banned[i] for i in repeated.tolist()],
    )
    rewards = _measured(measure, repeated, replies, directions.shape[1]).view(len(rows), several, -1)
    return replies, torch.einsum("bka,ba->bk", rewards, directions)


def _told(tell: Tell, directions: Tensor) -> Condition:
    condition = tell(directions)
    if len(condition) != len(directions):
        raise ShapeError(
            f"`tell` must give one condition for each of {len(directions)} directions; got {len(condition)}. "
            "Return as many rows as it is given."
        )
    return condition


def _measured(measure: Measure, rows: NDArray[np.int64], replies: Sequence[str], size: int) -> Tensor:
    rewards = measure(rows, replies)
    if rewards.shape != (len(replies), size):
        raise ShapeError(
            f"`measure` must give {size} rewards for each of {len(replies)} replies, as directions have; got "
            f"shape {tuple(rewards.shape)}. Measure the objectives that directions speak of."
        )
    return rewards
