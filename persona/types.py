"""The plain data that every part of this package speaks: comparisons, posteriors, conditions.

Axis letters: B rows of a batch, P context pairs of a user, D features of a reply, Z latent size, A named attributes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from persona.errors import ShapeError

Message: TypeAlias = Mapping[str, str]
Conversation: TypeAlias = Sequence[Message]


class ReplyPairs(NamedTuple):
    """Two replies a pair, through their features, padded to a common number of pairs.

    What users chose before is given as chosen and rejected; what is to be predicted, as first and second.

    chosen: Features of the preferred, or first, reply; zero where padded. Shape (B, P, D), float32.
    rejected: Features of the other reply, zero where padded. Shape (B, P, D), float32.
    mask: True where a pair is real. Shape (B, P), bool.
    """

    chosen: Tensor
    rejected: Tensor
    mask: Tensor

    @classmethod
    def of_differences(cls, difference: Tensor, mask: Tensor) -> "ReplyPairs":
        """Pairs of which only the difference (B, P, D) is known: enough for rewards that are linear in it."""
        return cls(difference, torch.zeros_like(difference), mask)

    @property
    def difference(self) -> Tensor:
        """features(chosen) - features(rejected). Shape (B, P, D)."""
        return self.chosen - self.rejected

    @property
    def swapped(self) -> "ReplyPairs":
        """The same pairs, the other way round."""
        return ReplyPairs(self.rejected, self.chosen, self.mask)

    def keep(self, mask: Tensor) -> "ReplyPairs":
        """Those pairs alone that `mask` (B, P) keeps, the others zero and masked."""
        kept = mask & self.mask
        return ReplyPairs(self.chosen * kept[..., None], self.rejected * kept[..., None], kept)

    @classmethod
    def join(cls, parts: Sequence["ReplyPairs"]) -> "ReplyPairs":
        """The pairs of the same users from several parts, side by side."""
        return cls(*(torch.cat(arrays, dim=1) for arrays in zip(*parts, strict=True)))


class Posterior(NamedTuple):
    """Belief about each user's latent: a Gaussian, or the mean and covariance of a mixture.

    mean: Shape (B, Z), float32. Zero is the average user.
    covariance: Positive definite. Shape (B, Z, Z), float32.
    weights: How likely each of K kinds of user is, for profiles that are a mixture; None for a plain Gaussian. Shape
        (B, K), rows sum to 1.
    """

    mean: Tensor
    covariance: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """What a policy is told about each row's user; an absent part means "the average user".

    Attributes:
        latent: Posterior means. Shape (B, Z), float32; a row of zeros where absent.
        direction: Directions over named attributes, norm at most 1; zeros where absent. Shape (B, A), float32.
        text: One description a row, None where absent; the policy puts it into the system message.
    """

    latent: Tensor
    direction: Tensor
    text: tuple[str | None, ...]

    def __post_init__(self) -> None:
        """Check that the three parts describe the same rows."""
        rows = {self.latent.shape[0], self.direction.shape[0], len(self.text)}
        if self.latent.ndim != 2 or self.direction.ndim != 2 or len(rows) != 1:
            raise ShapeError(
                "`latent`, `direction` and `text` must describe the same rows, as (B, Z), (B, A) and B texts; got "
                f"{tuple(self.latent.shape)}, {tuple(self.direction.shape)} and {len(self.text)} texts. "
                "Build it with `Condition.absent` and replace the parts that you have."
            )

    def __len__(self) -> int:
        """Number of rows B."""
        return len(self.text)

    @classmethod
    def absent(cls, rows: int, *, latent_dim: int, direction_dim: int) -> "Condition":
        """The average user in every row."""
        return cls(torch.zeros(rows, latent_dim), torch.zeros(rows, direction_dim), (None,) * rows)

    @classmethod
    def of_latent(cls, latent: Tensor, *, direction_dim: int) -> "Condition":
        """Rows known by their latent alone; `latent` has shape (B, Z)."""
        return cls(latent, torch.zeros(len(latent), direction_dim), (None,) * len(latent))

    @classmethod
    def of_direction(cls, direction: Tensor, *, latent_dim: int) -> "Condition":
        """Rows known by their direction alone; `direction` has shape (B, A)."""
        return cls(torch.zeros(len(direction), latent_dim), direction, (None,) * len(direction))

    def select(self, rows: Sequence[int] | Tensor) -> "Condition":
        """The given rows, in the given order."""
        index = torch.as_tensor(rows, dtype=torch.long)
        return Condition(
            self.latent[index], self.direction[index], tuple(self.text[i] for i in index.tolist())
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Condition"]) -> "Condition":
        """All rows of `parts`, one after another."""
        return cls(
            torch.cat([p.latent for p in parts]),
            torch.cat([p.direction for p in parts]),
            tuple(text for p in parts for text in p.text),
        )
