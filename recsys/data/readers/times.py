"""Moments as whole seconds since 1970, whatever unit a file has them in; the unit found is always said."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.data.readers.raw import RawTable, refuse_rows

# 1 January 2100, in seconds.
LATEST = 4_102_444_800
# How many of each unit make a second. A number above LATEST is no moment in seconds, so it must be a finer unit.
UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
REMEDY = "Drop or repair such rows"


def find_unit(values: NDArray[np.float64]) -> str:
    """The coarsest unit in which the median of `values` lies before 2100.

    Args:
        values: Moments since 1970 in an unknown unit, at least one. Shape (N,).

    Returns:
        A key of `UNITS`.
    """
    middle = float(np.median(values))
    return next((unit for unit, scale in UNITS.items() if middle <= LATEST * scale), "nanoseconds")


def time_column(raw: RawTable, name: str, *, unit: str | None = None) -> tuple[NDArray[np.int64], str]:
    """A checked column of moments, as whole seconds since 1970; fractions are cut off.

    Args:
        raw: The file.
        name: Of the column. Numbers and text that starts with one are taken as counts since 1970, other text as
            ISO 8601 dates, Arrow timestamps as they are.
        unit: Of the numbers, a key of `UNITS`; None finds it, and then refuses rows that fit another unit better.

    Returns:
        Seconds, shape (N,), and a sentence that says how they were read.

    Raises:
        DataFileError: A moment is missing, unreadable, or outside 1970..2100 in the one unit of the column.
    """
    column = raw.cells[name]
    if pa.types.is_timestamp(column.type):
        unit, values = (
            "microseconds",
            _floats(pc.cast(pc.cast(column, pa.timestamp("us"), safe=False), pa.int64())),
        )
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        values = pd.to_numeric(column.to_pandas(), errors="coerce").to_numpy(
            dtype=np.float64, na_value=np.nan
        )
        if np.isnan(values[0]):
            return _iso_seconds(raw, name), f"`{name}` is read as ISO 8601 dates, UTC where no zone is named."
    else:
        values = _floats(column)
    refuse_rows(raw, ~np.isfinite(values), f"`{name}` must be a moment", column, REMEDY)
    given, unit = unit, unit or find_unit(values)
    scale = UNITS[unit]
    bad = (values < 0) | (values > LATEST * scale)
    if given is None and scale > 1:
        bad |= values <= LATEST * scale / 1000
    refuse_rows(raw, bad, f"`{name}` must lie in 1970..2100 as {unit} since 1970", values, REMEDY)
    return np.floor(values / scale).astype(np.int64), f"`{name}` is read as {unit} since 1970."


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    values: NDArray[np.float64] = pc.cast(column, pa.float64(), safe=False).to_numpy()
    return values


def _iso_seconds(raw: RawTable, name: str) -> NDArray[np.int64]:
    column = raw.cells[name]
    moments = pd.to_datetime(column.to_pandas(), errors="coerce", utc=True, format="ISO8601")
    bad = moments.isna().to_numpy(dtype=np.bool_)
    refuse_rows(raw, bad, f"`{name}` must be a number or an ISO 8601 date", column, REMEDY)
    seconds: NDArray[np.int64] = moments.dt.tz_convert(None).to_numpy(dtype="datetime64[s]").astype(np.int64)
    outside = (seconds < 0) | (seconds > LATEST)
    refuse_rows(raw, outside, f"`{name}` must lie in 1970..2100", column, REMEDY)
    return seconds
