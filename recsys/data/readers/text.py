"""Text tables read whole, or some rows at a time, by Arrow's CSV reader.

The fast path reads typed columns at once. Only where that fails are the rows walked one by one, to find the line that
a person can open and repair.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.csv as pacsv

from recsys.data.readers.lines import TextLayout, numbered_rows, open_bytes
from recsys.data.readers.raw import ID_TYPE, MISSING, RawTable
from recsys.errors import DataFileError

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*|[+-]?(inf|infinity)", re.IGNORECASE)
_UNIT_SEPARATOR = "\x1f"
# How much text Arrow parses at once; a row must fit into it.
BLOCK_BYTES = 1 << 24
# Names of columns of ids, of numbers and of other text.
Wanted = tuple[Sequence[str], Sequence[str], Sequence[str]]


def column_names(path: Path, layout: TextLayout) -> list[str]:
    """The columns of a file, from its first line or from `layout`.

    Raises:
        DataFileError: The file is missing, empty or undecodable, or two columns have one name.
    """
    if not path.is_file():
        raise DataFileError(f"{path} must be a file; there is none. Check the path.")
    first = next(numbered_rows(path, layout), None)
    if first is None:
        raise DataFileError(f"{path} must hold rows; got an empty file. Fetch it again.")
    if layout.names is not None:
        return list(layout.names)
    names = first[1]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataFileError(
            f"{path}, line 1 must name each column once; got {twice} again. Rename the columns."
        )
    return names


def read_raw(
    path: Path,
    layout: TextLayout,
    *,
    ids: Sequence[str] = (),
    numbers: Sequence[str] = (),
    texts: Sequence[str] = (),
) -> RawTable:
    """Read the named columns of a text table, plain or gzipped.

    Args:
        path: The file; gzipped where its name ends in .gz.
        layout: How its lines are cut.
        ids: Columns of ids: any text, never turned into numbers, so that "01" and "1" differ.
        numbers: Columns of numbers; an empty cell, "NaN" or "null" is missing.
        texts: Columns of other text; an empty cell stays "".

    Raises:
        DataFileError: The file is missing, empty or undecodable, lacks a column, or a row has too many or too few
            cells or something else than a number where one must be.
    """
    wanted = (ids, numbers, texts)
    names = _check_columns(path, layout, wanted)
    source, separator = _source(path, layout)
    try:
        cells = pacsv.read_csv(source, **_options(layout, separator, wanted))
    except (pa.ArrowInvalid, pa.ArrowKeyError) as err:
        _explain(path, layout, names, numbers, err)
    if cells.num_rows == 0:
        raise DataFileError(f"{path} must hold rows below its header; got none. Fetch it again.")
    return RawTable(path, layout, cells)


def iter_raw(
    path: Path,
    layout: TextLayout,
    *,
    ids: Sequence[str] = (),
    numbers: Sequence[str] = (),
    texts: Sequence[str] = (),
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[RawTable]:
    """Read as `read_raw` does, some of the rows at a time, so that memory does not grow with the file.

    Args:
        path: The file; gzipped where its name ends in .gz.
        layout: How its lines are cut; a separator of one character.
        ids: As for `read_raw`.
        numbers: As for `read_raw`.
        texts: As for `read_raw`.
        block_bytes: How much of the file to hold at once; a row must fit into it.

    Raises:
        DataFileError: As for `read_raw`.
    """
    wanted = (ids, numbers, texts)
    names = _check_columns(path, layout, wanted)
    first = 0
    try:
        options = _options(layout, layout.separator, wanted, block_bytes)
        with pacsv.open_csv(str(path), **options) as reader:
            for batch in reader:
                yield RawTable(path, layout, pa.table(batch), first)
                first += batch.num_rows
    except (pa.ArrowInvalid, pa.ArrowKeyError) as err:
        _explain(path, layout, names, numbers, err)
    if first == 0:
        raise DataFileError(f"{path} must hold rows below its header; got none. Fetch it again.")


def _check_quotes(path: Path, layout: TextLayout) -> None:
    """Where quotes are odd in number, walk the rows to see whether one swallows the rest of the file."""
    if not layout.is_quoted:
        return
    with open_bytes(path) as file:
        quotes = sum(block.count(b'"') for block in iter(lambda: file.read(1 << 24), b""))
    if quotes % 2:
        for _ in numbered_rows(path, layout, is_strict=True):
            pass


def _check_columns(path: Path, layout: TextLayout, wanted: Wanted) -> list[str]:
    """The columns of the file, or an error if one of those wanted is not among them."""
    names = column_names(path, layout)
    _check_quotes(path, layout)
    flat = [name for group in wanted for name in group]
    missing = [name for name in flat if name not in names]
    if missing:
        raise DataFileError(
            f"{path} must have the columns {', '.join(flat)}; {', '.join(missing)} missing among {names}. "
            "Rename the columns, or say which is which."
        )
    return names


def _options(
    layout: TextLayout, separator: str, wanted: Wanted, block_bytes: int = BLOCK_BYTES
) -> dict[str, Any]:
    """The arguments of Arrow's readers."""
    ids, numbers, texts = wanted
    types = {**dict.fromkeys(ids, ID_TYPE), **dict.fromkeys(numbers, pa.float64())}
    types.update(dict.fromkeys(texts, pa.string()))
    return {
        "read_options": pacsv.ReadOptions(
            column_names=layout.names, encoding=layout.encoding, block_size=block_bytes
        ),
        "parse_options": pacsv.ParseOptions(
            delimiter=separator,
            quote_char='"' if layout.is_quoted else False,
            newlines_in_values=layout.is_quoted,
        ),
        "convert_options": pacsv.ConvertOptions(
            column_types=types,
            include_columns=list(types),
            null_values=list(MISSING),
            strings_can_be_null=False,
        ),
    }


def _source(path: Path, layout: TextLayout) -> tuple[Any, str]:
    """What Arrow reads: the file itself, or its bytes with a separator of several characters made one."""
    if len(layout.separator) == 1:
        return str(path), layout.separator
    content = path.read_bytes().replace(layout.separator.encode(), _UNIT_SEPARATOR.encode())
    return pa.BufferReader(content), _UNIT_SEPARATOR


def _explain(
    path: Path, layout: TextLayout, names: list[str], numbers: Sequence[str], err: pa.ArrowInvalid
) -> NoReturn:
    """Find the line that Arrow could not read, and raise what is wrong with it."""
    places = [(names.index(name), name) for name in numbers]
    for line, cells in numbered_rows(path, layout):
        if len(cells) != len(names):
            raise DataFileError(
                f"{path}, line {line} must have {len(names)} cells, one for each of {names[:8]}; got {len(cells)}. "
                "Repair the line."
            ) from err
        if layout.names is None and line == 1:
            continue
        for place, name in places:
            if cells[place] not in MISSING and not _NUMBER.fullmatch(cells[place]):
                raise DataFileError(
                    f"{path}, line {line}: `{name}` must be a number; got {cells[place]!r}. Repair the cell."
                ) from err
    raise DataFileError(
        f"{path} must be a table cut by {layout.separator!r}; Arrow says: {err}. Repair it."
    ) from err
