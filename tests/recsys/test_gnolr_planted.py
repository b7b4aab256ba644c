"""GNOLR on invented worlds whose utilities are known."""

from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import spearmanr

from recsys.features import FeatureTable
from recsys.models.gnolr import Gnolr
from recsys.models.popularity import Popularity
from recsys.recipes.evaluate import evaluate_retrievers
from recsys.recipes.gnolr import GnolrConfig, train
from recsys.significance import bootstrap_interval
from recsys.types import Histories, Retriever, histories_from_log
from tests.helpers.ordinal_log import OrdinalWorld, make_ordinal_world


class Planted(NamedTuple):
    """A world of strong tastes, a model of each user's first rows, and the histories before and after."""

    world: OrdinalWorld
    model: Gnolr
    early: Histories
    late: Histories


def plant(seed: int) -> Planted:
    world = make_ordinal_world(400, 300, 80, seed=seed, pull=3.0)
    is_late = world.log.groupby("user_id").cumcount() >= 64
    early, late = (histories_from_log(world.log[mask], np.arange(400), 300) for mask in (~is_late, is_late))
    config = GnolrConfig(
        embedding=16, width=16, batch_rows=1024, epochs=10, negatives=16.0, negative_items=300,
        learning_rate=0.004, history_dropout=0.3,
    )  # fmt: skip
    table = FeatureTable.of_dense(world.features)
    model = train(world.log[~is_late], n_items=300, seed=seed, config=config, item_features=table)
    return Planted(world, model, early, late)


def rank_agreement(found: Planted) -> tuple[list[float], float]:
    """Mean rank correlation of true utilities of unseen items with logits, by level, and with how often items do well.

    Every fourth user is asked.
    """
    logits = found.model.logits(found.early, np.tile(np.arange(300), (400, 1))).numpy()
    liked = found.model.known.item_counts[:, 1:].sum(1).numpy()
    rows: list[list[float]] = []
    for user, seen in enumerate(found.early.toarray()[::4] > 0):
        scores = [*logits[4 * user][~seen].T, liked[~seen]]
        truth = found.world.utility[4 * user][~seen]
        rows.append([float(spearmanr(truth, score)[0]) for score in scores])
    *levels, popularity = np.mean(rows, axis=0).tolist()
    return levels, popularity


@pytest.mark.integration
def test_planted_utilities_are_put_in_order_better_than_by_popularity() -> None:
    levels, popularity = rank_agreement(plant(1))
    assert min(levels) > 0.3 and min(levels) > popularity + 0.1


@pytest.mark.integration
def test_planted_tastes_are_retrieved_better_than_popularity() -> None:
    gains = []
    for seed in (1, 2, 3):
        found = plant(seed)
        models: dict[str, Retriever] = {"gnolr": found.model, "popularity": Popularity.fit(found.early)}
        values = evaluate_retrievers(models, found.early, found.late).values
        gains.append(values["gnolr"]["ndcg@10"] - values["popularity"]["ndcg@10"])
    assert bootstrap_interval(np.concatenate(gains), seed=0).low > 0.02


@pytest.mark.statistical
def test_planted_utilities_are_put_in_order_over_many_worlds() -> None:
    found = [rank_agreement(plant(100 + seed)) for seed in range(20)]
    lowest = np.array([min(levels) for levels, _ in found])
    popularity = np.array([agreement for _, agreement in found])
    assert lowest.mean() > 0.3 and (lowest > popularity).all()
