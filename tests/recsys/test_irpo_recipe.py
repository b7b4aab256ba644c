import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.sparse import csr_array
from torch import Tensor

from recsys.errors import InteractionError, ShapeError
from recsys.models.popularity import Popularity
from recsys.models.reranker import FEATURES, Reranked, Reranker
from recsys.objectives import ListObjective, listwise_loss, single_pair_loss
from recsys.recipes.evaluate import evaluate_retrievers
from recsys.recipes.irpo import IrpoConfig, train
from recsys.types import Histories, Retriever

QUICK = IrpoConfig(depth=40, epochs=8, betas=(0.1, 1.0, 10.0))


def clubs(users: int = 300, items: int = 60, seed: int = 0) -> tuple[Histories, Histories]:
    """Users of three clubs who mostly take their club's items, cut at random into known and targets."""
    rng = np.random.default_rng(seed)
    club = rng.integers(3, size=users)
    takes = rng.random((users, items)) < np.where(np.arange(items)[None] % 3 == club[:, None], 0.5, 0.06)
    stored = np.where(takes, rng.integers(2, 6, size=(users, items)), 0)
    is_target = rng.random((users, items)) < 0.3
    cut = (np.where(is_target, 0, stored), np.where(is_target, stored, 0))
    known, targets = (csr_array(part.astype(np.float32)) for part in cut)
    return known, targets


def weights(model: Reranker) -> list[float]:
    return [float(value) for value in torch.cat([p.flatten() for p in model.scorer.parameters()])]


def test_the_same_seed_gives_the_same_bits_and_the_slates_are_reranked_better() -> None:
    known, targets = clubs()
    retriever = Popularity.fit(known)
    rows: list[dict[str, float]] = []
    first = train(retriever, known, targets, seed=1, config=QUICK, report=rows.append)
    second = train(retriever, known, targets, seed=1, config=QUICK)
    assert weights(first) == weights(second) and first.beta == second.beta
    epochs = [row for row in rows if "epoch" in row]
    assert epochs[-1]["validation_loss"] < epochs[0]["validation_loss"]
    assert [row["beta"] for row in rows if "beta" in row] == list(QUICK.betas)

    fresh_known, fresh_targets = clubs(seed=5)
    models: dict[str, Retriever] = {"plain": retriever, "reranked": Reranked(retriever, first, QUICK.depth)}
    found = evaluate_retrievers(models, fresh_known, fresh_targets)
    assert found.difference("reranked", "plain", "ndcg@10", seed=0).low > 0.1


@pytest.mark.parametrize("objective", [listwise_loss, single_pair_loss])
@pytest.mark.parametrize("hidden", [0, 4])
def test_other_objectives_and_a_hidden_layer_learn_too(objective: ListObjective, hidden: int) -> None:
    known, targets = clubs(users=150)
    config = QUICK.model_copy(update={"hidden": hidden, "levels": (1, 3)})
    rows: list[dict[str, float]] = []
    model = train(
        Popularity.fit(known), known, targets, seed=0, config=config, objective=objective, report=rows.append
    )
    assert len(model.scorer.last) == (hidden or len(FEATURES) + 2) and model.levels == (1, 3)
    best = max(row["ndcg"] for row in rows if "beta" in row)
    assert best > rows[-1]["retriever_ndcg"]


def test_beta_does_not_change_what_the_scorer_learns() -> None:
    known, targets = clubs(users=120)
    retriever = Popularity.fit(known)
    small, large = (
        train(retriever, known, targets, seed=0, config=QUICK.model_copy(update={"betas": (beta,)}))
        for beta in (0.1, 0.2)
    )
    assert weights(small) == weights(large) and (small.beta, large.beta) == (0.1, 0.2)


