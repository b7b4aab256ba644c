"""Training a re-ranker of a retriever's slates by in-context ranking preference optimisation.

How it differs from the paper (arXiv 2504.15477), which fine-tunes a language model on lists in its context:

1. The policy is a scorer of slate features, and its reference the frozen retriever: log-probabilities of items are
   the retriever's standardised scores plus reward / beta, up to a constant a slate.
2. Written so, the implicit reward beta (policy - reference) is the scorer's output whatever beta is. The scorer is
   therefore trained once, and beta chosen afterwards, by NDCG of users kept from training.
3. Grades are levels beyond the first relevant one, places those of the retriever's list.
4. A slate without a relevant item has loss zero and is left out.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array, vstack
from torch import Tensor

from recsys.errors import InteractionError, ShapeError
from recsys.metrics.ranking import ndcg_at_k
from recsys.models.reranker import (
    CELLS_AT_ONCE,
    ItemKnowledge,
    Reranker,
    Slates,
    SlateScorer,
    level_scores,
    read_slates,
)
from recsys.objectives import ListObjective, irpo_loss
from recsys.topk import top_k
from recsys.types import Floats, Histories, Ints, Retriever, TopK, levels_in, relevant_items

Report = Callable[[dict[str, float]], None]


class IrpoConfig(BaseModel):
    """How to train a re-ranker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Length of the slates.
    depth: int = Field(default=100, ge=2)
    # Level from which an item counts as relevant, 1 or more; grades are counted from there.
    relevant_level: int = Field(default=2, ge=1)
    # Levels whose retriever scores are features too; only for a retriever with a ranking for each.
    levels: tuple[int, ...] = ()
    # Similar items kept for each item.
    neighbours: int = Field(default=50, ge=1)
    # Width of the scorer's hidden layer; 0 makes it linear.
    hidden: int = Field(default=0, ge=0)
    # Strengths of the pull towards the retriever to choose among.
    betas: tuple[float, ...] = Field(default=(0.1, 0.3, 1.0, 3.0, 10.0), min_length=1)
    # Length of the lists whose NDCG chooses beta.
    cutoff: int = Field(default=10, ge=1)
    # Share of the users with a relevant item in their slate that is kept for stopping and for choosing beta.
    validation_users: float = Field(default=0.2, gt=0, lt=1)
    # Slates in a step.
    batch_lists: int = Field(default=64, ge=1)
    # Passes over the slates, at most.
    epochs: int = Field(default=60, ge=1)
    # Passes without a better validation loss before training stops.
    patience: int = Field(default=5, ge=1)
    # Adam's step size.
    learning_rate: float = Field(default=0.02, gt=0)
    # Decoupled decay of all weights, per unit of learning rate.
    weight_decay: float = Field(default=0.01, ge=0)


class _Lists(NamedTuple):
    """Slates with what came of them."""

    slates: Slates
    relevance: Tensor

    def select(self, rows: Ints) -> "_Lists":
        chosen = torch.from_numpy(rows)
        return _Lists(Slates(*(part[chosen] for part in self.slates)), self.relevance[chosen])


