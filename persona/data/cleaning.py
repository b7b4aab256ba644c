"""Rules that a row of a preference file must keep; rows that break one are left out, and counted by reason."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from persona.data.comparisons import Rows
from persona.data.report import Dropped

Values = NDArray[np.float64]

MAX_TEXT = 1_000_000
"""Characters of the longest text that is taken: no prompt or reply of a person is longer, broken exports are."""


class Cleaned(NamedTuple):
    """What the rules left.

    frame: Rows that keep every rule, in their order, with a fresh index.
    dropped: What was left out, in the order of the rules.
    """

    frame: pd.DataFrame
    dropped: tuple[Dropped, ...]


def object_frame(columns: Mapping[str, Iterable[Any]]) -> pd.DataFrame:
    """A frame whose cells are kept as they are; pandas would refuse texts that are no Unicode, unjudged."""
    return pd.DataFrame({name: pd.Series(list(cells), dtype=object) for name, cells in columns.items()})


def clean_texts(frame: pd.DataFrame, replies: Iterable[str], *, max_text: int = MAX_TEXT) -> Cleaned:
    """Leave out rows whose user, prompt or replies are missing, of the wrong type, blank, too long or no Unicode.

    Args:
        frame: Columns `row` (number in the file), `user_id`, `prompt` and those of `replies`.
        replies: Names of the columns with replies.
        max_text: Most characters of a text; a list of messages counts as one.
    """
    texts = list(replies)
    return apply_rules(
        frame,
        {
            "a value is missing": lambda f: _any(
                f[name].map(is_missing) for name in ("user_id", "prompt", *texts)
            ),
            "`user_id` is neither text nor a whole number": lambda f: f["user_id"].map(_is_no_name),
            "`prompt` is neither text nor a list of messages": lambda f: f["prompt"].map(_is_no_prompt),
            "a reply is not text": lambda f: _any(f[name].map(_is_no_text) for name in texts),
            "a text is blank": lambda f: _any(
                f[name].map(_is_blank) for name in ("user_id", "prompt", *texts)
            ),
            f"a text is longer than {max_text:,} characters": lambda f: _any(
                f[name].map(text_length) > max_text for name in ("prompt", *texts)
            ),
            "a text is not valid Unicode": lambda f: _any(
                f[name].map(_is_broken) for name in ("user_id", "prompt", *texts)
            ),
        },
    )


def apply_rules(frame: pd.DataFrame, rules: Mapping[str, Callable[[pd.DataFrame], ArrayLike]]) -> Cleaned:
    """Leave out the rows that break a rule; each row is counted under the first that it breaks.

    Args:
        frame: Has a column `row`, the number in the file.
        rules: By reason, a function that marks the rows at fault.
    """
    dropped: list[Dropped] = []
    for reason, is_bad in rules.items():
        bad = np.asarray(is_bad(frame), dtype=bool) if len(frame) else np.zeros(0, dtype=bool)
        if bad.any():
            dropped.append(Dropped.of(reason, frame["row"].to_numpy(dtype=np.int64)[bad]))
            frame = frame[~bad]
    return Cleaned(frame.reset_index(drop=True), tuple(dropped))


def prompt_text(prompt: Any) -> str:
    """A prompt as one text: itself, or the contents of its messages, each on a line."""
    return prompt if isinstance(prompt, str) else "\n".join(str(message["content"]) for message in prompt)


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing: None or NaN."""
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def text_length(value: Any) -> int:
    """Characters of a text, or of all contents of a list of messages."""
    return len(value) if isinstance(value, str) else sum(len(str(message["content"])) for message in value)


def to_number(value: object) -> float:
    """A rating as a number; NaN where it is missing, infinite or not a number, such as `N/A`."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return float("nan")
    return number if np.isfinite(number) else float("nan")


def to_ratings(cells: pd.DataFrame, rows: Rows) -> tuple[Values, tuple[Dropped, ...]]:
    """Ratings as numbers, and a count of those that are none.

    Args:
        cells: One column a rater or objective. Shape (R, A).
        rows: Number of each row in the file. Shape (R,).

    Returns:
        Ratings of shape (R, A), NaN where missing; and what was dropped, counted by rating.
    """
    ratings: Values = np.stack(
        [np.asarray(list(map(to_number, cells[name])), dtype=np.float64) for name in cells], axis=1
    )
    bad = np.nonzero(np.isnan(ratings))[0]
    dropped = (Dropped.of("a rating is missing or not a number", rows[bad]),) if len(bad) else ()
    return ratings, dropped


def _any(marks: Iterable["pd.Series[Any]"]) -> NDArray[np.bool_]:
    broken: NDArray[np.bool_] = np.logical_or.reduce([mark.to_numpy(dtype=bool) for mark in marks])
    return broken


def _is_no_name(value: object) -> bool:
    if isinstance(value, bool):
        return True
    return not (
        isinstance(value, (str, int, np.integer)) or (isinstance(value, float) and value.is_integer())
    )


def _is_no_text(value: object) -> bool:
    return not isinstance(value, str)


def _is_no_prompt(value: object) -> bool:
    if isinstance(value, str):
        return False
    return not isinstance(value, (list, tuple, np.ndarray)) or not all(
        isinstance(message, dict)
        and isinstance(message.get("role"), str)
        and isinstance(message.get("content"), str)
        for message in value
    )


def _is_blank(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, (int, float, np.integer)):
        return False
    return not len(value) or not str(value[-1]["content"]).strip()


def _is_broken(value: Any) -> bool:
    """Whether a text holds half a surrogate pair, which JSON can write and UTF-8 cannot."""
    if isinstance(value, (int, float, np.integer)):
        return False
    try:
        prompt_text(value).encode()
    except UnicodeEncodeError:
        return True
    return False
