import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recsys.data.readers.lines import TextLayout
from recsys.data.readers.raw import RawTable, flag_column, id_column, number_column
from recsys.data.readers.text import column_names, iter_raw, read_raw
from recsys.errors import DataFileError
from tests.helpers.log_files import write_lines

PLAIN = TextLayout()


def read_plain(path: Path) -> RawTable:
    return read_raw(path, PLAIN, ids=("u",), numbers=("x",), texts=("t",))


def test_columns_are_read_in_any_order_and_others_left_out(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.csv", ["t,skip,x,u", 'a,9,1.5,"0,1"', ",9,2,1", "c,9,,01"])
    raw = read_plain(path)
    assert id_column(raw, "u").to_pylist() == ["0,1", "1", "01"]
    assert raw.cells["x"].to_pylist() == [1.5, 2.0, None]
    assert raw.cells["t"].to_pylist() == ["a", "", "c"]
    assert raw.cells.column_names == ["u", "x", "t"]


def test_gzip_byte_order_marks_and_windows_line_ends_are_read_alike(tmp_path: Path) -> None:
    content = "u,x,t\r\n1,2,é\r\n".encode("utf-8-sig")
    (tmp_path / "log.csv").write_bytes(content)
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(content))
    for name in ("log.csv", "log.csv.gz"):
        raw = read_plain(tmp_path / name)
        assert raw.cells.to_pylist() == [{"u": "1", "x": 2.0, "t": "é"}]
        assert column_names(tmp_path / name, PLAIN) == ["u", "x", "t"]


def test_a_separator_of_two_characters_cuts_only_where_it_stands_whole(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "films.dat", ["1::Seven: a: tale::2.5"])
    layout = TextLayout("::", ("u", "t", "x"), is_quoted=False)
    raw = read_raw(path, layout, ids=("u",), numbers=("x",), texts=("t",))
    assert raw.cells.to_pylist() == [{"u": "1", "x": 2.5, "t": "Seven: a: tale"}]


def test_line_breaks_inside_quotes_belong_to_the_cell(tmp_path: Path) -> None:
    raw = read_plain(write_lines(tmp_path / "log.csv", ["u,x,t", '1,2,"a', "", 'say ""b"""', "2,inf,c"]))
    assert raw.cells["t"].to_pylist() == ['a\n\nsay "b"', "c"]
    with pytest.raises(DataFileError, match=r"line 5: `x` must be a finite number; got inf"):
        number_column(raw, "x")


def test_a_quote_inside_a_cell_is_a_character_like_others(tmp_path: Path) -> None:
    raw = read_plain(write_lines(tmp_path / "log.csv", ["u,x,t", '1,2,5" pipe', "2,inf,c"]))
    assert raw.cells["t"].to_pylist() == ['5" pipe', "c"]
    with pytest.raises(DataFileError, match=r"line 3: `x` must be a finite number; got inf"):
        number_column(raw, "x")


