"""Direct preference optimisation of a policy against a reference, on replies and on whole dialogues."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from persona.errors import ShapeError


class TurnLogProbs(NamedTuple):
    """What policy and reference think of the turns of B dialogues, in nats.

    policy: log p of each turn's tokens under the policy. Shape (B, H).
    reference: The same under the reference, without gradient. Shape (B, H).
    mask: True where the dialogue has that turn; values elsewhere are not read. Shape (B, H), bool.
    """

    policy: Tensor
    reference: Tensor
    mask: Tensor


def dpo_loss(
    policy_chosen: Tensor, policy_rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> Tensor:
    """Negative log-likelihood that the chosen reply is preferred, by implicit rewards.

    -log sigmoid(beta * [(policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)]), stably.

    Args:
        policy_chosen: log p of the chosen reply under the policy, in nats. Shape (B,).
        policy_rejected: The same for the rejected reply. Shape (B,).
        ref_chosen: log p of the chosen reply under the reference. Shape (B,).
        ref_rejected: The same for the rejected reply. Shape (B,).
        beta: Strength of the pull towards the reference, positive.

    Returns:
        Loss of each pair in nats, unreduced. Shape (B,).

    Raises:
        ShapeError: The four differ in shape.

    Example:
        >>> loss = dpo_loss(*(torch.tensor([x]) for x in (-3.0, -5.0, -4.0, -4.0)), beta=0.5)
        >>> round(loss.item(), 4)  # log(1 + exp(-0.5 * (1 + 1)))
        0.3133

    Source: Rafailov et al. (2023), "Direct Preference Optimization", arXiv 2305.18290, eq. 7.
    """
    shapes = [tuple(x.shape) for x in (policy_chosen, policy_rejected, ref_chosen, ref_rejected)]
    if len(set(shapes)) != 1:
        raise ShapeError(
            f"The four log-probabilities must have one shape; got {shapes}. Pass one number a pair in each."
        )
    margin = (policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)
    return -functional.logsigmoid(beta * margin)


def multi_turn_dpo_loss(chosen: TurnLogProbs, rejected: TurnLogProbs, *, beta: float) -> Tensor:
    """DPO on dialogues: implicit rewards are summed over the policy's own turns, and over nothing else.

    -log sigmoid(beta * [sum_h log(pi / ref)(chosen turn h) - sum_h log(pi / ref)(rejected turn h)]). What the
    user says has no term, so its likelihood is never trained. This is exact where the other side answers
    deterministically; a simulated user should therefore be re-run under the same random numbers for both
    dialogues of a pair.

    Args:
        chosen: Turns of the preferred dialogues. Shapes (B, H).
        rejected: Turns of the others, of any number of turns. Shapes (B, H').
        beta: Strength of the pull towards the reference, positive.

    Returns:
        Loss of each pair in nats, unreduced. Shape (B,). With one turn it equals `dpo_loss`.

    Raises:
        ShapeError: The parts of one side differ in shape, or the sides in their number of rows.

    Source: Xiong et al. (2024), "Building Math Agents with Multi-Turn Iterative Preference Learning", arXiv
    2409.02392, M-DPO.
    """
    sides = [sum_turns(side) for side in (chosen, rejected)]
    return dpo_loss(sides[0][0], sides[1][0], sides[0][1], sides[1][1], beta)


def sum_turns(side: TurnLogProbs) -> tuple[Tensor, Tensor]:
    """Log-probability of all turns of each dialogue together, under the policy and under the reference; each (B,).

    Raises:
        ShapeError: The three parts have not one shape (B, H).
    """
    shapes = [tuple(x.shape) for x in side]
    if len(set(shapes)) != 1 or side.mask.ndim != 2:
        raise ShapeError(
            f"`policy`, `reference` and `mask` must have one shape (B, H); got {shapes}. Pad missing turns "
            "and mask them."
        )
    nothing = torch.zeros((), dtype=side.policy.dtype, device=side.policy.device)
    policy, reference = (torch.where(side.mask, x, nothing).sum(1) for x in (side.policy, side.reference))
    return policy, reference
