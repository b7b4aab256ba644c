"""The files of an audit: dialogues, interactions and predictions, told apart by what they hold."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys.columns import LEVEL
from simulators.dialogue_store import LINES, TABLE
from simulators.errors import FaithfulnessError
from simulators.faithfulness import (
    INTERACTION_COLUMNS,
    Evidence,
    Scenes,
    SpokenDialogue,
    checked_interactions,
    read_dialogue,
    scenes_from_frame,
)
from simulators.users.told_personas import PERSONAS, read_told

_TEXTS = (".jsonl", ".jsonl.gz", ".ndjson")
_TABLES = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
_STORED = "dialogue"
"""Column of JSON texts in the table that a recorded rollout leaves."""
_DIALOGUE_COLUMNS = frozenset({"turns", "messages"})
_SCENE_COLUMNS = frozenset({"scene_id", "probability", "chosen"})
_TABLE_COLUMNS = (*INTERACTION_COLUMNS, "scene_id", "chosen", "slot")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def read_evidence(
    paths: Sequence[Path], *, side: str, max_level: int, columns: Mapping[str, str] | None = None
) -> Evidence:
    """What one side did, from one file or several; dialogues of several files are joined, and so are interactions.

    Args:
        paths: Lines of JSON, Parquet, CSV or TSV. Dialogues have `turns` (as a rollout writes them, with what
            `personas_beside` them tells of their users) or `messages`; predictions have scene_id, user_id, probability
            and chosen, in one file at most; interactions have user_id, item_id and level.
        side: "simulated" or "real", for messages.
        max_level: The deepest level.
        columns: Names in the tables, by our names.

    Raises:
        FaithfulnessError: A file cannot be read, holds nothing, nothing known or what another one holds, or two are of
            predictions; or `columns` renames to a name that no table has.
        PersonaError: The file of personas beside a simulation's dialogues is damaged.
    """
    if unknown := [ours for ours in columns or () if ours not in _TABLE_COLUMNS]:
        raise FaithfulnessError(
            f"--columns must begin each pair with a name of ours; got {unknown[0]!r}. Names are "
            f"{', '.join(_TABLE_COLUMNS)}."
        )
    tables: list[pd.DataFrame] = []
    talks: list[SpokenDialogue] = []
    seen: dict[str, str] = {}
    scenes: list[Scenes] = []
    for path in paths:
        content = _read(path, side=side, max_level=max_level, columns=columns or {}, seen=seen)
        if isinstance(content, pd.DataFrame):
            tables.append(content)
        elif isinstance(content, Scenes):
            scenes.append(content)
        else:
            talks += content
    if len(scenes) > 1:
        raise FaithfulnessError(
            f"The {side} side must have one file of predictions at most; got {len(scenes)}. Join them, each scene with "
            "an id of its own."
        )
    # Each table was fit to be read; together they may have gaps and repeats.
    table = (
        checked_interactions(pd.concat(tables, ignore_index=True), side=side, max_level=max_level)
        if tables
        else None
    )
    return Evidence(table, tuple(talks), scenes[0] if scenes else None)


def personas_beside(path: Path) -> Path | None:
    """The file of what users were told of themselves, where a simulation left one beside these dialogues of its own.

    Only the names that a simulation gives are followed: other dialogues in its folder may be of other users.
    """
    found = path.with_name(PERSONAS)
    return found if path.name in (LINES, TABLE) and found.is_file() else None


def _read(
    path: Path, *, side: str, max_level: int, columns: Mapping[str, str], seen: dict[str, str]
) -> pd.DataFrame | tuple[SpokenDialogue, ...] | Scenes:
    """Interactions, dialogues or predictions, whichever the file holds."""
    rows = _rows(path)
    names = set(rows.columns) if isinstance(rows, pd.DataFrame) else set(rows[0]) if rows else set()
    if len(rows) == 0:
        raise FaithfulnessError(f"{path} must hold at least one row; got none. Check how it was written.")
    if isinstance(rows, pd.DataFrame) and _STORED in rows:
        return _dialogues(path, _stored_rows(path, rows), max_level, seen)
    if names & _DIALOGUE_COLUMNS:
        return _dialogues(path, rows, max_level, seen)
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    table = _renamed(table, columns)
    try:
        if set(table.columns) >= _SCENE_COLUMNS:
            if side == "real":
                raise FaithfulnessError(
                    "predictions, marked with what was really chosen, belong to the simulated side; give them as SIM."
                )
            return scenes_from_frame(table)
        if LEVEL in table or "item_id" in table:
            return checked_interactions(table, side=side, max_level=max_level)
    except FaithfulnessError as err:
        raise FaithfulnessError(f"{path}: {err}") from err
    raise FaithfulnessError(
        f"{path} must hold dialogues (turns or messages), interactions (user_id, item_id, level) or predictions "
        f"(scene_id, user_id, probability, chosen); got the columns {', '.join(map(str, table.columns))}. Rename them "
        "with --columns."
    )


def _renamed(table: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """The table with our names; a column of our name that another one is named for gives way to it."""
    sources = set(columns.values())
    taken = [ours for ours, theirs in columns.items() if theirs in table and ours not in sources]
    left = table.drop(columns=taken, errors="ignore")
    return left.rename(columns={theirs: ours for ours, theirs in columns.items()})


def _rows(path: Path) -> pd.DataFrame | list[dict[str, Any]]:
    """Rows of a table, or JSON objects."""
    ending = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    try:
        if ending in _TEXTS:
            return list(_json_lines(path))
        if ending == ".parquet":
            return pd.read_parquet(path)
        if ending in _TABLES:
            return pd.read_csv(path, sep=_TABLES[ending])
    except pd.errors.EmptyDataError:
        return []
    except (OSError, EOFError, zlib.error, NotImplementedError, ValueError) as err:
        if isinstance(err, FaithfulnessError):
            raise
        raise FaithfulnessError(
            f"{path} must be readable as {ending.lstrip('.')}; got: {err}. Restore the file or its ending."
        ) from err
    raise FaithfulnessError(
        f"Files to audit must end in {', '.join((*_TEXTS, '.parquet', *_TABLES))}; got {path.name}. Convert it."
    )


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8") as file
    ):
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = _without_surrogates(json.loads(line))
            except (ValueError, RecursionError) as err:
                raise FaithfulnessError(
                    f"Each line of {path} must be one JSON object; got something else in line {number} ({err}). "
                    "Correct that line."
                ) from err
            if not isinstance(row, dict):
                raise FaithfulnessError(
                    f"Each line of {path} must be one JSON object; got {type(row).__name__} in line {number}. "
                    "Correct that line."
                )
            yield row


def _dialogues(
    path: Path, rows: pd.DataFrame | list[dict[str, Any]], max_level: int, seen: dict[str, str]
) -> tuple[SpokenDialogue, ...]:
    """The dialogues of one file; `seen` says where each one of this side was met, by its whole content."""
    objects = [_plain(row) for row in rows.to_dict("records")] if isinstance(rows, pd.DataFrame) else rows
    found = []
    for number, saved in enumerate(objects, start=1):
        content, place = json.dumps(saved, sort_keys=True, default=str), f"dialogue {number} of {path}"
        if content in seen:
            raise FaithfulnessError(
                f"A dialogue must stand once; got {place} equal to {seen[content]} in everything. Drop the repeats, or "
                "add what tells them apart, such as the seed."
            )
        seen[content] = place
        try:
            found.append(read_dialogue(saved, max_level=max_level))
        except FaithfulnessError as err:
            raise FaithfulnessError(f"{path}, dialogue {number}: {err}") from err
    return _with_personas(path, found) if all("turns" in saved for saved in objects) else tuple(found)


def _with_personas(path: Path, dialogues: Sequence[SpokenDialogue]) -> tuple[SpokenDialogue, ...]:
    """The dialogues with what a file beside them tells of their users, where there is one."""
    beside = personas_beside(path)
    if beside is None:
        return tuple(dialogues)
    told = {str(user): persona for user, persona in read_told(beside).items()}
    return tuple(
        dialogue
        if (own := told.get(dialogue.user)) is None
        else replace(dialogue, targets=own.targets, likes=own.likes, dislikes=own.dislikes)
        for dialogue in dialogues
    )


def _stored_rows(path: Path, table: pd.DataFrame) -> list[dict[str, Any]]:
    """Dialogues of a table that a recorded rollout leaves, with their seeds, as its lines have them."""
    found = [_stored(path, text) for text in table[_STORED]]
    if "seed" not in table:
        return found
    return [{"seed": seed, **saved} for seed, saved in zip(table["seed"].tolist(), found, strict=True)]


def _stored(path: Path, text: Any) -> dict[str, Any]:
    try:
        found = _without_surrogates(json.loads(text))
    except (TypeError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FaithfulnessError(
            f"Column `{_STORED}` of {path} must hold JSON objects as texts; got {text!r:.40}. Write it with a recorded "
            "rollout."
        )
    return found


def _without_surrogates(value: Any) -> Any:
    """The same JSON value without halves of characters, which a log that cuts texts leaves and no file can hold."""
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list):
        return [_without_surrogates(own) for own in value]
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(own) for name, own in value.items()}
    return value


def _plain(value: Any) -> Any:
    """Nested values of a Parquet file as lists, dicts and numbers; its maps, which come as pairs, are dicts again."""
    if isinstance(value, dict):
        return {str(name): _plain(own) for name, own in value.items() if own is not None}
    if isinstance(value, np.ndarray | list | tuple):
        items = [_plain(own) for own in value]
        if items and all(isinstance(own, tuple) and len(own) == 2 for own in value):
            return dict(items)
        return items
    return value.item() if isinstance(value, np.generic) else value
