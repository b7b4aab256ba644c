"""MovieLens (Harper & Konstan, TiiS 2015) in each layout that it was published in.

| release | ratings | films | people |
|---|---|---|---|
| 100K | `u.data` | `u.item` | `u.user` |
| 1M, 10M | `ratings.dat` | `movies.dat` | `users.dat` (1M) |
| 20M, 25M, 32M, latest | `ratings.csv` | `movies.csv` | none |
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.dataset import Dataset, FeatureKind
from recsys.data.readers.assemble import LogColumns, build_dataset
from recsys.data.readers.features import FeatureTable, category_cells, feature_table, set_cells
from recsys.data.readers.levels import levels_from_ratings
from recsys.data.readers.lines import TextLayout
from recsys.data.readers.raw import RawTable, flag_column, id_column, number_column
from recsys.data.readers.text import read_raw
from recsys.data.readers.times import time_column
from recsys.errors import DataFileError

GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror "
    "Musical Mystery Romance Sci-Fi Thriller War Western"
).split()
RATING = ("user_id", "item_id", "rating", "timestamp")
ORIGINAL_FILM = ("item_id", "title", "date", "video_date", "url", *GENRES)


class Release(NamedTuple):
    """The files of one layout, and how to read each. A file of people that does not exist is None."""

    ratings: tuple[str, TextLayout]
    films: tuple[str, Callable[[Path], FeatureTable]]
    people: tuple[str, Callable[[Path], FeatureTable]] | None


def read_movielens(folder: Path, *, levels: Sequence[str] | None = None) -> Dataset:
    """Read a MovieLens folder of any release.

    Films get their title as label, release year and genres; people, where the release knows them, age, gender and
    occupation (and a zip code only where few share none).

    Args:
        folder: Holds the files under their official names.
        levels: Ascending cut-points of the ratings; None cuts at 3, 4 and 5 stars.

    Returns:
        A data set named after the folder.

    Raises:
        DataFileError: No release fits, or a file does not hold what it should.
        OrdinalError: `levels` are no ascending numbers.
    """
    release = next((one for one in RELEASES if (folder / one.ratings[0]).is_file()), None)
    if release is None:
        looked = ", ".join(one.ratings[0] for one in RELEASES)
        raise DataFileError(
            f"{folder} must hold the ratings of a MovieLens release; looked for {looked}. Unpack the release there."
        )
    name, layout = release.ratings
    raw = _read_ratings(folder / name, layout)
    user, item, rating, moment = (str(column) for column in raw.cells.column_names)
    seconds, note = time_column(raw, moment, unit="seconds")
    stars = number_column(raw, rating)
    log = LogColumns(
        id_column(raw, user), id_column(raw, item), seconds, {"rating": stars.astype(np.float32)}
    )
    films, film_notes = _optional(folder, release.films)
    people, people_notes = (None, []) if release.people is None else _optional(folder, release.people)
    return build_dataset(
        folder.resolve().name,
        log,
        levels_from_ratings(stars, levels),
        users=people,
        items=films,
        notes=(note, *film_notes, *people_notes),
    )


def _read_ratings(path: Path, layout: TextLayout) -> RawTable:
    user, item, rating, moment = layout.names or ("userId", "movieId", "rating", "timestamp")
    return read_raw(path, layout, ids=(user, item), numbers=(rating, moment))


def _optional(
    folder: Path, source: tuple[str, Callable[[Path], FeatureTable]]
) -> tuple[FeatureTable | None, list[str]]:
    name, read = source
    if (folder / name).is_file():
        return read(folder / name), []
    return None, [f"{name} is missing, so nothing is known but ids."]


def _films_of_original(path: Path) -> FeatureTable:
    layout = TextLayout("|", ORIGINAL_FILM, is_quoted=False, encoding="latin-1")
    raw = read_raw(path, layout, ids=("item_id",), numbers=GENRES, texts=("title", "date"))
    table = feature_table(raw, "item_id")
    table.labels = category_cells(raw.cells["title"])
    years = pc.struct_field(pc.extract_regex(raw.cells["date"], r"(?P<year>\d{4})$"), "year")
    table.add("release_year", FeatureKind.CATEGORICAL, category_cells(years))
    flags = np.stack([flag_column(raw, genre) for genre in GENRES], axis=1)
    patterns, place = np.unique(flags, axis=0, return_inverse=True)
    sets = [tuple(genre for genre, there in zip(GENRES, row, strict=True) if there) for row in patterns]
    found = pd.Series(sets, dtype=object).take(place.ravel()).reset_index(drop=True)
    table.add("genres", FeatureKind.MULTI_HOT, found)
    return table


def _films_of_dat(path: Path) -> FeatureTable:
    layout = TextLayout("::", ("item_id", "title", "genres"), is_quoted=False, encoding="latin-1")
    return _titled(read_raw(path, layout, ids=("item_id",), texts=("title", "genres")), "item_id")


def _films_of_csv(path: Path) -> FeatureTable:
    return _titled(read_raw(path, TextLayout(), ids=("movieId",), texts=("title", "genres")), "movieId")


def _titled(raw: RawTable, id_name: str) -> FeatureTable:
    """Films whose title ends with the year and whose genres are cut by `|`."""
    table = feature_table(raw, id_name)
    table.labels = category_cells(raw.cells["title"])
    years = pc.struct_field(pc.extract_regex(raw.cells["title"], r"\((?P<year>\d{4})\)\s*$"), "year")
    table.add("release_year", FeatureKind.CATEGORICAL, category_cells(years))
    genres = set_cells(raw.cells["genres"], "|", empty="(no genres listed)")
    table.add("genres", FeatureKind.MULTI_HOT, genres)
    return table


def _people(path: Path, layout: TextLayout) -> FeatureTable:
    names = [name for name in layout.names or () if name != "user_id"]
    raw = read_raw(path, layout, ids=("user_id",), texts=names)
    table = feature_table(raw, "user_id")
    for name in names:
        table.add(name, FeatureKind.CATEGORICAL, category_cells(pc.cast(raw.cells[name], pa.string())))
    return table


def _people_of_original(path: Path) -> FeatureTable:
    names = ("user_id", "age", "gender", "occupation", "zip_code")
    return _people(path, TextLayout("|", names, is_quoted=False, encoding="latin-1"))


def _people_of_dat(path: Path) -> FeatureTable:
    names = ("user_id", "gender", "age", "occupation", "zip_code")
    return _people(path, TextLayout("::", names, is_quoted=False, encoding="latin-1"))


# Tried in this order.
RELEASES = (
    Release(
        ("u.data", TextLayout("\t", RATING, is_quoted=False)),
        ("u.item", _films_of_original),
        ("u.user", _people_of_original),
    ),
    Release(
        ("ratings.dat", TextLayout("::", RATING, is_quoted=False)),
        ("movies.dat", _films_of_dat),
        ("users.dat", _people_of_dat),
    ),
    Release(("ratings.csv", TextLayout()), ("movies.csv", _films_of_csv), None),
)
