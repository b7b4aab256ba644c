"""Identity preference optimisation: the margin of a policy over its reference is drawn to a finite target."""

from torch import Tensor

from persona.errors import DataError, ShapeError


def ipo_loss(
    policy_chosen: Tensor, policy_rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> Tensor:
    """Squared distance of each pair's margin from 1 / (2 beta).

    (h - 1 / (2 beta))^2 with h = [(policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)]. A pair whose
    margin has passed the target is drawn back, so certain labels do not push log-probabilities without end as in
    `dpo_loss`. If a share p of the labels prefers the first reply, the best margin is (2 p - 1) / (2 beta).

    The log-probabilities may be sums over tokens or means (`mean_log_probs`): the same beta then asks for a margin
    in nats a reply, or in nats a token, which is tens of times more. The paper and the code of FSPO sum, TRL takes
    means.

    Args:
        policy_chosen: log p of the chosen reply under the policy, in nats. Shape (B,).
        policy_rejected: The same for the rejected reply. Shape (B,).
        ref_chosen: log p of the chosen reply under the reference. Shape (B,).
        ref_rejected: The same for the rejected reply. Shape (B,).
        beta: Strength of the pull towards the reference, positive.

    Returns:
        Loss of each pair in nats squared, unreduced. Shape (B,).

    Raises:
        ShapeError: The four differ in shape.
        DataError: `beta` is not positive.

    Example:
        >>> loss = ipo_loss(*(torch.tensor([x]) for x in (-3.0, -5.0, -4.0, -4.0)), beta=0.1)
        >>> round(loss.item(), 4)  # (1 + 1 - 1 / 0.2)^2
        9.0

    Source: Azar et al. (2023), "A General Theoretical Paradigm to Understand Learning from Human Preferences",
    arXiv 2310.12036, eq. 17.
    """
    shapes = [tuple(x.shape) for x in (policy_chosen, policy_rejected, ref_chosen, ref_rejected)]
    if len(set(shapes)) != 1:
        raise ShapeError(
            f"The four log-probabilities must have one shape; got {shapes}. Pass one number a pair in each."
        )
    if not beta > 0:
        raise DataError(f"`beta` must be positive; got {beta}. Take 0.01 to 1.")
    margin = (policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)
    return (margin - 1.0 / (2.0 * beta)).square()


def mean_log_probs(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """Log-probability a token of each reply, from that of the whole reply: the length-averaged form of a loss.

    Args:
        log_probs: log p of each reply, in nats. Shape (B,).
        lengths: Tokens of each reply, at least 1. Shape (B,).

    Returns:
        Nats a token. Shape (B,).

    Raises:
        ShapeError: The two differ in shape.
        DataError: A reply has no token.

    Example:
        >>> mean_log_probs(torch.tensor([-6.0]), torch.tensor([3]))
        tensor([-2.])
    """
    if log_probs.shape != lengths.shape:
        raise ShapeError(
            f"`log_probs` and `lengths` must have one shape; got {tuple(log_probs.shape)} and "
            f"{tuple(lengths.shape)}. Pass one length a reply."
        )
    if lengths.numel() and int(lengths.min()) < 1:
        raise DataError(
            f"`lengths` must be at least 1; got {int(lengths.min())}. Count the end token as the reply's."
        )
    return log_probs / lengths
