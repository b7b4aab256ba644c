"""Interaction logs of a film world: what users did with slates that some earlier recommender showed them."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from recsys import columns
from simulators.errors import WorldError
from simulators.world.catalogue import Catalogue
from simulators.world.oracle import Oracle

SLATE = 10
BROWSED_SHARE = 0.5
START_S = 1_700_000_000
_CELLS = 4_000_000  # users x films drawn at once, to bound memory


def simulate_log(
    oracle: Oracle, catalogue: Catalogue, users: ArrayLike, impressions_per_user: int, *, seed: int
) -> pd.DataFrame:
    """Impressions of slates of ten and the level that each reached; no film is shown twice to a user.

    Half of the slates come from browsing, where fame and the user's own taste decide what is met; the others are drawn
    evenly from the films not yet shown. Cost: users x films.

    Args:
        oracle: Decides the levels.
        catalogue: The films.
        users: Rows of the users to show films to, each at most once. Shape (B,).
        impressions_per_user: Films shown to each, at most the size of the catalogue.
        seed: Seed of every draw.

    Returns:
        Rows by user, then time: user_id and item_id (rows, int64), level (0..K-1), timestamp (seconds, rising
        for each user), position (0-based place in the slate).

    Raises:
        WorldError: More impressions than films, none at all, or a user twice.
    """
    shown = np.asarray(users, np.int64)
    if not 1 <= impressions_per_user <= len(catalogue):
        raise WorldError(
            f"`impressions_per_user` must lie between 1 and the number of films ({len(catalogue)}), as no "
            f"film is shown twice; got {impressions_per_user}."
        )
    if len(np.unique(shown)) < len(shown):
        raise WorldError(
            f"`users` must not hold a user twice; got {len(shown) - len(np.unique(shown))} repeats."
        )
    rng = np.random.default_rng((seed, 3))
    items = _draw_slates(oracle, shown, len(catalogue), impressions_per_user, rng)
    rows = np.repeat(shown, impressions_per_user)
    position = np.tile(np.arange(impressions_per_user) % SLATE, len(shown))
    levels = oracle.levels(rows, items.ravel(), rng.random(len(rows)), position=position)
    return pd.DataFrame(
        {
            columns.USER: rows,
            columns.ITEM: items.ravel(),
            columns.LEVEL: levels,
            columns.TIMESTAMP: _draw_times(items.shape, rng).ravel(),
            columns.POSITION: position,
        }
    )


def _draw_slates(
    oracle: Oracle, users: NDArray[np.int64], n_items: int, per_user: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Films shown to each user in order, shape (B, per_user), without repeats."""
    n_users = len(users)
    slates = -(-per_user // SLATE)
    browsed = np.repeat(rng.random((n_users, slates)) < BROWSED_SHARE, SLATE, axis=1)[:, :per_user]
    blocks = [
        _fill(browsed[rows], oracle.browsing_logits(users[rows]), rng) for rows in _blocks(n_users, n_items)
    ]
    return np.concatenate(blocks) if blocks else np.zeros((0, per_user), np.int64)


def _blocks(n_users: int, n_items: int) -> Iterator[slice]:
    size = max(1, _CELLS // n_items)
    for start in range(0, n_users, size):
        yield slice(start, start + size)


def _fill(
    browsed: NDArray[np.bool_], logits: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Fill browsed places by the logits without replacement, then the others evenly from what is left.

    Adding Gumbel noise to log weights and taking the largest draws without replacement: Kool et al. (2019),
    "Stochastic Beams and Where to Find Them", ICML.

    Args:
        browsed: Which places are browsed. Shape (B, places).
        logits: Log weights of the films. Shape (B, I).
        rng: Source of every draw.
    """
    exponential = np.maximum(
        rng.standard_exponential(logits.shape, dtype=np.float32), np.finfo(np.float32).tiny
    )
    met = _largest(logits - np.log(exponential), browsed.shape[1])
    n_browsed = browsed.sum(axis=1, keepdims=True)
    even = rng.random(logits.shape, dtype=np.float32)
    taken = np.arange(browsed.shape[1]) < n_browsed
    row = np.broadcast_to(np.arange(len(met))[:, None], met.shape)
    even[row[taken], met[taken]] = -1.0
    others = _largest(even, browsed.shape[1])
    nth_browsed = np.maximum(np.cumsum(browsed, axis=1) - 1, 0)
    nth_other = np.maximum(np.cumsum(~browsed, axis=1) - 1, 0)
    from_browsing = np.take_along_axis(met, nth_browsed, axis=1)
    return np.where(browsed, from_browsing, np.take_along_axis(others, nth_other, axis=1))


def _largest(keys: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Columns of the k largest keys of each row, largest first."""
    top = np.argpartition(keys, -k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(keys, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)


def _draw_times(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.int64]:
    """Seconds of each impression: some seconds within a slate, hours to days between slates."""
    n_users, per_user = shape
    within = rng.integers(4, 40, size=shape)
    between = rng.integers(3 * 3600, 72 * 3600, size=shape)
    first = np.arange(per_user) % SLATE == 0
    start = START_S + rng.integers(0, 14 * 86_400, size=(n_users, 1))
    times: NDArray[np.int64] = start + np.cumsum(np.where(first, between, within), axis=1)
    return times
