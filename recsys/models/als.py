"""iALS: matrix factorisation in which every pair counts, the seen ones more (Hu, Koren and Volinsky, ICDM 2008).

The settings are those of Rendle et al. (RecSys 2022, "Revisiting the Performance of iALS on Item Recommendation
Benchmarks"), as published results use them; training is done by the package `implicit`, which has others. Their loss

    sum over seen (1 - s)^2 + a sum over all s^2 + l sum_u (n_u + a I)^v |w_u|^2 + l sum_i (n_i + a U)^v |h_i|^2,

with s = w.h, is up to scale and for v = 0 exactly that of `implicit`, sum c (p - s')^2 + r (|w|^2 + |h|^2) with c = 1
for the unseen, if c = 1 + 1/a for the seen, r = l (1 + a) / a and s' = (1 + a) s.

Differs from Rendle et al.: at their v = 1 the penalty grows with a row's count n, for which `implicit` has no place.
Each side's penalty is taken at its mean count, and as only the product of the two sides' penalties matters to s, r
holds the root of that product: r = l (1 + a) / a * sqrt((N / U + a I) (N / I + a U)), N being the seen pairs.
A level of weight w has c = 1 + w / a.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.artefacts import load_artefact, write_artefact
from recsys.errors import MissingDependency, RecsysError
from recsys.models.ease import weigh_levels
from recsys.topk import check_search, rank_in_blocks
from recsys.types import Bools, Floats, Histories, Ints, TopK

KIND = "ials"
# Rows of item factors gathered at once while users are folded in.
GATHERED_AT_ONCE = 1 << 16


class IAls:
    """Item factors; each user's factors are solved for from the history, known or not.

    Args:
        factors: Item factors. Shape (I, D), float32.
        level_weights: What an item counts for in a history when it was left at level 0..C. Shape (C + 1,), float32.
        fallback: Score of each item for a user whose weighted history is empty. Shape (I,), float32.
        unobserved: Weight a of every pair, seen or not, relative to a seen one.
        penalty: Ridge r of a row, in the scale of `implicit`.
    """

    def __init__(
        self, factors: Tensor, level_weights: Tensor, fallback: Tensor, *, unobserved: float, penalty: float
    ) -> None:
        """Keep the arrays."""
        self.factors, self.level_weights, self.fallback = factors, level_weights, fallback
        self.unobserved, self.penalty = unobserved, penalty

    @classmethod
    def fit(
        cls,
        histories: Histories,
        *,
        level_weights: Floats,
        factors: int,
        regularization: float,
        unobserved: float,
        iterations: int,
        seed: int,
        device: str = "cpu",
    ) -> "IAls":
        """Factorise the weighted histories with `implicit`, on the CPU.

        Args:
            histories: Training users. Shape (U, I).
            level_weights: Shape (C + 1,), e.g. (0, 0, 1, 1, 1).
            factors: Width D, 1 or more.
            regularization: l, above 0; .001 to .1 is usual.
            unobserved: a, above 0; .01 to 1 is usual.
            iterations: Sweeps over users and items, 1 or more.
            seed: Of the first factors. Same seed, same bits.
            device: Where to serve.

        Raises:
            MissingDependency: `implicit` is not installed.
            RecsysError: A setting is out of range, or no history holds an item of weight above 0.
            OrdinalError: A history holds a level without a weight.
        """
        if min(factors, iterations) < 1 or not min(regularization, unobserved) > 0:
            raise RecsysError(
                "`factors` and `iterations` must be at least 1, `regularization` and `unobserved` above 0; got "
                f"{factors}, {iterations}, {regularization} and {unobserved}. Try 64, 16, 0.01 and 0.2."
            )
        taken = weigh_levels(histories, level_weights)
        check_some_taken(taken)
        penalty = implicit_penalty(taken, regularization=regularization, unobserved=unobserved)
        model = import_implicit().als.AlternatingLeastSquares(
            factors=factors,
            regularization=penalty,
            iterations=iterations,
            random_state=seed,
            num_threads=torch.get_num_threads(),
        )
        confidences = (1.0 + taken.data / np.float32(unobserved)).astype(np.float32)
        fit_with_implicit(model, taken, confidences, remedy="Raise `regularization`.")
        return cls(
            torch.from_numpy(model.item_factors).to(device),
            torch.from_numpy(level_weights.astype(np.float32)),
            torch.from_numpy(popularity_of(taken)).to(device),
            unobserved=unobserved,
            penalty=penalty,
        )

    def fold_in(self, histories: Histories) -> Tensor:
        """Factors of users from their histories: the exact solution of each one's normal equations.

        Time and memory grow with the longest history; users of like length are solved together.

        Args:
            histories: Shape (B, I).

        Returns:
            Shape (B, D), zero for a user whose weighted history is empty.

        Raises:
            OrdinalError: A history holds a level without a weight.
        """
        taken = weigh_levels(histories, self.level_weights.numpy())
        counts = np.diff(taken.indptr).astype(np.int64)
        width = self.factors.shape[1]
        base = self.factors.T @ self.factors + self.penalty * torch.eye(width, device=self.factors.device)
        solved = self.factors.new_zeros(len(counts), width)
        order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
        start = 0
        while start < len(order):
            longest = int(counts[order[start]])
            rows = order[start : start + max(1, GATHERED_AT_ONCE // max(longest, width))]
            start += len(rows)
            solved[torch.from_numpy(rows)] = self._solve(taken, rows, longest, base)
        return solved

    def _solve(self, taken: Histories, rows: Ints, longest: int, base: Tensor) -> Tensor:
        """Factors of `rows`, none of them empty, padded to the longest. Shape (b, D)."""
        first, count = taken.indptr[rows].astype(np.int64), np.diff(taken.indptr)[rows]
        step = np.arange(longest)
        places = np.minimum(first[:, None] + step, taken.nnz - 1)
        extra = np.where(step < count[:, None], taken.data[places] / np.float32(self.unobserved), 0.0)
        more = torch.from_numpy(extra.astype(np.float32)).to(base.device)
        items = torch.from_numpy(taken.indices[places].astype(np.int64)).to(base.device)
        vectors = self.factors[items]
        left = base + (vectors * more[..., None]).transpose(1, 2) @ vectors
        # Confidence 1 + extra where seen; padding has neither.
        right = ((more + (more > 0)).unsqueeze(1) @ vectors).squeeze(1)
        return torch.cholesky_solve(right[..., None], torch.linalg.cholesky(left)).squeeze(-1)

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
        """The k items with the highest w.h, w solved from the history; see `Retriever.search`. `level` is ignored.

        Raises:
            ShapeError: An argument does not fit the catalogue, or `k` is below 1.
            OrdinalError: A history holds a level without a weight.
        """
        del level, users, times
        check_search(histories, len(self.factors), k, allowed)
        known = self.fold_in(histories)
        is_cold = ~known.any(dim=1)

        def score(block: slice) -> Tensor:
            return torch.where(is_cold[block, None], self.fallback, known[block] @ self.factors.T)

        seen = histories if exclude_seen else None
        return rank_in_blocks(score, histories.shape[0], k, seen=seen, allowed=allowed)

    def save(self, folder: Path) -> None:
        """Write the model to `folder`."""
        tensors = {"factors": self.factors, "level_weights": self.level_weights, "fallback": self.fallback}
        write_artefact(folder, KIND, tensors, {"unobserved": self.unobserved, "penalty": self.penalty})

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> "IAls":
        """Read what `save` wrote; raises `ArtefactError` if the folder holds no such model."""

        def build(tensors: dict[str, Tensor], settings: dict[str, Any]) -> "IAls":
            return cls(
                tensors["factors"].to(device),
                tensors["level_weights"],
                tensors["fallback"].to(device),
                unobserved=float(settings["unobserved"]),
                penalty=float(settings["penalty"]),
            )

        return load_artefact(folder, KIND, build)


def implicit_penalty(taken: Histories, *, regularization: float, unobserved: float) -> float:
    """The ridge that `implicit` must be given; see the head of this module.

    Args:
        taken: Weighted histories of the training users. Shape (U, I).
        regularization: l of Rendle et al. at v = 1.
        unobserved: a of Rendle et al.

    Returns:
        r = l (1 + a) / a * sqrt((N / U + a I) (N / I + a U)).

    Example:
        Two users, one item seen by both, a = 1: 0.1 * 2 * sqrt((1 + 1) (2 + 2)).

        >>> from scipy.sparse import csr_array
        >>> round(implicit_penalty(csr_array(np.ones((2, 1))), regularization=0.1, unobserved=1.0), 4)
        0.5657
    """
    n_users, n_items = taken.shape
    user_side = taken.nnz / n_users + unobserved * n_items
    item_side = taken.nnz / n_items + unobserved * n_users
    return float(regularization * (1 + unobserved) / unobserved * np.sqrt(user_side * item_side))


class Implicit(NamedTuple):
    """What is used of the optional package: two modules, its error, and the limit of threads that it needs itself."""

    als: ModuleType
    bpr: ModuleType
    fit_error: type[Exception]
    threadpool_limits: Callable[[int, str], AbstractContextManager[object]]


def import_implicit() -> Implicit:
    """The package `implicit`, imported on use as it is optional.

    Raises:
        MissingDependency: The package is not installed.
    """
    try:
        from implicit.cpu import als, bpr  # noqa: PLC0415 - optional
        from implicit.recommender_base import ModelFitError  # noqa: PLC0415 - optional
        from threadpoolctl import threadpool_limits  # noqa: PLC0415 - comes with it
    except ImportError as err:
        raise MissingDependency(
            "implicit", needed_for="training iALS and BPR", install="pip install 'persona[baselines]'"
        ) from err
    return Implicit(als, bpr, ModelFitError, threadpool_limits)


def fit_with_implicit(model: Any, taken: Histories, values: Floats, *, remedy: str) -> None:
    """Fit a model of `implicit` in silence, with BLAS held to one thread meanwhile, as the package asks for.

    Args:
        model: Not fitted yet.
        taken: Where the training users' entries are. Shape (U, I).
        values: What to give for each. Shape (nnz,), float32.
        remedy: What to do if training diverges, a sentence.

    Raises:
        RecsysError: The factors are no longer numbers.
    """
    implicit = import_implicit()
    places = (taken.indices.astype(np.int32), taken.indptr.astype(np.int32))
    matrix = csr_matrix((values, *places), shape=taken.shape)
    try:
        with implicit.threadpool_limits(1, "blas"):
            model.fit(matrix, show_progress=False)
    except implicit.fit_error as err:
        raise RecsysError(f"The factors must stay finite while training; got NaN. {remedy}") from err


def check_some_taken(taken: Histories) -> None:
    """Refuse training histories without an item of weight above 0.

    Raises:
        RecsysError: There is none.
    """
    if taken.nnz == 0:
        raise RecsysError(
            f"The training histories must hold an item of weight above 0; got none among {taken.shape[0]:,} users. "
            "Lower `relevant_level`, or check the log."
        )


def popularity_of(taken: Histories) -> Floats:
    """Weight that each item gathered over all users. Shape (I,), float32."""
    return np.bincount(taken.indices, weights=taken.data, minlength=taken.shape[1]).astype(np.float32)
