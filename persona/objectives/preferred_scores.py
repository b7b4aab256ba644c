"""Weights over objectives taken from how well the preferred reply scores, as published for PRO."""

import torch
from torch import Tensor

from persona.errors import DataError, ShapeError


def preferred_score_target(scores: Tensor, *, temperature: float) -> Tensor:
    """The published pseudo-target softmax(scores / temperature) over objectives.

    It looks at the preferred reply's level, not at what set it apart: where a prompt makes every reply score
    low on an objective, that objective gets little weight, even if it alone decided. `reward_gap_loss` mends
    it.

    Args:
        scores: Normalised scores of the preferred reply. Shape (B, K), float.
        temperature: Positive; the paper uses 0.1, close to a vote for the highest score.

    Returns:
        Shape (B, K), rows sum to 1.

    Raises:
        DataError: A temperature that is not positive.

    Source: Liu et al. (2025), "PRO: Preference Orchestrator", arXiv 2511.10656.
    """
    if not temperature > 0:
        raise DataError(f"`temperature` must be positive; got {temperature}. Use 0.1, as published.")
    return torch.softmax(scores / temperature, dim=-1)


def preferred_score_loss(log_weights: Tensor, scores: Tensor, *, temperature: float) -> Tensor:
    """KL(target || weights) with the target of `preferred_score_target`.

    Args:
        log_weights: Logarithms of the weights given to the objectives at each prompt. Shape (B, K).
        scores: Normalised scores of the preferred reply. Shape (B, K).
        temperature: Of the target.

    Returns:
        Shape (B,), in nats, at least 0.

    Raises:
        ShapeError: The two differ in shape.
        DataError: A temperature that is not positive.

    Example:
        >>> loss = preferred_score_loss(torch.zeros(1, 2).log_softmax(1), torch.tensor([[1.0, 1.0]]), temperature=0.1)
        >>> abs(round(loss.item(), 4))
        0.0
    """
    if log_weights.shape != scores.shape:
        raise ShapeError(
            "`log_weights` and `scores` must have one shape (B, K); got "
            f"{tuple(log_weights.shape)} and {tuple(scores.shape)}. Pass one score for each objective."
        )
    target = preferred_score_target(scores, temperature=temperature)
    divergence: Tensor = torch.special.xlogy(target, target) - target * log_weights
    return divergence.sum(-1)
