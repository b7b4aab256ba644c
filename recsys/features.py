"""From what a table says of users or items to numbers that a tower reads, everything fitted on training rows only.

Every column ends as weights on learned vectors that are summed, so that a linear tower over these columns is what
concatenated embeddings followed by a linear layer are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack, vstack
from torch import Tensor

from recsys.artefacts import read_sparse
from recsys.data.dataset import Entities, FeatureKind
from recsys.errors import ShapeError
from recsys.types import Floats, Ints

# A dense column is cut at so many quantiles; as in GNOLR's own code, each bucket learns a vector.
BUCKETS = 10
UNKNOWN = 0


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTable:
    """Features of N users or items as a tower reads them.

    Attributes:
        sparse: Mostly zeros: categories, tags, buckets. Shape (N, F), float32.
        dense: Text embeddings and standardised numbers. Shape (N, G), float32.
    """

    sparse: csr_array
    dense: Floats

    def __len__(self) -> int:
        """Number N of rows."""
        return len(self.dense)

    @property
    def widths(self) -> tuple[int, int]:
        """F and G."""
        return self.sparse.shape[1], self.dense.shape[1]

    @classmethod
    def of_dense(cls, values: NDArray[np.floating]) -> "FeatureTable":
        """A table of numbers alone. Shape (N, G)."""
        return cls(csr_array((len(values), 0), dtype=np.float32), values.astype(np.float32))

    @classmethod
    def empty(cls, rows: int) -> "FeatureTable":
        """A table that knows nothing of `rows` entities."""
        return cls.of_dense(np.zeros((rows, 0)))

    def take(self, rows: Ints) -> "FeatureTable":
        """The given rows; -1 stands for someone unknown, whose features are all zero."""
        known = rows >= 0
        place = np.where(known, rows, 0)
        if len(self) == 0 or known.all():
            return FeatureTable(self.sparse[place], self.dense[place]) if len(self) else self.blank(len(rows))
        keep = csr_array(
            (known.astype(np.float32), (np.arange(len(rows)), np.arange(len(rows)))), shape=(len(rows),) * 2
        )
        return FeatureTable(csr_array(keep @ self.sparse[place]), self.dense[place] * known[:, None])

    def blank(self, rows: int) -> "FeatureTable":
        """As many columns, all zero, for `rows` entities."""
        sparse, dense = self.widths
        return FeatureTable(
            csr_array((rows, sparse), dtype=np.float32), np.zeros((rows, dense), dtype=np.float32)
        )

    def append(self, other: "FeatureTable") -> "FeatureTable":
        """The rows of both.

        Raises:
            ShapeError: The two have different columns.
        """
        if self.widths != other.widths:
            raise ShapeError(
                f"Both tables must have the same columns; got {self.widths} and {other.widths} (sparse, dense). "
                "Encode them with one `FeatureEncoder`."
            )
        sparse = csr_array(vstack([self.sparse, other.sparse], format="csr"))
        return FeatureTable(sparse, np.concatenate([self.dense, other.dense]))

    def to_tensors(self, name: str) -> dict[str, Tensor]:
        """The table under names that begin with `name`."""
        return {
            f"{name}.indptr": torch.from_numpy(self.sparse.indptr.astype(np.int64)),
            f"{name}.indices": torch.from_numpy(self.sparse.indices.astype(np.int64)),
            f"{name}.data": torch.from_numpy(self.sparse.data.astype(np.float32)),
            f"{name}.dense": torch.from_numpy(self.dense),
        }

    @classmethod
    def from_tensors(cls, name: str, tensors: Mapping[str, Tensor], width: int) -> "FeatureTable":
        """What `to_tensors` gave, with `width` sparse columns.

        Raises:
            ArtefactError: The parts do not make such a table.
            KeyError: A part is missing.
        """
        dense = tensors[f"{name}.dense"].numpy()
        return cls(read_sparse(tensors, name, (len(dense), width)), dense)


@dataclass(frozen=True, slots=True)
class _Column:
    """How one column becomes numbers.

    Attributes:
        name: Of the column.
        kind: Of the column.
        names: Categories or tags, in the order of their columns; place 0 is kept for anything else.
        cuts: Inner quantiles of a dense column.
        centre: Mean of a dense column.
        spread: Standard deviation of a dense column, or root mean square length of an embedding.
        width: Length of an embedding.
    """

    name: str
    kind: str
    names: tuple[str, ...] = ()
    cuts: tuple[float, ...] = ()
    centre: float = 0.0
    spread: float = 1.0
    width: int = 0


class FeatureEncoder:
    """Turns `Entities` into a `FeatureTable` the same way every time.

    Categories become one column each, tags share a weight of one over the root of their number, numbers become a
    standardised column and a bucket, embeddings are scaled to unit root mean square length. What training did not
    see, or what is missing, falls into the column's own "unknown".

    Args:
        columns: As `fit` made them.
    """

    def __init__(self, columns: tuple[_Column, ...]) -> None:
        self._columns = columns

    @classmethod
    def fit(cls, entities: Entities, rows: Ints, *, with_ids: bool = False) -> "FeatureEncoder":
        """Learn categories, quantiles and scales.

        Args:
            entities: Whose columns to read.
            rows: Entities that training may look at.
            with_ids: Let the entity's own id be a category, so that each entity of training has a vector of its own.

        Raises:
            ShapeError: A cell is not of its column's kind.
        """
        seen = entities.features.iloc[rows]
        columns = [_fit_column(seen[name], name, kind) for name, kind in entities.kinds.items()]
        if with_ids:
            ids = tuple(str(entities.ids[row]) for row in np.unique(rows))
            columns.append(_Column("", FeatureKind.CATEGORICAL, ids))
        return cls(tuple(columns))

    def transform(self, entities: Entities) -> FeatureTable:
        """Features of every entity, those that training did not see too.

        Raises:
            ShapeError: A column is missing, or a cell is not of its column's kind.
        """
        missing = [column.name for column in self._columns if column.name not in {"", *entities.features}]
        if missing:
            raise ShapeError(
                f"The table must have the columns that the encoder was fitted on; {missing} missing among "
                f"{[str(name) for name in entities.features]}. Rename or add them."
            )
        sparse: list[csr_array] = [csr_array((len(entities), 0), dtype=np.float32)]
        dense: list[Floats] = [np.zeros((len(entities), 0), dtype=np.float32)]
        for column in self._columns:
            cells = pd.Series(entities.ids) if column.name == "" else entities.features[column.name]
            if column.kind == FeatureKind.EMBEDDING:
                dense.append(_embed(cells, column))
            elif column.kind == FeatureKind.MULTI_HOT:
                sparse.append(_tag(cells, column))
            elif column.kind == FeatureKind.DENSE:
                values = _numbers(cells, column.name)
                bucket = np.where(np.isnan(values), UNKNOWN, np.searchsorted(column.cuts, values) + 1)
                sparse.append(_one_hot(bucket, len(column.cuts) + 2))
                dense.append(
                    np.nan_to_num((values - column.centre) / column.spread).astype(np.float32)[:, None]
                )
            else:
                places = pd.Index(column.names).get_indexer(pd.Index(cells.astype(str))) + 1
                places[cells.isna()] = UNKNOWN
                sparse.append(_one_hot(places, len(column.names) + 1))
        return FeatureTable(csr_array(hstack(sparse, format="csr")), np.concatenate(dense, axis=1))

    def to_settings(self) -> list[dict[str, Any]]:
        """As JSON can hold it."""
        return [asdict(column) for column in self._columns]

    @classmethod
    def from_settings(cls, settings: Sequence[Mapping[str, Any]]) -> "FeatureEncoder":
        """What `to_settings` gave."""
        tuples = ("names", "cuts")
        return cls(tuple(_Column(**{**row, **{key: tuple(row[key]) for key in tuples}}) for row in settings))


def _fit_column(cells: pd.Series, name: str, kind: FeatureKind) -> _Column:
    if kind == FeatureKind.CATEGORICAL:
        return _Column(name, kind, tuple(sorted(set(cells.dropna().astype(str)))))
    if kind == FeatureKind.MULTI_HOT:
        return _Column(
            name, kind, tuple(sorted({str(tag) for tags in _tag_lists(cells, name) for tag in tags}))
        )
    if kind == FeatureKind.EMBEDDING:
        vectors = [np.asarray(cell, dtype=np.float64) for cell in cells if cell is not None]
        if not vectors or len({vector.shape for vector in vectors}) > 1 or vectors[0].ndim != 1:
            raise ShapeError(
                f"Column `{name}` must hold vectors of one length; got shapes "
                f"{sorted({vector.shape for vector in vectors})[:3]}. Embed every text with one model."
            )
        length = float(np.sqrt(np.mean([vector @ vector for vector in vectors])))
        return _Column(name, kind, spread=length or 1.0, width=len(vectors[0]))
    values = _numbers(cells, name)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return _Column(name, kind)
    cuts = np.unique(np.quantile(values, np.arange(1, BUCKETS) / BUCKETS))
    return _Column(name, kind, (), tuple(cuts.tolist()), float(values.mean()), float(values.std()) or 1.0)


def _numbers(cells: pd.Series, name: str) -> NDArray[np.float64]:
    values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = (np.isnan(values) & cells.notna().to_numpy()) | np.isinf(values)
    if bad.any():
        raise ShapeError(
            f"Column `{name}` must hold finite numbers; got {cells[bad].tolist()[:3]}. "
            "Repair them, or read the column as categorical."
        )
    return values


def _tag_lists(cells: pd.Series, name: str) -> list[tuple[str, ...]]:
    lists = [cell if isinstance(cell, (tuple, list, np.ndarray)) else None for cell in cells]
    bad = [cell for cell, tags in zip(cells, lists, strict=True) if tags is None and not pd.isna(cell)]
    if bad:
        raise ShapeError(
            f"Column `{name}` must hold lists of tags; got {bad[:3]}. Split the texts, or read it as categorical."
        )
    return [() if tags is None else tuple(map(str, tags)) for tags in lists]


def _tag(cells: pd.Series, column: _Column) -> csr_array:
    lists = _tag_lists(cells, column.name)
    counts = np.array([len(tags) for tags in lists], dtype=np.int64)
    flat = pd.Index([tag for tags in lists for tag in tags], dtype=object)
    places = pd.Index(column.names, dtype=object).get_indexer(flat) + 1
    weights = np.repeat(1.0 / np.sqrt(np.maximum(counts, 1)), counts).astype(np.float32)
    rows = np.repeat(np.arange(len(lists)), counts)
    return csr_array((weights, (rows, places)), shape=(len(lists), len(column.names) + 1))


def _embed(cells: pd.Series, column: _Column) -> Floats:
    found = np.zeros((len(cells), column.width), dtype=np.float32)
    for row, cell in enumerate(cells):
        if cell is None:
            continue
        if np.shape(cell) != (column.width,):
            raise ShapeError(
                f"Column `{column.name}` must hold vectors of length {column.width}; got shape {np.shape(cell)} in row "
                f"{row}. Embed every text with one model."
            )
        found[row] = np.asarray(cell, dtype=np.float32) / column.spread
    return found


def _one_hot(places: NDArray[np.integer], width: int) -> csr_array:
    rows = len(places)
    ones = np.ones(rows, dtype=np.float32)
    return csr_array((ones, places.astype(np.int64), np.arange(rows + 1)), shape=(rows, width))
