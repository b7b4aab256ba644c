"""Weights over K rewards that follow the prompt, tilted by each user: what MiCRo and PRO have in common.

Lifted features of a reply hold its K rewards, then the K log-weights of its prompt.
"""

import torch
from torch import Tensor

from persona.errors import ShapeError
from persona.types import ReplyPairs


def read_lifted(pairs: ReplyPairs, size: int) -> tuple[Tensor, Tensor]:
    """How much more each reward the first reply of a pair has, and the log-weights of its prompt.

    Args:
        pairs: With lifted features (B, P, 2 K).
        size: Number K of rewards.

    Returns:
        Two tensors of shape (B, P, K).

    Raises:
        ShapeError: Pairs that were not built from lifted features.
    """
    if pairs.chosen.shape[-1] != 2 * size:
        raise ShapeError(
            f"Pairs must have {2 * size} columns, those of lifted features; got {pairs.chosen.shape[-1]}. Build them "
            "from `profile.lift(features)`."
        )
    # Both replies answer one prompt; the mean of the two keeps a swap exact.
    return pairs.difference[..., :size], 0.5 * (pairs.chosen + pairs.rejected)[..., size:]


def tilted_sums(values: Tensor, log_weights: Tensor, tilts: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted sum of K values, and sum of the weights, for each of S users who tilt the weights.

    The first over the second is the mean under softmax(log_weights + tilt). Two matrix products; nothing has the shape
    (..., S, K).

    Args:
        values: Shape (..., K).
        log_weights: Shape (..., K).
        tilts: What each user adds to the log-weights. Shape (S, K).

    Returns:
        Two tensors of shape (..., S).

    Example:
        >>> even, towards_first = [0.0, 0.0], [1.0986123, 0.0]
        >>> total, weight = tilted_sums(torch.tensor([4.0, 0.0]), torch.zeros(2), torch.tensor([even, towards_first]))
        >>> (total / weight).tolist()
        [2.0, 3.0]
    """
    weights, tilt = torch.softmax(log_weights, dim=-1), tilts.exp().T
    return (weights * values) @ tilt, weights @ tilt
