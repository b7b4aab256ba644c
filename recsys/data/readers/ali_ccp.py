r"""Ali-CCP (Ma et al., SIGIR 2018): impressions of a shop's recommendations with clicks and purchases, without times.

`sample_skeleton_{train,test}.csv` has a line an impression: number, click, buy, index of its common features, count and
list of features. `common_features_{train,test}.csv` has a line an index: index, count, list. Neither has a header. The
features of a list are parted by \x01, each is field \x02 value \x03 weight. Field 101 is the user, 205 the item.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.columns import IS_TEST
from recsys.data.dataset import Dataset, FeatureKind
from recsys.data.readers.assemble import LogColumns, build_dataset, stack
from recsys.data.readers.features import FeatureTable, category_cells, set_cells
from recsys.data.readers.levels import ContradictionPolicy, check_names, levels_from_flags
from recsys.data.readers.lines import TextLayout
from recsys.data.readers.numbering import encode
from recsys.data.readers.raw import RawTable, flag_column, refuse_rows
from recsys.data.readers.text import iter_raw

STEPS = ("click", "buy")
PARTS = ("train", "test")
USER_FIELD, ITEM_FIELD, ITEM_WORDS = "101", "205", "210"
USER_FIELDS = ("121", "122", "124", "125", "126", "127", "128", "129")
ITEM_FIELDS = ("206", "207", "216")
SKELETON = TextLayout(",", ("sample", "click", "buy", "index", "count", "features"), is_quoted=False)
COMMON = TextLayout(",", ("index", "count", "features"), is_quoted=False)
BLOCK_BYTES = 1 << 26


class _Part(NamedTuple):
    """One of train and test: its log, flags, and its users' and items' fields as tables of strings."""

    log: LogColumns
    flags: pd.DataFrame
    users: pa.Table
    items: pa.Table


def read_ali_ccp(
    folder: Path,
    *,
    levels: Sequence[str] | None = None,
    contradictions: ContradictionPolicy = ContradictionPolicy.DEEPEST,
) -> Dataset:
    """Read an Ali-CCP folder, a block of rows at a time.

    Each user and item keeps the single-valued fields of its first row: users 121 to 129, items 206 (category), 207
    (shop), 216 (brand), and 210 (words) as a set. Fields that cross users with items (508, 509, 702, 853), weighted
    histories (109_14, 110_14, 127_14, 150_14) and the place of the impression (301) are not read. Where the test part
    is there, the log has a column `is_test`: the source has no times, so this is its only split.

    Args:
        folder: Holds the files, those of the test part possibly not.
        levels: Steps among click, buy; None is both.
        contradictions: What becomes of a purchase without a click.

    Raises:
        DataFileError: A file is missing or does not hold what it should.
        OrdinalError: `levels` names another step.
    """
    steps = tuple(levels or STEPS)
    check_names(steps, STEPS)
    parts = [_read_part(folder, name, steps) for name in PARTS if name == "train" or _has(folder, name)]
    log = stack([part.log for part in parts])
    if len(parts) > 1:
        sizes = [len(part.log.users) for part in parts]
        log = log._replace(others={**log.others, IS_TEST: np.repeat([False, True], sizes)})
    users, items = (
        _entities(pa.concat_tables([getattr(part, side) for part in parts])) for side in ("users", "items")
    )
    return build_dataset(
        folder.resolve().name,
        log,
        levels_from_flags(
            pd.concat([part.flags for part in parts], ignore_index=True), steps, contradictions
        ),
        users=users,
        items=items,
        notes=(
            "The source has no times.",
            "Features are those of each user's and item's first row. Crossed fields, weighted histories and places are "
            "not read.",
        ),
    )


def _has(folder: Path, name: str) -> bool:
    return (folder / f"sample_skeleton_{name}.csv").is_file()


def _read_part(folder: Path, name: str, steps: Sequence[str]) -> _Part:
    common = _read_common(folder / f"common_features_{name}.csv")
    owners = common["index"].combine_chunks()
    user_of_owner = encode(common[USER_FIELD]).combine_chunks()
    users, items, flags, tables = [], [], [], []
    for raw in iter_raw(
        folder / f"sample_skeleton_{name}.csv",
        SKELETON,
        ids=("index",),
        numbers=steps,
        texts=("features",),
        block_bytes=BLOCK_BYTES,
    ):
        item = _field(raw, ITEM_FIELD, needed=True)
        index = raw.cells["index"].combine_chunks()
        owner = pc.index_in(index.dictionary, value_set=owners).take(index.indices)
        lost = np.asarray(pc.is_null(owner), dtype=np.bool_)
        refuse_rows(
            raw, lost, f"the index must stand in common_features_{name}.csv", raw.cells["index"], "Fetch both"
        )
        users.append(user_of_owner.take(owner))
        items.append(encode(item).combine_chunks())
        flags.append(pd.DataFrame({step: flag_column(raw, step) for step in steps}))
        tables.append(_first_rows(raw, ITEM_FIELD, item, ITEM_FIELDS, has_words=True))
    log = LogColumns(pa.chunked_array(users), pa.chunked_array(items), None, {})
    return _Part(
        log,
        pd.concat(flags, ignore_index=True),
        _distinct(common.drop_columns(["index"]), USER_FIELD),
        _distinct(pa.concat_tables(tables), ITEM_FIELD),
    )


def _read_common(path: Path) -> pa.Table:
    """Index, user and the user's fields, a row an index."""
    blocks = []
    for raw in iter_raw(path, COMMON, texts=("index", "features"), block_bytes=BLOCK_BYTES):
        user = _field(raw, USER_FIELD, needed=True)
        columns = {"index": raw.cells["index"], USER_FIELD: user}
        columns.update({field: _field(raw, field) for field in USER_FIELDS})
        blocks.append(pa.table(columns))
    table = pa.concat_tables(blocks)
    repeated = table["index"].to_pandas().duplicated().to_numpy(dtype=np.bool_)
    whole = RawTable(path, COMMON, table)
    refuse_rows(whole, repeated, "the index must stand once", table["index"], "Drop one of the rows")
    return table


