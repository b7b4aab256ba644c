"""The folder that `persona recommend` serves from: a trained retriever and what it has to know of users and items.

retriever.json       what it is, the levels, and a hash of every other file; written last
model/               the trained model
catalogue.parquet    item_id (outside id) and label, row n being item n
users.parquet        user_id (outside id), row n being user n
histories.parquet    user, item (row numbers), level and, where the source has times, timestamp: all known rows
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.errors import StoreError
from app.files import PARTIAL, move_folder, read_json, write_json
from app.manifest import hash_files
from app.wiring import LOADERS
from recsys.artefacts import MANIFEST as MODEL_MANIFEST
from recsys.columns import ITEM, LEVEL, TIMESTAMP, USER
from recsys.models.gnolr import Gnolr
from recsys.recipes.contest_data import Contest
from recsys.types import Retriever, histories_from_log

RETRIEVER, RETRIEVER_JSON = "retriever", "retriever.json"
_MODEL = "model"
_COLUMNS = {
    "catalogue": ("item_id", "label"),
    "users": ("user_id",),
    "histories": ("user", "item", "level"),
}


class Served(NamedTuple):
    """A retriever with its tables.

    model: The retriever.
    name: What the evaluation called it.
    users: Outside ids by row.
    items: Outside ids by row.
    labels: What people call each item; its id where nothing else is known.
    log: Known rows, with the columns of an interaction log.
    level_names: What level 0..C is called.
    relevant_level: The level that it was chosen for.
    """

    model: Retriever
    name: str
    users: pd.Index
    items: pd.Index
    labels: list[str]
    log: pd.DataFrame
    level_names: tuple[str, ...]
    relevant_level: int


def save_retriever(out: Path, model_folder: Path, contest: Contest, *, name: str, device: str) -> None:
    """Write OUT/retriever; an earlier one is replaced.

    The model was trained on the train part; what it knows of users, and the statistics of a GNOLR, are of all rows of
    the log, the test's too, since its service begins after them.

    Args:
        out: Folder of the evaluation.
        model_folder: The trained model.
        contest: Data and split.
        name: What the evaluation calls the model.
        device: Where to load it.

    Raises:
        StoreError: The folder cannot be written.
        ArtefactError: The model is damaged.
    """
    final, partial = out / RETRIEVER, out / (PARTIAL + RETRIEVER)
    dataset = contest.dataset
    kind = _kind(model_folder)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        if kind == "gnolr":
            model: Gnolr = LOADERS[kind](model_folder, device)
            everyone = range(len(dataset.users))
            model.refreshed(histories_from_log(dataset.log, everyone, contest.n_items)).save(partial / _MODEL)
        else:
            shutil.copytree(model_folder, partial / _MODEL)
        items, labels = dataset.items, dataset.items.labels
        shown = items.ids if labels is None else labels
        tables = {
            "catalogue": pd.DataFrame({"item_id": _texts(items.ids), "label": _texts(shown)}),
            "users": pd.DataFrame({"user_id": _texts(dataset.users.ids)}),
            "histories": _known_rows(dataset.log),
        }
        for table, frame in tables.items():
            frame.to_parquet(partial / f"{table}.parquet", index=False)
    except OSError as err:
        raise StoreError(
            f"{final} must be writable; got {err.strerror or err}. Make room and resume."
        ) from err
    facts = {
        "kind": kind,
        "name": name,
        "relevant_level": contest.relevant_level,
        "level_names": list(dataset.level_names),
        "files": hash_files(partial),
    }
    write_json(partial / RETRIEVER_JSON, facts)
    shutil.rmtree(final, ignore_errors=True)
    move_folder(partial, final)


def read_retriever(folder: Path, *, device: str = "cpu") -> Served:
    """Open what `save_retriever` wrote.

    Args:
        folder: The retriever's folder, or that of the evaluation that holds it.
        device: Where to load the model.

    Raises:
        StoreError: There is no retriever, or a file of it is missing, damaged or not the one that was written.
        ArtefactError: The model is of an unknown kind or damaged.
    """
    if not (folder / RETRIEVER_JSON).is_file():
        if not (folder / RETRIEVER / RETRIEVER_JSON).is_file():
            raise StoreError(
                f"{folder} must hold a retriever ({RETRIEVER_JSON}); there is none. Make one with `persona evaluate`."
            )
        folder = folder / RETRIEVER
    facts = _read_facts(folder / RETRIEVER_JSON)
    _check_files(folder, facts.files)
    catalogue, users, histories = (
        _read_table(folder / f"{table}.parquet", columns) for table, columns in _COLUMNS.items()
    )
    _check_texts(folder / "users.parquet", users, distinct="user_id")
    _check_texts(folder / "catalogue.parquet", catalogue, distinct="item_id")
    most = {"user": len(users), "item": len(catalogue), "level": len(facts.level_names)}
    _check_numbers(folder / "histories.parquet", histories, most)
    names = {"user": USER, "item": ITEM, "level": LEVEL, "timestamp": TIMESTAMP}
    return Served(
        LOADERS[facts.kind](folder / _MODEL, device),
        facts.name,
        pd.Index(users["user_id"]),
        pd.Index(catalogue["item_id"]),
        catalogue["label"].tolist(),
        histories.rename(columns=names),
        facts.level_names,
        facts.relevant_level,
    )


class _Facts(BaseModel):
    """What the retriever's own file must hold; further keys are for people."""

    model_config = ConfigDict(frozen=True)

    # Kind and name of the model.
    kind: str
    name: str
    # SHA-256 of every other file, by path.
    files: dict[str, str] = Field(min_length=1)
    # What levels 0..C mean.
    level_names: tuple[str, ...] = Field(min_length=2)
    # Level that the model aims at, 1..C.
    relevant_level: int = Field(ge=1)

    @model_validator(mode="after")
    def _fits_together(self) -> "_Facts":
        missing = [f"{table}.parquet" for table in _COLUMNS if f"{table}.parquet" not in self.files]
        if self.kind not in LOADERS or self.relevant_level >= len(self.level_names) or missing:
            raise ValueError("the kind is unknown, the level does not exist, or a table is not named")
        return self


