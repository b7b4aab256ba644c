"""Re-ranking a retrieved slate: a small policy that starts as the retriever and is pulled back to it.

The retriever's standardised scores are the reference policy's logits; a linear or one-layer scorer reads features of
each item in its slate and gives it a reward r; the policy's logit is reference + r / beta, the closed form of the
best policy for reward r at strength beta. A new scorer has r = 0 everywhere, so it re-ranks nothing, and as
beta grows the lists become the retriever's again. Features come from `slate_features`, for any retriever, and from
the retriever's own scores per level where it has them (`level_scores`). `Reranked` makes a retriever of both.
"""

from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn

from recsys.artefacts import load_artefact, read_sparse, write_artefact
from recsys.errors import RecsysError, ShapeError
from recsys.topk import ROWS_AT_ONCE, check_search
from recsys.types import Bools, Floats, Histories, Ints, Retriever, TopK

KIND = "reranker"
CELLS_AT_ONCE = 2**22  # dense cells over the catalogue held at a time: 16 MB
_Doubles: TypeAlias = NDArray[np.float64]
FEATURES = ("score", "place", "popularity", "mean level", "affinity", "expected level", "shared features")


class ItemKnowledge(NamedTuple):
    """What `slate_features` knows of the catalogue; `recsys.recipes.irpo.learn_items` learns it.

    popularity: log(1 + number of users who took an item to level 1 or deeper). Shape (I,), float32.
    mean_level: Mean level of an item less that of all rows, shrunk towards 0 by 10 rows. Shape (I,), float32.
    neighbours: Shrunk cosine of level-weighted columns, the largest of each row. Shape (I, I), float32.
    features: 1 where an item has a feature, such as a genre; G is 0 where none is known. Shape (I, G), float32.
    """

    popularity: Floats
    mean_level: Floats
    neighbours: csr_array
    features: csr_array


class Slates(NamedTuple):
    """Slates as a scorer reads them.

    reference: Standardised scores of the retriever, 0 where padded. Shape (B, n), float32.
    features: Shape (B, n, F), float32.
    is_item: False where padded. Shape (B, n), bool.
    """

    reference: Tensor
    features: Tensor
    is_item: Tensor


def standardise_scores(scores: Floats) -> Floats:
    """Scores of each list with mean 0 and deviation 1 over its items; 0 where padded or where all are equal.

    Args:
        scores: -inf where padded. Shape (B, n), float32.

    Returns:
        Shape (B, n), float32.
    """
    mean, deviation = _moments(scores)
    centred = np.where(np.isneginf(scores), mean, scores) - mean
    return (centred / deviation).astype(np.float32)


