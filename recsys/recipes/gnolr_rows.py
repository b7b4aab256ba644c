"""The rows that GNOLR learns from, by user, in memory or a file at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.columns import USER
from recsys.data.interactions import check_log, merge_repeats
from recsys.data.shards import UserShards
from recsys.errors import ShapeError
from recsys.features import FeatureTable
from recsys.models.known import count_levels
from recsys.types import Histories, Ints, histories_from_log, levels_in


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Rows to be foretold, user after user, from what is known of their users.

    Attributes:
        histories: What is known of B users. Shape (B, I).
        features: Of the B users.
        starts: Where each user's rows begin, and where the last one's end. Shape (B + 1,).
        item: Shape (N,).
        level: Shape (N,).
        own: Level of the row's item in its user's history, -1 if it is not in it. Shape (N,).
    """

    histories: Histories
    features: FeatureTable
    starts: Ints
    item: Ints
    level: Ints
    own: Ints

    def __len__(self) -> int:
        """Number N of rows."""
        return len(self.item)

    @property
    def user(self) -> Ints:
        """Row of `histories` of each row. Shape (N,)."""
        return np.repeat(np.arange(len(self.starts) - 1, dtype=np.int64), np.diff(self.starts))

    @classmethod
    def of_histories(cls, histories: Histories, features: FeatureTable) -> "Examples":
        """Every entry of some histories, to be foretold from the others of its user."""
        level = histories.data.astype(np.int64) - 1
        item = histories.indices.astype(np.int64)
        return cls(histories, features, histories.indptr.astype(np.int64), item, level, level)

    @classmethod
    def of_targets(
        cls, histories: Histories, features: FeatureTable, user: Ints, item: Ints, level: Ints
    ) -> "Examples":
        """Other rows of the same users."""
        order = np.argsort(user, kind="stable")
        user, item, level = user[order], item[order], level[order]
        starts = np.concatenate([[0], np.bincount(user, minlength=histories.shape[0]).cumsum()])
        return cls(
            histories, features, starts.astype(np.int64), item, level, levels_in(histories, user, item)
        )

    def select(self, users: Ints) -> "Examples":
        """The rows of some of the users."""
        counts = np.diff(self.starts)[users]
        ends = counts.cumsum()
        rows = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(
            self.starts[users] - (ends - counts), counts
        )
        starts = np.concatenate([[0], ends]).astype(np.int64)
        return Examples(
            self.histories[users],
            self.features.take(users),
            starts,
            self.item[rows],
            self.level[rows],
            self.own[rows],
        )

    def user_batches(self, batch_rows: int, rng: np.random.Generator | None) -> list[Ints]:
        """Groups of users with about `batch_rows` rows together, in random order if `rng` is given."""
        users = len(self.starts) - 1
        order = np.arange(users) if rng is None else rng.permutation(users)
        order = order[np.diff(self.starts)[order] > 0]
        if len(order) == 0:
            return []
        group = np.diff(self.starts)[order].cumsum() // batch_rows
        return np.split(order, np.flatnonzero(np.diff(group)) + 1)

    def unseen_weights(self, drawn: Ints) -> NDArray[np.float32]:
        """What each sampled item counts for with each user: together one row for each of the user's rows.

        Items that the user has met weigh nothing. Shape (B, number of items drawn).
        """
        rows = np.diff(self.starts).astype(np.float32)
        unseen = (self.histories[:, drawn].toarray() == 0).astype(np.float32)
        weights: NDArray[np.float32] = unseen * (rows / np.maximum(unseen.sum(1), 1.0))[:, None]
        return weights


class Source:
    """Training rows in blocks, and the users kept for validation.

    Args:
        log: A checked log, or files of one.
        n_items: Size I of the catalogue.
        levels: The deepest level C.
        features: Of users, by id; no rows where they have none.
        kept: Share of the users kept for validation.
        seed: Draws those.
    """

    def __init__(
        self,
        log: pd.DataFrame | UserShards,
        n_items: int,
        levels: int,
        features: FeatureTable,
        kept: float,
        seed: int,
    ) -> None:
        self._log, self._n_items, self._levels, self._features = log, n_items, levels, features
        self._kept, self._seed = kept, seed
        self._held = self._cut(0) if isinstance(log, pd.DataFrame) else None

    @classmethod
    def of(
        cls,
        log: pd.DataFrame | UserShards,
        n_items: int,
        levels: int,
        features: FeatureTable,
        kept: float,
        rng: np.random.Generator,
    ) -> "Source":
        """A source whose validation users are drawn by `rng`."""
        return cls(log, n_items, levels, features, kept, int(rng.integers(2**31)))

    def blocks(self, rng: np.random.Generator) -> Iterator[Examples]:
        """The training rows, a block at a time, in random order."""
        for place in rng.permutation(self._n_blocks).tolist():
            yield self._part(place)[0]

    @property
    def judges(self) -> list[Examples]:
        """The rows of the users kept for validation, all blocks; none if no user was kept."""
        found = [self._part(place)[1] for place in range(self._n_blocks)]
        return [judge for judge in found if len(judge)]

    def count_levels(self) -> Tensor:
        """Training rows of each item and level. Shape (I, C + 1)."""
        total = torch.zeros(self._n_items, self._levels + 1)
        for place in range(self._n_blocks):
            total += count_levels(self._part(place)[0].histories, self._levels)
        return total

    def count_users(self) -> int:
        """Users with training rows."""
        return sum(len(self._part(place)[0].starts) - 1 for place in range(self._n_blocks))

    def histories_of(self, users: Ints) -> Histories:
        """Histories of the given user ids. Shape (number of users, I)."""
        found = histories_from_log(self._read(0), users, self._n_items)
        for place in range(1, self._n_blocks):
            found = found + histories_from_log(self._read(place), users, self._n_items)
        return found

    @property
    def _n_blocks(self) -> int:
        return 1 if isinstance(self._log, pd.DataFrame) else len(self._log)

    def _part(self, place: int) -> tuple[Examples, Examples]:
        return self._held if self._held is not None else self._cut(place)

    def _read(self, place: int) -> pd.DataFrame:
        if isinstance(self._log, pd.DataFrame):
            return check_log(self._log, self._n_items, max_level=self._levels)
        merged = merge_repeats(self._log.read(place))
        # Where there are more files than users, some hold nobody.
        return check_log(merged, self._n_items, max_level=self._levels) if len(merged) else merged

    def _cut(self, place: int) -> tuple[Examples, Examples]:
        log = self._read(place)
        users = np.unique(log[USER].to_numpy())
        if len(self._features) and len(users) and users[-1] >= len(self._features):
            raise ShapeError(
                f"`user_features` must have one row for each user id up to {users[-1]}; "
                f"got {len(self._features)} rows. Add the missing rows."
            )
        histories = histories_from_log(log, users, self._n_items)
        features = self._features.take(users)
        everyone = Examples.of_histories(histories, features)
        order = np.random.default_rng([self._seed, place]).permutation(len(users))
        n_judges = int(len(users) * self._kept)
        return everyone.select(np.sort(order[n_judges:])), everyone.select(np.sort(order[:n_judges]))
