"""In-context ranking preference optimisation (IRPO), and beside it the two forms that it must be measured against.

All three see a list of n items through implicit rewards s_i = beta (score_i - reference_i), where the scores are the
policy's and the reference's log-probabilities of the items, up to a constant a list. They differ in what they ask:

- `irpo_loss`: every relevant item above the rest of its list, weighted by its gain and its place;
- `listwise_loss`: the same with weight 1;
- `single_pair_loss`: one relevant item above one other, which is DPO.

IRPO models "item i goes before all others" as sigmoid(-log sum_{j != i} exp(s_j - s_i)). With j != i this is the
softmax over the list: writing R for the sum, sigmoid(-log R) = 1 / (1 + R), and 1 = exp(s_i - s_i) is the missing
term of the sum. So IRPO is a cross-entropy over the list, weighted as NDCG weighs hits, and is computed as one
log-softmax: O(n) instead of O(n^2), and stable. A sum that kept j = i would only turn 1 / (1 + R) into 1 / (2 + R).

Differs from the authors' published code, which takes the mean over j != i where the formula has the sum, and the mean
over the items of a list where it has the sum. The first makes a list's length cancel and the softmax identity fail.

Source: Wu, Surana et al. (COLM 2025), "In-context Ranking Preference Optimization", arXiv 2504.15477.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from recsys.errors import RecsysError, ShapeError


class ListObjective(Protocol):
    """What the functions of this module have in common, so that a recipe is handed one of them."""

    def __call__(
        self,
        scores: Tensor,
        reference_scores: Tensor,
        relevance: Tensor,
        positions: Tensor | None = None,
        *,
        beta: float,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Loss of each list in nats, unreduced. Shape (B,). For the arguments see `irpo_loss`."""
        ...


def irpo_loss(
    scores: Tensor,
    reference_scores: Tensor,
    relevance: Tensor,
    positions: Tensor | None = None,
    *,
    beta: float,
    mask: Tensor | None = None,
) -> Tensor:
    """-sum_i w(i) log softmax_i(s), with w(i) = (2^relevance_i - 1) / log2(1 + position_i).

    Args:
        scores: Policy's score of each item, in logits. Shape (B, n).
        reference_scores: The reference's score of the same items; treated as a constant. Shape (B, n).
        relevance: Grade of each item, 0 for irrelevant, larger for better. Shape (B, n).
        positions: Place of each item in the list that was shown, from 1. Shape (B, n). None: in the order given.
        beta: Strength of the pull towards the reference, above 0.
        mask: False where a list is padded; values there are not read. Shape (B, n), bool. None: nothing is padded.

    Returns:
        Loss of each list in nats, unreduced; 0 for a list without a relevant item. Shape (B,).

    Raises:
        ShapeError: The tensors are not all of one shape (B, n).
        RecsysError: `beta` is not above 0, a grade is negative, or a position is below 1.

    Example:
        >>> zero = torch.zeros(1, 2)
        >>> loss = irpo_loss(torch.tensor([[1.0, 0.0]]), zero, torch.tensor([[0, 2]]), beta=1.0)
        >>> round(loss.item(), 4)  # 3 / log2(3) * log(1 + e)
        2.4857

    Source: Wu, Surana et al. (2025), arXiv 2504.15477. Summing over j != i; see the module for the identity.
    """
    rewards, grades, places = _read_lists(scores, reference_scores, relevance, positions, beta, mask)
    weight = (torch.exp2(grades) - 1) / torch.log2(1 + places)
    return _cross_entropy(rewards, weight)


def listwise_loss(
    scores: Tensor,
    reference_scores: Tensor,
    relevance: Tensor,
    positions: Tensor | None = None,
    *,
    beta: float,
    mask: Tensor | None = None,
) -> Tensor:
    """-sum of log softmax_i(s) over the relevant items: IRPO where grade and place do not count.

    Args:
        scores: As for `irpo_loss`.
        reference_scores: As for `irpo_loss`.
        relevance: An item above 0 is relevant. Shape (B, n).
        positions: Checked, without influence.
        beta: As for `irpo_loss`.
        mask: As for `irpo_loss`.

    Returns:
        Loss of each list in nats, unreduced; 0 for a list without a relevant item. Shape (B,).

    Raises:
        ShapeError: As for `irpo_loss`.
        RecsysError: As for `irpo_loss`.
    """
    rewards, grades, _ = _read_lists(scores, reference_scores, relevance, positions, beta, mask)
    return _cross_entropy(rewards, (grades > 0).to(rewards.dtype))


