"""Every retriever of this package through the public contract check, and the check against broken ones."""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array

from recsys.checks import check_lists, check_retriever
from recsys.errors import ContractError
from recsys.index import ExactIndex, FaissIndex, ItemIndex
from recsys.models import Bpr, Ease, Gnolr, IAls, ItemKnn, Popularity, SasRec, fit_recent_popularity
from recsys.models.sasrec import SasRecNet, SasRecSizes
from recsys.recipes import als, bpr, gnolr
from recsys.types import Bools, Histories, Ints, Retriever, TopK

GRADED = np.arange(5, dtype=np.float32)


def fitted_gnolr(histories: Histories, index: Callable[[torch.Tensor], ItemIndex]) -> Gnolr:
    user, item = histories.nonzero()
    log = pd.DataFrame(
        {"user_id": user, "item_id": item, "level": histories.data.astype(np.int64) - 1, "timestamp": 0}
    )
    config = gnolr.GnolrConfig(levels=3, epochs=1, embedding=5, width=6, validation_users=0.4)
    model = gnolr.train(log, n_items=30, seed=0, config=config)
    model.index = index(model.item_blocks.flatten(1))
    return model


def invented_times(histories: Histories) -> Histories:
    """Times that depend on the item alone, so that a row has the same ones in every batch."""
    moments = (histories.indices * 7 % 31 + 1).astype(np.float64)
    return csr_array((moments, histories.indices.copy(), histories.indptr.copy()), shape=histories.shape)


class Timed:
    """A retriever that follows the order of events, given invented times."""

    def __init__(self, inner: Retriever) -> None:
        self.inner = inner

    def search(
        self,
        histories: Histories,
        k: int,
        *,
        level: int | None = None,
        allowed: Bools | None = None,
        exclude_seen: bool = True,
        users: Ints | None = None,
        times: Histories | None = None,
    ) -> TopK:
        when = invented_times(histories) if times is None else times
        return self.inner.search(
            histories, k, level=level, allowed=allowed, exclude_seen=exclude_seen, users=users, times=when
        )


def sasrec() -> Retriever:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = SasRecNet(SasRecSizes(items=30, width=8, heads=2, blocks=2, length=5))
    return Timed(SasRec(net, torch.arange(30.0), levels=4, relevant_level=1))


def fitted_als(histories: Histories) -> IAls:
    return als.train(histories, seed=0, config=als.IAlsConfig(factors=6))


def fitted_bpr(histories: Histories) -> Bpr:
    return bpr.train(histories, seed=0, config=bpr.BprConfig(factors=6))


RETRIEVERS: dict[str, Callable[[Histories], Retriever]] = {
    "gnolr over faiss": lambda histories: fitted_gnolr(histories, FaissIndex),
    "gnolr over a scan": lambda histories: fitted_gnolr(histories, ExactIndex),
    "ease": lambda histories: Ease.fit(histories, level_weights=GRADED, l2=5.0),
    "item knn": lambda histories: ItemKnn.fit(histories, level_weights=GRADED, neighbours=5, shrink=1.0),
    "ials": fitted_als,
    "bpr": fitted_bpr,
    "sasrec": lambda histories: sasrec(),
    "popularity": Popularity.fit,
    "recent popularity": lambda histories: fit_recent_popularity(
        histories, invented_times(histories), half_life_days=1e-4
    ),
}


@pytest.mark.parametrize("name", RETRIEVERS)
def test_every_retriever_keeps_the_contract(name: str, small_histories: Histories) -> None:
    if name in {"ials", "bpr"} and find_spec("implicit") is None:
        pytest.skip("the package `implicit` is not installed")
    check_retriever(RETRIEVERS[name](small_histories), small_histories, 30)
    check_retriever(RETRIEVERS[name](small_histories), small_histories, 30, k=40)


class Broken:
    """Popularity with one fault."""

    def __init__(self, histories: Histories, fault: str) -> None:
        self.inner, self.fault, self.calls = Popularity.fit(histories), fault, 0

    def search(
        self,
        histories: Histories,
        k: int,
        *,
        level: int | None = None,
        allowed: Bools | None = None,
        exclude_seen: bool = True,
        users: Ints | None = None,
        times: Histories | None = None,
    ) -> TopK:
        self.calls += 1
        allowed = None if self.fault == "allowed" else allowed
        keeps_seen = self.fault == "seen" or not exclude_seen
        items, scores = self.inner.search(histories, k, allowed=allowed, exclude_seen=not keeps_seen)
        if self.fault == "restless" and self.calls > 1:
            scores = scores + np.float32(self.calls)
        if self.fault == "cold":
            empty = np.diff(histories.indptr) == 0
            items[empty], scores[empty] = -1, -np.inf
        if self.fault == "always excludes" and not exclude_seen:
            items, scores = self.inner.search(histories, k)
        if self.fault == "short" and allowed is not None:
            items[:, 1:], scores[:, 1:] = -1, -np.inf
        if self.fault == "batch" and histories.shape[0] == 1:
            scores = scores - 1
        if self.fault == "batch order" and histories.shape[0] == 1:
            items = np.where(items >= 0, items[:, ::-1], -1)
        return TopK(items, scores)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("seen", "must offer nothing from the user's own history; got a seen item"),
        ("restless", "same answer to the same question; got two different ones"),
        ("cold", "must offer 10 items to a user without a history; got 0"),
        ("always excludes", "must rank every item when seen ones may come; got a padded list"),
        ("batch", "must score a user alone as in a batch; got other scores for row 0"),
        ("batch order", "must rank for a user alone as in a batch; got another list for row 0"),
        ("allowed", "must keep to `allowed`; got an item outside it"),
        ("short", r"every allowed item before padding; got \[1, 1, 1\] items where \["),
    ],
)
def test_a_broken_promise_is_named(fault: str, message: str, small_histories: Histories) -> None:
    with pytest.raises(ContractError, match=message):
        check_retriever(Broken(small_histories, fault), small_histories, 30)


def lists(items: list[int], scores: list[float]) -> TopK:
    return TopK(np.array([items], dtype=np.int64), np.array([scores], dtype=np.float32))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (lists([1, 2, 3], [3, 2, 1]), r"shape \(1, 2\); got \(1, 3\) and \(1, 3\)"),
        (TopK(np.zeros((1, 2), dtype=np.int64), np.zeros((1, 2))), "float32 scores; got int64 and float64"),  # type: ignore[arg-type]
        (lists([1, 5], [2, 1]), r"items in 0\.\.4, or -1 as padding; got 1\.\.5"),
        (lists([1, 2], [2, float("nan")]), "must not score NaN; got NaN"),
        (lists([1, -1], [2, 1]), "item -1 and score -inf together; got one alone"),
        (lists([1, 2], [1, 2]), "falling scores; got a rising one"),
        (lists([2, 2], [2, 1]), "an item once a list; got one twice"),
    ],
)
def test_a_malformed_list_is_named(found: TopK, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_lists(found, 1, 2, 5)
