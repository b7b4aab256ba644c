"""Settings chosen by a log's own held-out rows."""

import numpy as np
import pandas as pd
import pytest

from simulators.errors import MirrorError
from simulators.mirror.selection import (
    Setting,
    fit_best_levels,
    level_probabilities,
    log_losses,
    split_by_user,
)
from simulators.world import build_film_world

USERS = 60
WORLD = build_film_world(80, USERS, seed=0, impressions_per_user=60)
FEATURES = WORLD.catalogue.features.astype(np.float64)


def test_the_setting_with_the_least_held_out_loss_is_taken() -> None:
    settings = (Setting(0, True), Setting(0, False))
    found = fit_best_levels(WORLD.log, FEATURES, n_users=USERS, iterations=6, settings=settings, seed=0)
    assert set(found.tried) == set(settings)
    assert found.tried[found.setting] == min(found.tried.values())
    earlier, held_out = split_by_user(WORLD.log, 0.9)
    assert len(earlier) + len(held_out) == len(WORLD.log)
    told = log_losses(level_probabilities(found.model, held_out), held_out).mean()
    assert told < found.tried[found.setting]  # fitted to these rows too


def test_splits_are_by_user_and_in_order() -> None:
    earlier, held_out = split_by_user(WORLD.log, 0.9)
    assert (earlier.groupby("user_id").size() == 54).all() and (held_out.groupby("user_id").size() == 6).all()
    last, first = (
        earlier.groupby("user_id")["timestamp"].max(),
        held_out.groupby("user_id")["timestamp"].min(),
    )
    assert (last <= first).all()


def test_too_little_to_try_on_takes_the_first_setting() -> None:
    log = pd.DataFrame({"user_id": [0, 0, 1, 1, 1], "item_id": [0, 1, 2, 3, 4], "level": [0, 1, 2, 3, 4]})
    settings = (Setting(0, False), Setting(0, True))
    found = fit_best_levels(log, FEATURES, n_users=2, iterations=2, settings=settings, seed=0)
    assert found.setting == settings[0] and found.tried == {}
    with pytest.raises(MirrorError, match="every level"):
        fit_best_levels(log[:4], FEATURES, n_users=2, iterations=2, settings=settings, seed=0)