def train(
    retriever: Retriever,
    known: Histories,
    targets: Histories,
    *,
    seed: int,
    config: IrpoConfig | None = None,
    objective: ListObjective = irpo_loss,
    features: csr_array | None = None,
    users: Ints | None = None,
    times: Histories | None = None,
    report: Report | None = None,
) -> Reranker:
    """A re-ranker of the retriever's slates, with the beta that ranks best on users kept from training.

    Where no beta ranks better than the retriever does, the rewards are set to zero, and the lists stay as they were.

    Args:
        retriever: Fitted without `targets`, and not to be trained here.
        known: What was known of each user when the slates are made. Shape (B, I).
        targets: What the users did afterwards; never the rows that the final figures are measured on. Shape (B, I).
        seed: Draws validation users, first weights and the order of slates.
        config: None takes the defaults.
        objective: `irpo_loss`, or one of the forms beside it.
        features: Item features such as genres; any stored entry counts. Shape (I, G).
        users: As for `Retriever.search`.
        times: As for `Retriever.search`.
        report: Called after each epoch with epoch, train_loss and validation_loss (nats a list), then for each beta
            with beta, ndcg and retriever_ndcg at the cut-off.

    Returns:
        The trained re-ranker, to be used at `config.depth`. Same arguments on CPU, same bits.

    Raises:
        ShapeError: `known` and `targets` differ in shape or share an entry, or `features` has other items.
        InteractionError: Fewer than two users have a relevant item in their slate.

    Source: Wu, Surana et al. (COLM 2025), arXiv 2504.15477; departures in the module's docstring.
    """
    settings = IrpoConfig() if config is None else config
    _check_targets(known, targets)
    knowledge = learn_items(known, features=features, neighbours=settings.neighbours)
    found = retriever.search(known, settings.depth, users=users, times=times)
    extra = level_scores(retriever, found, known, settings.levels, users=users, times=times)
    relevance = _grades(found, targets, settings.relevant_level)
    training, validation = _split(relevance, settings.validation_users, np.random.default_rng(seed))
    lists = _Lists(read_slates(found, known, knowledge, extra), torch.from_numpy(relevance))

    scorer = SlateScorer(lists.slates.features.shape[2], hidden=settings.hidden, seed=seed)
    judges = lists.select(validation)
    _fit(scorer, lists.select(training), judges, objective, settings, seed=seed, report=report)

    some, wanted = TopK(found.items[validation], found.scores[validation]), targets[validation]
    plain, ndcg = _ndcg(some, wanted, settings), {}
    for beta in settings.betas:
        model = Reranker(scorer, knowledge, beta=beta, levels=settings.levels)
        ndcg[beta] = _ndcg(model.rerank(some, known[validation], extra[validation]), wanted, settings)
    if report is not None:
        for beta, value in ndcg.items():
            report({"beta": beta, "ndcg": value, "retriever_ndcg": plain})
    best = max(ndcg, key=lambda beta: ndcg[beta])
    if ndcg[best] <= plain:
        with torch.no_grad():
            scorer.last.zero_()
    return Reranker(scorer, knowledge, beta=best, levels=settings.levels)


def learn_items(
    histories: Histories,
    *,
    features: csr_array | None = None,
    neighbours: int = 50,
    shrinkage: float = 10.0,
) -> ItemKnowledge:
    """Count, average and compare the items of training histories.

    Args:
        histories: Training users; nothing that will be predicted. Shape (U, I).
        features: Any stored entry says that the item has the feature. Shape (I, G). None: nothing is known.
        neighbours: Similar items kept for each item.
        shrinkage: Added to the cosine's denominator, so that rare pairs count less.

    Returns:
        Arrays over the catalogue.

    Raises:
        ShapeError: `features` does not have one row an item.
    """
    n_items = histories.shape[1]
    if features is not None and features.shape[0] != n_items:
        raise ShapeError(
            f"`features` must have one row for each of the {n_items} items; got shape {features.shape}. "
            "Give an empty row to an item that nothing is known about."
        )
    level = histories.data - 1
    rows, total = (np.bincount(histories.indices, w, n_items) for w in (None, level))
    taken = np.bincount(histories.indices, level > 0, n_items)
    overall = float(level.mean()) if len(level) else 0.0
    tags = csr_array((n_items, 0), dtype=np.float32) if features is None else csr_array(features)
    is_tag = np.ones(tags.nnz, dtype=np.float32)
    shares = csr_array((level, histories.indices, histories.indptr), shape=histories.shape)
    return ItemKnowledge(
        np.log1p(taken).astype(np.float32),
        ((total - rows * overall) / (rows + 10.0)).astype(np.float32),
        _nearest(shares, neighbours, shrinkage),
        csr_array((is_tag, tags.indices, tags.indptr), shape=tags.shape),
    )


