"""A personal reward on one scale for everybody: the probability that a reply wins against a reference set.

Rewards of Bradley-Terry models are logits, and how far they spread differs from user to user: a policy trained on all
of them follows the loudest. The probability of winning lies in 0..1 for each user, and shrinks towards one half where
the belief about the user is unsure.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from persona.errors import ShapeError
from persona.types import Posterior, ReplyPairs

if TYPE_CHECKING:  # Profiles read the attributes of this package, so the package cannot wait for them.
    from persona.profiles import Profile

NUMBERS_PER_BLOCK = 1 << 23
"""Largest array of pairs that is held at once, in numbers; it bounds memory and changes no result."""


def win_probability(
    profile: "Profile", posterior: Posterior, candidates: Tensor, reference: Tensor | None = None
) -> Tensor:
    """How likely each user prefers each candidate to a reply of the reference set, on average over the set.

    reward(y) = mean over references y' of P(y preferred to y' | belief), with the belief integrated out by
    `profile.predict`. Costs B C R predictions.

    Args:
        profile: Predicts one reply against another.
        posterior: Belief about B users.
        candidates: Lifted features of C replies for each user. Shape (B, C, L), float.
        reference: Lifted features of the replies to win against: the same for all users, (R, L), or each user's own,
            (B, R, L), as a profile that reads the prompt needs. None: each candidate meets the other candidates of
            its row.

    Returns:
        Shape (B, C), in 0..1; a reply that is no different from the references has one half.

    Raises:
        ShapeError: The shapes do not fit one another, or there is nothing to win against.

    Source: Poddar et al. (2024), "Personalizing Reinforcement Learning from Human Feedback with Variational
    Preference Learning", section 4.2 (VPL-SPO), after Swamy et al. (2024), "A Minimaximalist Approach to
    Reinforcement Learning from Human Feedback".
    """
    opponents = _opponents(posterior, candidates, reference)
    rows, count, width = candidates.shape
    block = max(1, NUMBERS_PER_BLOCK // max(1, rows * count * width))
    wins = candidates.new_zeros(rows, count)
    for part in opponents.split(block, dim=1):
        wins += _won_against(profile, posterior, candidates, part)
    if reference is not None:
        return wins / opponents.shape[1]
    # A reply against itself is an even call of exactly one half, which is taken out of its row.
    return ((wins - 0.5) / (count - 1)).clamp(0.0, 1.0)


def _opponents(posterior: Posterior, candidates: Tensor, reference: Tensor | None) -> Tensor:
    """The replies to win against. Shape (B, R, L)."""
    opponents = candidates if reference is None else reference
    least = 2 if reference is None else 1
    rows = len(posterior.mean)
    fits = (
        candidates.ndim == 3
        and candidates.shape[0] == rows
        and opponents.ndim in (2, 3)
        and opponents.shape[-1] == candidates.shape[2]
        and opponents.shape[-2] >= least
        and (opponents.ndim == 2 or len(opponents) == rows)
    )
    if not fits:
        raise ShapeError(
            f"`candidates` must have shape ({rows}, C, L), one row for each belief, and `reference` (R, L) or "
            f"({rows}, R, L) with at least one reply; got {tuple(candidates.shape)} and "
            f"{'no reference' if reference is None else tuple(reference.shape)}. Pass lifted features of both; "
            "without a reference, at least two candidates."
        )
    return opponents if opponents.ndim == 3 else opponents.expand(rows, -1, -1)


def _won_against(profile: "Profile", posterior: Posterior, candidates: Tensor, opponents: Tensor) -> Tensor:
    """Expected number of `opponents` (B, R, L) that each candidate beats. Shape (B, C)."""
    rows, count, width = candidates.shape
    met = opponents.shape[1]
    first = candidates[:, :, None].expand(-1, -1, met, -1).reshape(rows, count * met, width)
    second = opponents[:, None].expand(-1, count, -1, -1).reshape(rows, count * met, width)
    mask = torch.ones(rows, count * met, dtype=torch.bool, device=candidates.device)
    won = profile.predict(posterior, ReplyPairs(first, second, mask))
    return won.reshape(rows, count, met).sum(2)
