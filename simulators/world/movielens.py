"""A MovieLens folder as a catalogue and checked ratings; `movielens_files` knows the layouts.

A row that cannot be used stops the reading with the file's name and the row's number; nothing is dropped in
silence.
"""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simulators.errors import CatalogueError
from simulators.world.catalogue import FILM_COLUMNS, Catalogue, era_of_years
from simulators.world.movielens_files import LAYOUTS, FilmRow

NO_GENRES = {"unknown", "(no genres listed)", "(no", "genres", "listed)", "IMAX", ""}
GENRE_WORDS = {
    "Sci-Fi": "science fiction",
    "Children's": "children's",
    "Children": "children's",
    "Film-Noir": "film noir",
}
ARTICLES = "The A An La Le Les L' Il Lo El Los Las Der Die Das Den Det Un Une Uma O Os As".split()
_YEAR_AT_END = re.compile(r"\s*\((\d{4})(?:[-\u2013]\d{0,4})?\)\s*$")
_OTHER_TITLE = re.compile(r"\s*\([^()]*\)\s*$")


@dataclass(frozen=True, eq=False)
class RatingData:
    """A rating data set with films and users as rows.

    Attributes:
        catalogue: The films, in the order of their file.
        ratings: Columns user (row), item (row), stars (0.5..5), timestamp (seconds); one row a user-film
            pair, by user, then time.
        user_ids: The users' own ids, by row.
    """

    catalogue: Catalogue
    ratings: pd.DataFrame
    user_ids: tuple[str, ...]


def read_movielens(folder: Path) -> RatingData:
    """Films and ratings of a MovieLens folder, its layout found by the names of its files.

    Where a user rated a film more than once, the latest rating counts, and a warning says how often that was.

    Args:
        folder: Any of the layouts in `movielens_files`.

    Raises:
        CatalogueError: No such folder, no known layout, or a malformed row (the message names file and row).
    """
    if not folder.is_dir():
        raise CatalogueError(f"A catalogue folder must exist; got `{folder}`. Check the path.")
    for layout in LAYOUTS:
        ratings_files, films_files = sorted(folder.glob(layout.ratings)), sorted(folder.glob(layout.films))
        if ratings_files and films_files:
            films = layout.read_films(films_files[0])
            catalogue = _make_catalogue(films, films_files[0])
            raw = layout.read_ratings(ratings_files[0])
            return RatingData(
                catalogue, *_check_ratings(raw, ratings_files[0], [film.item_id for film in films])
            )
    wanted = "; ".join(f"{layout.ratings} with {layout.films}" for layout in LAYOUTS)
    raise CatalogueError(
        f"A MovieLens folder must hold ratings and films in one of these layouts: {wanted}; got `{folder}` "
        f"with {sorted(path.name for path in folder.iterdir())[:6]}. Unpack the data set there."
    )


def level_of_stars(stars: NDArray[np.float64]) -> NDArray[np.int64]:
    """Levels 0..4 of ratings: stars 1, 2, 3, 4, 5 become 0, 1, 2, 3, 4; half stars fall to the star below.

    A rating is read as depth of interest, from 1 star "ignored" to 5 stars "loved"; 0.5 stars count as 1.
    """
    levels: NDArray[np.int64] = np.maximum(np.floor(stars).astype(np.int64) - 1, 0)
    return levels


def tidy_title(title: str) -> tuple[str, str]:
    """A title as people say it, and its year or "".

    The year in parentheses is cut off, then other titles in parentheses, then a trailing article moves to the
    front.

    Example:
        >>> tidy_title("Horseman on the Roof, The (Hussard sur le toit, Le) (1995)")
        ('The Horseman on the Roof', '1995')
    """
    year = _YEAR_AT_END.search(title)
    rest = title[: year.start()] if year else title
    while (shorter := _OTHER_TITLE.sub("", rest)) != rest and shorter.strip():
        rest = shorter
    main, comma, article = rest.rpartition(", ")
    if comma and article in ARTICLES:
        rest = f"{article}{'' if article.endswith(chr(39)) else ' '}{main}"
    return rest.strip(), year.group(1) if year else ""


