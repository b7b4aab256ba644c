"""Bradley-Terry where two replies may be called equally good, so that ties are learned from and never tossed.

A tie says that two replies are close, which a strict choice does not. Breaking ties by a coin adds noise to the
labels, and dropping them throws that away. Two classical models are here, each with one parameter for how
readily ties are called, which may be learned, and may differ by user.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from persona.errors import ShapeError


def rao_kupper_loss(margin: Tensor, is_tie: Tensor, log_width: Tensor) -> Tensor:
    """Negative log-likelihood of a strict choice or a tie, by Rao and Kupper's rule.

    With d the margin and k = exp(log_width): P(first) = s(d - log k), P(second) = s(-d - log k), and P(tie) is
    the rest, (k^2 - 1) s(d - log k) s(-d - log k). At log_width 0 a strict choice has Bradley-Terry's loss and
    a tie is impossible.

    Args:
        margin: Reward of the chosen reply minus that of the other one, in logits; the order is without meaning
            for a tie. Any shape, float.
        is_tie: True where the two were called equally good. The shape of `margin`, bool.
        log_width: Log of k, at least 0: a reply that is this much ahead wins as often as it does not;
            one number, or any shape that broadcasts to `margin`, such as one a user.

    Returns:
        Loss of each comparison in nats, unreduced. The shape of `margin`; infinite for a tie at log_width 0.

    Raises:
        ShapeError: `is_tie` or `log_width` does not fit `margin`.

    Example:
        >>> loss = rao_kupper_loss(torch.zeros(2), torch.tensor([False, True]), torch.tensor(1.6094))  # k = 5
        >>> loss.neg().exp()  # 1 / (1 + 5) and 1 - 2 / 6
        tensor([0.1667, 0.6667])

    Source: Rao & Kupper (1967), "Ties in Paired-Comparison Experiments", JASA 62(317); as a reward loss Liu et
    al. (2025), "Improving Video Generation with Human Feedback", arXiv 2501.13918, there with k fixed at 5.
    """
    _check(margin, is_tie, log_width, "log_width")
    ahead = logsigmoid(margin - log_width)
    # Where there is no tie the width is replaced, so that no infinite gradient is multiplied by nothing.
    width = torch.where(is_tie, log_width, torch.ones_like(margin))
    behind = logsigmoid(-margin - width)
    # log(k^2 - 1) = 2 log k + log(1 - k^-2), without overflow for a large k.
    room = 2.0 * width + torch.log(-torch.expm1(-2.0 * width))
    return -torch.where(is_tie, ahead + behind + room, ahead)


def davidson_loss(margin: Tensor, is_tie: Tensor, log_ties: Tensor) -> Tensor:
    """Negative log-likelihood of a strict choice or a tie, by Davidson's rule.

    P(first) : P(second) : P(tie) = exp(d/2) : exp(-d/2) : nu with d the margin and nu = exp(log_ties), so strict
    choices alone follow Bradley-Terry exactly, whatever nu. As log_ties falls to -inf it is Bradley-Terry's loss.

    Args:
        margin: Reward of the chosen reply minus that of the other one, in logits. Any shape, float.
        is_tie: True where the two were called equally good. The shape of `margin`, bool.
        log_ties: How readily ties are called, any number; between equals their odds are nu to 2. Broadcasts to
            `margin`.

    Returns:
        Loss of each comparison in nats, unreduced. The shape of `margin`.

    Raises:
        ShapeError: `is_tie` or `log_ties` does not fit `margin`.

    Example:
        >>> davidson_loss(torch.zeros(2), torch.tensor([False, True]), torch.zeros(())).exp()  # three equal odds
        tensor([3., 3.])

    Source: Davidson (1970), "On Extending the Bradley-Terry Model to Accommodate Ties in Paired Comparison
    Experiments", JASA 65(329).
    """
    _check(margin, is_tie, log_ties, "log_ties")
    level = log_ties.expand_as(margin)
    outcomes = torch.stack([margin / 2.0, -margin / 2.0, level], dim=-1)
    return outcomes.logsumexp(-1) - torch.where(is_tie, level, outcomes[..., 0])


def rated_loss(
    score: Tensor, rating: Tensor, mask: Tensor, log_width: Tensor, *, slack: float = 0.0
) -> Tensor:
    """Loss of the scores of rated replies: every two of a prompt, the better rated as chosen, equal ones as a tie.

    Only the order of ratings is read, never their distance, so raters may use their scales as they like.

    Args:
        score: Reward of each reply, in logits. Shape (B, N), float.
        rating: What the user gave it, on any scale. Shape (B, N), float.
        mask: True where a reply is there and rated; values elsewhere are not read. Shape (B, N), bool.
        log_width: See `rao_kupper_loss`; above 0 where ratings tie. One number, or shape (B, 1).
        slack: Ratings that differ by at most this are a tie.

    Returns:
        Mean over each prompt's pairs, in nats; 0 where fewer than two replies are rated. Shape (B,). Costs
        O(B N^2).

    Raises:
        ShapeError: The first three differ in shape.

    Example:
        >>> rated_loss(torch.zeros(1, 2), torch.tensor([[1.0, 4.0]]), torch.ones(1, 2).bool(), torch.zeros(()))
        tensor([0.6931])
    """
    if not (score.ndim == 2 and score.shape == rating.shape == mask.shape):
        raise ShapeError(
            "`score`, `rating` and `mask` must have one shape (B, N); got "
            f"{tuple(score.shape)}, {tuple(rating.shape)} and {tuple(mask.shape)}. Pad and mask missing replies."
        )
    first, second = torch.triu_indices(score.shape[1], score.shape[1], offset=1, device=score.device)
    real = mask[:, first] & mask[:, second]
    nothing = torch.zeros((), dtype=score.dtype, device=score.device)
    known, given = torch.where(mask, score, nothing), torch.where(mask, rating.to(score.dtype), nothing)
    gap = given[:, first] - given[:, second]
    margin = (known[:, first] - known[:, second]) * torch.where(gap < 0, -1.0, 1.0)
    # Absent pairs are strict, so that their loss is finite at any width.
    is_tie = (gap.abs() <= slack) & real
    loss = torch.where(real, rao_kupper_loss(margin, is_tie, log_width), nothing)
    return loss.sum(1) / real.sum(1).clamp_min(1)


def _check(margin: Tensor, is_tie: Tensor, level: Tensor, name: str) -> None:
    try:
        fits = torch.broadcast_shapes(margin.shape, level.shape) == margin.shape
    except RuntimeError:
        fits = False
    if is_tie.shape != margin.shape or not fits:
        raise ShapeError(
            f"`is_tie` must have the shape of `margin` and `{name}` must broadcast to it; got "
            f"{tuple(is_tie.shape)} and {tuple(level.shape)} for {tuple(margin.shape)}. Pass one entry for each "
            "comparison."
        )
