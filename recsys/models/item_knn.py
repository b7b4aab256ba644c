"""ItemKNN: items like those of the history, by cosine with shrinkage.

Sarwar et al. (WWW 2001, "Item-Based Collaborative Filtering Recommendation Algorithms"); shrinkage after Bell and
Koren (ICDM 2007), here inside the denominator, as comparisons of baselines have it since Dacrema et al. (RecSys 2019).
With x_i the column of item i in the users' weighted histories, s(j, i) = x_j.x_i / (|x_j| |x_i| + shrink), kept for
the k most similar j of each i; a user's score of i is the sum of s(j, i) over the history, weighted by level.
"""

from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from recsys.artefacts import load_artefact, read_sparse, write_artefact
from recsys.errors import RecsysError
from recsys.models.ease import weigh_levels
from recsys.topk import check_search, rank_in_blocks, top_k
from recsys.types import Bools, Floats, Histories, Ints, TopK

KIND = "item_knn"
# Similarities held at once while fitting: 64 MB.
CELLS_AT_ONCE = 1 << 24


class ItemKnn:
    """Each item's nearest items, and scores by them.

    Args:
        similarity: s(j, i), row j of the history and column i of what is scored; at most k entries a column.
            Shape (I, I), float32.
        level_weights: What an item counts for in a history when it was left at level 0..C. Shape (C + 1,), float32.
        fallback: Score of each item for a user whose weighted history is empty. Shape (I,), float32.
    """

    def __init__(self, similarity: csr_array, level_weights: Floats, fallback: Floats) -> None:
        """Keep the arrays."""
        self.similarity, self.level_weights, self.fallback = similarity, level_weights, fallback

    @classmethod
    def fit(cls, histories: Histories, *, level_weights: Floats, neighbours: int, shrink: float) -> "ItemKnn":
        """Find each item's neighbours.

        Args:
            histories: Training users. Shape (U, I).
            level_weights: Shape (C + 1,), e.g. (0, 0, 1, 1, 1).
            neighbours: Most similar items k kept for each, 1 or more; equal ones by ascending item.
            shrink: Added to the product of norms, 0 or more: the larger, the less that rare pairs count.

        Raises:
            RecsysError: `neighbours` or `shrink` is out of range.
            OrdinalError: A history holds a level without a weight.
        """
        if neighbours < 1 or not shrink >= 0:
            raise RecsysError(
                f"`neighbours` must be at least 1 and `shrink` at least 0; got {neighbours} and {shrink}. "
                "Try 100 and 50."
            )
        taken = weigh_levels(histories, level_weights)
        columns = taken.tocsc()
        energy = np.asarray(taken.power(2).sum(axis=0), dtype=np.float32).ravel()
        norms = np.sqrt(energy)
        n_items = taken.shape[1]
        width = max(1, CELLS_AT_ONCE // n_items)
        parts = []
        for start in range(0, n_items, width):
            block = slice(start, min(start + width, n_items))
            shared = (columns[:, block].T @ columns).toarray().astype(np.float32)
            base = norms[block, None] * norms + np.float32(shrink)
            near = np.divide(shared, base, out=np.zeros_like(shared), where=base > 0)
            own = np.arange(block.stop - block.start)
            near[own, own + start] = 0.0
            parts.append(top_k(torch.from_numpy(np.where(near > 0, near, -np.inf)), neighbours))
        found = TopK(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        place = found.items >= 0
        scored = np.broadcast_to(np.arange(n_items)[:, None], place.shape)
        similarity = csr_array(
            (found.scores[place], (found.items[place], scored[place])), shape=(n_items, n_items)
        )
        return cls(similarity, level_weights.astype(np.float32), energy)

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
        """The k items most like the history; see `Retriever.search`. `level` is ignored: there is one ranking.

        Raises:
            ShapeError: An argument does not fit the catalogue, or `k` is below 1.
            OrdinalError: A history holds a level without a weight.
        """
        del level, users, times
        check_search(histories, len(self.fallback), k, allowed)
        taken = weigh_levels(histories, self.level_weights)
        is_cold = np.diff(taken.indptr) == 0

        def score(block: slice) -> Tensor:
            known = (taken[block] @ self.similarity).toarray()
            return torch.from_numpy(np.where(is_cold[block, None], self.fallback, known))

        seen = histories if exclude_seen else None
        return rank_in_blocks(score, histories.shape[0], k, seen=seen, allowed=allowed)

    def save(self, folder: Path) -> None:
        """Write the model to `folder`."""
        arrays = {
            "indptr": self.similarity.indptr.astype(np.int64),
            "indices": self.similarity.indices.astype(np.int64),
            "data": self.similarity.data,
            "level_weights": self.level_weights,
            "fallback": self.fallback,
        }
        write_artefact(folder, KIND, {name: torch.from_numpy(array) for name, array in arrays.items()}, {})

    @classmethod
    def load(cls, folder: Path) -> "ItemKnn":
        """Read what `save` wrote; raises `ArtefactError` if the folder holds no such model."""

        def build(tensors: dict[str, Tensor], _: object) -> "ItemKnn":
            size = len(tensors["fallback"])
            similarity = read_sparse(tensors, "", (size, size))
            return cls(similarity, tensors["level_weights"].numpy(), tensors["fallback"].numpy())

        return load_artefact(folder, KIND, build)
