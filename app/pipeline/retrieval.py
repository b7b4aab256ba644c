"""Stage "retrieval": rankers from the interaction logs of all but the unseen users, measured on those."""

from pathlib import Path

import numpy as np

from app.files import write_json
from app.pipeline.context import RunContext
from recsys.columns import USER
from recsys.features import FeatureTable
from recsys.models.popularity import Popularity
from recsys.recipes.ease import train as train_ease
from recsys.recipes.evaluate import evaluate_retrievers
from recsys.recipes.gnolr import GnolrConfig
from recsys.recipes.gnolr import train as train_gnolr
from recsys.types import Retriever, histories_from_log

RELEVANT_LEVEL = 2


def train_retrieval(run: RunContext, out: Path) -> None:
    """Train GNOLR, EASE and popularity; rank the full catalogue for users that none of them has met."""
    world = run.world
    log = world.log[~world.log[USER].isin(run.groups.unseen)]
    size = len(world.catalogue)
    gnolr = train_gnolr(
        log,
        n_items=size,
        seed=run.seed("gnolr"),
        item_features=FeatureTable.of_dense(world.catalogue.features),
        report=lambda row: run.tell(int(row["epoch"]) + 1, GnolrConfig().epochs),
        device=run.device,
    )
    histories = histories_from_log(log, np.unique(log[USER]), size)
    models: dict[str, Retriever] = {
        "gnolr": gnolr,
        "ease": train_ease(histories, seed=run.seed("ease"), device=run.device),
        "popularity": Popularity.fit(histories),
    }
    known, later = run.unseen_histories
    evaluation = evaluate_retrievers(models, known, later, relevant_level=RELEVANT_LEVEL)
    intervals = evaluation.intervals(run.seed("retrieval intervals"))
    report = {
        model: {metric: interval.to_report() for metric, interval in metrics.items()}
        for model, metrics in intervals.items()
    }
    for baseline in ("popularity", "ease"):
        gap = evaluation.difference("gnolr", baseline, "ndcg@10", run.seed("retrieval gap"))
        report["gnolr"][f"ndcg@10_over_{baseline}"] = gap.to_report()
    gnolr.save(out / "gnolr")
    write_json(out / "retrieval.json", report)
