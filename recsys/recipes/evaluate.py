"""Measuring retrievers side by side on rows kept from training, over the full catalogue."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from recsys.errors import ShapeError
from recsys.metrics.ranking import Values, ndcg_at_k, recall_at_k
from recsys.significance import Interval, bootstrap_interval, paired_difference
from recsys.types import Histories, Ints, Retriever, relevant_items

METRICS = {"ndcg": ndcg_at_k, "recall": recall_at_k}


class Evaluation(NamedTuple):
    """Every model's metrics on the same users.

    values: Per model and metric such as "ndcg@10", one value a user. Shape (V,) each.
    users: Rows of those users in the histories. Shape (V,).
    skipped: Users left out because nothing relevant was held out for them.
    """

    values: dict[str, dict[str, Values]]
    users: Ints
    skipped: int

    def intervals(self, seed: int) -> dict[str, dict[str, Interval]]:
        """Mean and 95 % bootstrap interval over users, per model and metric."""
        return {
            model: {metric: bootstrap_interval(per_user, seed=seed) for metric, per_user in metrics.items()}
            for model, metrics in self.values.items()
        }

    def difference(self, first: str, second: str, metric: str, seed: int) -> Interval:
        """How much `first` is above `second` on `metric`, paired by user."""
        return paired_difference(self.values[first][metric], self.values[second][metric], seed=seed)


def evaluate_retrievers(
    models: Mapping[str, Retriever],
    histories: Histories,
    held_out: Histories,
    *,
    cutoffs: Sequence[int] = (10, 20),
    relevant_level: int = 2,
) -> Evaluation:
    """NDCG and recall of each model's lists, seen items left out, every other item of the catalogue ranked.

    Args:
        models: By name.
        histories: What the models may know of each user. Shape (B, I).
        held_out: What happened later, the same users. Shape (B, I).
        cutoffs: List lengths k to measure at.
        relevant_level: Level from which a held-out item counts as relevant.

    Returns:
        The values of each user with a relevant held-out item.

    Raises:
        ShapeError: The two sets of rows differ in shape, or share an entry, which would leak or be unreachable.
    """
    if histories.shape != held_out.shape:
        raise ShapeError(
            f"`histories` and `held_out` must describe the same users and items; got shapes {histories.shape} and "
            f"{held_out.shape}. Build both with the same `users` and `n_items`."
        )
    shared = int((histories * held_out).nnz)
    if shared:
        raise ShapeError(
            f"`held_out` must share no item with the same user's history; got {shared} shared entries. "
            "Split the log with `split_per_user_by_time`."
        )
    relevant = relevant_items(held_out, relevant_level)
    values: dict[str, dict[str, Values]] = {}
    for name, model in models.items():
        items = model.search(histories, max(cutoffs)).items
        found = {
            f"{metric}@{k}": compute(items, relevant, k)
            for metric, compute in METRICS.items()
            for k in cutoffs
        }
        values[name] = {key: result.values for key, result in found.items()}
    users = np.flatnonzero(np.diff(relevant.indptr))
    return Evaluation(values, users, held_out.shape[0] - len(users))
