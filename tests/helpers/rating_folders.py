"""Small rating data sets on disk, the same content in each layout that MovieLens comes in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

Rating = tuple[int, int, float, int]
Film = tuple[int, str, int, tuple[str, ...]]

FILMS: tuple[Film, ...] = (
    (1, "Amber Orchard, The", 1994, ("Comedy", "Romance")),
    (2, "Café of Dunmarrow", 1987, ("Drama",)),
    (5, "Crooked Comet", 2001, ("Sci-Fi", "Thriller")),
    (9, "Promesse, La", 1999, ("Drama", "War")),
    (11, "Seven Nights, Two Doors", 1995, ("Film-Noir",)),
    (12, "Untold", 1971, ()),
    (20, "Paper Kite", 1996, ("Animation", "Children's")),
    (21, "Quiet Vault", 1990, ("Crime", "Thriller")),
)


def draw_ratings(n_users: int = 12, *, seed: int = 0) -> list[Rating]:
    """Whole stars of users 1..n for seven of the eight films each, in random order of time."""
    rng = np.random.default_rng(seed)
    rows: list[Rating] = []
    for user in range(1, n_users + 1):
        for place, film in enumerate(rng.permutation(len(FILMS))[:7]):
            rows.append((user, FILMS[film][0], float(rng.integers(1, 6)), 900_000_000 + 100 * user + place))
    return [rows[i] for i in rng.permutation(len(rows))]


def write_atomic(folder: Path, ratings: list[Rating]) -> None:
    """RecBole atomic files."""
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    lines += [f"{user}\t{film}\t{stars:g}\t{time}" for user, film, stars, time in ratings]
    (folder / "toy.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    films = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    films += [f"{i}\t{title}\t{year}\t{' '.join(genres) or 'unknown'}" for i, title, year, genres in FILMS]
    (folder / "toy.item").write_text("\n".join(films) + "\n", encoding="utf-8")


def write_original(folder: Path, ratings: list[Rating]) -> None:
    """The files of MovieLens 100K, Latin-1."""
    order = (
        "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir "
        "Horror Musical Mystery Romance Sci-Fi Thriller War Western"
    ).split()
    lines = [f"{user}\t{film}\t{stars:g}\t{time}\n" for user, film, stars, time in ratings]
    (folder / "u.data").write_text("".join(lines), encoding="latin-1")
    films = []
    for i, title, year, genres in FILMS:
        flags = "|".join("1" if genre in (genres or ("unknown",)) else "0" for genre in order)
        films.append(f"{i}|{title} ({year})|01-Jan-{year}||http://films/{i}|{flags}\n")
    (folder / "u.item").write_text("".join(films), encoding="latin-1")


def write_dat(folder: Path, ratings: list[Rating]) -> None:
    """The files of MovieLens 1M, Latin-1."""
    lines = [f"{user}::{film}::{stars:g}::{time}\n" for user, film, stars, time in ratings]
    (folder / "ratings.dat").write_text("".join(lines), encoding="latin-1")
    films = [f"{i}::{title} ({year})::{'|'.join(genres) or 'unknown'}\n" for i, title, year, genres in FILMS]
    (folder / "movies.dat").write_text("".join(films), encoding="latin-1")


def write_csv(folder: Path, ratings: list[Rating]) -> None:
    """The files of MovieLens latest, UTF-8, titles with commas in quotes."""
    lines = ["userId,movieId,rating,timestamp", *(f"{u},{i},{s},{t}" for u, i, s, t in ratings)]
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    films = ["movieId,title,genres"]
    films += [f'{i},"{t} ({y})",{"|".join(g) or "(no genres listed)"}' for i, t, y, g in FILMS]
    (folder / "movies.csv").write_text("\r\n".join(films) + "\r\n", encoding="utf-8")


WRITERS: dict[str, Callable[[Path, list[Rating]], None]] = {
    "atomic": write_atomic,
    "original": write_original,
    "dat": write_dat,
    "csv": write_csv,
}
