"""What a GNOLR model knows by heart beside its weights: features, and how items fared."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recsys.errors import OrdinalError
from recsys.features import FeatureTable
from recsys.types import Histories


class Known(NamedTuple):
    """What a model knows by heart beside its weights.

    item_features: One row an item.
    user_features: One row an id of the table of users; no rows where users have no features.
    item_counts: Rows of each item and level. Shape (I, C + 1), float32.
    extra_ignored: Sampled level-0 rows for each row of the log in training.
    sampled_items: How many items, from the first, training could draw them from; None is all.
    """

    item_features: FeatureTable
    user_features: FeatureTable
    item_counts: Tensor
    extra_ignored: float
    sampled_items: int | None = None


def count_levels(histories: Histories, levels: int) -> Tensor:
    """Rows of each item and level. Shape (I, C + 1), float32."""
    check_depth(histories, levels)
    slot = histories.indices.astype(np.int64) * (levels + 1) + histories.data.astype(np.int64) - 1
    counts = np.bincount(slot, minlength=histories.shape[1] * (levels + 1))
    return torch.from_numpy(counts.astype(np.float32)).view(-1, levels + 1)


def check_depth(histories: Histories, levels: int) -> None:
    """Raise `OrdinalError` if a history holds a level deeper than `levels`."""
    if histories.nnz and histories.data.max() > levels + 1:
        raise OrdinalError(
            f"Histories must hold levels 0..{levels}, those of the model; got {int(histories.data.max()) - 1}. "
            "Merge deeper levels, or train with as many."
        )


def mixed_item_counts(known: Known) -> Tensor:
    """Counts of items with the sampled level-0 rows, which fall alike on all that could be drawn. Shape (I, C + 1)."""
    counts = known.item_counts.clone()
    drawn = len(counts) if known.sampled_items is None else known.sampled_items
    counts[:drawn, 0] += known.extra_ignored * known.item_counts.sum() / max(1, drawn)
    return counts
