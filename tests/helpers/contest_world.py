"""A small shop log with ordered levels as a data set, and on disk, for comparisons of models that take moments."""

from pathlib import Path

import numpy as np
import pandas as pd

from recsys.data import split_by_time
from recsys.data.dataset import Dataset, Entities, FeatureKind
from recsys.recipes.contest_data import Contest, prepare_contest, tidy_dataset
from tests.helpers.ordinal_log import make_ordinal_world

STEPS = ("view", "cart", "buy")
GENRES = ("calm", "loud", "odd")


def make_dataset(n_users: int = 60, n_items: int = 40, impressions: int = 12, *, seed: int = 0) -> Dataset:
    """Levels shown, view, cart, buy; times in random order; items with a group and tags, users with an age."""
    world = make_ordinal_world(n_users, n_items, impressions, seed=seed)
    rng = np.random.default_rng(seed)
    log = world.log.assign(
        level=np.minimum(world.log["level"] + (rng.random(len(world.log)) < 0.4), 3),
        timestamp=1_700_000_000 + 3600 * rng.permutation(len(world.log)),
    )
    items = pd.DataFrame(
        {
            "group": [f"g{group}" for group in world.features.argmax(1)],
            "tags": [tuple(rng.permutation(GENRES)[: 1 + item % 2].tolist()) for item in range(n_items)],
        }
    )
    users = pd.DataFrame({"age": rng.integers(18, 80, n_users).astype(float)})
    return Dataset(
        "shop",
        log,
        Entities(pd.Index([f"u{user}" for user in range(n_users)]), users, {"age": FeatureKind.DENSE}),
        Entities(
            pd.Index([f"i{item}" for item in range(n_items)]),
            items,
            {"group": FeatureKind.CATEGORICAL, "tags": FeatureKind.MULTI_HOT},
            pd.Series([f"Thing <{item}>" for item in range(n_items)]),
        ),
        ("shown", *STEPS),
    )


def make_contest(dataset: Dataset | None = None, *, relevant_level: int = 1) -> Contest:
    """A temporal split of it, a fifth for each of validation and test."""
    tidied = tidy_dataset(make_dataset() if dataset is None else dataset).dataset
    split = split_by_time(tidied.log, test=0.2, validation=0.2)
    return prepare_contest(tidied, split, relevant_level=relevant_level)


def write_dataset(folder: Path, dataset: Dataset, *, with_times: bool = True) -> Path:
    """The log as log.csv with one level a row, and items.csv beside it; the path of the log."""
    folder.mkdir(parents=True, exist_ok=True)
    log = dataset.log
    frame = pd.DataFrame(
        {
            "user_id": dataset.users.ids[log["user_id"]],
            "item_id": dataset.items.ids[log["item_id"]],
            "level": log["level"],
        }
    )
    if with_times:
        frame["timestamp"] = log["timestamp"]
    frame.to_csv(folder / "log.csv", index=False)
    items = pd.DataFrame(
        {
            "item_id": dataset.items.ids,
            "title": dataset.items.labels,
            "tags": ["|".join(tags) for tags in dataset.items.features["tags"]],
        }
    )
    items.to_csv(folder / "items.csv", index=False)
    return folder / "log.csv"
