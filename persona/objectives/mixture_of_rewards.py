"""The likelihood of a choice under several rewards of which a router picks one by the prompt."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from persona.errors import ShapeError


def mixture_of_rewards_loss(log_router: Tensor, margins: Tensor, *, balance: float) -> Tensor:
    """Negative log-likelihood of each choice under the mixture, plus a pull of the router towards evenness.

    -log sum_k f_k sigmoid(margin_k) + balance * sum_k f_k log f_k. The second term is the router's negative
    entropy: it is added, so a positive `balance` rewards entropy and spreads the weights. It is 0 for a router
    that is sure and -balance * log K for an even one, so the loss may be negative.

    Args:
        log_router: Log-weights f of the heads at each pair's prompt. Shape (B, K), exponentials sum to 1.
        margins: Reward of the chosen reply minus that of the rejected one under each head. Shape (B, K).
        balance: Weight of the negative entropy; the paper uses 0.5.

    Returns:
        Shape (B,), in nats, unreduced.

    Raises:
        ShapeError: The two differ in shape.

    Example:
        >>> even = torch.full((1, 2), 0.5).log()
        >>> loss = mixture_of_rewards_loss(even, torch.zeros(1, 2), balance=0.5)
        >>> round(loss.item(), 4)  # log 2 - 0.5 * log 2
        0.3466

    Source: Shen et al. (2025), "MiCRo", arXiv 2505.24846, stage 1.
    """
    if log_router.shape != margins.shape or log_router.ndim != 2:
        raise ShapeError(
            "`log_router` and `margins` must have one shape (B, K); got "
            f"{tuple(log_router.shape)} and {tuple(margins.shape)}. Pass one margin for each head."
        )
    surprise = -torch.logsumexp(log_router + logsigmoid(margins), dim=-1)
    # f log f tends to 0 where f does; the exponential is 0 there before the product can be NaN.
    negative_entropy = (log_router.exp() * log_router.clamp_min(-1e4)).sum(-1)
    return surprise + balance * negative_entropy
