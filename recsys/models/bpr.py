"""BPR: matrix factorisation that ranks a seen item above an unseen one (Rendle et al., UAI 2009), by `implicit`.

A user of the training table is served by the factors learned for that user. Anyone else is folded in: the mean m of
the factors of the items in the history, times a matrix T that takes the training users' own means to their learned
factors with the least squared error, (M'M + e I)^-1 M'W. Without a history m is zero, and the item biases rank.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from recsys.artefacts import load_artefact, write_artefact
from recsys.errors import RecsysError, ShapeError
from recsys.models.als import check_some_taken, fit_with_implicit, import_implicit
from recsys.models.ease import weigh_levels
from recsys.topk import check_search, rank_in_blocks
from recsys.types import Bools, Floats, Histories, Ints, TopK

KIND = "bpr"
# Ridge e of the fold-in, relative to the mean of the diagonal of M'M.
FOLD_IN_RIDGE = 1e-3


class Bpr:
    """Factors of users and items, biases of items, and the matrix that serves strangers.

    Args:
        users: Learned factors of the training table, zero for a user without a positive. Shape (U, D), float32.
        items: Shape (I, D), float32.
        biases: Shape (I,), float32.
        fold: T, from a history's mean item factor to user factors. Shape (D, D), float32.
        level_weights: A level of weight above 0 counts as positive. Shape (C + 1,), float32.
    """

    def __init__(
        self, users: Tensor, items: Tensor, biases: Tensor, fold: Tensor, level_weights: Tensor
    ) -> None:
        """Keep the arrays."""
        self.users, self.items, self.biases, self.fold = users, items, biases, fold
        self.level_weights = level_weights

    @classmethod
    def fit(
        cls,
        histories: Histories,
        *,
        level_weights: Floats,
        factors: int,
        learning_rate: float,
        regularization: float,
        iterations: int,
        seed: int,
        device: str = "cpu",
    ) -> "Bpr":
        """Train with `implicit` on one thread of the CPU, as its threads overwrite one another's steps.

        Args:
            histories: Training users; row u is user u of the table that `search` looks up. Shape (U, I).
            level_weights: Shape (C + 1,), e.g. (0, 0, 1, 1, 1). Above 0 all weights count alike.
            factors: Width D, 1 or more.
            learning_rate: Step of the stochastic descent, above 0.
            regularization: Ridge of a step, 0 or more.
            iterations: Passes, each of as many draws as there are positives, 1 or more.
            seed: Of the first factors and the draws. Same seed, same bits.
            device: Where to serve.

        Raises:
            MissingDependency: `implicit` is not installed.
            RecsysError: A setting is out of range, training diverged, or no history holds an item of weight above 0.
            OrdinalError: A history holds a level without a weight.
        """
        if min(factors, iterations) < 1 or not (learning_rate > 0 and regularization >= 0):
            raise RecsysError(
                "`factors` and `iterations` must be at least 1, `learning_rate` above 0 and `regularization` at least "
                f"0; got {factors}, {iterations}, {learning_rate} and {regularization}. Try 64, 50, 0.01 and 0.01."
            )
        taken = weigh_levels(histories, level_weights)
        check_some_taken(taken)
        model = import_implicit().bpr.BayesianPersonalizedRanking(
            factors=factors,
            learning_rate=learning_rate,
            regularization=regularization,
            iterations=iterations,
            num_threads=1,
            random_state=seed,
        )
        ones = np.ones(taken.nnz, dtype=np.float32)
        fit_with_implicit(model, taken, ones, remedy=f"Lower `learning_rate` ({learning_rate}).")
        # The last column is 1 for users, the bias for items.
        users = torch.from_numpy(model.user_factors[:, :-1].copy()).to(device)
        items = torch.from_numpy(model.item_factors[:, :-1].copy()).to(device)
        biases = torch.from_numpy(model.item_factors[:, -1].copy()).to(device)
        users[torch.from_numpy(np.diff(taken.indptr) == 0)] = 0.0
        fold = _fold_matrix(mean_factors(taken, items), users)
        return cls(users, items, biases, fold, torch.from_numpy(level_weights.astype(np.float32)))

    def user_factors(self, histories: Histories, users: Ints | None = None) -> Tensor:
        """Learned factors of those whom the model knows by name, folded-in ones of everyone else.

        Args:
            histories: Shape (B, I).
            users: Row in the training table, -1 for someone else. Shape (B,). None makes everyone a stranger.

        Returns:
            Shape (B, D).

        Raises:
            ShapeError: `users` does not name a row of the table, or -1, for each history.
            OrdinalError: A history holds a level without a weight.
        """
        taken = weigh_levels(histories, self.level_weights.numpy())
        folded = mean_factors(taken, self.items) @ self.fold
        if users is None:
            return folded
        if users.shape != (histories.shape[0],):
            raise ShapeError(
                f"`users` must have shape ({histories.shape[0]},), one id a history; got {users.shape}. "
                "Leave it out to serve all by their histories."
            )
        if len(users) and (users.min() < -1 or users.max() >= len(self.users)):
            raise ShapeError(
                f"`users` must lie in 0..{len(self.users) - 1}, or be -1 for a stranger; got "
                f"{int(users.min())}..{int(users.max())}. Write -1 for those who were not in training."
            )
        ids = torch.from_numpy(users.astype(np.int64)).to(self.users.device)
        learned = self.users[ids.clamp(min=0)]
        is_known = (ids >= 0) & learned.any(dim=1)
        return torch.where(is_known[:, None], learned, folded)

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
        """The k items with the highest w.h + bias; see `Retriever.search`. `level` is ignored: there is one ranking.

        Raises:
            ShapeError: An argument does not fit the catalogue or the training table, or `k` is below 1.
            OrdinalError: A history holds a level without a weight.
        """
        del level, times
        check_search(histories, len(self.items), k, allowed)
        known = self.user_factors(histories, users)
        seen = histories if exclude_seen else None
        return rank_in_blocks(
            lambda block: known[block] @ self.items.T + self.biases,
            histories.shape[0],
            k,
            seen=seen,
            allowed=allowed,
        )

    def save(self, folder: Path) -> None:
        """Write the model to `folder`."""
        names = ("users", "items", "biases", "fold", "level_weights")
        write_artefact(folder, KIND, {name: getattr(self, name) for name in names}, {})

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> "Bpr":
        """Read what `save` wrote; raises `ArtefactError` if the folder holds no such model."""

        def build(tensors: dict[str, Tensor], _: object) -> "Bpr":
            weights = tensors.pop("level_weights")
            return cls(level_weights=weights, **{name: tensor.to(device) for name, tensor in tensors.items()})

        return load_artefact(folder, KIND, build)


def mean_factors(taken: Histories, items: Tensor) -> Tensor:
    """Mean factor of the items in each history, zero where it is empty.

    Args:
        taken: Any stored entry counts once. Shape (B, I).
        items: Shape (I, D).

    Returns:
        Shape (B, D), on the device of `items`.
    """
    places = torch.from_numpy(taken.indices.astype(np.int64)).to(items.device)
    starts = torch.from_numpy(taken.indptr.astype(np.int64)[:-1]).to(items.device)
    means: Tensor = embedding_bag(places, items, starts, mode="mean")
    return means


def _fold_matrix(means: Tensor, users: Tensor) -> Tensor:
    """T of the head of this module, over the users that have learned factors. Shape (D, D)."""
    gram = means.T @ means
    gram.diagonal().add_(FOLD_IN_RIDGE * gram.diagonal().mean() + torch.finfo(gram.dtype).tiny)
    fold: Tensor = torch.linalg.solve(gram, means.T @ users)
    return fold
