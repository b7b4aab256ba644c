"""What profiles that read texts, through a language model, offer in common: a user is read once, and then asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from persona.profiles.shots import Shot
from persona.types import Conversation


class PairGaps(NamedTuple):
    """How much likelier the first of two replies is than the second, for T pairs, in nats.

    policy: Under the policy that knows the user. Shape (T,).
    reference: Under the reference that rewards are measured against. Shape (T,).
    """

    policy: Tensor
    reference: Tensor

    def log_odds(self, scale: float) -> Tensor:
        """Log-odds (T,) that the first reply is preferred, at `scale` log-odds for each nat of reward."""
        return scale * (self.policy - self.reference)


class TextProfile(Protocol):
    """A profile over texts.

    scale: Log-odds of a preference for each nat of reward, positive.
    """

    scale: float

    def read(self, shots: Sequence[Shot]) -> Any:
        """What the profile makes of a user's choices, oldest first; none are the average user."""
        ...

    def gaps(
        self, reading: Any, conversations: Sequence[Conversation], first: Sequence[str], second: Sequence[str]
    ) -> PairGaps:
        """Gaps of pairs of replies to T conversations, for the user who was read; on the CPU."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything but the base model."""
        ...


@torch.no_grad()
def text_log_odds(
    profile: TextProfile,
    reading: Any,
    conversations: Sequence[Conversation],
    first: Sequence[str],
    second: Sequence[str],
) -> Tensor:
    """Log-odds (T,) that the user who was read prefers the first of two replies to each conversation, float64."""
    if not conversations:
        return torch.zeros(0, dtype=torch.float64)
    return profile.gaps(reading, conversations, first, second).log_odds(profile.scale).double()
