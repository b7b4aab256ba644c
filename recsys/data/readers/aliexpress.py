"""AliExpress Search (Li et al., CIKM 2020): one country's result pages, in the tables that MTReclib makes of them.

`train.csv` and `test.csv` have the columns search_id, categorical_1..16, numerical_1..63, click and conversion. There
is no id of a user and none of an item. What the columns were in the source: categorical_1..9 and numerical_1..23
describe user and query and are the same on all rows of a page; categorical_10..16 and numerical_24..63 describe the
item shown.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from recsys.columns import IS_TEST
from recsys.data.dataset import Dataset, FeatureKind
from recsys.data.readers.assemble import LogColumns, build_dataset
from recsys.data.readers.features import FeatureTable, category_cells, number_cells
from recsys.data.readers.grouping import group_by_value
from recsys.data.readers.levels import ContradictionPolicy, check_names, levels_from_flags
from recsys.data.readers.lines import TextLayout
from recsys.data.readers.numbering import encode, number_ids
from recsys.data.readers.raw import RawTable, flag_column, id_column
from recsys.data.readers.text import read_raw

STEPS = ("click", "conversion")
USER_CATEGORIES = tuple(f"categorical_{place}" for place in range(1, 10))
ITEM_CATEGORIES = tuple(f"categorical_{place}" for place in range(10, 17))
USER_NUMBERS = tuple(f"numerical_{place}" for place in range(1, 24))
ITEM_NUMBERS = tuple(f"numerical_{place}" for place in range(24, 64))


def read_aliexpress(
    folder: Path,
    *,
    levels: Sequence[str] | None = None,
    contradictions: ContradictionPolicy = ContradictionPolicy.DEEPEST,
) -> Dataset:
    """Read the tables of one country.

    A user is a result page (`search_id`). An item is what has the same categorical_10..16, named by a hash of them, so
    different products may fall into one. Numbers are those of the first row of each. The log has a column `is_test`;
    the source cut its parts by time but gives no moments.

    Args:
        folder: Holds `train.csv`, and possibly `test.csv`.
        levels: Steps among click, conversion; None is both.
        contradictions: What becomes of a conversion without a click.

    Raises:
        DataFileError: A file is missing or does not hold what it should.
        OrdinalError: `levels` names another step.
    """
    steps = tuple(levels or STEPS)
    check_names(steps, STEPS)
    paths = [
        path for path in (folder / "train.csv", folder / "test.csv") if path.is_file() or path.stem == "train"
    ]
    raws = [_read(path, steps) for path in paths]
    cells = pa.concat_tables([raw.cells for raw in raws]).unify_dictionaries()
    pages = pa.chunked_array([chunk for raw in raws for chunk in id_column(raw, "search_id").chunks])
    groups = group_by_value(cells, ITEM_CATEGORIES)
    page_of_row = number_ids([pages])[1][0]
    first_rows = np.unique(page_of_row, return_index=True)[1]
    users = _table(cells, pages.take(pa.array(first_rows)), first_rows, USER_CATEGORIES, USER_NUMBERS)
    items = _table(cells, groups.distinct, groups.first_rows, ITEM_CATEGORIES, ITEM_NUMBERS)
    others: dict[str, NDArray[np.generic]] = {}
    if len(raws) > 1:
        others[IS_TEST] = np.repeat([False, True], [raw.cells.num_rows for raw in raws])
    flags = pd.concat([pd.DataFrame({step: flag_column(raw, step) for step in steps}) for raw in raws])
    return build_dataset(
        folder.resolve().name,
        LogColumns(pages, groups.ids, None, others),
        levels_from_flags(flags.reset_index(drop=True), steps, contradictions),
        users=users,
        items=items,
        notes=(
            f"The source names no users and no items: a user is one of {len(first_rows)} result pages, an item one of "
            f"{len(groups.distinct)} combinations of {ITEM_CATEGORIES[0]} to {ITEM_CATEGORIES[-1]}.",
            "Numbers of users and items are those of their first row.",
            "The source has no times.",
        ),
    )


def _read(path: Path, steps: Sequence[str]) -> RawTable:
    ids = ("search_id", *USER_CATEGORIES, *ITEM_CATEGORIES)
    return read_raw(path, TextLayout(), ids=ids, numbers=(*USER_NUMBERS, *ITEM_NUMBERS, *steps))


def _table(
    cells: pa.Table,
    ids: pa.ChunkedArray,
    rows: NDArray[np.int64],
    categories: Sequence[str],
    numbers: Sequence[str],
) -> FeatureTable:
    """Features of the chosen rows, one for each of `ids`."""
    table = FeatureTable(encode(ids))
    chosen = cells.select([*categories, *numbers]).take(pa.array(rows))
    for name in categories:
        table.add(name, FeatureKind.CATEGORICAL, category_cells(chosen[name]))
    for name in numbers:
        table.add(name, FeatureKind.DENSE, number_cells(chosen[name]))
    return table