def test_where_nothing_is_gained_the_lists_stay_the_retrievers() -> None:
    known, targets = clubs(users=120)

    def against(
        scores: Tensor,
        reference_scores: Tensor,
        relevance: Tensor,
        positions: Tensor | None = None,
        *,
        beta: float,
        mask: Tensor | None = None,
    ) -> Tensor:
        return -listwise_loss(scores, reference_scores, relevance, positions, beta=beta, mask=mask)

    retriever = Popularity.fit(known)
    config = QUICK.model_copy(update={"betas": (0.1,)})
    model = train(retriever, known, targets, seed=0, config=config, objective=against)
    assert set(model.scorer.last.tolist()) == {0.0}
    expected = retriever.search(known, 20)
    assert np.array_equal(Reranked(retriever, model, 40).search(known, 20).items, expected.items)


def test_the_objective_sees_grades_of_later_levels_and_which_places_are_padded() -> None:
    known, targets = clubs(users=40)
    retriever, depth = Popularity.fit(known), 70  # longer than the 60 items, so every slate is padded
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(
        scores: Tensor,
        reference_scores: Tensor,
        relevance: Tensor,
        positions: Tensor | None = None,
        *,
        beta: float,
        mask: Tensor | None = None,
    ) -> Tensor:
        assert mask is not None
        seen.append((relevance, mask))
        return listwise_loss(scores, reference_scores, relevance, positions, beta=beta, mask=mask)

    config = QUICK.model_copy(update={"depth": depth, "epochs": 1, "relevant_level": 3})
    train(retriever, known, targets, seed=0, config=config, objective=spy)
    grades, masks = (torch.cat(parts).numpy() for parts in zip(*seen, strict=True))

    items = retriever.search(known, depth).items
    stored = targets.toarray()[np.arange(40)[:, None], np.maximum(items, 0)]
    expected = np.where(items >= 0, np.maximum(stored - 1 - 3 + 1, 0), 0)
    lines = {
        (*row, *mask) for row, mask in zip(expected.tolist(), (items >= 0).tolist(), strict=True) if any(row)
    }
    assert {(*row, *mask) for row, mask in zip(grades.tolist(), masks.tolist(), strict=True)} == lines


def test_the_epoch_with_the_least_validation_loss_is_kept() -> None:
    known, targets = clubs(users=60)
    retriever = Popularity.fit(known)
    wild = QUICK.model_copy(update={"learning_rate": 1.5, "epochs": 12, "patience": 4})
    rows: list[dict[str, float]] = []
    model = train(retriever, known, targets, seed=0, config=wild, report=rows.append)
    losses = [row["validation_loss"] for row in rows if "epoch" in row]
    best = int(np.argmin(losses))
    assert best < len(losses) - 1
    short = wild.model_copy(update={"epochs": best + 1})
    assert weights(train(retriever, known, targets, seed=0, config=short)) == weights(model)


def test_targets_do_not_reach_what_is_known_of_items() -> None:
    known, targets = clubs(users=120)
    other = csr_array(targets.toarray()[::-1] * (known.toarray() == 0))
    retriever = Popularity.fit(known)
    models = [train(retriever, known, each, seed=0, config=QUICK) for each in (targets, other)]
    first, second = (model.knowledge for model in models)
    assert np.array_equal(first.popularity, second.popularity)
    assert np.array_equal(first.neighbours.toarray(), second.neighbours.toarray())


def test_arguments_that_do_not_fit_are_refused() -> None:
    known, targets = clubs(users=20)
    retriever = Popularity.fit(known)
    with pytest.raises(ShapeError, match=r"got shapes \(20, 60\) and \(5, 60\)"):
        train(retriever, known, targets[:5], seed=0)
    with pytest.raises(ShapeError, match=f"share no item .* got {known.nnz} shared entries"):
        train(retriever, known, known, seed=0)
    nothing = csr_array(known.shape, dtype=np.float32)
    with pytest.raises(InteractionError, match="relevant item in their slate; got 0 of 20"):
        train(retriever, known, nothing, seed=0)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        IrpoConfig.model_validate({"beta": 1.0})