def _make_catalogue(films: list[FilmRow], path: Path) -> Catalogue:
    if not films:
        raise CatalogueError(f"{path.name}: must hold at least one film; got none. Use the full data set.")
    seen: dict[str, int] = {}
    titles, years, genres = [], [], []
    for film in films:
        if not film.item_id or not film.title.strip():
            raise CatalogueError(
                f"{path.name} row {film.row}: a film must have an id and a title; got {film.item_id!r} and "
                f"{film.title!r}. Repair the row."
            )
        if film.item_id in seen:
            raise CatalogueError(
                f"{path.name} row {film.row}: film ids must be unique; got {film.item_id!r} again after row "
                f"{seen[film.item_id]}. Remove one of the two rows."
            )
        seen[film.item_id] = film.row
        title, year = tidy_title(film.title)
        titles.append(title)
        years.append(int(film.year) if re.fullmatch(r"\d{4}", film.year) else int(year) if year else None)
        names = (genre.strip() for genre in film.genres)
        genres.append(tuple(GENRE_WORDS.get(name, name.lower()) for name in names if name not in NO_GENRES))
    table = pd.DataFrame({"item_id": list(seen), "title": titles, "genres": genres})
    table["cast"] = [()] * len(films)
    table["year"] = pd.Series(years, dtype="Int64")
    table["era"] = era_of_years(table["year"])
    table["length"] = pd.Series([None] * len(films), dtype="Int64")
    unknown = [column for column in FILM_COLUMNS if column not in table.columns]
    return Catalogue.of_films(
        table.assign(**dict.fromkeys(unknown)), sorted({g for of in genres for g in of})
    )


def _check_ratings(
    raw: pd.DataFrame, path: Path, item_ids: list[str]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Check every row, turn ids into rows and keep the latest of repeated ratings."""
    if raw.empty:
        raise CatalogueError(f"{path.name}: must hold at least one rating; got none. Use the full data set.")
    stars, seconds = (
        pd.to_numeric(raw[name], errors="coerce").to_numpy(np.float64) for name in ("rating", "timestamp")
    )
    items = pd.Index(item_ids).get_indexer(pd.Index(raw["item_id"]))
    _refuse_rows(raw, path, raw["user_id"].isna().to_numpy(bool), "user_id", "an id")
    _refuse_rows(raw, path, ~((stars >= 0.5) & (stars <= 5.0)), "rating", "a number from 0.5 to 5")
    _refuse_rows(raw, path, ~np.isfinite(seconds), "timestamp", "seconds as a number")
    _refuse_rows(raw, path, items < 0, "item_id", "the id of a film in the list of films")
    codes, user_ids = pd.factorize(raw["user_id"], sort=False)
    ratings = pd.DataFrame(
        {"user": codes, "item": items, "stars": stars, "timestamp": seconds.astype(np.int64)}
    ).sort_values(["user", "timestamp", "item"], kind="stable", ignore_index=True)
    latest = ratings.drop_duplicates(["user", "item"], keep="last", ignore_index=True)
    if len(latest) < len(ratings):
        warnings.warn(
            f"{path.name}: {len(ratings) - len(latest)} ratings were given again later by the same user to "
            "the same film; the latest of each counts.",
            stacklevel=3,
        )
    return latest, tuple(str(user) for user in user_ids)


def _refuse_rows(raw: pd.DataFrame, path: Path, wrong: NDArray[np.bool_], column: str, wanted: str) -> None:
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise CatalogueError(
            f"{path.name} row {raw.index[first]}: `{column}` must be {wanted}; got "
            f"{raw[column].iloc[first]!r}. Repair or remove the row."
        )
