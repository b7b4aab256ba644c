"""Losses of the gap between two replies' scores, in logits, positive where the preferred reply is ahead."""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus


def logistic_loss(gap: Tensor) -> Tensor:
    """-log sigmoid(gap): the log loss of Bradley-Terry.

    Args:
        gap: Score of the preferred reply minus that of the other one. Any shape, float.

    Returns:
        Same shape, in nats, above 0.

    Example:
        >>> logistic_loss(torch.tensor([0.0])).exp()
        tensor([2.])

    Source: Chen et al. (2024), "PAL: Sample-Efficient Personalized Reward Modeling for Pluralistic Alignment", the
    cross-entropy of PAL-B.
    """
    return softplus(-gap)


def hinge_loss(gap: Tensor, *, margin: float = 1.0) -> Tensor:
    """max(0, margin - gap): nothing to pay once the preferred reply is ahead by the margin.

    Args:
        gap: Score of the preferred reply minus that of the other one. Any shape, float.
        margin: How far ahead is enough, above 0.

    Returns:
        Same shape, at least 0.

    Example:
        >>> hinge_loss(torch.tensor([-1.0, 0.0, 3.0]))
        tensor([2., 1., 0.])

    Source: Chen et al. (2024), "PAL", the loss of PAL-A.
    """
    return (margin - gap).clamp_min(0.0)


def moderated_gap(mean: Tensor, variance: Tensor) -> Tensor:
    """A Gaussian gap as one number: mean / sqrt(1 + pi variance / 8), the logit of the probability to be ahead.

    Args:
        mean: Any shape, float.
        variance: At least 0, same shape.

    Returns:
        Same shape; its sigmoid is `persona.profiles.predictive_probability`.

    Source: MacKay (1992), "The Evidence Framework Applied to Classification Networks", Neural Computation 4(5).
    """
    return mean * torch.rsqrt(1.0 + math.pi / 8.0 * variance)