def single_pair_loss(
    scores: Tensor,
    reference_scores: Tensor,
    relevance: Tensor,
    positions: Tensor | None = None,
    *,
    beta: float,
    mask: Tensor | None = None,
) -> Tensor:
    """DPO on one pair of each list: -log sigmoid(s_best - s_worst), of the highest and the lowest grade.

    Among equal grades the item with the smaller position is taken. In a retriever's own order that is the hit that it
    placed best against the miss that it placed best, which teaches a scorer to distrust it; shuffled positions draw
    a random pair instead.

    Args:
        scores: As for `irpo_loss`.
        reference_scores: As for `irpo_loss`.
        relevance: As for `irpo_loss`.
        positions: Settle ties between equal grades. Shape (B, n). None: the item given first is taken.
        beta: As for `irpo_loss`.
        mask: As for `irpo_loss`.

    Returns:
        Loss of each list in nats, unreduced; 0 for a list whose items all have one grade. Shape (B,).

    Raises:
        ShapeError: As for `irpo_loss`.
        RecsysError: As for `irpo_loss`.

    Source: Rafailov et al. (2023), "Direct Preference Optimization", arXiv 2305.18290, eq. 7.
    """
    rewards, grades, places = _read_lists(scores, reference_scores, relevance, positions, beta, mask)
    is_padded = torch.isneginf(rewards)
    best = _first_of(grades.masked_fill(is_padded, -torch.inf), places)
    worst = _first_of((-grades).masked_fill(is_padded, -torch.inf), places)
    margin = rewards.masked_fill(is_padded, 0.0).gather(1, torch.stack([best, worst], 1))
    pair = grades.gather(1, torch.stack([best, worst], 1))
    loss = -functional.logsigmoid(margin[:, 0] - margin[:, 1])
    return torch.where(pair[:, 0] > pair[:, 1], loss, torch.zeros_like(loss))


def _read_lists(
    scores: Tensor,
    reference_scores: Tensor,
    relevance: Tensor,
    positions: Tensor | None,
    beta: float,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Checked implicit rewards (-inf where padded), grades (0 there) and places (1 there). Shape (B, n) each."""
    given = {"scores": scores, "reference_scores": reference_scores, "relevance": relevance}
    given |= {name: t for name, t in (("positions", positions), ("mask", mask)) if t is not None}
    shapes = {name: tuple(tensor.shape) for name, tensor in given.items()}
    if len(set(shapes.values())) != 1 or scores.ndim != 2 or scores.shape[1] == 0:
        raise ShapeError(
            f"Lists must have one shape (B, n) in every argument, n at least 1; got {shapes}. Pad short lists and "
            "mask what was added."
        )
    if not beta > 0:
        raise RecsysError(
            f"`beta` must be above 0; got {beta}. Try 1, or more to stay nearer to the reference."
        )
    if positions is None:
        positions = torch.arange(1, scores.shape[1] + 1, device=scores.device).expand_as(scores)
    is_item = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    rewards = torch.where(is_item, beta * (scores - reference_scores.detach()), -torch.inf)
    grades = torch.where(is_item, relevance.to(scores.dtype), 0.0)
    places = torch.where(is_item, positions.to(scores.dtype), 1.0)
    if bool((grades < 0).any()):
        raise RecsysError(
            f"`relevance` must be 0 or more; got {float(grades.min()):g}. Give 0 to what is not relevant."
        )
    if bool((places < 1).any()):
        raise RecsysError(f"`positions` must be 1 or more; got {float(places.min()):g}. Count places from 1.")
    return rewards, grades, places


def _cross_entropy(rewards: Tensor, weight: Tensor) -> Tensor:
    """-sum_i weight_i log softmax_i(rewards), padded items (reward -inf) left out. Shape (B,)."""
    log_share = functional.log_softmax(rewards, dim=1)
    return -(weight * log_share.masked_fill(torch.isneginf(rewards), 0.0)).sum(1)


def _first_of(values: Tensor, places: Tensor) -> Tensor:
    """Index of the largest value of each row, among equal ones that of the smallest place. Shape (B,)."""
    is_largest = values == values.max(1, keepdim=True).values
    return places.masked_fill(~is_largest, torch.inf).argmin(1)
