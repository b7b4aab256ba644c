"""The ranking that knows no user: how deep an item's impressions went, summed."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recsys.artefacts import read_artefact, write_artefact
from recsys.errors import OrdinalError
from recsys.topk import check_search, rank_in_blocks
from recsys.types import Bools, Histories, Ints, TopK

KIND = "popularity"


class Popularity:
    """Ranks items by the sum of their levels, or by how often they reached a given one.

    Args:
        counts: How often each item was left at each level 0..C. Shape (I, C + 1), float32.
    """

    def __init__(self, counts: Tensor) -> None:
        """Keep the counts."""
        self.counts = counts

    @classmethod
    def fit(cls, histories: Histories, *, levels: int = 4) -> "Popularity":
        """Count the histories of the training users.

        Args:
            histories: Shape (U, I).
            levels: The deepest level C.
        """
        slot = histories.indices.astype(np.int64) * (levels + 1) + histories.data.astype(np.int64) - 1
        counts = np.bincount(slot, minlength=histories.shape[1] * (levels + 1)).astype(np.float32)
        return cls(torch.from_numpy(counts).view(-1, levels + 1))

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

        Scores are sums of levels, or with `level` the number of times that an item reached it.

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
        write_artefact(folder, KIND, {"counts": self.counts}, {})

    @classmethod
    def load(cls, folder: Path) -> "Popularity":
        """Read what `save` wrote; raises `ArtefactError` if the folder holds no such model."""
        tensors, _ = read_artefact(folder, KIND)
        return cls(tensors["counts"])

    def _scores(self, level: int | None) -> Tensor:
        depth = self.counts.shape[1] - 1
        if level is None:
            return self.counts @ torch.arange(depth + 1, dtype=torch.float32)
        if not 1 <= level <= depth:
            raise OrdinalError(
                f"`level` must lie in 1..{depth}; got {level}. Use None for the sum of levels."
            )
        return self.counts[:, level:].sum(1)