def _field(raw: RawTable, field: str, *, needed: bool = False) -> pa.ChunkedArray:
    """The value of a single-valued field in each row's list, "" where it has none."""
    column = raw.cells["features"]
    found = pc.extract_regex(column, f"(?:^|\x01){field}\x02(?P<value>[^\x01\x03]*)\x03")
    value = pc.fill_null(pc.struct_field(found, "value"), "")
    if needed:
        bad = np.asarray(pc.equal(value, ""), dtype=np.bool_)
        refuse_rows(raw, bad, f"the features must have field {field}", column, "Drop or repair such rows")
    return value


def _first_rows(
    raw: RawTable, id_field: str, ids: pa.ChunkedArray, fields: Sequence[str], *, has_words: bool
) -> pa.Table:
    """The fields of the first row of each id in a block; words joined by `|`."""
    first = np.sort(np.unique(ids.to_numpy(zero_copy_only=False), return_index=True)[1])
    rows = RawTable(raw.path, raw.layout, raw.cells.take(pa.array(first)), raw.first_row)
    columns: dict[str, Any] = {id_field: ids.take(pa.array(first))}
    columns.update({field: _field(rows, field) for field in fields})
    if has_words:
        columns[ITEM_WORDS] = _words(rows.cells["features"].combine_chunks())
    return pa.table(columns)


def _words(features: pa.Array) -> pa.Array:
    """The values of field 210 in each list, joined by `|`."""
    lists = pc.split_pattern(features, "\x01")
    owner = pc.list_parent_indices(lists).to_numpy()
    found = pc.extract_regex(pc.list_flatten(lists), f"^{ITEM_WORDS}\x02(?P<value>[^\x03]*)\x03")
    value = pc.struct_field(found, "value")
    there = np.asarray(pc.is_valid(value), dtype=np.bool_)
    counts = np.bincount(owner[there], minlength=len(features))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return pc.binary_join(pa.ListArray.from_arrays(offsets, value.filter(pa.array(there))), "|")


def _distinct(table: pa.Table, id_field: str) -> pa.Table:
    """The first row of each id."""
    first = np.sort(np.unique(table[id_field].to_numpy(zero_copy_only=False), return_index=True)[1])
    return table.take(pa.array(first))


def _entities(table: pa.Table) -> FeatureTable:
    """Features by field, those of train before those of test; the first column has the ids."""
    id_field = table.column_names[0]
    rows = _distinct(table, id_field)
    found = FeatureTable(encode(rows[id_field]))
    for field in table.column_names[1:]:
        if field == ITEM_WORDS:
            found.add(f"field_{field}", FeatureKind.MULTI_HOT, set_cells(rows[field], "|"))
        else:
            found.add(f"field_{field}", FeatureKind.CATEGORICAL, category_cells(rows[field]))
    return found
