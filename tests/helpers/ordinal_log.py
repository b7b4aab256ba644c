"""A small invented log with a known truth: low-rank tastes, item features, few impressions that go deep."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# Share of impressions that reach at least level 1, 2, 3 and 4.
BASE_RATES = (0.20, 0.09, 0.035, 0.01)


class OrdinalWorld(NamedTuple):
    """The log, what the items look like, and the tastes behind it."""

    log: pd.DataFrame
    features: NDArray[np.float32]
    utility: NDArray[np.float64]


def make_ordinal_world(
    n_users: int, n_items: int, impressions: int, *, seed: int, rank: int = 8, pull: float = 1.6
) -> OrdinalWorld:
    """Users shown random and popular items, each once, with levels cut from utility plus logistic noise.

    A fifth of an item's traits is readable from its features (as noisy one-hot groups), the rest from histories only.
    """
    rng = np.random.default_rng(seed)
    groups = rng.integers(12, size=n_items)
    features = np.eye(12, dtype=np.float32)[groups]
    centre = rng.normal(size=(12, rank))
    traits = 0.8 * centre[groups] + 0.6 * rng.normal(size=(n_items, rank))
    taste = rng.normal(size=(n_users, rank))
    appeal = rng.normal(size=n_items)
    utility = pull * taste @ traits.T / np.sqrt(rank) + 0.7 * appeal
    shown = np.argsort(rng.gumbel(size=(n_users, n_items)) + 0.5 * appeal, axis=1)[:, -impressions:]
    shown = rng.permuted(shown, axis=1)
    noisy = np.take_along_axis(utility, shown, 1) + rng.logistic(size=shown.shape)
    cuts = np.quantile(noisy, 1 - np.array(BASE_RATES))
    log = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(n_users), impressions),
            "item_id": shown.ravel(),
            "level": np.searchsorted(cuts, noisy.ravel()),
            "timestamp": 1_700_000_000 + 60 * np.arange(n_users * impressions),
        }
    )
    return OrdinalWorld(log, features, utility)
