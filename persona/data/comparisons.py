"""Comparisons as arrays: which of two replies each user chose, and how batches of them are gathered.

Everything works on whole arrays: a batch of users costs a few indexing operations, whatever its size. Axis
letters: M comparisons, N replies, D features, B users of a batch, P context pairs, T targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.errors import DataError, ShapeError
from persona.types import ReplyPairs

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ComparisonTable:
    """Who chose which reply over which, in the order in which it happened.

    Attributes:
        users: Row of the user, at least 0. Shape (M,), int64.
        prompts: Row of the prompt that both replies answer. Shape (M,), int64.
        chosen: Row of the preferred reply. Shape (M,), int64.
        rejected: Row of the other reply. Shape (M,), int64.
        ties: True where the user called the two replies equally good, so that which is `chosen` means nothing;
            None where there are no ties. Shape (M,), bool.
    """

    users: Rows
    prompts: Rows
    chosen: Rows
    rejected: Rows
    ties: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Check shapes and ids once, so that everything after can index without looking.

        Raises:
            ShapeError: The arrays are not one-dimensional and of one length.
            DataError: A negative id, or a comparison of a reply with itself.
        """
        for name in ("users", "prompts", "chosen", "rejected"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.int64))
        arrays = (self.users, self.prompts, self.chosen, self.rejected)
        if self.ties is not None:
            object.__setattr__(self, "ties", np.ascontiguousarray(self.ties, dtype=np.bool_))
            if self.ties.shape != self.users.shape:
                raise ShapeError(
                    f"`ties` must have shape (M,) = {self.users.shape}; got {self.ties.shape}. Pass one entry for "
                    "each comparison, or None."
                )
        if {a.shape for a in arrays} != {(len(self.users),)}:
            raise ShapeError(
                "`users`, `prompts`, `chosen` and `rejected` must each have shape (M,); got "
                f"{', '.join(str(a.shape) for a in arrays)}. Pass one entry for each comparison."
            )
        bad = np.flatnonzero(np.any([a < 0 for a in arrays], axis=0) | (self.chosen == self.rejected))
        if len(bad):
            raise DataError(
                "Ids must be at least 0 and `chosen` must differ from `rejected`; got otherwise in "
                f"comparisons {bad[:3].tolist()}. Leave these comparisons out."
            )

    def __len__(self) -> int:
        """Number of comparisons M."""
        return len(self.users)

    @property
    def user_ids(self) -> Rows:
        """Users with at least one comparison, ascending."""
        return np.unique(self.users)

    def select(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "ComparisonTable":
        """The given comparisons (row numbers or a mask), in the given order."""
        ties = None if self.ties is None else self.ties[rows]
        return ComparisonTable(
            self.users[rows], self.prompts[rows], self.chosen[rows], self.rejected[rows], ties
        )

    @property
    def is_tie(self) -> NDArray[np.bool_]:
        """Whether each comparison is a tie. Shape (M,), bool; all False where `ties` is None."""
        return np.zeros(len(self), dtype=np.bool_) if self.ties is None else self.ties

    def without_ties(self) -> "ComparisonTable":
        """The strict choices alone, what learners of choices take; the table itself where there are no ties."""
        if self.ties is None:
            return self
        strict = ~self.ties
        return ComparisonTable(
            self.users[strict], self.prompts[strict], self.chosen[strict], self.rejected[strict]
        )

    @classmethod
    def concatenate(cls, parts: Sequence["ComparisonTable"]) -> "ComparisonTable":
        """All comparisons of `parts`, one part after another."""
        return cls(
            np.concatenate([p.users for p in parts]),
            np.concatenate([p.prompts for p in parts]),
            np.concatenate([p.chosen for p in parts]),
            np.concatenate([p.rejected for p in parts]),
            None if all(p.ties is None for p in parts) else np.concatenate([p.is_tie for p in parts]),
        )


class PaddedRows(NamedTuple):
    """Comparisons of each user of a batch, padded to a common number.

    rows: Row in the comparison table; 0 where padded. Shape (B, K), int64.
    mask: True where a comparison is real. Shape (B, K), bool.
    """

    rows: Rows
    mask: NDArray[np.bool_]


class Episodes(NamedTuple):
    """What a batch of users shows (context) and what is to be predicted from it (target).

    No prompt of a row's targets occurs in that row's context.
    """

    context: PaddedRows
    target: PaddedRows


def rows_of_users(
    table: ComparisonTable, users: Rows, k: int | None = None, rng: np.random.Generator | None = None
) -> PaddedRows:
    """The first `k` comparisons of each user.

    One generator state gives nested choices: the rows for a smaller `k` are the first ones of those for a
    larger.

    Args:
        table: Where to look.
        users: Users of the batch; may repeat, and may be unknown to the table. Shape (B,).
        k: Most comparisons for a user, the width of the result; None takes all, as wide as the busiest user.
        rng: Draws the order of each user's comparisons; None keeps the order of the table.

    Returns:
        Rows and mask, each of shape (B, k).
    """
    shuffle = np.arange(len(table)) if rng is None else rng.permutation(len(table))
    order = np.lexsort((shuffle, table.users))
    by_user = table.users[order]
    start = np.searchsorted(by_user, users, side="left")
    count = np.searchsorted(by_user, users, side="right") - start
    width = int(count.max(initial=0)) if k is None else k
    place = np.arange(width)
    mask = place < count[:, None]
    # A padded place may point past the end of the table; it is sent to row 0 and masked.
    position = np.where(mask, start[:, None] + place, 0)
    rows = np.where(mask, order[position], 0) if len(table) else np.zeros_like(position)
    return PaddedRows(rows, mask)


def gather_pairs(table: ComparisonTable, features: Tensor, padded: PaddedRows) -> ReplyPairs:
    """Features of the chosen and the rejected replies of padded comparisons.

    Args:
        table: Comparisons that `padded` points into.
        features: Features of every reply. Shape (N, D), float.
        padded: Rows and mask of shape (B, P).

    Returns:
        Features (B, P, D) of both sides and mask (B, P) on the device of `features`.

    Raises:
        ShapeError: `features` has not one row for every reply of the table.
        DataError: A tie is among the comparisons.
    """
    if table.ties is not None and (tied := table.ties[padded.rows] & padded.mask).any():
        raise DataError(
            "Pairs of chosen and rejected replies must be strict choices; got ties in comparisons "
            f"{np.unique(padded.rows[tied])[:3].tolist()}. Take `table.without_ties()`, or a loss for ties."
        )
    replies = int(max(table.chosen.max(initial=-1), table.rejected.max(initial=-1))) + 1
    if features.ndim != 2 or len(features) < replies:
        raise ShapeError(
            f"`features` must have shape (N, D) with N at least {replies}, one row for each reply that is "
            f"compared; got {tuple(features.shape)}. Compute features of all replies."
        )
    mask = torch.from_numpy(padded.mask).to(features.device)
    if not len(table):
        nothing = features.new_zeros(*padded.mask.shape, features.shape[1])
        return ReplyPairs(nothing, nothing, mask)
    chosen = torch.from_numpy(table.chosen[padded.rows]).to(features.device)
    rejected = torch.from_numpy(table.rejected[padded.rows]).to(features.device)
    return ReplyPairs(features[chosen] * mask[..., None], features[rejected] * mask[..., None], mask)


def context_pairs(
    table: ComparisonTable,
    features: Tensor,
    users: Rows,
    k: int | None = None,
    rng: np.random.Generator | None = None,
) -> ReplyPairs:
    """What each user chose in up to `k` comparisons, as feature differences.

    Args:
        table: Comparisons that may be shown; never those that are to be predicted.
        features: Features of every reply. Shape (N, D), float.
        users: Users of the batch. Shape (B,).
        k: Most pairs for a user; None takes all.
        rng: Draws each user's order (nested over `k` for one generator state); None keeps the table's order.

    Returns:
        Difference (B, k, D) and mask (B, k); a user without comparisons has an empty context.
    """
    return gather_pairs(table, features, rows_of_users(table, users, k, rng))


def sample_episodes(
    table: ComparisonTable, users: Rows, *, max_context: int, max_targets: int, rng: np.random.Generator
) -> Episodes:
    """Random contexts of 0 to `max_context` pairs, and targets from other prompts of the same user.

    Each user's prompts are shuffled; targets come from the first, the context from prompts after the last
    target's. A user gives at most half of the comparisons as targets, at least one; the size of a context is
    uniform.

    Args:
        table: Comparisons of training users.
        users: Users of the batch, each with at least one comparison. Shape (B,).
        max_context: Largest context P.
        max_targets: Most targets T for a row.
        rng: Draws everything.
    """
    rows, mask = rows_of_users(table, users)
    width = rows.shape[1]
    owner = np.arange(len(users))[:, None]
    _, group = np.unique(
        owner * (table.prompts.max(initial=0) + 1) + table.prompts[rows], return_inverse=True
    )
    group = group.reshape(rows.shape)
    key = np.where(mask, rng.permutation(group.max(initial=0) + 1)[group], np.iinfo(np.int64).max)
    order = np.lexsort((rng.random(rows.shape), key), axis=1)
    rows, mask, key = (np.take_along_axis(a, order, axis=1) for a in (rows, mask, key))

    targets = np.clip(mask.sum(axis=1) // 2, 1, max_targets)[:, None]
    last_target_key = np.take_along_axis(key, targets - 1, axis=1)
    eligible = mask & (key > last_target_key)
    first = np.argsort(~eligible, axis=1, kind="stable")[:, :max_context]
    size = rng.integers(0, max_context, size=(len(users), 1), endpoint=True)
    shown = np.take_along_axis(eligible, first, axis=1) & (np.arange(first.shape[1]) < size)
    asked = (mask & (np.arange(width) < targets))[:, :max_targets]
    return Episodes(
        PaddedRows(np.where(shown, np.take_along_axis(rows, first, axis=1), 0), shown),
        PaddedRows(np.where(asked, rows[:, :max_targets], 0), asked),
    )
