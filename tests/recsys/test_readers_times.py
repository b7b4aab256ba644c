from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recsys.data.readers.lines import TextLayout
from recsys.data.readers.raw import RawTable
from recsys.data.readers.text import read_raw
from recsys.data.readers.times import LATEST, UNITS, find_unit, time_column
from recsys.errors import DataFileError
from tests.helpers.log_files import write_lines

MOMENT = datetime(2019, 11, 24, 0, 3, 13, tzinfo=UTC)


def read_times(tmp_path: Path, cells: list[str], *, as_text: bool = False) -> RawTable:
    path = write_lines(tmp_path / "log.csv", ["user,when", *(f"1,{cell}" for cell in cells)])
    return read_raw(path, TextLayout(), **{"texts" if as_text else "numbers": ("when",)})


@pytest.mark.parametrize("unit", list(UNITS))
@pytest.mark.parametrize("as_text", [False, True])
def test_every_unit_gives_the_same_seconds_and_is_named(tmp_path: Path, unit: str, as_text: bool) -> None:
    seconds = [int(MOMENT.timestamp()), 900_000_000]
    raw = read_times(tmp_path, [str(second * UNITS[unit]) for second in seconds], as_text=as_text)
    found, note = time_column(raw, "when")
    assert found.tolist() == seconds
    assert note == f"`when` is read as {unit} since 1970."


def test_dates_are_read_in_their_zone_and_in_utc_without_one(tmp_path: Path) -> None:
    east = MOMENT.astimezone(timezone(timedelta(hours=2))).isoformat()
    cells = ["2019-11-24 00:03:13.442536+00:00", "2019-11-24 00:03:13", east, "2019-11-24"]
    found, note = time_column(read_times(tmp_path, cells, as_text=True), "when")
    assert found.tolist() == [int(MOMENT.timestamp())] * 3 + [
        int(datetime(2019, 11, 24, tzinfo=UTC).timestamp())
    ]
    assert "ISO 8601" in note


def test_arrow_timestamps_keep_their_moment_whatever_their_resolution(tmp_path: Path) -> None:
    for resolution in ("s", "ms", "us", "ns"):
        column = pa.chunked_array([pa.array([MOMENT], pa.timestamp(resolution, tz="UTC"))])
        raw = RawTable(tmp_path, None, pa.table({"when": column}))
        assert time_column(raw, "when")[0].tolist() == [int(MOMENT.timestamp())]


def test_fractions_of_a_second_are_cut_off(tmp_path: Path) -> None:
    assert time_column(read_times(tmp_path, ["1.9", "1000.2"]), "when")[0].tolist() == [1, 1000]


def test_the_unit_follows_the_median_so_that_one_slip_cannot_move_it() -> None:
    assert find_unit(np.array([LATEST, LATEST, LATEST * 1000.0])) == "seconds"
    assert find_unit(np.array([LATEST + 1.0])) == "milliseconds"
    assert find_unit(np.array([1e30])) == "nanoseconds"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            ["1500000000", "1500000000", "1500000000000"],
            r"line 4: `when` must lie in 1970\.\.2100 as seconds since 1970",
        ),
        (
            ["1500000000000", "1500000000000", "1500000000"],
            r"line 4: .* as milliseconds since 1970; got 1500000000\.0",
        ),
        (["5", "-3"], r"line 3: .* as seconds since 1970; got -3\.0"),
        (["5", ""], r"line 3: `when` must be a moment; got nothing"),
    ],
)
def test_moments_that_do_not_fit_the_others_are_refused(
    tmp_path: Path, cells: list[str], message: str
) -> None:
    with pytest.raises(DataFileError, match=message):
        time_column(read_times(tmp_path, cells), "when")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("yesterday", r"line 3: `when` must be a number or an ISO 8601 date; got 'yesterday'"),
        ("1492-10-12", r"line 3: `when` must lie in 1970\.\.2100; got '1492-10-12'"),
    ],
)
def test_dates_that_are_none_are_refused(tmp_path: Path, cell: str, message: str) -> None:
    with pytest.raises(DataFileError, match=message):
        time_column(read_times(tmp_path, ["2019-11-24", cell], as_text=True), "when")


def test_a_number_among_text_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="line 3: `when` must be a moment; got 'soon'"):
        time_column(read_times(tmp_path, ["5", "soon"], as_text=True), "when")


def test_a_given_unit_is_not_questioned(tmp_path: Path) -> None:
    assert time_column(read_times(tmp_path, ["5000", "7000"]), "when", unit="milliseconds")[0].tolist() == [
        5,
        7,
    ]
