"""One data set as every part of this package takes it: a log over numbered users and items, and what is known of both.

Readers make it, splits cut its log, models learn from it, reports name its users and items by their outside ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from recsys.columns import TIMESTAMP


class FeatureKind(StrEnum):
    """How the cells of a feature column are read."""

    # A string; a missing value is a category of its own.
    CATEGORICAL = "categorical"
    # A tuple of strings, such as genres; may be empty.
    MULTI_HOT = "multi-hot"
    # A number; NaN where missing.
    DENSE = "dense"
    # A vector of one length for all rows, such as a text embedding; None where missing.
    EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True, eq=False)
class Entities:
    """Users or items: row number n is the id n that the log uses.

    Attributes:
        ids: Outside ids, distinct strings. Length N.
        features: One row an entity, one column a feature, RangeIndex; no columns where nothing is known.
        kinds: How to read each column of `features`.
        labels: What people call each entity, such as a film's title; None where the ids must do. Length N.
    """

    ids: pd.Index
    features: pd.DataFrame
    kinds: Mapping[str, FeatureKind]
    labels: pd.Series | None = None

    def __len__(self) -> int:
        """Number N of entities."""
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A log that `recsys.data.check_log` accepts, but for repeats, and the tables that its ids point into.

    Attributes:
        name: What reports call it, such as "ml-100k".
        log: Columns user_id and item_id (rows of the tables), level (0..C), and timestamp (seconds, int64) unless the
            source has no times; possibly further columns. Events as they came: a user may meet an item many times.
        users: Everyone that the log names.
        items: The catalogue, possibly wider than the log.
        level_names: What level 0..C means, C + 1 of them.
        notes: What the reader dropped, merged or took for granted, a sentence each, with counts.
    """

    name: str
    log: pd.DataFrame
    users: Entities
    items: Entities
    level_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def levels(self) -> int:
        """The deepest level C."""
        return len(self.level_names) - 1

    @property
    def has_times(self) -> bool:
        """Whether the log says when."""
        return TIMESTAMP in self.log.columns
