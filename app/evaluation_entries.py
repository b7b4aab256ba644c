"""What each finished model leaves in its stage's folder: its lists and chances, its settings, and itself."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.errors import StoreError
from app.files import read_json, read_tensors, write_arrays, write_json
from recsys.recipes.contest import Entry
from recsys.types import Ints

ENTRY, ANSWERS, MODEL = "entry.json", "answers.safetensors", "model"
_KEYS = ("settings", "trials", "score", "score_name", "train_seconds", "answer_seconds")


class SavedEntry(NamedTuple):
    """An entry without its model.

    facts: settings, trials, score, score_name, train_seconds, answer_seconds.
    lists: Shape (S, B, k), or None.
    probabilities: Shape (S, N, C), or None.
    """

    facts: dict[str, Any]
    lists: Ints | None
    probabilities: NDArray[np.float32] | None


def save_entry(folder: Path, entry: Entry) -> None:
    """Write an entry, and its model where it can be saved.

    Args:
        folder: Of the stage.
        entry: What the model did.

    Raises:
        StoreError: The folder cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    if entry.lists is not None:
        arrays["lists"] = entry.lists
    if entry.probabilities is not None:
        arrays["probabilities"] = entry.probabilities
    write_arrays(folder / ANSWERS, arrays)
    if hasattr(entry.model, "save"):
        entry.model.save(folder / MODEL)
    # Through JSON and back, as tuples become lists there.
    write_json(folder / ENTRY, json.loads(json.dumps({key: getattr(entry, key) for key in _KEYS})))


def read_entry(folder: Path) -> SavedEntry:
    """Read what `save_entry` wrote.

    Raises:
        StoreError: A file is missing or damaged.
    """
    facts = read_json(folder / ENTRY)
    if not isinstance(facts, dict) or set(_KEYS) - facts.keys():
        raise StoreError(
            f"{folder / ENTRY} must hold {', '.join(_KEYS)}; got other content. Evaluate anew in another folder."
        )
    arrays = read_tensors(folder / ANSWERS)
    lists, chances = arrays.get("lists"), arrays.get("probabilities")
    return SavedEntry(
        facts,
        None if lists is None else lists.numpy(),
        None if chances is None else chances.numpy(),
    )
