"""What a file of preferences held, and what of it was left out and why: nothing is dropped silently."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from persona.data.comparisons import ComparisonTable, Rows
from persona.errors import DataError

SHOWN_ROWS = 3


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rows that were left out for one reason.

    Attributes:
        reason: What was the matter, as a clause.
        count: How many.
        rows: The first of them, numbered from 1 as in the file; at most `SHOWN_ROWS`.
    """

    reason: str
    count: int
    rows: tuple[int, ...]

    @classmethod
    def of(cls, reason: str, rows: Rows | Sequence[int]) -> "Dropped":
        """The same from the numbers of all rows concerned."""
        numbers = np.asarray(rows, dtype=np.int64)
        return cls(reason, len(numbers), tuple(np.unique(numbers)[:SHOWN_ROWS].tolist()))

    def __str__(self) -> str:
        """One clause, such as `2 where a text is blank (rows 4, 9)`."""
        word = "row" if len(self.rows) == 1 else "rows"
        more = " ..." if self.count > len(self.rows) else ""
        return f"{self.count} where {self.reason} ({word} {', '.join(map(str, self.rows))}{more})"


@dataclass(frozen=True, slots=True)
class DataReport:
    """Counts of what was read.

    Attributes:
        layout: What people call the layout that was found.
        source: Name of the file or folder.
        rows: Rows in the file, blank lines not counted.
        users: Users with at least one comparison.
        lone_users: Users with exactly one, who can show something or be asked something, but not both.
        prompts: Prompts that were compared on.
        replies: Replies that were compared.
        comparisons: Comparisons, ties among them.
        ties: Comparisons that are ties.
        contradictions: Comparisons whose user also said the opposite of the same two replies.
        dropped: What was left out, by reason.
        notes: Sentences about traps of the layout that were met.
    """

    layout: str
    source: str
    rows: int
    users: int
    lone_users: int
    prompts: int
    replies: int
    comparisons: int
    ties: int
    contradictions: int
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def dropped_count(self) -> int:
        """How many rows or ratings were left out in all."""
        return sum(part.count for part in self.dropped)

    def lines(self) -> list[str]:
        """The report as sentences to print, most important first."""
        said = [
            f"{self.source}: {self.layout}, {self.rows:,} rows; {self.comparisons:,} comparisons "
            f"({self.ties:,} ties) by {self.users:,} users of {self.replies:,} replies to {self.prompts:,} prompts."
        ]
        if self.dropped:
            said.append(f"Left out: {'; '.join(map(str, self.dropped))}.")
        if self.users == 1:
            said.append("There is one user only, so nothing personal can be learned or measured.")
        if self.lone_users:
            said.append(f"{self.lone_users:,} users have one comparison only: enough to show or to be asked.")
        if self.contradictions:
            said.append(f"{self.contradictions:,} comparisons contradict another one by the same user.")
        return [*said, *self.notes]

    def to_json(self) -> dict[str, Any]:
        """Plain data for a report file."""
        return asdict(self)


def count_comparisons(table: ComparisonTable) -> dict[str, int]:
    """What a table holds, by the names that `DataReport` has for it."""
    each = np.unique(table.users, return_counts=True)[1]
    return {
        "users": len(each),
        "lone_users": int((each == 1).sum()),
        "prompts": len(np.unique(table.prompts)),
        "replies": len(np.unique(np.concatenate([table.chosen, table.rejected]))),
        "comparisons": len(table),
        "ties": int(table.is_tie.sum()),
        "contradictions": _contradictions(table.without_ties()),
    }


def refuse_dropped(dropped: Sequence[Dropped], *, strict: bool, left: int, source: str) -> None:
    """Stop if nothing is left, or if something was dropped and the caller is strict.

    Raises:
        DataError: The message has every reason with the numbers of its first rows.
    """
    reasons = "; ".join(map(str, dropped))
    if not left:
        raise DataError(
            f"`{source}` must hold at least one usable comparison; got none"
            f"{': ' + reasons if reasons else ''}. Correct the rows, or give another file."
        )
    if strict and dropped:
        raise DataError(
            f"Every row of `{source}` must be usable when `strict`; got {reasons}. Correct the rows, or read "
            "without `strict`, which leaves them out and counts them."
        )


def _contradictions(table: ComparisonTable) -> int:
    low, high = np.minimum(table.chosen, table.rejected), np.maximum(table.chosen, table.rejected)
    pairs = np.stack([table.users, low, high], axis=1)
    if not len(pairs):
        return 0
    group = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
    ahead = (table.chosen < table.rejected).astype(np.float64)
    share = np.bincount(group, ahead) / np.bincount(group)
    return int(((share[group] > 0) & (share[group] < 1)).sum())
