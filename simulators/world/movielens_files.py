"""The file layouts that MovieLens comes in, each turned into the same rows of films and ratings.

| layout | ratings | films |
|---|---|---|
| RecBole atomic files | `*.inter` | `*.item` |
| original 100K | `u.data` | `u.item` |
| 1M, 10M | `ratings.dat` | `movies.dat` |
| latest, 20M and later | `ratings.csv` | `movies.csv` |

Files are read as UTF-8 and, where that fails, as Latin-1. Every row keeps its number in the file, from 1, so
that a malformed one can be named.
"""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from simulators.errors import CatalogueError

RATING_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
ORIGINAL_GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror "
    "Musical Mystery Romance Sci-Fi Thriller War Western"
).split()
_CSV_NAMES = {"userId": "user_id", "movieId": "item_id"}


class FilmRow(NamedTuple):
    """A film as its file has it: row number, id, raw title, year or "", and genres in the file's words."""

    row: int
    item_id: str
    title: str
    year: str
    genres: Sequence[str]


class Layout(NamedTuple):
    """How to find and read one layout: patterns of file names, and a reader for each of the two files."""

    ratings: str
    films: str
    read_ratings: Callable[[Path], pd.DataFrame]
    read_films: Callable[[Path], list[FilmRow]]


def read_rating_table(path: Path, separator: str, *, header: bool) -> pd.DataFrame:
    """The columns `RATING_COLUMNS` as text, missing where empty, indexed by the row's number in the file.

    Args:
        path: The file.
        separator: What stands between columns.
        header: Whether the first row names the columns (RecBole's `name:type` or the names of the CSV files).

    Raises:
        CatalogueError: The file cannot be read, a column is missing, or a row has another number of columns.
    """
    raw, encoding = _read_bytes(path)
    if separator == "::":  # pandas reads a single character several times faster
        raw, separator = raw.replace(b"::", b"\t"), "\t"
    first = raw.split(b"\n", 1)[0].decode(encoding).strip("\r")
    given = [name.partition(":")[0] for name in first.split(separator)]
    names = [_CSV_NAMES.get(name, name) for name in given] if header else list(RATING_COLUMNS)
    if not set(RATING_COLUMNS) <= set(names):
        raise CatalogueError(
            f"{path.name} row 1: must name the columns {', '.join(RATING_COLUMNS)}; got {first[:80]!r}. "
            "Unpack the data set again."
        )
    _check_widths(raw, ord(separator), len(names), path)
    table = pd.read_csv(
        io.BytesIO(raw),
        sep=separator,
        names=names,
        header=0 if header else None,
        usecols=list(RATING_COLUMNS),
        dtype=dict.fromkeys(RATING_COLUMNS, "str"),
        encoding=encoding,
        quoting=csv.QUOTE_NONE,
        skip_blank_lines=False,
        keep_default_na=False,
        na_values=[""],
    )
    table.index = pd.RangeIndex(1 + header, 1 + header + len(table))
    return table[table.notna().any(axis=1)]


def _read_bytes(path: Path) -> tuple[bytes, str]:
    """The bytes of a file and the encoding that fits them."""
    try:
        raw = path.read_bytes()
    except OSError as err:
        raise CatalogueError(
            f"{path.name} must be a readable file; got: {err.strerror}. Check `{path}`."
        ) from err
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw, "latin-1"
    return raw, "utf-8-sig"


def _check_widths(raw: bytes, separator: int, width: int, path: Path) -> None:
    """Refuse rows with too few or too many columns, which a table reader would fill or cut in silence."""
    data = np.frombuffer(raw, np.uint8)
    ends = np.append(np.flatnonzero(data == ord("\n")), len(data))
    counts = np.bincount(np.searchsorted(ends, np.flatnonzero(data == separator)), minlength=len(ends))
    filled = np.diff(ends, prepend=-1) > 2  # a blank line is a line end with at most a carriage return
    wrong = np.flatnonzero(filled & (counts != width - 1))
    if len(wrong):
        raise CatalogueError(
            f"{path.name} row {wrong[0] + 1}: must have {width} columns; got {counts[wrong[0]] + 1}. Repair "
            "or remove the row."
        )


def _read_film_rows(path: Path, separator: str, width: int | None = None) -> list[tuple[int, list[str]]]:
    """Rows of a film file as lists of text with their numbers, all of one width, by default the first's."""
    raw, encoding = _read_bytes(path)
    text = raw.decode(encoding)
    if separator == ",":
        reader = csv.reader(io.StringIO(text))
        try:
            rows = [(reader.line_num, row) for row in reader if row]
        except csv.Error as err:
            raise CatalogueError(
                f"{path.name} row {reader.line_num}: must be comma-separated; got: {err}. Close open quotes."
            ) from err
    else:
        lines = (line.rstrip("\r") for line in text.split("\n"))
        rows = [(n, line.split(separator)) for n, line in enumerate(lines, start=1) if line.strip()]
    wanted = width or (len(rows[0][1]) if rows else 0)
    for number, row in rows:
        if len(row) != wanted:
            raise CatalogueError(
                f"{path.name} row {number}: must have {wanted} columns; got {len(row)}. Repair or remove the "
                "row."
            )
    return rows


def _films_of_atomic(path: Path) -> list[FilmRow]:
    rows = _read_film_rows(path, "\t")
    header = [name.partition(":")[0] for name in rows[0][1]] if rows else []
    wanted = ("item_id", "movie_title", "release_year")
    genre = next((header.index(name) for name in ("class", "genre", "genres") if name in header), None)
    if genre is None or not set(wanted) <= set(header):
        raise CatalogueError(
            f"{path.name} row 1: must name the columns {', '.join(wanted)} and class or genre; got {header}. "
            "Unpack the data set again."
        )
    item_id, title, year = (header.index(name) for name in wanted)
    return [FilmRow(n, row[item_id], row[title], row[year], row[genre].split()) for n, row in rows[1:]]


def _films_of_original(path: Path) -> list[FilmRow]:
    films = []
    for number, row in _read_film_rows(path, "|", 5 + len(ORIGINAL_GENRES)):
        genres = [genre for genre, flag in zip(ORIGINAL_GENRES, row[5:], strict=True) if flag == "1"]
        films.append(FilmRow(number, row[0], row[1], row[2][-4:], genres))
    return films


def _films_of_dat(path: Path) -> list[FilmRow]:
    rows = _read_film_rows(path, "::", 3)
    return [FilmRow(n, row[0], row[1], "", row[2].split("|")) for n, row in rows]


def _films_of_csv(path: Path) -> list[FilmRow]:
    rows = _read_film_rows(path, ",", 3)
    header = rows[0][1] if rows else []
    if header != ["movieId", "title", "genres"]:
        raise CatalogueError(
            f"{path.name} row 1: must name the columns movieId, title, genres; got {header}. Unpack the data "
            "set again."
        )
    return [FilmRow(n, row[0], row[1], "", row[2].split("|")) for n, row in rows[1:]]


LAYOUTS = (
    Layout("*.inter", "*.item", lambda p: read_rating_table(p, "\t", header=True), _films_of_atomic),
    Layout("u.data", "u.item", lambda p: read_rating_table(p, "\t", header=False), _films_of_original),
    Layout("ratings.dat", "movies.dat", lambda p: read_rating_table(p, "::", header=False), _films_of_dat),
    Layout("ratings.csv", "movies.csv", lambda p: read_rating_table(p, ",", header=True), _films_of_csv),
)
"""Every layout that can be read, in the order in which they are looked for."""
