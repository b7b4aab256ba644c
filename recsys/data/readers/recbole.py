"""RecBole's atomic files (Zhao et al., CIKM 2021): tab-separated tables whose header says name and type.

`NAME.inter` holds the log; `NAME.user` and `NAME.item`, where they exist, what is known of users and items. The four
types are `token` (a category), `token_seq` (words cut by spaces), `float` and `float_seq` (numbers cut by spaces).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import Dataset, FeatureKind
from recsys.data.readers.assemble import LogColumns, build_dataset
from recsys.data.readers.features import (
    FeatureTable,
    category_cells,
    feature_table,
    number_cells,
    set_cells,
    vector_cells,
)
from recsys.data.readers.levels import all_met, levels_from_ratings
from recsys.data.readers.lines import TextLayout
from recsys.data.readers.raw import RawTable, id_column, number_column
from recsys.data.readers.text import column_names, read_raw
from recsys.data.readers.times import time_column
from recsys.errors import DataFileError

LAYOUT = TextLayout("\t", is_quoted=False)
TYPES = ("token", "token_seq", "float", "float_seq")
# What our columns are called in RecBole's own data sets.
FIELDS = {"user_id": "user_id", "item_id": "item_id", "rating": "rating", "timestamp": "timestamp"}


def read_recbole(
    path: Path, *, levels: Sequence[str] | None = None, columns: Mapping[str, str] | None = None
) -> Dataset:
    """Read a set of atomic files.

    A column of titles or names becomes the labels and is no feature. `token` is read as categorical, left out where
    more than half the rows have a value of their own.

    Args:
        path: The `.inter` file, or a folder that holds one.
        levels: Ascending cut-points of the ratings; None cuts ratings of at most five stars at 3, 4 and 5. A log
            without ratings has level 1 in every row.
        columns: File's names of user_id, item_id, rating and timestamp where they are not called so.

    Raises:
        DataFileError: There is not one `.inter` file, or a file does not hold what it should.
        OrdinalError: `levels` do not fit the ratings.
    """
    inter = _find_inter(path)
    fields = {**FIELDS, **(columns or {})}
    types = _field_types(inter)
    numbers = [fields[name] for name in ("rating", "timestamp") if fields[name] in types]
    raw = _read(inter, types, (fields["user_id"], fields["item_id"]), numbers, ())
    notes = []
    seconds = None
    others: dict[str, NDArray[np.generic]] = {}
    if fields["timestamp"] in types:
        seconds, note = time_column(raw, _full(fields["timestamp"], types))
        notes.append(note)
    if fields["rating"] in types:
        ratings = number_column(raw, _full(fields["rating"], types))
        found = levels_from_ratings(ratings, levels)
        others["rating"] = ratings.astype(np.float32)
    else:
        found = all_met(raw.cells.num_rows)
    if unread := [name for name in types if name not in fields.values()]:
        notes.append(f"Columns {unread} of {inter.name} are not read.")
    user_column, item_column = (id_column(raw, _full(fields[name], types)) for name in ("user_id", "item_id"))
    return build_dataset(
        inter.stem,
        LogColumns(user_column, item_column, seconds, others),
        found,
        users=_read_features(inter.with_suffix(".user"), fields["user_id"]),
        items=_read_features(inter.with_suffix(".item"), fields["item_id"]),
        notes=notes,
    )


def _find_inter(path: Path) -> Path:
    if path.suffix == ".inter":
        return path
    found = sorted(path.glob("*.inter"))
    if len(found) != 1:
        raise DataFileError(
            f"{path} must hold one .inter file; got {[file.name for file in found]}. Name the file itself."
        )
    return found[0]


def _field_types(path: Path) -> dict[str, str]:
    """The type of each column, by its name without the type."""
    types = {}
    for cell in column_names(path, LAYOUT):
        name, colon, kind = cell.rpartition(":")
        if not colon or kind not in TYPES:
            raise DataFileError(
                f"{path}, line 1 must name columns as name:type with a type among {', '.join(TYPES)}; got {cell!r}. "
                "Repair the header."
            )
        types[name] = kind
    return types


def _full(name: str, types: Mapping[str, str]) -> str:
    return f"{name}:{types.get(name, 'token')}"


def _read(
    path: Path, types: Mapping[str, str], ids: Sequence[str], numbers: Sequence[str], texts: Sequence[str]
) -> RawTable:
    groups = ([_full(name, types) for name in group] for group in (ids, numbers, texts))
    id_names, number_names, text_names = groups
    return read_raw(path, LAYOUT, ids=id_names, numbers=number_names, texts=text_names)


def _read_features(path: Path, id_name: str) -> FeatureTable | None:
    if not path.is_file():
        return None
    types = _field_types(path)
    names = [name for name in types if name != id_name]
    numbers = [name for name in names if types[name] == "float"]
    raw = _read(path, types, (id_name,), numbers, [name for name in names if name not in numbers])
    table = feature_table(raw, _full(id_name, types))
    for name in names:
        column = raw.cells[_full(name, types)]
        is_label = types[name].startswith("token") and ("title" in name or "name" in name)
        if is_label and table.labels is None:
            table.labels = category_cells(column)
            table.notes.append(f"Column `{name}` is read as labels, not as a feature.")
        elif types[name] == "token":
            table.add(name, FeatureKind.CATEGORICAL, category_cells(column))
        elif types[name] == "token_seq":
            table.add(name, FeatureKind.MULTI_HOT, set_cells(column, " "))
        elif types[name] == "float":
            table.add(name, FeatureKind.DENSE, number_cells(column))
        else:
            table.add(name, FeatureKind.EMBEDDING, vector_cells(raw, _full(name, types), " "))
    return table
