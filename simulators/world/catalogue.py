"""Films as everyone may know them: facts, attributes for learners, and cards to speak from.

Nothing here depends on what users like. The hidden quality of a film is part of the truth in `population.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simulators.errors import CatalogueError
from simulators.types import ItemCard

FILM_COLUMNS = tuple("item_id title year genres mood era pace length director cast plot".split())
"""The columns of `Catalogue.films`, in order."""

DECADES = {
    1920: "the twenties",
    1930: "the thirties",
    1940: "the forties",
    1950: "the fifties",
    1960: "the sixties",
    1970: "the seventies",
    1980: "the eighties",
    1990: "the nineties",
    2000: "the two thousands",
    2010: "the twenty-tens",
    2020: "the twenty-twenties",
}
EARLY = "the silent years"


@dataclass(frozen=True, eq=False)
class Catalogue:
    """A list of films; the row of a film is its item number everywhere.

    Attributes:
        films: One row a film, with the columns `FILM_COLUMNS`: item_id str, title str, year Int64, genres
            tuple of str, mood str, era str, pace str, length Int64 in minutes, director str, cast tuple of
            str, plot str. A fact that is not known is missing (NA), an unknown tuple is empty.
        features: Attributes for learners, as `attribute_features` makes them. Shape (I, F), float32.
        feature_names: One name a column of `features`, such as "genre=comedy" or "length".
        genres: All genres that a film can have, in the words of the cards.
    """

    films: pd.DataFrame
    features: NDArray[np.float32]
    feature_names: tuple[str, ...]
    genres: tuple[str, ...]

    @classmethod
    def of_films(cls, films: pd.DataFrame, genres: Sequence[str]) -> "Catalogue":
        """A catalogue of a table with the columns `FILM_COLUMNS`, its features computed.

        Raises:
            CatalogueError: The table has no row or lacks a column.
        """
        missing = [column for column in FILM_COLUMNS if column not in films.columns]
        if missing or films.empty:
            raise CatalogueError(
                f"A catalogue must have at least one film and all columns of FILM_COLUMNS; got {len(films)} "
                f"films without {missing}. Add what is missing; unknown facts may be NA."
            )
        films = films.loc[:, list(FILM_COLUMNS)].reset_index(drop=True)
        features, names = attribute_features(films, genres)
        return cls(films, features, names, tuple(genres))

    def __len__(self) -> int:
        """Number of films I."""
        return len(self.films)

    def card(self, item: int) -> ItemCard:
        """What may be said about one film.

        Facts, each left out where unknown: year "1994", genre "comedy" or "comedy and romance" (the first
        two), mood "dark", era "the nineties", pace "slow", length "104 minutes", director, cast "A and B",
        plot (a noun phrase without a full stop: "a shy baker who ...").

        Raises:
            CatalogueError: `item` is not a row of the catalogue.
        """
        if not 0 <= item < len(self):
            raise CatalogueError(f"`item` must be a row of the catalogue, 0..{len(self) - 1}; got {item}.")
        return self._cards[item]

    def has_genre(self, genre: str) -> NDArray[np.bool_]:
        """Which films have the genre, as their first or any other. Shape (I,), bool.

        Raises:
            CatalogueError: `genre` is not in `genres`.
        """
        if genre not in self.genres:
            raise CatalogueError(
                f"`genre` must be one of the {len(self.genres)} genres of this catalogue; got {genre!r}. "
                f"Choose from: {', '.join(self.genres)}."
            )
        return np.asarray(self.features[:, self.feature_names.index(f"genre={genre}")] > 0)

    @cached_property
    def _cards(self) -> tuple[ItemCard, ...]:
        rows = self.films.to_dict("records")
        return tuple(ItemCard(i, str(row["title"]), _facts(row)) for i, row in enumerate(rows))


def _facts(row: dict[Any, Any]) -> dict[str, str]:
    facts = {
        "year": "" if pd.isna(row["year"]) else str(int(row["year"])),
        "genre": " and ".join(row["genres"][:2]),
        **{name: row[name] if isinstance(row[name], str) else "" for name in ("mood", "era", "pace")},
        "length": "" if pd.isna(row["length"]) else f"{int(row['length'])} minutes",
        "director": row["director"] if isinstance(row["director"], str) else "",
        "cast": " and ".join(row["cast"][:2]),
        "plot": row["plot"] if isinstance(row["plot"], str) else "",
    }
    return {name: fact for name, fact in facts.items() if fact}


def era_of_years(years: pd.Series) -> list[str | None]:
    """The decade of each year in words, "the silent years" before 1920, None where the year is missing."""
    decades = (pd.to_numeric(years, errors="coerce") // 10 * 10).astype("Int64")
    return [None if pd.isna(d) else DECADES.get(int(d), EARLY) for d in decades]


def attribute_features(
    films: pd.DataFrame, genres: Sequence[str]
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Attributes of films as numbers, with their names.

    Genres are multi-hot; mood, era (in the order of time) and pace are one-hot, a row of zeros where unknown;
    the length is standardised, 0 where unknown. An attribute that no film has gives no column.

    Args:
        films: A table with the columns `FILM_COLUMNS`, I rows.
        genres: The genre columns to make, in this order.

    Returns:
        Features, shape (I, F), float32, and F names.
    """
    columns: dict[str, NDArray[np.float32]] = {}
    memberships = [frozenset(of_film) for of_film in films["genres"]]
    for genre in genres:
        columns[f"genre={genre}"] = np.array([genre in of_film for of_film in memberships], np.float32)
    by_year = films.sort_values("year", kind="stable")
    for attribute in ("mood", "era", "pace"):
        values = (
            by_year["era"].dropna().unique()
            if attribute == "era"
            else sorted(films[attribute].dropna().unique())
        )
        for value in values:
            columns[f"{attribute}={value}"] = (films[attribute] == value).to_numpy(np.float32, na_value=0.0)
    length = films["length"].astype("Float64").to_numpy(np.float64, na_value=np.nan)
    if np.isfinite(length).any():
        spread = float(np.nanstd(length)) or 1.0
        columns["length"] = np.nan_to_num((length - np.nanmean(length)) / spread).astype(np.float32)
    if not columns:
        return np.zeros((len(films), 0), np.float32), ()
    return np.stack(list(columns.values()), axis=1), tuple(columns)
