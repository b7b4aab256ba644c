"""The Hedge algorithm's targets: heads that predicted a choice well gain weight, exponentially."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from persona.errors import DataError, ShapeError


def hedge_target(log_router: Tensor, margins: Tensor, *, temperature: float) -> Tensor:
    """The weights that a router should have given each pair: w_k ~ f_k exp(-L_k / temperature).

    L_k = -log sigmoid(margin_k) is what head k pays for the pair. At temperature 1 this is Bayes' rule; the
    paper's 1e-3 and 1e-4 make it a vote for the single best head. Carries no gradient.

    Args:
        log_router: Log-weights f of the heads at each pair's prompt. Shape (B, K).
        margins: Reward of the chosen reply minus that of the rejected one under each head. Shape (B, K).
        temperature: Positive, in nats.

    Returns:
        Shape (B, K), rows sum to 1.

    Raises:
        ShapeError: The two differ in shape.
        DataError: A temperature that is not positive.

    Example:
        >>> hedge_target(torch.zeros(1, 2), torch.tensor([[0.0, 50.0]]), temperature=1.0)
        tensor([[0.3333, 0.6667]])

    Source: Shen et al. (2025), "MiCRo", arXiv 2505.24846, stage 2; Freund & Schapire (1997), "A
    Decision-Theoretic Generalization of On-Line Learning", JCSS 55(1).
    """
    if log_router.shape != margins.shape:
        raise ShapeError(
            "`log_router` and `margins` must have one shape (B, K); got "
            f"{tuple(log_router.shape)} and {tuple(margins.shape)}. Pass one margin for each head."
        )
    if not temperature > 0:
        raise DataError(f"`temperature` must be positive; got {temperature}. Use 1 for Bayes' rule.")
    return torch.softmax(log_router.detach() + logsigmoid(margins.detach()) / temperature, dim=-1)


def hedge_loss(log_router: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy (B,), in nats, of a router's weights against targets, both (B, K).

    Raises:
        ShapeError: The two differ in shape.
    """
    if log_router.shape != target.shape:
        raise ShapeError(
            "`log_router` and `target` must have one shape (B, K); got "
            f"{tuple(log_router.shape)} and {tuple(target.shape)}. Take both from the same pairs."
        )
    return -(target * log_router.clamp_min(-1e4)).sum(-1)