def slate_features(scores: Floats, items: Ints, histories: Histories, knowledge: ItemKnowledge) -> Floats:
    """What any retriever's slates show of their items, in the order of `FEATURES`.

    - score: the retriever's, standardised within the slate;
    - place: 1 / log2(1 + place), places counted from 1;
    - popularity and mean level: of the item, from `knowledge`;
    - affinity: mean cosine with the items of the user's history, weighted by their levels;
    - expected level: the user's mean level apart, the cosine-weighted mean of the levels in the history;
    - shared features: mean over the item's features of the level-weighted share of the history that has them.

    Args:
        scores: -inf where padded. Shape (B, n).
        items: -1 where padded; features there are of no meaning but finite. Shape (B, n).
        histories: What is known of the users. Shape (B, I).
        knowledge: Of the same catalogue.

    Returns:
        Shape (B, n, F), float32. Cost grows with history entries times neighbours.

    Raises:
        ShapeError: The arguments differ in rows, or `histories` and `knowledge` in their catalogue.
    """
    wanted = (len(items), len(knowledge.popularity))
    if scores.shape != items.shape or histories.shape != wanted:
        raise ShapeError(
            f"`scores` and `items` must have one shape and `histories` shape {wanted}; got {scores.shape}, "
            f"{items.shape} and {histories.shape}. Pass the histories that were searched with."
        )
    found = np.empty((*items.shape, len(FEATURES)), dtype=np.float32)
    found[..., 0] = standardise_scores(scores)
    found[..., 1] = 1 / np.log2(2 + np.arange(items.shape[1]))
    real = np.maximum(items, 0)
    found[..., 2], found[..., 3] = knowledge.popularity[real], knowledge.mean_level[real]
    rows = max(1, CELLS_AT_ONCE // wanted[1])
    for start in range(0, len(items), rows):
        block = slice(start, start + rows)
        found[block, :, 4:] = _match_history(real[block], histories[block], knowledge)
    return found


def level_scores(
    retriever: Retriever,
    found: TopK,
    histories: Histories,
    levels: tuple[int, ...],
    *,
    users: Ints | None = None,
    times: Histories | None = None,
) -> Floats:
    """A retriever's scores of its slates' items for each of some levels, standardised within the slate.

    Costs a search a level among the slate's own items, and flags of 512 users by the catalogue.

    Args:
        retriever: One that has a ranking for each level.
        found: Its slates. Shapes (B, n).
        histories: As searched with. Shape (B, I).
        levels: L of them, each in 1..C.
        users: As for `Retriever.search`, and so is `times`.
        times: Shape (B, I).

    Returns:
        0 where padded. Shape (B, n, L), float32.
    """
    rows, width = found.items.shape
    scores = np.zeros((rows, width, len(levels)), dtype=np.float32)
    for start in range(0, rows if levels else 0, ROWS_AT_ONCE):
        block = slice(start, start + ROWS_AT_ONCE)
        items = found.items[block]
        allowed = np.zeros((len(items), histories.shape[1]), dtype=bool)
        row, place = np.nonzero(items >= 0)
        allowed[row, items[row, place]] = True
        # Both lists hold the same items, so ordering each by item aligns them.
        order = np.argsort(items, axis=1)
        for index, level in enumerate(levels):
            again = retriever.search(
                histories[block],
                width,
                level=level,
                allowed=allowed,
                exclude_seen=False,
                users=None if users is None else users[block],
                times=None if times is None else times[block],
            )
            column = standardise_scores(again.scores)
            by_item = np.take_along_axis(column, np.argsort(again.items, axis=1), axis=1)
            np.put_along_axis(scores[block, :, index], order, by_item, axis=1)
    return scores


def read_slates(found: TopK, histories: Histories, knowledge: ItemKnowledge, extra: Floats) -> Slates:
    """Slates as a scorer reads them: `slate_features`, and behind them further columns.

    Args:
        found: A retriever's slates. Shapes (B, n).
        histories: As searched with. Shape (B, I).
        knowledge: Of the same catalogue.
        extra: Such as `level_scores`. Shape (B, n, E).
    """
    features = slate_features(found.scores, found.items, histories, knowledge)
    features = np.concatenate([features, extra.astype(np.float32)], axis=2)
    reference = torch.from_numpy(standardise_scores(found.scores))
    return Slates(reference, torch.from_numpy(features), torch.from_numpy(found.items >= 0))


class SlateScorer(nn.Module):
    """Reward of each item of a slate: linear in its features, or with one hidden layer. Zero until trained.

    Args:
        n_features: Columns F.
        hidden: Width of the hidden layer; 0 makes it linear.
        seed: Draws the hidden layer's first weights.
    """

    def __init__(self, n_features: int, *, hidden: int = 0, seed: int = 0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.mean = nn.Buffer(torch.zeros(n_features))
        self.scale = nn.Buffer(torch.ones(n_features))
        self.first = nn.Parameter(torch.randn(hidden, n_features, generator=rng) / n_features**0.5)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.last = nn.Parameter(torch.zeros(hidden or n_features))

    def adapt(self, slates: Slates) -> None:
        """Standardise features from now on as they need it on these slates."""
        rows = slates.features[slates.is_item]
        self.mean.copy_(rows.mean(0))
        deviation = rows.std(0, correction=0)
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def forward(self, features: Tensor) -> Tensor:
        """Rewards in logits. Features (B, n, F) to (B, n)."""
        values: Tensor = (features - self.mean) / self.scale
        if len(self.first):
            values = torch.relu(values @ self.first.T + self.bias)
        return values @ self.last


class Reranker:
    """Puts the items of a slate in the order of reference + reward / beta.

    Args:
        scorer: Gives rewards.
        knowledge: Makes features.
        beta: Strength of the pull towards the retriever, above 0.
        levels: Levels whose retriever scores the scorer reads as further features, in this order.

    Raises:
        RecsysError: `beta` is not above 0.
    """

    def __init__(
        self, scorer: SlateScorer, knowledge: ItemKnowledge, *, beta: float, levels: tuple[int, ...] = ()
    ) -> None:
        if not beta > 0:
            raise RecsysError(f"`beta` must be above 0; got {beta}. More stays nearer to the retriever.")
        self.scorer = scorer.eval().requires_grad_(False)
        self.knowledge, self.beta, self.levels = knowledge, beta, levels

    def rerank(self, found: TopK, histories: Histories, extra: Floats | None = None) -> TopK:
        """The same items by falling policy score.

        Args:
            found: A retriever's slates. Shapes (B, n).
            histories: As searched with. Shape (B, I).
            extra: Further features that the scorer was trained with. Shape (B, n, E).

        Returns:
            Shapes (B, n); padding stays at the end.

        Raises:
            ShapeError: The arguments do not fit one another or the scorer.
        """
        wanted = (*found.items.shape, len(self.scorer.mean) - len(FEATURES))
        extra = np.zeros((*found.items.shape, 0), dtype=np.float32) if extra is None else extra
        if extra.shape != wanted:
            raise ShapeError(
                f"`extra` must have shape {wanted}, as in training; got {extra.shape}. Pass `level_scores` of "
                "the levels trained with."
            )
        slates = read_slates(found, histories, self.knowledge, extra)
        scores = slates.reference + self.scorer(slates.features) / self.beta
        return _order(found.items, scores.masked_fill(~slates.is_item, -torch.inf).numpy())

    def save(self, folder: Path) -> None:
        """Write the re-ranker to `folder`; its retriever is saved by itself."""
        near, tags = self.knowledge.neighbours, self.knowledge.features
        arrays = {"popularity": self.knowledge.popularity, "mean_level": self.knowledge.mean_level}
        for name, matrix in (("neighbours", near), ("features", tags)):
            arrays |= {f"{name}.{part}": getattr(matrix, part) for part in ("data", "indices", "indptr")}
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        tensors |= {f"scorer.{name}": tensor for name, tensor in self.scorer.state_dict().items()}
        settings = {"beta": self.beta, "levels": list(self.levels), "n_tags": tags.shape[1]}
        write_artefact(folder, KIND, tensors, settings)

    @classmethod
    def load(cls, folder: Path) -> "Reranker":
        """Read what `save` wrote.

        Raises:
            ArtefactError: The folder holds no such model, or a damaged one.
        """

        def build(tensors: dict[str, Tensor], settings: dict[str, Any]) -> "Reranker":
            n_items = len(tensors["popularity"])
            knowledge = ItemKnowledge(
                tensors["popularity"].numpy(),
                tensors["mean_level"].numpy(),
                read_sparse(tensors, "neighbours", (n_items, n_items)),
                read_sparse(tensors, "features", (n_items, int(settings["n_tags"]))),
            )
            prefix = "scorer."
            state = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            scorer = SlateScorer(len(state["mean"]), hidden=len(state["first"]))
            scorer.load_state_dict(state)
            return cls(scorer, knowledge, beta=float(settings["beta"]), levels=tuple(settings["levels"]))

        return load_artefact(folder, KIND, build)


class Reranked:
    """A retriever whose first `depth` places are re-ranked; a `recsys.types.Retriever` itself.

    Args:
        retriever: Finds the slates.
        reranker: Trained on slates of that retriever and of that depth.
        depth: Length of the slates; what is asked for beyond it keeps the retriever's order.

    Raises:
        ShapeError: `depth` is below 1.
    """

    def __init__(self, retriever: Retriever, reranker: Reranker, depth: int) -> None:
        if depth < 1:
            raise ShapeError(
                f"`depth` must be at least 1; got {depth}. Use the length trained on, such as 100."
            )
        self.retriever, self.reranker, self.depth = retriever, reranker, depth

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
        """The k best items of each user, the first `depth` of the retriever's re-ranked; see `Retriever.search`.

        Scores are policy logits within the slate, and behind it the retriever's distances in its deviations.

        Raises:
            ShapeError: An argument does not fit the catalogue, or `k` is below 1.
        """
        check_search(histories, len(self.reranker.knowledge.popularity), k, allowed)
        found = self.retriever.search(
            histories,
            max(self.depth, k),
            level=level,
            allowed=allowed,
            exclude_seen=exclude_seen,
            users=users,
            times=times,
        )
        head = TopK(found.items[:, : self.depth], found.scores[:, : self.depth])
        levels = self.reranker.levels
        extra = level_scores(self.retriever, head, histories, levels, users=users, times=times)
        best = self.reranker.rerank(head, histories, extra)
        # Behind the slate: below its lowest policy score, by as much as the retriever's score falls.
        _, deviation = _moments(head.scores)
        tail = found.scores[:, self.depth :]
        is_padded = np.isneginf(tail)
        fall = np.where(is_padded, 0, head.scores[:, -1:] - np.where(is_padded, 0, tail)) / deviation
        behind = np.where(is_padded, -np.inf, best.scores[:, -1:] - fall).astype(np.float32)
        items = np.concatenate([best.items, found.items[:, self.depth :]], axis=1)
        ordered = _order(items, np.concatenate([best.scores, behind], axis=1))
        return TopK(ordered.items[:, :k], ordered.scores[:, :k])


def _order(items: Ints, scores: Floats) -> TopK:
    """Best first, equal scores by ascending item, padding last."""
    order = np.lexsort((items, -scores), axis=1)
    return TopK(np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1))


def _moments(scores: Floats) -> tuple[_Doubles, _Doubles]:
    """Mean and deviation of each list over its items; deviation 1 where all are equal. Shape (B, 1) each."""
    is_item = ~np.isneginf(scores)
    count = np.maximum(is_item.sum(1, keepdims=True), 1)
    mean = np.where(is_item, scores, 0).sum(1, keepdims=True, dtype=np.float64) / count
    spread = np.where(is_item, scores - mean, 0)
    deviation = np.sqrt((spread**2).sum(1, keepdims=True) / count)
    return mean, np.where(deviation > 1e-9 * np.abs(mean), deviation, 1.0)


def _with_data(matrix: csr_array, data: _Doubles | Floats) -> csr_array:
    """The same entries with other values, float32."""
    return csr_array((data.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)


def _match_history(real: Ints, histories: Histories, knowledge: ItemKnowledge) -> Floats:
    """The three features that compare items with the user's history. Shape (B, n, 3)."""
    rows = np.repeat(np.arange(len(real)), real.shape[1])
    owner = np.repeat(np.arange(len(real)), np.diff(histories.indptr))
    level, held = histories.data - 1, np.diff(histories.indptr)
    total = np.maximum(np.bincount(owner, level, len(real)), 1e-9)
    share = _with_data(histories, level / total[owner])
    depth, weight = (
        (_with_data(histories, data) @ knowledge.neighbours).toarray()[rows, real.ravel()]
        for data in (level, level * 0 + 1)
    )
    affinity = depth / total[rows]
    above = np.where(weight > 0, depth / np.maximum(weight, 1e-9) - (total / np.maximum(held, 1))[rows], 0)
    tags = knowledge.features[real.ravel()]
    shared = (share @ knowledge.features)[rows].multiply(tags).sum(1) / np.maximum(np.diff(tags.indptr), 1)
    columns = (affinity, above, shared)
    return np.stack([np.asarray(column, dtype=np.float32).reshape(real.shape) for column in columns], axis=2)
