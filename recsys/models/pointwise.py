"""What a model of ordered levels must beat row by row: rates of items, ids and features in a sum, boosted trees.

None of them retrieves. Each foretells, for pairs of user and item, the chance of reaching every level, and never calls
a deeper level likelier than a shallower one.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array, hstack
from scipy.special import expit, logit

from recsys.artefacts import load_artefact, write_artefact
from recsys.columns import ITEM, LEVEL, USER
from recsys.errors import MissingDependency
from recsys.features import FeatureTable
from recsys.metrics import exact_level_nll
from recsys.types import Floats, Histories, Ints

RATES_KIND, LOGISTIC_KIND = "item_rates", "additive_logistic"
# Rows of the whole log that an item's own rates are drawn to.
PRIOR_ROWS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
# Ridge of the logistic regression, on summed losses.
RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0)
FOLDS = 5
TREES = 150

Doubles = NDArray[np.float64]


class Rows(NamedTuple):
    """Rows of a log as arrays of shape (N,): who, what, and the level reached."""

    users: Ints
    items: Ints
    levels: Ints

    @classmethod
    def of(cls, log: pd.DataFrame) -> "Rows":
        """The rows of a checked log."""
        return cls(*(log[name].to_numpy(dtype=np.int64) for name in (USER, ITEM, LEVEL)))

    @classmethod
    def of_histories(cls, histories: Histories) -> "Rows":
        """The entries of some histories, rows being users."""
        users = np.repeat(np.arange(histories.shape[0], dtype=np.int64), np.diff(histories.indptr))
        return cls(users, histories.indices.astype(np.int64), histories.data.astype(np.int64) - 1)


class ItemRates:
    """Share of an item's rows that reached each level, drawn to that of the whole log.

    Args:
        reached: Rows of each item that reached level 1..C. Shape (I, C), float64.
        rows: Rows of each item. Shape (I,), float64.
        rates: Shares of the whole log. Shape (C,), float64.
        prior_rows: How many rows of the whole log each item gets.
    """

    def __init__(self, reached: Doubles, rows: Doubles, rates: Doubles, prior_rows: float) -> None:
        """Keep the arrays."""
        self.reached, self.rows, self.rates, self.prior_rows = reached, rows, rates, prior_rows

    @classmethod
    def fit(cls, train: Rows, validation: Rows, *, n_items: int, levels: int) -> "ItemRates":
        """Count, and choose the strength of the prior by the likelihood of the validation rows.

        Args:
            train: Rows to count, at least one.
            validation: Rows to choose by; none takes the middle of `PRIOR_ROWS`.
            n_items: Size I of the catalogue.
            levels: The deepest level C.
        """
        reached, rows = count_reached(train.items, train.levels, n_items, levels)
        # Half a row on either side keeps every chance inside 0..1.
        rates = (reached.sum(0) + 0.5) / (rows.sum() + 1.0)
        found = [cls(reached, rows, rates, prior) for prior in PRIOR_ROWS]
        if len(validation.items) == 0:
            return found[len(found) // 2]
        losses = [exact_level_nll(one.foretell(validation.items), validation.levels) for one in found]
        return found[int(np.argmin(losses))]

    def foretell(self, items: Ints) -> Floats:
        """P(level >= k), k = 1..C, of rows of the given items. Shape (N,) to (N, C)."""
        own = self.reached[items] + self.prior_rows * self.rates
        chances: Floats = (own / (self.rows[items] + self.prior_rows)[:, None]).astype(np.float32)
        return chances

    def refreshed(self, rows: Rows) -> "ItemRates":
        """The same prior over other rows, such as all that are known by now."""
        reached, count = count_reached(rows.items, rows.levels, *self.reached.shape)
        return ItemRates(reached, count, self.rates, self.prior_rows)

    def save(self, folder: Path) -> None:
        """Write the counts to `folder`."""
        arrays = {"reached": self.reached, "rows": self.rows, "rates": self.rates}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        write_artefact(folder, RATES_KIND, tensors, {"prior_rows": self.prior_rows})

    @classmethod
    def load(cls, folder: Path) -> "ItemRates":
        """Read what `save` wrote; raises `ArtefactError` if the folder holds no such model."""

        def build(tensors: dict[str, torch.Tensor], settings: dict[str, Any]) -> "ItemRates":
            reached, rows, rates = (tensors[name].numpy() for name in ("reached", "rows", "rates"))
            return cls(reached, rows, rates, float(settings["prior_rows"]))

        return load_artefact(folder, RATES_KIND, build)


class AdditiveLogistic:
    """One logistic regression a level: a constant, a weight for the user, one for the item, and for every feature.

    Args:
        weights: Of users, items, user features and item features, one below the other. Shape (F, C), float64.
        constants: Shape (C,), float64.
        users: Features by user id. U rows.
        items: Features by item. I rows.
        ridge: That it was fitted with.
    """

    def __init__(
        self, weights: Doubles, constants: Doubles, users: FeatureTable, items: FeatureTable, *, ridge: float
    ) -> None:
        """Keep weights and features."""
        self.weights, self.constants, self.users, self.items = weights, constants, users, items
        self.ridge = ridge

    @classmethod
    def fit(
        cls, train: Rows, validation: Rows, *, levels: int, users: FeatureTable, items: FeatureTable
    ) -> "AdditiveLogistic":
        """L-BFGS on all rows for each ridge, each from the last one's weights; the validation's likelihood chooses.

        Args:
            train: Rows to learn from, at least one.
            validation: Rows to choose by; none takes the middle of `RIDGES`.
            levels: The deepest level C.
            users: One row a user.
            items: One row an item.
        """
        inputs = _columns(train.users, train.items, users, items)
        happened = (train.levels[:, None] >= np.arange(1, levels + 1)).astype(np.float64)
        rates = (happened.sum(0) + 0.5) / (len(happened) + 1.0)
        start = np.concatenate([np.zeros((inputs.shape[1], levels)), logit(rates)[None]])
        found = []
        for ridge in sorted(RIDGES, reverse=True):
            start = _fit_ridge(inputs, happened, ridge, start)
            found.append(cls(start[:-1], start[-1], users, items, ridge=ridge))
        if len(validation.items) == 0:
            return found[len(found) // 2]
        losses = [
            exact_level_nll(one.foretell(validation.users, validation.items), validation.levels)
            for one in found
        ]
        return found[int(np.argmin(losses))]

    def foretell(self, users: Ints, items: Ints) -> Floats:
        """P(level >= k), k = 1..C, of pairs; a user or item that training did not see is what its features say.

        Args:
            users: Shape (N,).
            items: Shape (N,).

        Returns:
            Not rising along a row. Shape (N, C), float32.
        """
        inputs = _columns(users, items, self.users, self.items)
        return fall_along_levels(expit(inputs @ self.weights + self.constants))

    def save(self, folder: Path) -> None:
        """Write weights and features to `folder`."""
        arrays: dict[str, NDArray[Any]] = {"weights": self.weights, "constants": self.constants}
        widths = {}
        for name, table in (("users", self.users), ("items", self.items)):
            widths[name] = table.widths[0]
            arrays |= {
                f"{name}.{part}": getattr(table.sparse, part) for part in ("data", "indices", "indptr")
            }
            arrays[f"{name}.dense"] = table.dense
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        write_artefact(folder, LOGISTIC_KIND, tensors, {"sparse_features": widths, "ridge": self.ridge})

    @classmethod
    def load(cls, folder: Path) -> "AdditiveLogistic":
        """Read what `save` wrote; raises `ArtefactError` if the folder holds no such model."""

        def build(tensors: dict[str, torch.Tensor], settings: dict[str, Any]) -> "AdditiveLogistic":
            users, items = (
                FeatureTable.from_tensors(name, tensors, int(settings["sparse_features"][name]))
                for name in ("users", "items")
            )
            arrays = (tensors["weights"].numpy(), tensors["constants"].numpy())
            return cls(*arrays, users, items, ridge=float(settings["ridge"]))

        return load_artefact(folder, LOGISTIC_KIND, build)


class BoostedTrees:
    """Gradient-boosted trees on how deep rows of this user and of this item went, and how many there are.

    A training row's statistics are of rows in other folds, so that no row tells its own level. Needs scikit-learn; it
    is not saved, as trees of that package cannot be without pickle.

    Args:
        trees: One classifier a level and how many of its trees are used; None where train has one class only.
        known: Rows that statistics are of.
        shape: Number of users and of items.
        rates: Shares of the whole log. Shape (C,).
    """

    def __init__(
        self, trees: list[tuple[Any, int] | None], known: Rows, shape: tuple[int, int], rates: Doubles
    ) -> None:
        """Keep trees and rows."""
        self.trees, self.known, self.shape, self.rates = trees, known, shape, rates

    @classmethod
    def fit(
        cls, train: Rows, validation: Rows, *, shape: tuple[int, int], levels: int, seed: int
    ) -> "BoostedTrees":
        """Train on out-of-fold statistics; the number of trees is chosen by the validation rows.

        Args:
            train: Rows to learn from.
            validation: Rows to choose by; none uses all trees.
            shape: Number of users and of items.
            levels: The deepest level C.
            seed: Of the folds and of the trees.

        Raises:
            MissingDependency: scikit-learn is not installed.
        """
        classifier = _import_trees()
        fold = np.random.default_rng(seed).integers(FOLDS, size=len(train.items))
        inputs = np.empty((len(fold), 2 * (levels + 1)))
        for number in range(FOLDS):
            inside, others = fold == number, _take(train, fold != number)
            inputs[inside] = _statistics(_take(train, inside), others, shape, levels)
        happened = train.levels[:, None] >= np.arange(1, levels + 1)
        judged = _statistics(validation, train, shape, levels)
        trees: list[tuple[Any, int] | None] = []
        for level in range(1, levels + 1):
            own = happened[:, level - 1]
            if own.all() or not own.any():
                trees.append(None)
                continue
            model = classifier(learning_rate=0.1, max_iter=TREES, early_stopping=False, random_state=seed)
            model.fit(inputs, own)
            trees.append((model, _best_number(model, judged, validation.levels >= level)))
        return cls(trees, train, shape, (happened.sum(0) + 0.5) / (len(happened) + 1.0))

    def foretell(self, users: Ints, items: Ints) -> Floats:
        """P(level >= k), k = 1..C, of pairs. Shape (N,) each to (N, C), not rising along a row."""
        asked = Rows(users, items, np.zeros(len(items), dtype=np.int64))
        inputs = _statistics(asked, self.known, self.shape, len(self.trees))
        columns = [
            np.full(len(items), self.rates[place]) if held is None else _chance(*held, inputs)
            for place, held in enumerate(self.trees)
        ]
        return fall_along_levels(np.stack(columns, axis=1))

    def refreshed(self, rows: Rows) -> "BoostedTrees":
        """The same trees with the statistics of other rows, such as all that are known by now."""
        return BoostedTrees(self.trees, rows, self.shape, self.rates)


def fall_along_levels(chances: NDArray[np.floating]) -> Floats:
    """Chances in which no deeper level is likelier than a shallower one: each is held below those before it.

    Args:
        chances: Of levels 1..C, foretold apart. Shape (N, C).

    Returns:
        Shape (N, C), float32.

    Example:
        >>> fall_along_levels(np.array([[0.5, 0.75, 0.25]])).tolist()
        [[0.5, 0.5, 0.25]]
    """
    fallen: Floats = np.minimum.accumulate(chances, axis=1).astype(np.float32)
    return fallen


def count_reached(ids: Ints, levels: Ints, size: int, deepest: int) -> tuple[Doubles, Doubles]:
    """Rows of each id that reached level 1..C, and all its rows. Shapes (size, C) and (size,)."""
    table = np.bincount(ids * (deepest + 1) + levels, minlength=size * (deepest + 1))
    reached = table.reshape(size, deepest + 1)[:, ::-1].cumsum(axis=1)[:, ::-1].astype(np.float64)
    return reached[:, 1:], reached[:, 0]


def _columns(users: Ints, items: Ints, user_table: FeatureTable, item_table: FeatureTable) -> csr_array:
    """One row a pair: user, item, features of both. Shape (N, F)."""
    parts: list[csr_array] = []
    for ids, table in ((users, user_table), (items, item_table)):
        ones = np.ones(len(ids))
        parts.append(csr_array((ones, ids, np.arange(len(ids) + 1)), shape=(len(ids), len(table))))
    for ids, table in ((users, user_table), (items, item_table)):
        parts += [csr_array(table.sparse[ids]), csr_array(table.dense[ids])]
    return csr_array(hstack(parts, format="csr", dtype=np.float64))


def _fit_ridge(inputs: csr_array, happened: Doubles, ridge: float, start: Doubles) -> Doubles:
    """Weights with the constants as last row, of the least summed loss and ridge. Shape (F + 1, C)."""
    transposed = csr_array(inputs.T)

    def cost(flat: Doubles) -> tuple[float, Doubles]:
        weights = flat.reshape(start.shape)
        scores = inputs @ weights[:-1] + weights[-1]
        apart = expit(scores) - happened
        slope = np.concatenate([transposed @ apart + ridge * weights[:-1], apart.sum(0)[None]])
        loss = (np.logaddexp(0.0, scores) - happened * scores).sum() + ridge / 2 * (weights[:-1] ** 2).sum()
        return float(loss), slope.ravel()

    found = minimize(cost, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 100})
    best: Doubles = found.x.reshape(start.shape)
    return best


def _statistics(asked: Rows, known: Rows, shape: tuple[int, int], levels: int) -> Doubles:
    """Smoothed rates of every level and the logarithm of the rows, of the item and of the user. Shape (N, 2 C + 2)."""
    columns = []
    for asked_ids, ids, size in (
        (asked.users, known.users, shape[0]),
        (asked.items, known.items, shape[1]),
    ):
        reached, rows = count_reached(ids, known.levels, size, levels)
        rates = (reached.sum(0) + 0.5) / (rows.sum() + 1.0)
        own = (reached + 5.0 * rates) / (rows + 5.0)[:, None]
        columns += [own[asked_ids], np.log1p(rows)[asked_ids, None]]
    return np.concatenate(columns, axis=1)


def _best_number(model: Any, inputs: Doubles, happened: NDArray[np.bool_]) -> int:
    """The number of trees with the least log loss on the validation; all of them where it has no row."""
    if len(inputs) == 0:
        return TREES
    losses = []
    for chances in _staged(model, inputs):
        inside = np.clip(chances, 1e-15, 1 - 1e-15)
        losses.append(-np.where(happened, np.log(inside), np.log1p(-inside)).mean())
    return int(np.argmin(losses)) + 1


def _chance(model: Any, trees: int, inputs: Doubles) -> Doubles:
    return next(itertools.islice(_staged(model, inputs), trees - 1, None))


def _staged(model: Any, inputs: Doubles) -> Iterator[Doubles]:
    """Chance after each tree."""
    return (chances[:, 1] for chances in model.staged_predict_proba(inputs))


def _take(rows: Rows, keep: NDArray[np.bool_]) -> Rows:
    return Rows(rows.users[keep], rows.items[keep], rows.levels[keep])


def _import_trees() -> Any:
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 - optional
    except ImportError as err:
        raise MissingDependency(
            "scikit-learn", needed_for="boosted trees", install="pip install 'persona[baselines]'"
        ) from err
    return HistGradientBoostingClassifier
