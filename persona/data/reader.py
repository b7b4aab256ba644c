"""Comparisons as people keep them, checked row by row; one that breaks a rule stops the reading.

Columns follow TRL's preference format plus the user: `user_id`, `prompt` (a string, or a list of messages),
`chosen`, `rejected`. Further columns are kept as they are.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from persona.data.readers.files import read_rows
from persona.errors import DataError

COLUMNS = ("user_id", "prompt", "chosen", "rejected")


def read_comparisons(path: str | Path) -> pd.DataFrame:
    """Comparisons from a file in TRL's columns plus the user, every row of which must be right.

    For other layouts, and to leave faulty rows out, see `persona.data.readers.read_preferences`.

    Returns:
        The rows of the file, with `user_id` as text.

    Raises:
        DataError: The file is missing or unreadable, or a row breaks a rule; the message has its number, from
            1.
    """
    raw = read_rows(Path(path))
    if raw.dropped:
        raise DataError(
            f"Every row of `{raw.source}` must be a JSON object; got {'; '.join(map(str, raw.dropped))}. Correct or "
            "remove them."
        )
    return check_comparisons(raw.frame)


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
