"""The embedded catalogue: films that do not exist, with attributes that hang together.

A film's genre shapes its mood, pace, length and age; a slow film is longer; the people of a film worked in
its time.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simulators.errors import CatalogueError
from simulators.world.catalogue import Catalogue, era_of_years
from simulators.world.names import draw_people, draw_plot, draw_titles

MOODS = "funny dark tense dreamy bittersweet hopeful playful melancholy gritty eerie tender rousing".split()
PACES = ("slow", "steady", "fast")
FIRST_YEAR, LAST_YEAR = 1931, 2025
N_DIRECTORS, N_ACTORS = 320, 900

# For each genre: share of films; moods it favours; slow:steady:fast; mean length in minutes; typical age
# (larger is older, 1 is average); genres it is often crossed with.
GENRE_TRAITS: dict[str, tuple[float, str, tuple[int, int, int], int, float, str]] = {
    "comedy": (0.15, "funny playful bittersweet tender", (1, 4, 4), 98, 0.9, "romance drama animation crime"),
    "drama": (
        0.17,
        "melancholy bittersweet hopeful dark tender",
        (5, 4, 1),
        118,
        1.1,
        "romance mystery documentary",
    ),
    "thriller": (
        0.10,
        "tense dark gritty eerie",
        (1, 3, 6),
        110,
        0.8,
        "crime mystery horror science fiction",
    ),
    "romance": (
        0.09,
        "tender bittersweet dreamy hopeful playful",
        (4, 5, 1),
        106,
        1.1,
        "comedy drama musical",
    ),
    "science fiction": (0.08, "tense dreamy dark rousing", (2, 3, 4), 116, 0.7, "adventure thriller horror"),
    "horror": (0.07, "eerie dark tense gritty", (3, 3, 4), 96, 0.8, "mystery thriller fantasy"),
    "adventure": (0.07, "rousing hopeful playful tense", (1, 3, 6), 114, 0.9, "fantasy western animation"),
    "mystery": (0.05, "eerie tense dark dreamy", (4, 5, 1), 108, 1.2, "crime thriller drama"),
    "fantasy": (0.05, "dreamy rousing playful dark", (2, 4, 3), 112, 0.7, "adventure animation romance"),
    "crime": (0.06, "gritty dark tense funny", (2, 4, 4), 112, 1.0, "thriller drama comedy"),
    "western": (0.03, "gritty rousing melancholy tense", (4, 4, 2), 109, 2.2, "adventure drama"),
    "musical": (0.03, "playful rousing hopeful tender", (1, 5, 3), 115, 1.9, "romance comedy"),
    "animation": (
        0.03,
        "playful hopeful funny tender dreamy",
        (1, 4, 4),
        89,
        0.6,
        "adventure comedy fantasy",
    ),
    "documentary": (0.02, "hopeful melancholy gritty bittersweet", (6, 4, 1), 92, 0.6, "drama"),
}


def invent_catalogue(n_films: int = 2400, *, seed: int) -> Catalogue:
    """A catalogue of invented films, the same for the same seed; no two titles are equal.

    Args:
        n_films: Number of films I, at least 1.
        seed: Seed of every draw.

    Raises:
        CatalogueError: `n_films` is less than 1.
    """
    if n_films < 1:
        raise CatalogueError(f"`n_films` must be at least 1; got {n_films}.")
    rng = np.random.default_rng((seed, 0))
    genres = list(GENRE_TRAITS)
    shares = np.array([traits[0] for traits in GENRE_TRAITS.values()])
    first = rng.choice(len(genres), size=n_films, p=shares / shares.sum())
    second = _draw_second_genres(first, rng)
    mood = _draw_moods(first, second, rng)
    pace = _inverse_cdf(_pace_weights()[first], rng.random(n_films))
    age = rng.beta(1.1, 2.4 / np.array([t[4] for t in GENRE_TRAITS.values()])[first])
    year = np.round(LAST_YEAR - age * (LAST_YEAR - FIRST_YEAR)).astype(np.int64)
    mean_length = np.array([t[3] for t in GENRE_TRAITS.values()])[first]
    length = np.clip(np.round(mean_length + 7.0 * (1 - pace) + rng.normal(0, 11, n_films)), 68, 200).astype(
        np.int64
    )
    people = draw_people(N_DIRECTORS + N_ACTORS, rng)
    director = _draw_contemporaries(year, people[:N_DIRECTORS], 1, rng)
    cast = _draw_contemporaries(year, people[N_DIRECTORS:], 2, rng)
    names = [genres[g] for g in first]
    years = pd.Series(year, dtype="Int64")
    films = pd.DataFrame(
        {
            "item_id": [f"film-{i:05d}" for i in range(n_films)],
            "title": draw_titles(names, rng),
            "year": years,
            "genres": [
                (genres[a],) if b < 0 else (genres[a], genres[b]) for a, b in zip(first, second, strict=True)
            ],
            "mood": [MOODS[m] for m in mood],
            "era": era_of_years(years),
            "pace": [PACES[p] for p in pace],
            "length": pd.Series(length, dtype="Int64"),
            "director": [people[0] for people in director],
            "cast": cast,
            "plot": [draw_plot(name, rng) for name in names],
        }
    )
    return Catalogue.of_films(films, genres)


def _inverse_cdf(weights: NDArray[np.float64], uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
    """One column index a row, drawn in proportion to non-negative weights, shape (N, K)."""
    cumulative = np.cumsum(weights, axis=1)
    index: NDArray[np.int64] = (uniforms[:, None] * cumulative[:, -1:] >= cumulative).sum(axis=1)
    return index


def _draw_second_genres(first: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A second genre for about half of the films, -1 for none."""
    genres = list(GENRE_TRAITS)
    crossed = np.array(
        [[other in traits[5] for other in genres] for traits in GENRE_TRAITS.values()], np.float64
    )
    second = _inverse_cdf(crossed[first], rng.random(len(first)))
    return np.where(rng.random(len(first)) < 0.5, second, -1)


def _draw_moods(
    first: NDArray[np.int64], second: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Mood of each film: mostly one that its genres favour, the first genre counting double."""
    favours = [[1.0 if mood in t[1].split() else 0.03 for mood in MOODS] for t in GENRE_TRAITS.values()]
    weights = np.concatenate(
        [np.array(favours), np.zeros((1, len(MOODS)))]
    )  # the last row stands for "no genre"
    return _inverse_cdf(2 * weights[first] + weights[second], rng.random(len(first)))


def _pace_weights() -> NDArray[np.float64]:
    return np.array([traits[2] for traits in GENRE_TRAITS.values()], np.float64)


def _draw_contemporaries(
    years: NDArray[np.int64], people: list[str], n_each: int, rng: np.random.Generator
) -> list[tuple[str, ...]]:
    """Different people for each film, whose careers lie around its year.

    People stand in the order of their careers, as films do in the order of their years; a film draws people
    near its own place, so that a busy decade has more of them.
    """
    order = np.argsort(years, kind="stable")
    place = np.empty(len(years))
    place[order] = np.arange(len(years)) / len(years)
    centre = np.round(len(people) * (place + rng.normal(0, 0.04, len(years)))).astype(np.int64)
    widest = len(people) // 25
    gaps = rng.integers(1, widest + 1, size=(len(years), n_each))
    chosen = centre.clip(0, len(people) - 1 - n_each * widest)[:, None] + np.cumsum(gaps, axis=1)
    return [tuple(people[p] for p in row) for row in chosen]