def _nearest(levels: csr_array, neighbours: int, shrinkage: float) -> csr_array:
    """Shrunk cosine of the columns, the largest of each row kept, equal ones by ascending item. Shape (I, I)."""
    by_item = levels.T.tocsr()
    norm = np.sqrt((by_item * by_item).sum(1))
    rows, parts = max(1, CELLS_AT_ONCE // max(len(norm), 1)), []
    for start in range(0, len(norm), rows):
        block = by_item[start : start + rows]
        own = np.arange(block.shape[0])
        cosine = (block @ levels).toarray() / np.maximum(norm[start + own, None] * norm + shrinkage, 1e-9)
        cosine[own, start + own] = 0
        best = top_k(torch.from_numpy(cosine), neighbours)
        row, place = np.nonzero(best.scores > 0)
        cells = (best.scores[row, place], (row, best.items[row, place]))
        parts.append(csr_array(cells, shape=block.shape[:1] + norm.shape))
    return csr_array(vstack(parts, format="csr"))


def _check_targets(known: Histories, targets: Histories) -> None:
    if known.shape != targets.shape:
        raise ShapeError(
            f"`known` and `targets` must describe the same users and items; got shapes {known.shape} and "
            f"{targets.shape}. Build both with the same `users` and `n_items`."
        )
    shared = int((known * targets).nnz)
    if shared:
        raise ShapeError(
            f"`targets` must share no item with the same user's `known`; got {shared} shared entries. Take them from "
            "a split's validation part."
        )


def _grades(found: TopK, targets: Histories, relevant_level: int) -> Floats:
    """1 for an item that reached the first relevant level afterwards, one more each level; else 0. Shape (B, n)."""
    rows = np.repeat(np.arange(len(found.items)), found.items.shape[1])
    level = levels_in(targets, rows, np.maximum(found.items, 0).ravel()).reshape(found.items.shape)
    return np.where(found.items >= 0, np.maximum(level - relevant_level + 1, 0), 0).astype(np.float32)


def _split(relevance: Floats, share: float, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Rows to train on and rows to judge by, among those with a relevant item."""
    rows = rng.permutation(np.flatnonzero(relevance.any(1)))
    kept = max(1, int(len(rows) * share))
    if len(rows) < 2:
        raise InteractionError(
            f"At least 2 users must have a relevant item in their slate; got {len(rows)} of {len(relevance)}. Raise "
            "`depth`, lower `relevant_level`, or give more users."
        )
    return np.sort(rows[kept:]), np.sort(rows[:kept])


def _fit(
    scorer: SlateScorer,
    training: _Lists,
    validation: _Lists,
    objective: ListObjective,
    config: IrpoConfig,
    *,
    seed: int,
    report: Report | None,
) -> None:
    """Train `scorer` in place and leave it at its best epoch."""
    scorer.adapt(training.slates)
    rng = np.random.default_rng([seed, 1])
    optimizer = torch.optim.AdamW(
        scorer.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    count = len(training.relevance)
    best, best_state, bad_epochs = math.inf, {k: v.clone() for k, v in scorer.state_dict().items()}, 0
    for epoch in range(config.epochs):
        total = 0.0
        order = rng.permutation(count)
        for start in range(0, count, config.batch_lists):
            loss = _losses(scorer, training.select(order[start : start + config.batch_lists]), objective)
            optimizer.zero_grad(set_to_none=True)
            loss.mean().backward()
            optimizer.step()
            total += float(loss.detach().sum())
        with torch.no_grad():
            current = float(_losses(scorer, validation, objective).mean())
        if report is not None:
            report({"epoch": float(epoch), "train_loss": total / count, "validation_loss": current})
        if current < best:
            best, bad_epochs = current, 0
            best_state = {name: tensor.clone() for name, tensor in scorer.state_dict().items()}
        else:
            bad_epochs += 1
        if bad_epochs >= config.patience:
            break
    scorer.load_state_dict(best_state)


def _losses(scorer: SlateScorer, lists: _Lists, objective: ListObjective) -> Tensor:
    """Loss of each slate; at beta 1, where the policy is the reference plus the reward. Shape (B,)."""
    reference = lists.slates.reference
    policy = reference + scorer(lists.slates.features)
    return objective(policy, reference, lists.relevance, beta=1.0, mask=lists.slates.is_item)


def _ndcg(found: TopK, targets: Histories, config: IrpoConfig) -> float:
    k = min(config.cutoff, found.items.shape[1])
    return float(ndcg_at_k(found.items, relevant_items(targets, config.relevant_level), k).values.mean())
