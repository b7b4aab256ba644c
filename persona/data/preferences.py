"""Preferences as arrays, from rows of two kinds: pairs that somebody chose between, and replies that were rated."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.data.comparisons import ComparisonTable, Rows
from persona.data.indexed import IndexedComparisons, NumberedReplies, number_replies
from persona.data.report import DataReport, Dropped, count_comparisons
from persona.errors import ShapeError

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Preferences:
    """What a file of preferences says.

    Attributes:
        comparisons: Table, users, prompts and replies; ties are ties in `comparisons.table`.
        scores: Ratings of each reply by objective, where the layout has them; NaN where one is unknown. Each of
            shape (N,).
        strength: How strong each preference is, on the layout's own scale; NaN where unknown. Shape (M,), or None.
        report: What was read and what was left out.
        contexts: Criterion by which each comparison was judged, empty where none is named; None where the layout has
            none. M texts.
    """

    comparisons: IndexedComparisons
    scores: Mapping[str, Values]
    strength: Values | None
    report: DataReport
    contexts: tuple[str, ...] | None = None

    def to_frame(self) -> pd.DataFrame:
        """TRL's columns plus the user: `user_id, prompt, chosen, rejected`, and `tie` where there are ties.

        One row a comparison; texts are repeated, so this takes far more memory than the arrays.
        """
        table, said = self.comparisons.table, self.comparisons
        frame = pd.DataFrame(
            {
                "user_id": [said.user_ids[user] for user in table.users],
                "prompt": [said.prompts[prompt] for prompt in table.prompts],
                "chosen": [said.replies[reply] for reply in table.chosen],
                "rejected": [said.replies[reply] for reply in table.rejected],
            }
        )
        return frame if table.ties is None else frame.assign(tie=table.ties)


class PairRows(NamedTuple):
    """Clean rows that are comparisons.

    frame: Columns `row`, `user_id`, `prompt`, `chosen`, `rejected`, `tie`; where the layout has them `strength`,
        `context`, a text, and `scores`, for each row a mapping from objective to the two ratings.
    dropped: What was left out.
    notes: Sentences for the report.
    """

    frame: pd.DataFrame
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...] = ()


class RatedRows(NamedTuple):
    """Clean rows that are replies with ratings; replies of one group are compared with one another.

    frame: Columns `row`, `group` (int), `prompt`, `reply`; and `user_id`, who rated it, if `raters` is None.
    ratings: Ratings that are compared, one column a rater; NaN where missing. Shape (R, V), V = 1 if `raters` is
        None.
    raters: Name of the user that each column of `ratings` stands for, or None.
    scores: Ratings of each row by objective, kept for learners of several objectives. Each of shape (R,).
    dropped: What was left out.
    notes: Sentences for the report.
    """

    frame: pd.DataFrame
    ratings: Values
    raters: tuple[str, ...] | None
    scores: Mapping[str, Values]
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...] = ()


class Source(NamedTuple):
    """Where rows came from: the layout's name, the file's name, and its number of rows."""

    layout: str
    name: str
    rows: int


def assemble_pairs(part: PairRows, source: Source) -> Preferences:
    """Preferences from comparisons; a row that says what an earlier one said is left out and counted."""
    frame = part.frame
    users, user_ids = pd.factorize(frame["user_id"])
    numbered = number_replies(
        pd.concat([frame["prompt"], frame["prompt"]]), pd.concat([frame["chosen"], frame["rejected"]])
    )
    count = len(frame)
    chosen, rejected = numbered.row_replies[:count], numbered.row_replies[count:]
    ties = frame["tie"].to_numpy(dtype=bool)
    # A tie is the same statement in either order.
    low, high = (
        np.where(ties, np.minimum(chosen, rejected), chosen),
        np.where(ties, np.maximum(chosen, rejected), rejected),
    )
    first = np.unique(np.stack([users, low, high, ties], axis=1), axis=0, return_index=True)[1]
    kept = np.zeros(count, dtype=bool)
    kept[first] = True
    dropped = part.dropped
    if not kept.all():
        again = frame["row"].to_numpy(dtype=np.int64)[~kept]
        dropped = (*dropped, Dropped.of("a row repeats an earlier one", again))
    table = ComparisonTable(
        users[kept],
        numbered.row_prompts[:count][kept],
        chosen[kept],
        rejected[kept],
        ties[kept] if ties.any() else None,
    )
    indexed = numbered.index(table, tuple(map(str, user_ids)))
    strength = frame["strength"].to_numpy(dtype=np.float64)[kept] if "strength" in frame else None
    scores = _scores_of_pairs(frame["scores"], numbered) if "scores" in frame else {}
    read = _finish(indexed, scores, strength, dropped, part.notes, source)
    return replace(read, contexts=tuple(frame["context"][kept])) if "context" in frame else read


def assemble_rated(part: RatedRows, source: Source, *, slack: float = 0.0) -> Preferences:
    """Preferences from ratings: every two replies of a group, by every rater who rated both.

    Args:
        part: Clean rows.
        source: For the report.
        slack: Ratings that differ by at most this are a tie.
    """
    frame = part.frame
    numbered = number_replies(frame["prompt"], frame["reply"])
    replies = numbered.row_replies
    first, second = pairs_within(frame["group"].to_numpy(dtype=np.int64))
    different = replies[first] != replies[second]
    dropped = (*part.dropped, *_left_alone(frame["row"].to_numpy(dtype=np.int64), first, second, different))
    first, second = first[different], second[different]
    gap = part.ratings[first] - part.ratings[second]
    pair, rater = np.nonzero(np.isfinite(gap))
    gap, first, second = gap[pair, rater], first[pair], second[pair]
    if part.raters is None:
        users, user_ids = pd.factorize(frame["user_id"])
        owner, names = users[first], tuple(map(str, user_ids))
    else:
        owner, names = rater, part.raters
    ties = np.abs(gap) <= slack
    table = ComparisonTable(
        owner,
        numbered.row_prompts[first],
        replies[np.where(gap >= 0, first, second)],
        replies[np.where(gap >= 0, second, first)],
        ties if ties.any() else None,
    )
    scores = {name: _mean_by_reply(numbered, given) for name, given in part.scores.items()}
    return _finish(numbered.index(table, names), scores, None, dropped, part.notes, source)


def pairs_within(groups: Rows) -> tuple[Rows, Rows]:
    """Every two rows of one group, the earlier one first. Costs the number of pairs.

    Args:
        groups: Group of each row, in any order. Shape (R,).

    Returns:
        First and second rows of the pairs, each of shape (pairs,), by group.

    Raises:
        ShapeError: `groups` is not one-dimensional.

    Example:
        >>> first, second = pairs_within(np.array([7, 7, 2, 7]))
        >>> first.tolist(), second.tolist()
        ([0, 0, 1], [1, 3, 3])
    """
    if groups.ndim != 1:
        raise ShapeError(f"`groups` must have shape (R,); got {groups.shape}. Pass one group for each row.")
    order = np.argsort(groups, kind="stable")
    _, start, size = np.unique(groups[order], return_index=True, return_counts=True)
    place = np.arange(len(groups)) - np.repeat(start, size)
    after = np.repeat(size, size) - place - 1
    first = np.repeat(np.arange(len(groups)), after)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(after) - after, after)
    return order[first], order[second]


def _left_alone(rows: Rows, first: Rows, second: Rows, different: NDArray[np.bool_]) -> tuple[Dropped, ...]:
    """Replies that give no comparison: without another one in their group, or the same as another one."""
    alone = ~np.isin(np.arange(len(rows)), np.concatenate([first, second]))
    found = {
        "a reply has no other one to be compared with": rows[alone],
        "both replies are the same": rows[second[~different]],
    }
    return tuple(Dropped.of(reason, numbers) for reason, numbers in found.items() if len(numbers))


def _mean_by_reply(numbered: NumberedReplies, rating: Values) -> Values:
    known, count = np.isfinite(rating), len(numbered.replies)
    total = np.bincount(numbered.row_replies[known], rating[known], minlength=count)
    times = np.bincount(numbered.row_replies[known], minlength=count)
    return np.where(times > 0, total / np.maximum(times, 1), np.nan)


def _scores_of_pairs(scores: "pd.Series[Any]", numbered: NumberedReplies) -> dict[str, Values]:
    """Mean rating of each reply by objective, from the rows' mappings to (chosen, rejected)."""
    names = sorted({name for row in scores for name in row})
    missing = (np.nan, np.nan)
    return {
        name: _mean_by_reply(
            numbered,
            np.asarray([row.get(name, missing)[side] for side in (0, 1) for row in scores], dtype=np.float64),
        )
        for name in names
    }


def _finish(
    indexed: IndexedComparisons,
    scores: Mapping[str, Values],
    strength: Values | None,
    dropped: tuple[Dropped, ...],
    notes: tuple[str, ...],
    source: Source,
) -> Preferences:
    counts = count_comparisons(indexed.table)
    report = DataReport(source.layout, source.name, source.rows, **counts, dropped=dropped, notes=notes)
    return Preferences(indexed, scores, strength, report)
