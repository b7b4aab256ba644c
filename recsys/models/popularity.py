"""The ranking that knows no user: how deep an item's impressions went, summed; the floor of every comparison."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.artefacts import load_artefact, write_artefact
from recsys.errors import OrdinalError
from recsys.topk import check_search, rank_in_blocks
from recsys.types import Bools, Floats, Histories, Ints, TopK

KIND = "popularity"


class Popularity:
    """Ranks items by the weighted sum of their levels, or by how often they reached a given one.

    Args:
        counts: How often each item was left at each level 0..C, possibly discounted. Shape (I, C + 1), float32.
        level_weights: What each level counts for where no level is asked for. Shape (C + 1,), float32.
            None counts level c as c.
    """

    def __init__(self, counts: Tensor, level_weights: Tensor | None = None) -> None:
        """Keep the counts."""
        self.counts = counts
        depth = torch.arange(counts.shape[1], dtype=torch.float32)
        self.level_weights = depth if level_weights is None else level_weights

    @classmethod
    def fit(
        cls,
        histories: Histories,
        *,
        levels: int = 4,
        level_weights: Floats | None = None,
        entry_weights: NDArray[np.floating] | None = None,
    ) -> "Popularity":
        """Count the histories of the training users.

        Args:
            histories: Shape (U, I).
            levels: The deepest level C.
            level_weights: Shape (C + 1,); None counts level c as c.
            entry_weights: What each stored entry counts for, in their stored order. Shape (nnz,). None counts 1.

        Raises:
            OrdinalError: A history holds a level above C.
        """
        level = histories.data.astype(np.int64) - 1
        if len(level) and level.max() > levels:
            raise OrdinalError(
                f"Histories must hold levels 0..{levels}; got {level.max()}. Set `levels` to the deepest one."
            )
        slot = histories.indices.astype(np.int64) * (levels + 1) + level
        size = histories.shape[1] * (levels + 1)
        counts = np.bincount(slot, weights=entry_weights, minlength=size).astype(np.float32)
        weights = None if level_weights is None else torch.from_numpy(level_weights.astype(np.float32))
        return cls(torch.from_numpy(counts).view(-1, levels + 1), weights)

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
        """The k most popular items that may be offered; see `Retriever.search`.

        Scores are weighted sums of levels, or with `level` the number of times that an item reached it.

        Raises:
            ShapeError: An argument does not fit the catalogue, or `k` is below 1.
            OrdinalError: `level` is outside 1..C.
        """
        del users, times
        check_search(histories, len(self.counts), k, allowed)
        scores = self._scores(level)
        return rank_in_blocks(
            lambda block: scores.repeat(block.stop - block.start, 1),
            histories.shape[0],
            k,
            seen=histories if exclude_seen else None,
            allowed=allowed,
        )

    def save(self, folder: Path) -> None:
        """Write the counts to `folder`."""
        tensors = {"counts": self.counts, "level_weights": self.level_weights}
        write_artefact(folder, KIND, tensors, {})

    @classmethod
    def load(cls, folder: Path) -> "Popularity":
        """Read what `save` wrote; raises `ArtefactError` if the folder holds no such model."""
        return load_artefact(
            folder, KIND, lambda tensors, _: cls(tensors["counts"], tensors.get("level_weights"))
        )

    def _scores(self, level: int | None) -> Tensor:
        depth = self.counts.shape[1] - 1
        if level is None:
            return self.counts @ self.level_weights
        if not 1 <= level <= depth:
            raise OrdinalError(
                f"`level` must lie in 1..{depth}; got {level}. Use None for the sum of levels."
            )
        return self.counts[:, level:].sum(1)
