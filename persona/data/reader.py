"""Comparisons as people keep them: JSONL, Parquet or a data frame, checked row by row, made into arrays.

Columns follow TRL's preference format plus the user: `user_id`, `prompt` (a string, or a list of messages),
`chosen`, `rejected`. Further columns are kept as they are.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow

from persona.data.comparisons import ComparisonTable
from persona.errors import DataError

COLUMNS = ("user_id", "prompt", "chosen", "rejected")


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
    reply_prompts: np.ndarray[tuple[int], np.dtype[np.int64]]


def read_comparisons(path: str | Path) -> pd.DataFrame:
    """Comparisons from a `.jsonl` or `.parquet` file, checked.

    Returns:
        The rows of the file, with `user_id` as text.

    Raises:
        DataError: The file is missing or unreadable, or a row breaks a rule; the message has its number, from
            1.
    """
    path = Path(path)
    readers = {".jsonl": _read_jsonl, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise DataError(
            f"A file of comparisons must end in .jsonl or .parquet; got `{path.name}`. Convert it to one of "
            "the two."
        )
    try:
        frame = readers[path.suffix](path)
    except OSError as err:
        raise DataError(
            f"`{path}` must be a readable file; got: {err.strerror or err}. Check the path and its "
            "permissions."
        ) from err
    return check_comparisons(frame)


def check_comparisons(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy of `frame` with `user_id` as text, once every row has passed.

    Raises:
        DataError: A column is missing, there are no rows, a value is missing, of the wrong type or blank, or
            the two replies are equal; the message has the rows' numbers, from 1.
    """
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise DataError(
            f"Comparisons must have the columns {', '.join(COLUMNS)}; missing {', '.join(missing)} among "
            f"{', '.join(map(str, frame.columns)) or 'none'}. Rename or add them."
        )
    if frame.empty:
        raise DataError(
            "A file of comparisons must hold at least one row; got none. Give a file with comparisons."
        )
    for name in COLUMNS:
        _refuse(frame[name].map(_is_missing), f"`{name}` must be there in every row", "missing values")
    _refuse(
        ~frame["user_id"].map(lambda value: isinstance(value, (str, int, np.integer))),
        "`user_id` must be text or a whole number",
        "something else",
    )
    _refuse(~frame["prompt"].map(_is_prompt), "`prompt` must be text or a list of messages", "something else")
    for name in ("chosen", "rejected"):
        _refuse(~frame[name].map(_is_text), f"`{name}` must be text that is not blank", "something else")
    _refuse(frame["chosen"] == frame["rejected"], "`chosen` and `rejected` must differ", "equal replies")
    return frame.assign(user_id=frame["user_id"].astype(str)).reset_index(drop=True)


def index_comparisons(frame: pd.DataFrame) -> IndexedComparisons:
    """Arrays of ids from a checked frame; ids follow the order of first appearance.

    Rows with True in a column `tie`, if there is one, are ties of the table.
    """
    users, user_ids = pd.factorize(frame["user_id"])
    prompt_keys = frame["prompt"].map(canonical_prompt)
    prompts, _ = pd.factorize(prompt_keys)
    first = np.unique(prompts, return_index=True)[1]
    pairs = pd.concat(
        [
            pd.DataFrame({"prompt": prompts, "reply": frame[name].to_numpy()})
            for name in ("chosen", "rejected")
        ]
    )
    keys = pd.MultiIndex.from_frame(pairs)
    replies, unique = pd.factorize(keys)
    ties = frame["tie"].to_numpy(dtype=bool) if "tie" in frame else None
    table = ComparisonTable(users, prompts, replies[: len(frame)], replies[len(frame) :], ties)
    return IndexedComparisons(
        table,
        tuple(map(str, user_ids)),
        tuple(frame["prompt"].iloc[first]),
        tuple(str(text) for _, text in unique),
        np.fromiter((prompt for prompt, _ in unique), dtype=np.int64, count=len(unique)),
    )


def _read_jsonl(path: Path) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as err:
            raise DataError(
                f"`{path.name}` must be UTF-8 text; got other bytes in row {number}. Save it again as UTF-8."
            ) from err
        except json.JSONDecodeError as err:
            raise DataError(
                f"Each line of `{path.name}` must be a JSON object; row {number} is not JSON ({err.msg}). "
                "Correct it."
            ) from err
        if not isinstance(row, dict):
            raise DataError(
                f"Each line of `{path.name}` must be a JSON object; row {number} is a {type(row).__name__}. "
                "Correct it."
            )
        rows.append(row)
    return pd.DataFrame(rows, dtype=object) if rows else pd.DataFrame(columns=list(COLUMNS), dtype=object)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except pyarrow.ArrowException as err:
        raise DataError(
            f"`{path.name}` must be a Parquet file; got one that cannot be read as such. Write it again."
        ) from err


def _refuse(bad: pd.Series, rule: str, got: str) -> None:
    rows = (np.flatnonzero(bad.to_numpy(dtype=bool)) + 1)[:3].tolist()
    if rows:
        count = int(bad.sum())
        raise DataError(f"{rule}; got {got} in {count} rows, first in rows {rows}. Correct or remove them.")


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_prompt(value: object) -> bool:
    if not isinstance(value, (list, tuple, np.ndarray)):
        return _is_text(value)
    messages: Iterable[Any] = value
    return len(value) > 0 and all(
        isinstance(m, dict) and _is_text(m.get("role")) and _is_text(m.get("content")) for m in messages
    )


def canonical_prompt(prompt: Any) -> str:
    """A text that is the same for equal prompts, and differs between a text and a lone message of it."""
    if isinstance(prompt, str):
        return "text:" + prompt
    return "messages:" + json.dumps([dict(message) for message in prompt], sort_keys=True)
