"""Reads openly licensed dialogue collections into conversations, for pre-training a small chat model.

Each file is JSON lines, gzipped or not; a line holds its turns under `messages`, `turns` or `conversation`.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from persona.errors import DataError

Message = dict[str, str]


def read_dialogues(folder: Path) -> Iterator[list[Message]]:
    """Every dialogue of every `*.jsonl` and `*.jsonl.gz` file of a folder, roles alternating from the user.

    Raises:
        DataError: No such files, or a line that is not a dialogue (the message names file and line).
    """
    paths = sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")])
    if not paths:
        raise DataError(f"`{folder}` must hold dialogues as *.jsonl or *.jsonl.gz; got none. Check the path.")
    for path in paths:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8") as lines
        ):
            try:
                for number, line in enumerate(lines, start=1):
                    if len(messages := _messages(line, path, number)) > 1:
                        yield messages
            except UnicodeDecodeError as err:
                raise DataError(f"{path.name} must be UTF-8; got {err.reason}. Convert the file.") from err


def _messages(line: str, path: Path, number: int) -> list[Message]:
    try:
        row = json.loads(line)
        turns = row.get("messages") or row.get("turns") or row.get("conversation")
        said = [_text(turn) for turn in turns]
    except (ValueError, AttributeError, TypeError, LookupError) as err:
        raise DataError(
            f"{path.name}, line {number}: a dialogue must be a JSON object with `messages`, `turns` or `conversation`; "
            f"got {line[:60]!r}. Mend or remove the line."
        ) from err
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(said) if text]


def _text(turn: str | dict[str, str]) -> str:
    if isinstance(turn, str):
        head, separator, tail = turn.partition(": ")
        return (tail if separator and head.startswith("User ") else turn).strip()
    key = next((key for key in ("content", "message") if key in turn), "text")
    return turn[key].strip()
