"""Replies of several models to the same prompts, which nobody has rated: material for simulated users."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from persona.data.cleaning import MAX_TEXT, clean_texts, object_frame
from persona.data.comparisons import Rows
from persona.data.readers.files import read_rows
from persona.data.report import Dropped, refuse_dropped
from persona.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Replies to prompts.

    Attributes:
        prompts: Each prompt, a text.
        replies: Each reply.
        reply_prompts: Row of the prompt that each reply answers. Shape (N,).
        models: Who wrote each reply.
        dropped: What was left out, by reason.
    """

    prompts: tuple[str, ...]
    replies: tuple[str, ...]
    reply_prompts: Rows
    models: tuple[str, ...]
    dropped: tuple[Dropped, ...]


def read_answers(path: str | Path, *, max_text: int = MAX_TEXT, strict: bool = False) -> Answers:
    """Replies from rows of `prompt` and `responses`, a mapping from model to text.

    Equal replies to one prompt are kept once.

    Raises:
        DataError: The file cannot be read, a column is missing, nothing is left, or something would be left out
            and `strict` is set.
    """
    raw = read_rows(Path(path))
    missing = [name for name in ("prompt", "responses") if name not in raw.frame.columns]
    if missing:
        raise DataError(
            f"Answers must have the columns prompt and responses; `{raw.source}` lacks {', '.join(missing)} among "
            f"{', '.join(map(str, raw.frame.columns))}. Rename them."
        )
    rows = [
        (number, prompt, model, reply)
        for number, prompt, responses in zip(
            raw.numbers.tolist(), raw.frame["prompt"], raw.frame["responses"], strict=True
        )
        for model, reply in _items(responses)
    ]
    frame = object_frame(dict(zip(("row", "prompt", "model", "reply"), zip(*rows, strict=True), strict=True)))
    cleaned = clean_texts(frame.assign(user_id="nobody"), ("reply",), max_text=max_text)
    again = cleaned.frame.duplicated(["prompt", "reply"]).to_numpy(dtype=bool)
    dropped = (*raw.dropped, *cleaned.dropped)
    if again.any():
        numbers = cleaned.frame["row"].to_numpy(dtype=np.int64)[again]
        dropped = (*dropped, Dropped.of("a reply repeats another one to its prompt", numbers))
    kept = cleaned.frame[~again]
    refuse_dropped(dropped, strict=strict, left=len(kept), source=raw.source)
    codes, prompts = pd.factorize(kept["prompt"])
    return Answers(
        tuple(map(str, prompts)),
        tuple(kept["reply"]),
        codes.astype(np.int64),
        tuple(map(str, kept["model"])),
        dropped,
    )


def _items(responses: Any) -> list[tuple[str, Any]]:
    """Model and reply; a reply of None where the cell is no mapping, so that the row is counted."""
    return list(responses.items()) if isinstance(responses, dict) and responses else [("", None)]
