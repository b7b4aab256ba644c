"""The models on MovieLens-100K, where that folder is at hand."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.data import check_log, split_per_user_by_time
from recsys.models.popularity import Popularity
from recsys.recipes import ease, gnolr
from recsys.recipes.evaluate import evaluate_retrievers
from recsys.types import Retriever, histories_from_log

DATA = Path(os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "ml-100k"


@pytest.mark.statistical
@pytest.mark.skipif(not (DATA / "ml-100k.inter").exists(), reason=f"{DATA} holds no ml-100k.inter")
def test_gnolr_and_ease_beat_popularity_on_later_ratings() -> None:
    table = pd.read_csv(DATA / "ml-100k.inter", sep="\t").rename(columns=lambda name: name.split(":")[0])
    log = pd.DataFrame(
        {
            "user_id": table["user_id"] - 1,
            "item_id": table["item_id"] - 1,
            "level": table["rating"] - 1,
            "timestamp": table["timestamp"],
        }
    )
    n_users, n_items = int(log["user_id"].max()) + 1, int(log["item_id"].max()) + 1
    train, test = split_per_user_by_time(check_log(log, n_items), test=0.2).test
    histories, held_out = (histories_from_log(part, np.arange(n_users), n_items) for part in (train, test))
    models: dict[str, Retriever] = {
        "gnolr": gnolr.train(train, n_items=n_items, seed=0),
        "ease": ease.train(histories, seed=0),
        "popularity": Popularity.fit(histories),
    }
    found = evaluate_retrievers(models, histories, held_out)
    for model in ("gnolr", "ease"):
        assert found.difference(model, "popularity", "ndcg@10", seed=0).low > 0.03
