"""Comparisons as arrays of ids, beside the texts that the ids stand for."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.data.comparisons import ComparisonTable, Rows


@dataclass(frozen=True, slots=True, eq=False)
class IndexedComparisons:
    """Comparisons as arrays, with what their rows stand for.

    Attributes:
        table: The comparisons; all ids are rows of the lists below.
        user_ids: Name of each user.
        prompts: Each prompt, a string or a list of messages.
        replies: Text of each reply; one text under two prompts is two replies.
        reply_prompts: Row of the prompt that each reply answers. Shape (N,), int64.
    """

    table: ComparisonTable
    user_ids: tuple[str, ...]
    prompts: tuple[Any, ...]
    replies: tuple[str, ...]
    reply_prompts: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class NumberedReplies:
    """Replies as ids, by first appearance.

    Attributes:
        row_prompts: Prompt of each given row. Shape (R,), int64.
        row_replies: Reply of each given row. Shape (R,), int64.
        prompts: Each different prompt.
        replies: Each different reply.
        reply_prompts: Prompt that each different reply answers. Shape (N,), int64.
    """

    row_prompts: Rows
    row_replies: Rows
    prompts: tuple[Any, ...]
    replies: tuple[str, ...]
    reply_prompts: Rows

    def index(self, table: ComparisonTable, user_ids: tuple[str, ...]) -> IndexedComparisons:
        """A table over these ids with its texts."""
        return IndexedComparisons(table, user_ids, self.prompts, self.replies, self.reply_prompts)


def number_replies(prompts: "pd.Series[Any]", replies: "pd.Series[Any]") -> NumberedReplies:
    """Ids of prompts and replies from rows that have one of each; both columns have R rows."""
    row_prompts = pd.factorize(prompts.map(canonical_prompt))[0].astype(np.int64)
    texts, unique = pd.factorize(replies)
    row_replies = pd.factorize(row_prompts * max(len(unique), 1) + texts)[0].astype(np.int64)
    first_prompts, first_replies = (
        np.unique(rows, return_index=True)[1] for rows in (row_prompts, row_replies)
    )
    asked, said = prompts.to_numpy(), replies.to_numpy()
    return NumberedReplies(
        row_prompts,
        row_replies,
        tuple(asked[row] for row in first_prompts),
        tuple(str(said[row]) for row in first_replies),
        row_prompts[first_replies],
    )


def index_comparisons(frame: pd.DataFrame) -> IndexedComparisons:
    """Arrays of ids from a checked frame; ids follow the order of first appearance.

    Rows with True in a column `tie`, if there is one, are ties of the table.
    """
    users, user_ids = pd.factorize(frame["user_id"])
    numbered = number_replies(
        pd.concat([frame["prompt"], frame["prompt"]]), pd.concat([frame["chosen"], frame["rejected"]])
    )
    count = len(frame)
    table = ComparisonTable(
        users,
        numbered.row_prompts[:count],
        numbered.row_replies[:count],
        numbered.row_replies[count:],
        frame["tie"].to_numpy(dtype=bool) if "tie" in frame else None,
    )
    return numbered.index(table, tuple(map(str, user_ids)))


def canonical_prompt(prompt: Any) -> str:
    """A text that is the same for equal prompts, and differs between a text and a lone message of it."""
    if isinstance(prompt, str):
        return "text:" + prompt
    return "messages:" + json.dumps([dict(message) for message in prompt], sort_keys=True)