def _read_facts(path: Path) -> _Facts:
    try:
        return _Facts.model_validate(read_json(path))
    except ValidationError as err:
        raise StoreError(
            f"{path} must be as `persona evaluate` wrote it, of a kind among {', '.join(LOADERS)}; got other content. "
            "Evaluate anew."
        ) from err


def _check_files(folder: Path, hashes: Mapping[str, str]) -> None:
    now = hash_files(folder)
    wrong = sorted(name for name, value in hashes.items() if now.get(name) != value)
    if wrong:
        raise StoreError(
            f"{folder} must hold the files that {RETRIEVER_JSON} names; {', '.join(wrong[:3])} missing or changed. "
            "Evaluate anew, or restore them."
        )


def _read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (OSError, pa.ArrowInvalid) as err:
        raise StoreError(f"{path} must be a whole Parquet file; got: {err}. Evaluate anew.") from err
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise StoreError(
            f"{path} must have the columns {', '.join(columns)}; {missing} missing. Evaluate anew."
        )
    return table


def _check_texts(path: Path, table: pd.DataFrame, *, distinct: str) -> None:
    for name in table.columns:
        kind = pd.api.types.infer_dtype(table[name], skipna=False)
        if kind != "string":
            raise StoreError(f"{path} must hold texts in `{name}`; got {kind}. Evaluate anew.")
    repeated = table[distinct][table[distinct].duplicated()].head(3).tolist()
    if repeated:
        raise StoreError(f"{path} must name each `{distinct}` once; got {repeated} again. Evaluate anew.")


def _check_numbers(path: Path, table: pd.DataFrame, most: Mapping[str, int]) -> None:
    if table.empty:
        raise StoreError(f"{path} must hold rows; got none. Evaluate anew.")
    for name in table.columns:
        values = table[name]
        if values.dtype.kind not in "iu":
            raise StoreError(
                f"{path} must hold whole numbers in `{name}`; got {values.dtype}. Evaluate anew."
            )
        low, high = int(values.min()), int(values.max())
        if name in most and not 0 <= low <= high < most[name]:
            raise StoreError(
                f"{path} must hold 0..{most[name] - 1} in `{name}`; got {low}..{high}. Evaluate anew."
            )


def _kind(model_folder: Path) -> str:
    kind: Any = json.loads((model_folder / MODEL_MANIFEST).read_text())["kind"]
    return str(kind)


def _known_rows(log: pd.DataFrame) -> pd.DataFrame:
    columns = {USER: "user", ITEM: "item", LEVEL: "level", TIMESTAMP: "timestamp"}
    return log[[name for name in columns if name in log.columns]].rename(columns=columns)


def _texts(values: "pd.Index | pd.Series") -> list[str]:
    return [str(value) for value in values]
