"""Supervised learning of replies: the negative log-likelihood of the tokens that a policy should choose."""

from torch import Tensor

from persona.errors import ShapeError


def sft_loss(log_probs: Tensor, mask: Tensor) -> Tensor:
    """Mean negative log-likelihood of each row's policy tokens.

    Args:
        log_probs: Nats a token. Shape (B, N).
        mask: True where the token is the policy's; others are not read. Shape (B, N), bool.

    Returns:
        Nats a token of each row, shape (B,); a row without policy tokens has 0.

    Raises:
        ShapeError: The two differ in shape.

    Example:
        >>> log_probs, mask = torch.tensor([[-1.0, -3.0, -9.0]]), torch.tensor([[True, True, False]])
        >>> sft_loss(log_probs, mask).item()
        2.0
    """
    if log_probs.shape != mask.shape:
        raise ShapeError(
            f"`log_probs` and `mask` must have one shape; got {tuple(log_probs.shape)} and "
            f"{tuple(mask.shape)}. Take both from one call of `token_log_probs`."
        )
    return -log_probs.masked_fill(~mask, 0.0).sum(1) / mask.sum(1).clamp(min=1)
