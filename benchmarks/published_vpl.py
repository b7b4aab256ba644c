"""The published VPL training loop, written from its description: the baseline of `bench_vpl_speed`.

The networks are those of the `paper` preset, weight for weight, so that only the way of running them differs. The set
encoder runs in a Python loop with one iteration a user, the loss takes one target pair for each user, and micro-batches
of 4 users are accumulated 8 times before the optimiser steps. Nothing is slowed down on purpose: the released code's
anomaly detection, text files of embeddings and projections at evaluation are left out, and features come from memory.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, logsigmoid, normalize

from persona.objectives.elbo import cyclical_beta
from persona.profiles.amortised import AmortisedProfile
from persona.profiles.reward_heads import ConcatHead
from persona.profiles.set_encoders import SLOPE, ConcatEncoder

MICRO_BATCH = 4
ACCUMULATED = 8


def encode_in_a_loop(
    encoder: ConcatEncoder, chosen: Tensor, rejected: Tensor, ends: list[tuple[int, int]]
) -> Tensor:
    """Mean and log-variances (B, 2, Z): all pairs through the MLP together, then one user after another.

    Args:
        encoder: The weights.
        chosen: Features of all users' preferred replies, one user after another. Shape (sum of P, D).
        rejected: Of the others, same shape.
        ends: First and last row (exclusive) of each user.
    """
    pairs = torch.cat([chosen, rejected], dim=-1)
    tokens = encoder.token(leaky_relu(encoder.outer(leaky_relu(encoder.inner(pairs), SLOPE)), SLOPE))
    beliefs = []
    for start, end in ends:
        own = tokens[start:end]
        alike = encoder.query(own) @ encoder.key(own).mT / math.sqrt(own.shape[1])
        pooled = (alike.softmax(-1) @ encoder.value(own)).mean(0)
        beliefs.append(torch.stack([encoder.mean(pooled), encoder.log_variance(pooled)]))
    return torch.stack(beliefs).clamp(-1.0, 1.0)


def train_one_step(
    profile: AmortisedProfile,
    optimiser: torch.optim.Optimizer,
    context: tuple[Tensor, Tensor],
    target: tuple[Tensor, Tensor],
    *,
    beta: float,
    step: int,
    noise: torch.Generator,
) -> float:
    """One optimiser step over the users of the batch, in accumulated micro-batches; the mean loss.

    Args:
        profile: With the published encoder and head; trained in place.
        optimiser: Over its weights.
        context: Chosen and rejected features of each user's context. Shape (B, P, D) each.
        target: Of one target pair a user. Shape (B, D) each.
        beta: Weight of the KL.
        step: Optimiser step, for the annealing.
        noise: Draws the latents.
    """
    encoder, head = profile.encoder, profile.head
    assert isinstance(encoder, ConcatEncoder)
    assert isinstance(head, ConcatHead)
    rows, pairs, _ = context[0].shape
    optimiser.zero_grad()
    total = 0.0
    for first in range(0, rows, MICRO_BATCH):
        own = slice(first, min(first + MICRO_BATCH, rows))
        size = own.stop - own.start
        ends = [(user * pairs, (user + 1) * pairs) for user in range(size)]
        chosen, rejected = (part[own].flatten(0, 1) for part in context)
        mean, log_variance = encode_in_a_loop(encoder, chosen, rejected, ends).unbind(1)
        drawn = torch.randn(mean.shape, generator=noise)
        z = normalize(mean + drawn * torch.exp(0.5 * log_variance), dim=-1) * math.sqrt(mean.shape[1])
        won, lost = (head.personal(part[own, None], z)[:, 0] for part in target)
        divergence = -0.5 * (1.0 + log_variance - mean.square() - log_variance.exp()).sum(-1)
        weight = cyclical_beta(beta, step=step, period=10_000)
        loss = (-logsigmoid(won - lost) + weight * divergence).mean() * size / rows
        loss.backward()
        total += loss.item()
    optimiser.step()
    return total
