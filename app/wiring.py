"""Names of models and splits as people type them, and what each stands for."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from app.evaluation_config import EvaluationConfig
from recsys.data import (
    Split,
    split_as_given,
    split_at_random,
    split_by_time,
    split_leave_last_out,
    split_per_user_by_time,
    split_users,
)
from recsys.data.readers import IS_TEST
from recsys.models import als, bpr, ease, gnolr, item_knn, popularity, sasrec
from recsys.recipes import als as als_recipe
from recsys.recipes import bpr as bpr_recipe
from recsys.recipes import ease as ease_recipe
from recsys.recipes import item_knn as item_knn_recipe
from recsys.recipes import popularity as popularity_recipe
from recsys.recipes import sasrec as sasrec_recipe
from recsys.recipes.contest import Contestant, Foreteller
from recsys.recipes.contest_data import Contest
from recsys.recipes.contest_models import (
    ADDITIVE_LOGISTIC,
    BOOSTED_TREES,
    ITEM_RATES,
    baseline,
    gnolr_contestant,
    popularity_contestant,
)
from recsys.recipes.tune import SPACES
from recsys.types import Retriever


class Ranker(NamedTuple):
    """A model that ranks.

    enter: From a contest to the contestant.
    needs_times: Whether it can do nothing without times.
    package: What must be importable for it, if anything.
    most_items: Size of the largest catalogue that it takes.
    """

    enter: Callable[[Contest], Contestant]
    needs_times: bool = False
    package: str | None = None
    most_items: int | None = None


def _baseline(
    train: Callable[..., Retriever], space: str, *, is_random: bool = False
) -> Callable[..., Contestant]:
    return partial(baseline, train, SPACES[space], is_random=is_random)


RANKERS: Mapping[str, Ranker] = {
    "popularity": Ranker(popularity_contestant),
    "recent": Ranker(_baseline(popularity_recipe.train, "recent_popularity"), needs_times=True),
    "itemknn": Ranker(_baseline(item_knn_recipe.train, "item_knn")),
    "ease": Ranker(_baseline(ease_recipe.train, "ease"), most_items=ease.MAX_ITEMS),
    "ials": Ranker(_baseline(als_recipe.train, "ials", is_random=True), package="implicit"),
    "bpr": Ranker(_baseline(bpr_recipe.train, "bpr", is_random=True), package="implicit"),
    "sasrec": Ranker(_baseline(sasrec_recipe.train, "sasrec", is_random=True), needs_times=True),
    "gnolr": Ranker(gnolr_contestant),
    "gnolr-impressions": Ranker(partial(gnolr_contestant, negatives=0.0)),
    "nolr": Ranker(partial(gnolr_contestant, structure="nolr")),
}
# They foretell levels of shown rows, and bring no items.
FORETELLERS: Mapping[str, Foreteller] = {
    "rates": ITEM_RATES,
    "logistic": ADDITIVE_LOGISTIC,
    "trees": BOOSTED_TREES,
}
FORETELLER_PACKAGES = {"trees": "sklearn"}
# What is compared where nobody names models, each only where it can be.
DEFAULT_RANKERS = ("popularity", "recent", "itemknn", "ease", "ials", "gnolr", "gnolr-impressions")
# What always stands beside a model that foretells levels.
ALWAYS_BESIDE = ("rates", "logistic")
INSTALL = "pip install 'persona[baselines]'"

SPLITS: Mapping[str, Callable[[pd.DataFrame, EvaluationConfig], Split]] = {
    "temporal": lambda log, c: split_by_time(log, test=c.test_share, validation=c.validation_share),
    "per-user": lambda log, c: split_per_user_by_time(log, test=c.test_share, validation=c.validation_share),
    "leave-last-out": lambda log, c: split_leave_last_out(log),
    "random": lambda log, c: split_at_random(
        log, test=c.test_share, validation=c.validation_share, seed=c.split_seed
    ),
    "users": lambda log, c: split_users(
        log, test=c.test_share, validation=c.validation_share, seed=c.split_seed
    ),
    "given": lambda log, c: split_as_given(
        log, log[IS_TEST], validation=c.validation_share, seed=c.split_seed
    ),
}

Loader = Callable[[Path, str], Any]
# Readers of saved retrievers, by the kind that their folder names; each takes the folder and a device.
LOADERS: Mapping[str, Loader] = {
    popularity.KIND: lambda folder, device: popularity.Popularity.load(folder),
    item_knn.KIND: lambda folder, device: item_knn.ItemKnn.load(folder),
    ease.KIND: lambda folder, device: ease.Ease.load(folder, device=device),
    als.KIND: lambda folder, device: als.IAls.load(folder, device=device),
    bpr.KIND: lambda folder, device: bpr.Bpr.load(folder, device=device),
    sasrec.KIND: lambda folder, device: sasrec.SasRec.load(folder, device=device),
    gnolr.KIND: lambda folder, device: gnolr.Gnolr.load(folder, device=device),
}
