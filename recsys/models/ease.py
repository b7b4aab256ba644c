"""EASE (Steck, WWW 2019, "Embarrassingly Shallow Autoencoders for Sparse Data"): an item-item model in closed form.

With X the users' weighted histories, P = (X'X + l2 I)^-1 and W = I - P / diag(P), whose diagonal is zero; a user's
scores are x W. Time grows with I^3 and memory with I^2: about a second and 25 MB at 2,500 items, 3.6 GB for each of
three such matrices at 30,000, where it stops.
"""

from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from recsys.artefacts import load_artefact, write_artefact
from recsys.errors import OrdinalError, RecsysError
from recsys.topk import check_search, rank_in_blocks
from recsys.types import Bools, Floats, Histories, Ints, TopK

KIND = "ease"
# Largest catalogue whose item-item matrix is inverted.
MAX_ITEMS = 30_000

# "wanted": 1 from the relevant level on, else 0. "graded": level / C.
Weighting: TypeAlias = Literal["wanted", "graded"]


class Ease:
    """Item-item weights learned by ridge regression of every item on all others.

    Args:
        weights: W, zero on the diagonal. Shape (I, I), float32.
        level_weights: What an item counts for in a history when it was left at level 0..C. Shape (C + 1,), float32.
        fallback: Score of each item for a user whose weighted history is empty. Shape (I,), float32.
            Differs from the paper, where all items tie there.
    """

    def __init__(self, weights: Tensor, level_weights: Tensor, fallback: Tensor) -> None:
        """Keep the arrays."""
        self.weights, self.level_weights, self.fallback = weights, level_weights, fallback

    @classmethod
    def fit(cls, histories: Histories, *, level_weights: Floats, l2: float, device: str = "cpu") -> "Ease":
        """Solve for the weights.

        Args:
            histories: Training users. Shape (U, I).
            level_weights: Shape (C + 1,), e.g. (0, 0, 1, 1, 1).
            l2: Ridge penalty, above 0; 100 to 1,000 is usual.
            device: Where to invert.

        Raises:
            RecsysError: `l2` is not above 0, or the catalogue is too large for a dense inverse.
            OrdinalError: A history holds a level without a weight.
        """
        n_items = histories.shape[1]
        if n_items > MAX_ITEMS:
            raise RecsysError(
                f"EASE must have at most {MAX_ITEMS:,} items, as it inverts a dense item-item matrix; got {n_items:,}, "
                f"{4e-9 * n_items**2:.1f} GB for one copy. Use iALS (`recsys.models.IAls`), or fewer items."
            )
        if l2 <= 0:
            raise RecsysError(f"`l2` must be above 0; got {l2}. Try 200.")
        taken = weigh_levels(histories, level_weights)
        gram = torch.from_numpy((taken.T @ taken).toarray().astype(np.float32)).to(device)
        popularity = gram.diagonal().clone()
        gram.diagonal().add_(l2)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        weights = inverse / -inverse.diagonal()
        weights.fill_diagonal_(0.0)
        return cls(weights, torch.from_numpy(level_weights.astype(np.float32)), popularity)

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
        """The k items with the highest x W; see `Retriever.search`. `level` is ignored: EASE has one ranking.

        Raises:
            ShapeError: An argument does not fit the catalogue, or `k` is below 1.
            OrdinalError: A history holds a level without a weight.
        """
        del level, users, times
        check_search(histories, len(self.weights), k, allowed)
        taken = weigh_levels(histories, self.level_weights.numpy())
        is_cold = torch.from_numpy(np.diff(taken.indptr) == 0).to(self.weights.device)

        def score(block: slice) -> Tensor:
            known = torch.from_numpy(taken[block].toarray()).to(self.weights.device) @ self.weights
            return torch.where(is_cold[block, None], self.fallback, known)

        seen = histories if exclude_seen else None
        return rank_in_blocks(score, histories.shape[0], k, seen=seen, allowed=allowed)

    def save(self, folder: Path) -> None:
        """Write the model to `folder`."""
        tensors = {"weights": self.weights, "level_weights": self.level_weights, "fallback": self.fallback}
        write_artefact(folder, KIND, tensors, {})

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> "Ease":
        """Read what `save` wrote; raises `ArtefactError` if the folder holds no such model."""

        def build(tensors: dict[str, Tensor], _: object) -> "Ease":
            return cls(
                tensors["weights"].to(device), tensors["level_weights"], tensors["fallback"].to(device)
            )

        return load_artefact(folder, KIND, build)


def level_weights(weighting: Weighting, *, levels: int, relevant_level: int) -> Floats:
    """What an item counts for in a history when it was left at level 0..C.

    Args:
        weighting: "wanted" gives 1 from `relevant_level` on and 0 below; "graded" gives level / C.
        levels: The deepest level C.
        relevant_level: Level from which an item counts as wanted, 1..C.

    Returns:
        Shape (C + 1,), float32.

    Raises:
        OrdinalError: `relevant_level` is outside 1..C.

    Example:
        >>> level_weights("graded", levels=4, relevant_level=2).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if not 1 <= relevant_level <= levels:
        raise OrdinalError(
            f"`relevant_level` must lie in 1..{levels}, the levels of the log; got {relevant_level}. "
            "Set `levels` to the deepest level of the log, or lower `relevant_level`."
        )
    depth = np.arange(levels + 1, dtype=np.float32)
    if weighting == "graded":
        return depth / np.float32(levels)
    return (depth >= relevant_level).astype(np.float32)


def weigh_levels(histories: Histories, level_weights: NDArray[np.floating]) -> Histories:
    """Histories with each level replaced by its weight, entries of weight zero dropped.

    Args:
        histories: Shape (B, I).
        level_weights: Weight of level 0..C. Shape (C + 1,).

    Returns:
        Shape (B, I), float32.

    Raises:
        OrdinalError: A history holds a level above C.
    """
    level = histories.data.astype(np.int64) - 1
    if len(level) and level.max() >= len(level_weights):
        raise OrdinalError(
            f"Histories must hold levels 0..{len(level_weights) - 1}, those with a weight; got {level.max()}. "
            "Give a weight for every level."
        )
    weighted = csr_array(
        (level_weights.astype(np.float32)[level], histories.indices.copy(), histories.indptr.copy()),
        shape=histories.shape,
    )
    weighted.eliminate_zeros()
    return weighted
