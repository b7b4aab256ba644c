"""The Open Bandit Dataset (Saito et al., NeurIPS 2021 Datasets and Benchmarks): fashion items shown by a known policy.

A folder holds one campaign's log (`all.csv`, `men.csv` or `women.csv`) and `item_context.csv`. Its rows are
impressions with the chance that the policy gave them, so they serve for off-policy evaluation as well.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.dataset import Dataset, FeatureKind
from recsys.data.readers.assemble import LogColumns, build_dataset
from recsys.data.readers.features import (
    FeatureTable,
    category_cells,
    feature_table,
    number_cells,
)
from recsys.data.readers.grouping import group_by_value
from recsys.data.readers.levels import check_names, levels_from_flags
from recsys.data.readers.lines import TextLayout
from recsys.data.readers.raw import RawTable, flag_column, id_column, number_column, refuse_rows
from recsys.data.readers.text import column_names, read_raw
from recsys.data.readers.times import time_column
from recsys.errors import DataFileError

CONTEXT = "item_context.csv"
WHO, AFFINITY, ITEM_FEATURE = "user_feature_", "user-item_affinity_", "item_feature_"


def read_bandit_log(path: Path) -> pd.DataFrame:
    """Read a logged-bandit table for off-policy evaluation.

    Args:
        path: A campaign's CSV file, or a folder that holds one beside `item_context.csv`.

    Returns:
        One row an impression: action (the item's number in the file, int64), reward (1 for a click, float64),
        propensity (the logging policy's chance of the action at that position, above 0), position (1 to 3, int64),
        timestamp (seconds, int64), and the context as the file names it: user_feature_* (strings, "" where missing)
        and user-item_affinity_* (float64).

    Raises:
        DataFileError: The file does not hold what it should, or a chance lies outside (0, 1].
    """
    raw = _read_log(_campaign(path))
    columns: dict[str, object] = {
        "action": _whole(raw, "item_id"),
        "reward": flag_column(raw, "click").astype(np.float64),
        "propensity": _propensity(raw),
        "position": _whole(raw, "position"),
        "timestamp": time_column(raw, "timestamp")[0],
    }
    for name in raw.cells.column_names:
        if name.startswith(WHO):
            columns[name] = pd.Series(pc.cast(raw.cells[name], pa.string()).to_pylist(), dtype=object)
        elif name.startswith(AFFINITY):
            columns[name] = number_column(raw, name)
    return pd.DataFrame(columns)


def read_open_bandit(path: Path, *, levels: Sequence[str] | None = None) -> Dataset:
    """Read a logged-bandit table as a data set of impressions and clicks.

    The source names no users. Everyone with the same `user_feature_*` is taken as one, named by a hash of these
    values. The log keeps `position` and `propensity`.

    Args:
        path: As `read_bandit_log` takes it.
        levels: Only ("click",), which None means too.

    Raises:
        DataFileError: A file does not hold what it should.
        OrdinalError: `levels` names another step.
    """
    steps = tuple(levels or ("click",))
    check_names(steps, ["click"])
    campaign = _campaign(path)
    raw = _read_log(campaign)
    seconds, note = time_column(raw, "timestamp")
    users, table = _users(raw)
    others = {"position": _whole(raw, "position"), "propensity": _propensity(raw)}
    context = campaign.with_name(CONTEXT)
    return build_dataset(
        f"{campaign.resolve().parent.name}-{campaign.name.partition('.')[0]}",
        LogColumns(users, id_column(raw, "item_id"), seconds, others),
        levels_from_flags(pd.DataFrame({"click": flag_column(raw, "click")}), steps),
        users=table,
        items=_read_items(context) if context.is_file() else None,
        notes=(
            note,
            f"The source names no users: those with equal {WHO}* are one, {len(table.ids)} in all.",
        ),
    )


def _campaign(path: Path) -> Path:
    if path.is_file():
        return path
    found = [file for file in sorted([*path.glob("*.csv"), *path.glob("*.csv.gz")]) if file.name != CONTEXT]
    if len(found) != 1:
        raise DataFileError(
            f"{path} must hold the log of one campaign, a .csv beside {CONTEXT}; got {[file.name for file in found]}. "
            "Name the file itself."
        )
    return found[0]


def _read_log(path: Path) -> RawTable:
    names = column_names(path, TextLayout())
    who = [name for name in names if name.startswith(WHO)]
    if not who:
        raise DataFileError(
            f"{path} must have columns {WHO}0 and so on; got {names[:8]}. Take a file of the Open Bandit Dataset."
        )
    affinity = [name for name in names if name.startswith(AFFINITY)]
    return read_raw(
        path,
        TextLayout(),
        ids=("item_id", *who),
        numbers=("position", "click", "propensity_score", *affinity),
        texts=("timestamp",),
    )


def _propensity(raw: RawTable) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    chance = number_column(raw, "propensity_score")
    bad = (chance <= 0) | (chance > 1)
    refuse_rows(raw, bad, "`propensity_score` must lie in (0, 1]", chance, "Drop or repair such rows")
    return chance


def _whole(raw: RawTable, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """A column of whole numbers from 0 up, of which the ids of items are text in `raw`."""
    column = raw.cells[name]
    if pa.types.is_dictionary(column.type):
        text = pc.cast(column, pa.string())
        bad = ~np.asarray(pc.match_substring_regex(text, r"^\d{1,9}$"), dtype=np.bool_)
        refuse_rows(raw, bad, f"`{name}` must be a whole number", text, "Drop or repair such rows")
        return np.asarray(pc.cast(text, pa.int64()), dtype=np.int64)
    values = number_column(raw, name)
    refuse_rows(
        raw,
        values != np.floor(values),
        f"`{name}` must be a whole number",
        values,
        "Drop or repair such rows",
    )
    return values.astype(np.int64)


def _users(raw: RawTable) -> tuple[pa.ChunkedArray, FeatureTable]:
    """Who each row is about, and the distinct users: one for each combination of values."""
    who = [name for name in raw.cells.column_names if name.startswith(WHO)]
    found = group_by_value(raw.cells, who)
    table = FeatureTable(found.distinct)
    first = raw.cells.take(pa.array(found.first_rows))
    for name in who:
        table.add(name, FeatureKind.CATEGORICAL, category_cells(first[name]))
    return found.ids, table


def _read_items(path: Path) -> FeatureTable:
    """Item features: the first is a number, the others hashed categories."""
    names = [name for name in column_names(path, TextLayout()) if name.startswith(ITEM_FEATURE)]
    numbers = [name for name in names if name == f"{ITEM_FEATURE}0"]
    texts = [name for name in names if name not in numbers]
    raw = read_raw(path, TextLayout(), ids=("item_id",), numbers=numbers, texts=texts)
    table = feature_table(raw, "item_id")
    for name in names:
        column = raw.cells[name]
        if name in numbers:
            table.add(name, FeatureKind.DENSE, number_cells(column))
        else:
            table.add(name, FeatureKind.CATEGORICAL, category_cells(column))
    return table
