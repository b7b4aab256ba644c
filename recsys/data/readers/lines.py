"""The slow path of text tables: their rows one by one, each with the number of its line in the file."""

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from recsys.errors import DataFileError


class TextLayout(NamedTuple):
    """How the lines of a text table are cut.

    separator: What stands between cells; one character, or several, which then may not be quoted.
    names: The columns of a file without a header; None where the first line names them.
    is_quoted: Whether cells may stand in double quotes.
    encoding: Of the text.
    """

    separator: str = ","
    names: tuple[str, ...] | None = None
    is_quoted: bool = True
    encoding: str = "utf-8"


def numbered_rows(
    path: Path, layout: TextLayout, *, is_strict: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row that is not blank, with the number of its first line in the file from 1; slow.

    Args:
        path: The file.
        layout: How its lines are cut.
        is_strict: Whether to refuse a quote that never closes, which Arrow takes as a cell up to the end of the file.

    Raises:
        DataFileError: A line is not text of the layout's encoding, or a quote never closes.
    """
    with open_bytes(path) as file:
        texts = (_decode(path, layout, number, line) for number, line in enumerate(file, start=1))
        if not layout.is_quoted:
            yield from ((n, t.split(layout.separator)) for n, t in enumerate(texts, start=1) if t)
            return
        lines = (f"{text}\n" for text in texts)
        rows = csv.reader(lines, delimiter=layout.separator, strict=is_strict)
        start = 1
        try:
            for cells in rows:
                if cells:
                    yield start, cells
                start = rows.line_num + 1
        except csv.Error as err:
            raise DataFileError(
                f"{path}, line {start} must be a row of cells, its quotes closed; got: {err}. Repair the line."
            ) from err


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, unpacked where its name ends in .gz."""
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _decode(path: Path, layout: TextLayout, number: int, line: bytes) -> str:
    encoding = "utf-8-sig" if layout.encoding == "utf-8" and number == 1 else layout.encoding
    try:
        return line.decode(encoding).rstrip("\r\n")
    except UnicodeDecodeError as err:
        raise DataFileError(
            f"{path}, line {number} must be {layout.encoding} text; got the byte 0x{line[err.start]:02x} at place "
            f"{err.start + 1}. Save the file in {layout.encoding}."
        ) from err
