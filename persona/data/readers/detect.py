"""One way in: find out which layout a file or folder of preferences has, and read it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from persona.data.preferences import (
    PairRows,
    Preferences,
    RatedRows,
    Source,
    assemble_pairs,
    assemble_rated,
)
from persona.data.readers.files import RawRows, read_rows
from persona.data.readers.options import ReadOptions
from persona.data.readers.pairs import (
    COLUMNS,
    HH_SUBSETS,
    convert_hh_rlhf,
    convert_pairs,
    convert_strengths,
    fits_hh_rlhf,
    fits_pairs,
    fits_strengths,
)
from persona.data.readers.personal_llm import convert_personal_llm, fits_personal_llm
from persona.data.readers.prism import FILES, convert_prism, fits_prism
from persona.data.readers.rated import (
    convert_helpsteer,
    convert_ultrafeedback,
    fits_helpsteer,
    fits_ultrafeedback,
)
from persona.data.report import refuse_dropped
from persona.errors import DataError


class Layout(NamedTuple):
    """A layout of preference files.

    name: What people call it.
    fits: Whether rows have it, from their columns.
    convert: Its rows as pairs or as rated replies.
    """

    name: str
    fits: Callable[[pd.DataFrame, ReadOptions], bool]
    convert: Callable[[RawRows, ReadOptions], PairRows | RatedRows]


# Tried in this order; the plainest comes last, as other layouts may hold its columns too.
LAYOUTS = (
    Layout("HH-RLHF", fits_hh_rlhf, convert_hh_rlhf),
    Layout("UltraFeedback", fits_ultrafeedback, convert_ultrafeedback),
    Layout("PRISM", fits_prism, convert_prism),
    Layout("HelpSteer2 preferences", fits_strengths, convert_strengths),
    Layout("HelpSteer", fits_helpsteer, convert_helpsteer),
    Layout("PersonalLLM", fits_personal_llm, convert_personal_llm),
    Layout("pairs", fits_pairs, convert_pairs),
)
DEFAULTS = ReadOptions()


def read_preferences(
    path: str | Path, *, layout: str | None = None, options: ReadOptions = DEFAULTS
) -> Preferences:
    """Preferences from a file or folder of any known layout; what was found and left out is in its `report`.

    Args:
        path: A file (JSON lines, JSON, CSV, TSV, Parquet, gzipped or not), a folder that `datasets` wrote by
            `save_to_disk`, or a folder of PRISM or of HH-RLHF's subsets.
        layout: Name of one of `LAYOUTS`; None finds out.
        options: See `ReadOptions`.

    Raises:
        DataError: The file cannot be read, no layout fits, a column is missing, nothing usable is left, or
            something would be left out and `options.strict` is set. One sentence, with the numbers of rows.
    """
    path = Path(path)
    raw = _read_folder(path, options.split) if path.is_dir() else read_rows(path)
    return _convert(raw, layout, options)


def preferences_from_frame(
    frame: pd.DataFrame, *, layout: str | None = None, options: ReadOptions = DEFAULTS
) -> Preferences:
    """The same from a data frame, such as `to_pandas()` of a data set gives.

    Raises:
        DataError: As `read_preferences`.
    """
    if frame.empty:
        raise DataError("A frame of preferences must hold at least one row; got none. Give one with rows.")
    raw = RawRows(frame, np.arange(1, len(frame) + 1), len(frame), (), "data frame")
    return _convert(raw, layout, options)


def _convert(raw: RawRows, layout: str | None, options: ReadOptions) -> Preferences:
    chosen = _named(layout) if layout is not None else _detect(raw, options)
    part: Any = chosen.convert(raw, options)
    refuse_dropped(part.dropped, strict=options.strict, left=len(part.frame), source=raw.source)
    source = Source(chosen.name, raw.source, raw.total)
    if isinstance(part, PairRows):
        read = assemble_pairs(part, source)
    else:
        read = assemble_rated(part, source, slack=options.slack)
    left = len(read.comparisons.table)
    refuse_dropped(read.report.dropped, strict=options.strict, left=left, source=raw.source)
    return read


def _named(name: str) -> Layout:
    for layout in LAYOUTS:
        if layout.name.lower() == name.lower():
            return layout
    raise DataError(
        f"`layout` must be one of {', '.join(layout.name for layout in LAYOUTS)}; got `{name}`. Name one, or "
        "leave it out."
    )


def _detect(raw: RawRows, options: ReadOptions) -> Layout:
    for layout in LAYOUTS:
        if layout.fits(raw.frame, options):
            return layout
    columns = ", ".join(map(str, raw.frame.columns[:8]))
    if {"prompt", "responses"} <= set(raw.frame.columns):
        raise DataError(
            f"`{raw.source}` must say who preferred what; got replies alone ({columns}). Read it with `read_answers`, "
            "and draw users with `simulate_users`."
        )
    lacking = [name for name in COLUMNS if options.columns.get(name, name) not in raw.frame.columns]
    if len(lacking) < len(COLUMNS):
        columns += f", without {', '.join(lacking)}"
    raise DataError(
        f"`{raw.source}` must have a known layout ({', '.join(layout.name for layout in LAYOUTS)}); got the columns "
        f"{columns}. Rename them to user_id, prompt, chosen and rejected, or map them with `columns`."
    )


def _read_folder(folder: Path, split: str) -> RawRows:
    """The rows of a folder whose files a layout names; a saved data set otherwise."""
    for name in FILES:
        if (folder / name).is_file():
            return read_rows(folder / name)
    found = {
        subset: path
        for subset in HH_SUBSETS
        for path in (folder / subset / f"{split}.jsonl.gz", folder / subset / f"{split}.jsonl")
        if path.is_file()
    }
    if not found:
        return read_rows(folder)
    parts = {subset: read_rows(path) for subset, path in found.items()}
    frame = pd.concat([part.frame.assign(subset=name) for name, part in parts.items()], ignore_index=True)
    # Row numbers go on from one file to the next, in the order of the subsets.
    starts = np.cumsum([0, *(part.total for part in parts.values())])[:-1]
    numbers = np.concatenate(
        [part.numbers + start for part, start in zip(parts.values(), starts, strict=True)]
    )
    dropped = tuple(fault for part in parts.values() for fault in part.dropped)
    return RawRows(frame, numbers, sum(part.total for part in parts.values()), dropped, folder.name)
