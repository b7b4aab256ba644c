"""A planted linear world: what is gained by asking about whole lists rather than about one pair of each."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.objectives import ListObjective, irpo_loss, listwise_loss, single_pair_loss

ITEMS, FEATURES, SEEDS = 20, 20, 20
SIZES = (30, 100, 400)
FORMS: dict[str, ListObjective] = {
    "single pair": single_pair_loss,
    "irpo": irpo_loss,
    "listwise": listwise_loss,
}
Table = dict[str, NDArray[np.float64]]


def draw(lists: int, taste: Tensor, rng: torch.Generator, *, other: Tensor | None) -> tuple[Tensor, Tensor]:
    """Features of lists in no order, and grades of the 3 items picked from each by a Plackett-Luce model.

    With one taste all picks have grade 1. With another, the first pick has grade 3 and follows `taste`, while two
    further picks of grade 1 follow the other.
    """
    x = torch.randn(lists, ITEMS, FEATURES, generator=rng, dtype=torch.float64)
    noise = -torch.log(-torch.log(torch.rand(lists, ITEMS, generator=rng, dtype=torch.float64)))
    nothing = torch.zeros(lists, ITEMS, dtype=torch.float64)
    if other is None:
        return x, nothing.scatter(1, (x @ taste + noise).topk(3, dim=1).indices, 1.0)
    first = (x @ taste + noise).argmax(1, keepdim=True)
    rest = (x @ other + noise).scatter(1, first, -torch.inf).topk(2, dim=1).indices
    return x, nothing.scatter(1, first, 3.0).scatter(1, rest, 1.0)


def fit(x: Tensor, grades: Tensor, objective: ListObjective) -> Tensor:
    """Weights of the linear scorer with the least mean loss plus a ridge of 0.01."""
    weights = torch.zeros(FEATURES, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        scores = x @ weights
        lists = objective(scores, torch.zeros_like(scores), grades, beta=1.0)
        total = lists.mean() + 0.01 * weights.square().sum()
        torch.autograd.backward(total)
        return total

    optimizer.step(loss)
    return weights.detach()


def mean_ndcg(scores: Tensor, grades: Tensor) -> float:
    """NDCG@10 with gain 2^grade - 1."""
    discount = 1 / torch.log2(torch.arange(2, 12, dtype=torch.float64))
    gain = torch.exp2(grades) - 1
    found = gain.gather(1, scores.topk(10, dim=1).indices) @ discount
    return float((found / (gain.topk(10, dim=1).values @ discount)).mean())


def table(*, two_tastes: bool) -> Table:
    """NDCG@10 on 1,000 fresh lists after training on 30, 100 and 400, per form. Shape (seeds, sizes)."""
    found = {name: np.zeros((SEEDS, len(SIZES))) for name in FORMS}
    for seed in range(SEEDS):
        rng = torch.Generator().manual_seed(seed)
        taste = torch.randn(FEATURES, generator=rng, dtype=torch.float64)
        taste = 2 * taste / taste.norm()
        other = taste.roll(7) if two_tastes else None
        test_x, test_grades = draw(1000, taste, rng, other=other)
        x, grades = draw(max(SIZES), taste, rng, other=other)
        for column, size in enumerate(SIZES):
            for name, objective in FORMS.items():
                weights = fit(x[:size], grades[:size], objective)
                found[name][seed, column] = mean_ndcg(test_x @ weights, test_grades)
    return found


@pytest.mark.statistical
def test_whole_lists_teach_more_than_one_pair_each_and_most_when_lists_are_few() -> None:
    found = table(two_tastes=False)
    for name in ("irpo", "listwise"):
        gain = found[name] - found["single pair"]
        assert bool((gain > 0).all())
        assert gain.mean(0)[0] > 2 * gain.mean(0)[1] > 4 * gain.mean(0)[2]
    # Places say nothing here, so weighting by them only makes the estimate noisier.
    loss = (found["listwise"] - found["irpo"]).mean(0)
    assert bool((loss > 0).all()) and loss.max() < 0.015


@pytest.mark.statistical
def test_gains_pay_where_the_best_items_are_of_another_kind_than_the_good_ones() -> None:
    found = table(two_tastes=True)
    assert bool((found["irpo"] - found["listwise"] > 0.05).all())
    assert bool((found["irpo"].mean(0) > found["single pair"].mean(0)).all())
