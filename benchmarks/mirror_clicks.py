"""The fitted choice model on real impressions with real positions: clicks of the Open Bandit Dataset.

The published sample holds 10,000 impressions a policy, drawn from the whole log: hardly any slate has more than one row
left, so there are no scenes to choose within, only clicks at places. People are not named either; those with the same
features count as one.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.mirror_choice import by_user, versus
from benchmarks.mirror_real import popularity_levels
from recsys.columns import ITEM, LEVEL, POSITION, TIMESTAMP, USER
from recsys.data.readers.open_bandit import read_bandit_log
from simulators.mirror import fit_levels
from simulators.mirror.selection import level_probabilities, log_losses
from simulators.world import item_mean_levels

Values = NDArray[np.float64]
EARLY_SHARE = 0.5
"""Half, as clicks are so rare that a fifth of the log would hold ten."""


def measure_openbandit(folder: Path, *, iterations: int) -> dict[str, object]:
    """Clicks of the later half of each policy's log, from the earlier half."""
    return {policy: _measure_policy(folder / policy, iterations) for policy in ("random", "bts")}


def _measure_policy(folder: Path, iterations: int) -> dict[str, object]:
    log = _read(folder)
    is_early = np.arange(len(log)) < EARLY_SHARE * len(log)
    early, later = log[is_early].reset_index(drop=True), log[~is_early].reset_index(drop=True)
    n_users, n_items = int(log[USER].max()) + 1, int(log[ITEM].max()) + 1
    model = fit_levels(
        early,
        np.zeros((n_items, 1)),
        n_users=n_users,
        n_levels=2,
        n_factors=0,
        use_exposure=False,
        iterations=iterations,
        seed=0,
    )
    told = level_probabilities(model, later)
    means = item_mean_levels(early, later[ITEM], n_items=n_items, n_levels=2)
    fame = popularity_levels(early, later[ITEM].to_numpy(), n_items=n_items, n_levels=2)
    clicked = float(early[LEVEL].mean())
    base = np.broadcast_to([1 - clicked, clicked], told.shape)
    position = model.effects["position"]
    return {
        "rows": [len(early), len(later)],
        "clicks": [int(early[LEVEL].sum()), int(later[LEVEL].sum())],
        "click_rate_by_place": log.groupby(POSITION)[LEVEL].mean().tolist(),
        "nll_by_group": {
            name: float(by_user(log_losses(p, later), later).mean())
            for name, p in (("model", told), ("item_mean", means), ("popularity", fame), ("base_rate", base))
        },
        "against_item_mean": versus(told, means, later, 1),
        "against_popularity": versus(told, fame, later, 1),
        "against_base_rate": versus(told, base, later, 1),
        "position": {"value": position.value, "ci95": position.interval},
    }


def _read(folder: Path) -> pd.DataFrame:
    raw = read_bandit_log(folder)
    who = [str(name) for name in raw if str(name).startswith("user_feature_")]
    log = pd.DataFrame(
        {
            USER: raw.groupby(who).ngroup().to_numpy(np.int64),
            ITEM: raw["action"].to_numpy(np.int64),
            LEVEL: raw["reward"].to_numpy(np.int64),
            TIMESTAMP: raw["timestamp"].to_numpy(np.int64),
            POSITION: raw["position"].to_numpy(np.int64) - 1,
        }
    )
    return log.sort_values(TIMESTAMP, kind="stable", ignore_index=True)
