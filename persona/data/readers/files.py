"""Rows of a file as they stand, whatever its format: JSON lines, JSON, CSV, TSV, Parquet, a saved data set.

A fault of the file itself stops here with one sentence. A line that is not JSON is left out and counted, unless
there are so many that the file is something else.
"""

import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from persona.data.comparisons import Rows
from persona.data.report import Dropped
from persona.errors import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Endings of files that can be read, each but the last also with `.gz` behind it."""

UTF16 = (b"\xff\xfe", b"\xfe\xff")


class RawRows(NamedTuple):
    """Rows of a file before anybody has judged them.

    frame: The columns of the file, cells as they stand.
    numbers: Number of each row in the file, from 1: of its line in JSON lines, else among the rows of data. Shape (R,).
    total: Rows in the file, those left out too.
    dropped: Rows that could not even be read.
    source: Name of the file or folder, for messages.
    """

    frame: pd.DataFrame
    numbers: Rows
    total: int
    dropped: tuple[Dropped, ...]
    source: str


def read_rows(path: Path) -> RawRows:
    """Every row of a file, or of a folder that `datasets` wrote by `save_to_disk`.

    Raises:
        DataError: The path is missing, of an unknown kind, empty, damaged, or not UTF-8 text.
    """
    if not path.exists():
        raise DataError(f"`{path}` must be a file or a folder; there is none. Check the path.")
    if path.is_dir():
        return _whole(_read_saved(path), path.name)
    name = path.name.lower().removesuffix(".gz")
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
    if suffix is None:
        raise DataError(
            f"A file of preferences must end in {', '.join(SUFFIXES)}, with or without .gz; got `{path.name}`. "
            "Convert it to one of these."
        )
    if suffix == ".parquet":
        return _whole(_read_parquet(path), path.name)
    content = _read_bytes(path)
    if not content.strip():
        got = "blank lines alone" if content else "an empty file"
        raise DataError(f"`{path.name}` must hold at least one row; got {got}. Give a file with rows.")
    if suffix == ".jsonl":
        return _read_lines(content, path.name)
    if suffix == ".json":
        return _read_json(content, path.name)
    return _whole(_read_table(content, path.name, "\t" if suffix == ".tsv" else ","), path.name)


def _whole(frame: pd.DataFrame, source: str) -> RawRows:
    if frame.empty:
        raise DataError(f"`{source}` must hold at least one row; got none. Give a file with rows.")
    return RawRows(frame, np.arange(1, len(frame) + 1), len(frame), (), source)


def _read_bytes(path: Path) -> bytes:
    """The file's bytes, unpacked, without a byte order mark, held to be UTF-8."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as err:
        reason = getattr(err, "strerror", None) or err
        raise DataError(
            f"`{path.name}` must be a readable file; got: {reason}. Check its permissions and that it is whole."
        ) from err
    if content.startswith(UTF16):
        raise DataError(f"`{path.name}` must be UTF-8 text; got UTF-16. Save it again as UTF-8.")
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as err:
        bad = [n for n, line in enumerate(content.splitlines(), start=1) if not _is_utf8(line)]
        raise DataError(
            f"`{path.name}` must be UTF-8 text; got other bytes in {len(bad)} lines, first in lines "
            f"{bad[:3]}. Save it again as UTF-8."
        ) from err
    return content


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _read_lines(content: bytes, source: str) -> RawRows:
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    bad: list[int] = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        row = _parse(line)
        if isinstance(row, dict):
            rows.append(row)
            numbers.append(number)
        else:
            bad.append(number)
    if len(bad) > len(rows) or not rows:
        raise DataError(
            f"Most lines of `{source}` must be JSON objects; got {len(bad)} that are none, first in lines "
            f"{bad[:3]}, and {len(rows)} that are. Check that it is a file of JSON lines."
        )
    dropped = (Dropped.of("a line is not a JSON object", bad),) if bad else ()
    return RawRows(
        pd.DataFrame(rows, dtype=object),
        np.asarray(numbers, dtype=np.int64),
        len(rows) + len(bad),
        dropped,
        source,
    )


def _read_json(content: bytes, source: str) -> RawRows:
    """An array of objects, an object that holds one under `data`, or JSON lines under the wrong ending."""
    whole = _parse(content)
    if isinstance(whole, dict) and isinstance(whole.get("data"), list):
        whole = whole["data"]
    if isinstance(whole, dict):
        whole = [whole]
    if not isinstance(whole, list):
        return _read_lines(content, source)
    bad = [number for number, row in enumerate(whole, start=1) if not isinstance(row, dict)]
    good = [number for number, row in enumerate(whole, start=1) if isinstance(row, dict)]
    if not good:
        raise DataError(
            f"`{source}` must be a JSON array of objects; got one with none among {len(whole)} entries. Write "
            "one object a comparison."
        )
    dropped = (Dropped.of("an entry is not a JSON object", bad),) if bad else ()
    frame = pd.DataFrame([whole[number - 1] for number in good], dtype=object)
    return RawRows(frame, np.asarray(good, dtype=np.int64), len(whole), dropped, source)


def _parse(text: bytes) -> Any:
    """What the text says in JSON, or None."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _read_table(content: bytes, source: str, separator: str) -> pd.DataFrame:
    try:
        return pd.read_csv(io.BytesIO(content), sep=separator, dtype=str, keep_default_na=False).astype(
            object
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as err:
        raise DataError(
            f"`{source}` must be a table with a header and as many cells in each row; got: "
            f"{str(err).removeprefix('Error tokenizing data. C error: ').strip()}. Correct the row, or its quotes."
        ) from err


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        # What pandas noted of its own types is left out: only the cells count, and it may be damaged.
        frame: pd.DataFrame = pyarrow.parquet.read_table(path).replace_schema_metadata(None).to_pandas()
    except (OSError, ValueError, pyarrow.ArrowException) as err:
        raise DataError(
            f"`{path.name}` must be a Parquet file; got one that cannot be read as such. Write it again."
        ) from err
    return frame


def _read_saved(folder: Path) -> pd.DataFrame:
    """The rows of a folder by `save_to_disk`, all its splits one after another; needs no `datasets`."""
    if not any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        raise DataError(
            f"A folder of preferences must be of a known layout, or written by `save_to_disk` of `datasets`; got "
            f"`{folder.name}` with {', '.join(sorted(p.name for p in folder.iterdir())[:5]) or 'nothing'}. Name a "
            "file in it."
        )
    try:
        parts = [_read_arrow(path) for path in _saved_files(folder)]
        frame: pd.DataFrame = pyarrow.concat_tables(parts, promote_options="default").to_pandas()
    except (OSError, ValueError, LookupError, TypeError, pyarrow.ArrowException) as err:
        raise DataError(
            f"`{folder.name}` must be a whole folder by `save_to_disk`; got one that cannot be read: {err}. Write it "
            "again."
        ) from err
    return frame


def _saved_files(folder: Path) -> list[Path]:
    if (folder / "dataset_dict.json").is_file():
        splits = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        return [path for split in splits for path in _saved_files(folder / split)]
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return [folder / part["filename"] for part in state["_data_files"]]


def _read_arrow(path: Path) -> Any:
    with pyarrow.memory_map(str(path)) as source:
        return pyarrow.ipc.open_stream(source).read_all()
