"""RetailRocket (Kaggle, 2016): views, carts and purchases of a shop, without impressions.

`events.csv` holds the log; `item_properties_part1.csv` and `part2.csv` weekly snapshots of each item's properties,
of which the category is read; `category_tree.csv` each category's parent.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.dataset import Dataset, FeatureKind
from recsys.data.readers.assemble import LogColumns, build_dataset
from recsys.data.readers.features import FeatureTable, table_from_frame
from recsys.data.readers.levels import levels_from_events
from recsys.data.readers.lines import TextLayout
from recsys.data.readers.raw import id_column, number_column, refuse_rows
from recsys.data.readers.text import read_raw
from recsys.data.readers.times import time_column

EVENTS = ("view", "addtocart", "transaction")
# Plain words for the names in the file.
WORDS = {"cart": "addtocart", "buy": "transaction", "purchase": "transaction"}
DEFAULT_LEVELS = ("addtocart", "transaction")


def read_retailrocket(folder: Path, *, levels: Sequence[str] | None = None) -> Dataset:
    """Read a RetailRocket folder.

    Args:
        folder: Holds `events.csv`, and possibly the item properties and the category tree.
        levels: Events from shallow to deep among view, addtocart (or cart) and transaction (or buy); rows of the
            others are level 0. None is addtocart, transaction, with views as level 0, as GNOLR's authors have it.

    Raises:
        DataFileError: A file does not hold what it should.
        OrdinalError: `levels` names no such event.
    """
    raw = read_raw(
        folder / "events.csv", TextLayout(), ids=("visitorid", "itemid", "event"), numbers=("timestamp",)
    )
    seconds, note = time_column(raw, "timestamp", unit="milliseconds")
    events = id_column(raw, "event")
    unknown = ~np.asarray(pc.is_in(pc.cast(events, pa.string()), value_set=pa.array(EVENTS)), dtype=np.bool_)
    refuse_rows(raw, unknown, f"`event` must be one of {', '.join(EVENTS)}", events, "Repair the cell")
    steps = [WORDS.get(level, level) for level in levels or DEFAULT_LEVELS]
    log = LogColumns(id_column(raw, "visitorid"), id_column(raw, "itemid"), seconds, {})
    items, item_notes = _read_categories(folder)
    return build_dataset(
        folder.resolve().name,
        log,
        levels_from_events(events, steps),
        items=items,
        notes=(note, *item_notes),
    )


def _read_categories(folder: Path) -> tuple[FeatureTable | None, list[str]]:
    """Each item's earliest known category and its parent, and what was decided."""
    paths = sorted(folder.glob("item_properties*.csv"))
    if not paths:
        return None, ["No item_properties*.csv, so nothing is known of items."]
    found = pd.concat([_category_rows(path) for path in paths], ignore_index=True)
    found = found.sort_values("timestamp", kind="stable")
    changed = found.groupby("itemid", sort=False)["value"].nunique().gt(1).sum()
    first = found.drop_duplicates("itemid", keep="first").reset_index(drop=True)
    kinds = {"category": FeatureKind.CATEGORICAL}
    frame = pd.DataFrame({"itemid": first["itemid"], "category": first["value"].astype(object)})
    tree = folder / "category_tree.csv"
    if tree.is_file():
        raw = read_raw(tree, TextLayout(), ids=("categoryid",), texts=("parentid",))
        parents = dict(
            zip(*(raw.cells[name].to_pylist() for name in ("categoryid", "parentid")), strict=True)
        )
        above = frame["category"].map(parents).astype(object)
        frame["parent_category"] = above.where(above.notna() & (above != ""), None)
        kinds["parent_category"] = FeatureKind.CATEGORICAL
    notes = [
        f"Items have the category of their earliest snapshot, so that it knows nothing later; {changed} of "
        f"{len(first)} items changed it afterwards. Other properties are not read."
    ]
    return table_from_frame(frame, "itemid", kinds), notes


def _category_rows(path: Path) -> pd.DataFrame:
    raw = read_raw(path, TextLayout(), ids=("itemid",), numbers=("timestamp",), texts=("property", "value"))
    moments = number_column(raw, "timestamp")
    is_category = pc.equal(raw.cells["property"], "categoryid")
    rows = (
        raw.cells.select(["itemid", "value"])
        .append_column("timestamp", pa.array(moments))
        .filter(is_category)
    )
    return pd.DataFrame(
        {
            "itemid": pd.Series(pc.cast(rows["itemid"], pa.string()).to_pylist(), dtype=object),
            "value": pd.Series(rows["value"].to_pylist(), dtype=object),
            "timestamp": rows["timestamp"].to_numpy(),
        }
    )
