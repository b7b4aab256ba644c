"""Kahneman-Tversky optimisation: learning from replies, or whole dialogues, that were each good or bad by itself."""

from typing import NamedTuple

import torch
from torch import Tensor

from persona.errors import DataError, ShapeError
from persona.objectives.dpo import TurnLogProbs, sum_turns


class KtoWeights(NamedTuple):
    """What a good and a bad example count for, both positive.

    desirable: lambda_D.
    undesirable: lambda_U. With unequal numbers, weights in inverse proportion to them balance the two sides.
    """

    desirable: float = 1.0
    undesirable: float = 1.0


def kto_loss(
    policy: Tensor,
    reference: Tensor,
    desirable: Tensor,
    baseline: Tensor,
    *,
    beta: float,
    weights: KtoWeights = KtoWeights(),  # noqa: B008 - a named tuple cannot be changed
) -> Tensor:
    """How far each example falls short of the most that it could be worth.

    With r = policy - reference and z = baseline: lambda_D (1 - sigmoid(beta (r - z))) for a desirable example,
    lambda_U (1 - sigmoid(beta (z - r))) for an undesirable one. It is bounded, so an example that is hopeless or safe
    has no gradient.

    Args:
        policy: log p of each reply under the policy, in nats. Shape (B,).
        reference: The same under the reference. Shape (B,).
        desirable: True where the example is good. Shape (B,), bool.
        baseline: z0, how far the policy has moved from the reference anyway, in nats, without gradient; see
            `kto_baseline`. Shape () or (B,).
        beta: Strength of the pull towards the reference, positive.
        weights: What good and bad examples count for.

    Returns:
        Loss of each example, between 0 and its weight, unreduced. Shape (B,).

    Raises:
        ShapeError: The parts differ in shape.
        DataError: `beta` or a weight is not positive.

    Example:
        >>> policy, reference, good = torch.tensor([-3.0]), torch.tensor([-5.0]), torch.tensor([True])
        >>> loss = kto_loss(policy, reference, good, torch.tensor(1.0), beta=0.5)
        >>> round(loss.item(), 4)  # 1 - 1 / (1 + exp(-0.5 * (2 - 1)))
        0.3775

    Source: Ethayarajh et al. (2024), "KTO: Model Alignment as Prospect Theoretic Optimization", arXiv 2402.01306,
    eq. 7-8, less the constants lambda_y.
    """
    shapes = [tuple(x.shape) for x in (policy, reference, desirable)]
    if len(set(shapes)) != 1 or policy.ndim != 1 or baseline.shape not in {(), policy.shape}:
        raise ShapeError(
            "`policy`, `reference` and `desirable` must have one shape (B,), and `baseline` that or (); got "
            f"{shapes} and {tuple(baseline.shape)}. Pass one number an example."
        )
    if not (beta > 0 and min(weights) > 0):
        raise DataError(f"`beta` and `weights` must be positive; got {beta} and {tuple(weights)}.")
    gain = beta * (policy - reference - baseline.detach())
    worth = torch.sigmoid(torch.where(desirable, gain, -gain))
    weight = torch.where(desirable, weights.desirable, weights.undesirable)
    return weight.to(worth.dtype) * (1 - worth)


def kto_baseline(policy: Tensor, reference: Tensor) -> Tensor:
    """z0 of a batch: the mean log-ratio of replies that belong to other prompts, at least 0, without gradient.

    The mean over replies of the policy would be its divergence from the reference; replies to other prompts, which are
    at hand, stand in for them.

    Args:
        policy: log p of each mismatched reply under the policy, in nats. Shape (B,).
        reference: The same under the reference. Shape (B,).

    Returns:
        Shape ().

    Raises:
        ShapeError: The two differ in shape, or are empty.

    Source: Ethayarajh et al. (2024), arXiv 2402.01306, section 4.1, the biased estimate of the divergence.
    """
    if policy.shape != reference.shape or not policy.numel():
        raise ShapeError(
            "`policy` and `reference` must have one shape and at least one entry; got "
            f"{tuple(policy.shape)} and {tuple(reference.shape)}."
        )
    return (policy - reference).mean().clamp(min=0).detach()


def multi_turn_kto_loss(
    dialogues: TurnLogProbs,
    desirable: Tensor,
    baseline: Tensor,
    *,
    beta: float,
    weights: KtoWeights = KtoWeights(),  # noqa: B008 - a named tuple cannot be changed
) -> Tensor:
    """KTO on dialogues: log-ratios are summed over the policy's own turns, and over nothing else.

    What the user says has no term, so its likelihood is never trained.

    Args:
        dialogues: Turns of B dialogues. Shapes (B, H).
        desirable: True where the dialogue ended well. Shape (B,), bool.
        baseline: z0 of whole dialogues, in nats, without gradient. Shape () or (B,).
        beta: Strength of the pull towards the reference, positive.
        weights: What good and bad dialogues count for.

    Returns:
        Loss of each dialogue, unreduced. Shape (B,). With one turn it equals `kto_loss`.

    Raises:
        ShapeError: The parts differ in shape.
        DataError: `beta` or a weight is not positive.

    Source: Xiong et al. (2024), "Building Math Agents with Multi-Turn Iterative Preference Learning", arXiv
    2409.02392, M-KTO.
    """
    policy, reference = sum_turns(dialogues)
    return kto_loss(policy, reference, desirable, baseline, beta=beta, weights=weights)