def test_a_quote_that_never_closes_is_named_by_the_line_where_it_opens(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.csv", ["u,x,t", "1,2,a", '1,2,"a', "1,2,b", "1,2,c"])
    with pytest.raises(
        DataFileError, match=r"line 3 must be a row of cells, its quotes closed; got: unexpected end of data"
    ):
        read_plain(path)


def test_blocks_hold_the_same_rows_as_the_whole_and_know_their_lines(tmp_path: Path) -> None:
    lines = [f"{row},{row / 2},word{row}" for row in range(400)]
    lines[333] = "333,inf,word"
    path = write_lines(tmp_path / "log.csv", ["u,x,t", *lines])
    whole = read_plain(path).cells
    options = {"ids": ("u",), "numbers": ("x",), "texts": ("t",)}
    blocks = list(iter_raw(path, PLAIN, **options, block_bytes=1000))
    assert len(blocks) > 3
    assert pa.concat_tables([block.cells for block in blocks]).to_pylist() == whole.to_pylist()
    with pytest.raises(DataFileError, match=r"log\.csv, line 335: `x` must be a finite number; got inf"):
        for block in blocks:
            number_column(block, "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"u,x,t\n1,2,a\n\n1,zwei,b\n",
            r"log\.csv, line 4: `x` must be a number; got 'zwei'\. Repair the cell",
        ),
        (b"u,x,t\n1,2,a\n1,2\n", r"line 3 must have 3 cells, one for each of \['u', 'x', 't'\]; got 2"),
        (b"u,x,t\n1,2,a,b\n", r"line 2 must have 3 cells, .*; got 4"),
        (b'u,x,t\n1,2,"a\nb"\n1,zwei,c\n', r"line 4: `x` must be a number; got 'zwei'"),
        (
            b'u,x,t\n1,2,a\n"1,2,a\n1,2,b\n',
            r"line 3 must be a row of cells, its quotes closed; got: unexpected end of data",
        ),
        (b"u,x,t\n1,2,a\n1,2,\xe9t\n", r"line 3 must be utf-8 text; got the byte 0xe9 at place 5"),
        (b"u,x,t\n1,2,a\rb\n", r"line 2 must be a row of cells, its quotes closed; got: new-line character"),
        (b"u,x,t\n", r"must hold rows below its header; got none"),
        (b"", r"must hold rows; got an empty file"),
        (b"u,x\n1,2\n", r"must have the columns u, x, t; t missing among \['u', 'x'\]"),
        (b"u,x,x,t\n1,2,3,4\n", r"line 1 must name each column once; got \['x'\] again"),
    ],
)
def test_a_fault_is_named_by_its_line_and_value(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=message):
        read_plain(path)
    with pytest.raises(DataFileError, match=message):
        list(iter_raw(path, PLAIN, ids=("u",), numbers=("x",), texts=("t",)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",1,a", r"line 4: `u` must not be empty; got nothing\. Drop"),
        ("1,,a", r"line 4: `x` must be a finite number; got nothing\."),
        ("1,NaN,a", r"line 4: `x` must be a finite number; got nothing\."),
        ("1,inf,a", r"line 4: `x` must be a finite number; got inf\."),
        ("1,2,a", r"line 4: `x` must be 0 or 1; got 2\.0\."),
    ],
)
def test_a_wrong_value_is_named_by_its_line_past_blank_lines(tmp_path: Path, row: str, message: str) -> None:
    raw = read_plain(write_lines(tmp_path / "log.csv", ["u,x,t", "1,1,a", "", row]))
    with pytest.raises(DataFileError, match=message):
        id_column(raw, "u")
        number_column(raw, "x")
        flag_column(raw, "x")


def test_the_first_of_several_wrong_rows_is_named_and_the_others_counted(tmp_path: Path) -> None:
    raw = read_plain(write_lines(tmp_path / "log.csv", ["u,x,t", "1,1,a", "1,,a", "1,,a", "1,,a"]))
    with pytest.raises(DataFileError, match=r"line 3: .*; got nothing there, and 2 rows more like it"):
        number_column(raw, "x")


def test_a_row_longer_than_a_block_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.csv", ["u,x,t", f"1,2,{'a' * 500}"])
    with pytest.raises(DataFileError, match="must be a table cut by ','; Arrow says: straddling object"):
        list(iter_raw(path, PLAIN, ids=("u",), numbers=("x",), texts=("t",), block_bytes=100))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"none\.csv must be a file; there is none"):
        read_plain(tmp_path / "none.csv")


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.csv", ["u,x,t", "1,1,a", "1,,a"])
    raw = read_plain(path)
    write_lines(path, ["u,x,t"])
    with pytest.raises(DataFileError, match="must stay as it was while it is read; its row 1 is gone"):
        number_column(raw, "x")


def test_flags_are_booleans(tmp_path: Path) -> None:
    raw = read_plain(write_lines(tmp_path / "log.csv", ["u,x,t", "1,1,a", "1,0,b"]))
    assert np.array_equal(flag_column(raw, "x"), [True, False])
