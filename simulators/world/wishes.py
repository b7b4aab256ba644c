"""What users say they want, drawn from what they like: a genre, and a mood among the films of that genre."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulators.world.catalogue import Catalogue

WISH_SHARPNESS = 1.5
"""Logits of a wish for each standard deviation of taste among the genres or moods."""


def draw_wishes(
    catalogue: Catalogue,
    tastes: NDArray[np.floating],
    population: NDArray[np.floating],
    uniforms: NDArray[np.float64],
) -> list[dict[str, str]]:
    """One wish a user: {"genre": ..., "mood": ...}; parts that the catalogue does not know are left out.

    A genre is the likelier the more the user likes it and, less than in proportion, the more films have it.

    Args:
        catalogue: The films.
        tastes: Weights of the users over the catalogue's features, in its first columns. Shape (B, at least F).
        population: Weights of all users, which say what a large one is. Shape (U, at least F).
        uniforms: Independent draws from U(0, 1), one a user. Shape (B,).
    """
    features = catalogue.features
    genre_columns, mood_columns = _columns(catalogue, "genre"), _columns(catalogue, "mood")
    wishes: list[dict[str, str]] = [{} for _ in tastes]
    if not len(genre_columns):
        return wishes
    counts = features[:, genre_columns].sum(axis=0)
    liking = _liking(tastes, population, genre_columns)
    genre, draws = _draw_column(liking + 0.5 * _log_counts(counts), uniforms)
    for wish, column in zip(wishes, genre_columns[genre], strict=True):
        wish["genre"] = catalogue.feature_names[column].partition("=")[2]
    if len(mood_columns):
        together = features[:, genre_columns].T @ features[:, mood_columns]
        liking = _liking(tastes, population, mood_columns)
        mood, _ = _draw_column(liking + 0.5 * _log_counts(together[genre]), draws)
        for wish, column in zip(wishes, mood_columns[mood], strict=True):
            wish["mood"] = catalogue.feature_names[column].partition("=")[2]
    return wishes


def _columns(catalogue: Catalogue, group: str) -> NDArray[np.int64]:
    names = catalogue.feature_names
    return np.array([c for c, name in enumerate(names) if name.startswith(f"{group}=")], np.int64)


def _liking(
    tastes: NDArray[np.floating], population: NDArray[np.floating], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Logits of wishing for each of some features, from the users' tastes. Shape (B, columns)."""
    spread = float(population[:, columns].astype(np.float64).std()) or 1.0
    own = tastes[:, columns].astype(np.float64)
    return np.asarray(WISH_SHARPNESS * (own - own.mean(axis=1, keepdims=True)) / spread)


def _log_counts(counts: ArrayLike) -> NDArray[np.float64]:
    """log(count), and so low where there is none that it is never drawn."""
    known = np.asarray(counts, np.float64)
    return np.where(known > 0, np.log(np.maximum(known, 1.0)), -1e9)


def _draw_column(
    logits: NDArray[np.float64], uniforms: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """A column a row in proportion to exp(logits), and what is left of each uniform, uniform again."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    cumulative = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
    column = (uniforms[:, None] >= cumulative[:, :-1]).sum(axis=1)
    rows = np.arange(len(column))
    upper = cumulative[rows, column]
    lower = np.where(column > 0, cumulative[rows, np.maximum(column - 1, 0)], 0.0)
    return column, np.clip((uniforms - lower) / (upper - lower), 0.0, 1.0)
