"""Every retriever of this package through the public contract check, and the check against broken ones."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from recsys.checks import check_lists, check_retriever
from recsys.errors import ContractError
from recsys.index import ExactIndex, FaissIndex, ItemIndex
from recsys.models import Ease, Gnolr, Popularity
from recsys.models.ordinal import Calibration
from recsys.models.towers import Towers, TowerSizes
from recsys.types import Bools, Histories, Retriever, TopK


def gnolr(index: Callable[[torch.Tensor], ItemIndex]) -> Gnolr:
    rng = torch.Generator().manual_seed(0)
    towers = Towers(TowerSizes(30, 4, 5, 6, 0, 0), torch.zeros(30, 0), rng)
    towers.limit_steps(torch.ones(3))
    calibration = Calibration(torch.tensor(1.0), torch.arange(4.0))
    return Gnolr(towers, calibration, retrieve_level=2, index=index(towers.item_blocks().detach().flatten(1)))


RETRIEVERS: dict[str, Callable[[Histories], Retriever]] = {
    "gnolr over faiss": lambda histories: gnolr(FaissIndex),
    "gnolr over a scan": lambda histories: gnolr(ExactIndex),
    "ease": lambda histories: Ease.fit(histories, level_weights=np.arange(5, dtype=np.float32), l2=5.0),
    "popularity": Popularity.fit,
}


@pytest.mark.parametrize("name", RETRIEVERS)
def test_every_retriever_keeps_the_contract(name: str, small_histories: Histories) -> None:
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
