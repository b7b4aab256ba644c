"""What a comparison of models is fought over: a data set made tidy, cut once, and turned into histories.

Everything that models may learn from comes from the train part; the feature encoders are fitted on the users and
items that it names. Validation and test are rounds of one shape: what is known, and what is to be foretold.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from recsys.columns import ITEM, LEVEL, USER
from recsys.data.dataset import Dataset, Entities
from recsys.data.filters import k_core
from recsys.data.interactions import check_log, merge_repeats
from recsys.data.splits import Holdout, Split
from recsys.errors import InteractionError
from recsys.features import FeatureEncoder, FeatureTable
from recsys.types import Histories, Ints, histories_from_log, times_from_log


class Tidied(NamedTuple):
    """A data set ready to be cut.

    dataset: Its log has one row for each user and item, or for each of them and part.
    merged: Rows that repeats took.
    notes: What was done, a sentence each, with counts.
    """

    dataset: Dataset
    merged: int
    notes: tuple[str, ...]


class Round(NamedTuple):
    """Users to rank for, and rows to foretell, from what is known at that time. B users, N rows, I items.

    users: Ids of the users, ascending. Shape (B,).
    known: Their histories. Shape (B, I).
    target: What they went on to do. Shares no entry with `known`. Shape (B, I).
    times: When each entry of `known` happened; None where the source has no times. Shape (B, I).
    rows: Row of `users` of each row to foretell. Shape (N,).
    items: Its item. Shape (N,).
    levels: The level that it reached. Shape (N,).
    out_of_reach: Rows of pairs that are known already, left out of all the above since seen items are not offered.
    """

    users: Ints
    known: Histories
    target: Histories
    times: Histories | None
    rows: Ints
    items: Ints
    levels: Ints
    out_of_reach: int


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """One data set, cut once, for all models alike. U users, I items, C levels above 0.

    Attributes:
        dataset: Its log is the one that `split` was cut from.
        split: The parts.
        relevant_level: Level from which an item counts as wanted, 1..C.
        train: Histories of all users, empty for those whom train does not name. Shape (U, I).
        train_times: When each entry of `train` happened; None where the source has no times. Shape (U, I).
        validation: For choosing settings.
        test: For the figures.
        up_to_date: All rows that may be known when the test begins, of all users. Shape (U, I).
        user_features: One row a user.
        item_features: One row an item.
    """

    dataset: Dataset
    split: Split
    relevant_level: int
    train: Histories
    train_times: Histories | None
    validation: Round
    test: Round
    up_to_date: Histories
    user_features: FeatureTable
    item_features: FeatureTable

    @property
    def levels(self) -> int:
        """The deepest level C."""
        return self.dataset.levels

    @property
    def n_items(self) -> int:
        """Size I of the catalogue."""
        return len(self.dataset.items)

    @property
    def validation_is_later(self) -> bool:
        """Whether the rows of the validation are foretold from train, not from histories of their own users."""
        return self.split.validation.known is self.split.train

    @property
    def can_foretell(self) -> bool:
        """Whether some level is reached by a part of the train rows and of the test rows only."""
        deep = range(1, self.levels + 1)
        train = self.split.train[LEVEL].to_numpy()
        return any(_is_open(train >= level) and _is_open(self.test.levels >= level) for level in deep)


def tidy_dataset(dataset: Dataset, *, core: int = 0, part: str | None = None) -> Tidied:
    """One row for each user and item, checked, and thinned out to its core where asked for.

    Args:
        dataset: As a reader gave it.
        core: Least number of items of each user and users of each item; 0 keeps everything. What the core drops also
            leaves the tables, so the catalogue shrinks.
        part: Name of a column that says which part a row belongs to; repeats are then merged within each part only,
            so that a pair that stands in two parts stays visible.

    Raises:
        InteractionError: The log cannot be used, or nothing stays in the core.
    """
    log = dataset.log
    pieces = [log] if part is None else [log[log[part]], log[~log[part]]]
    checked = [
        check_log(
            merge_repeats(piece), len(dataset.items), n_users=len(dataset.users), max_level=dataset.levels
        )
        for piece in pieces
        if len(piece)
    ]
    merged = pd.concat(checked, ignore_index=True) if checked else log
    found = replace(dataset, log=merged)
    n_merged = len(log) - len(merged)
    notes = []
    if n_merged:
        notes.append(
            f"{n_merged:,} of {len(log):,} rows repeat a user and an item: the deepest level counts, from when it was "
            "first reached."
        )
    if core:
        kept = k_core(merged, users=core, items=core)
        found = narrow_dataset(replace(dataset, log=kept.log))
        notes.append(f"{kept.note}. The catalogue is that of the core.")
    return Tidied(found, n_merged, tuple(notes))


def narrow_dataset(dataset: Dataset) -> Dataset:
    """The same log over tables that hold nobody and nothing but what it names, numbered anew.

    Args:
        dataset: Its log keeps its order; its index starts anew.
    """
    log = dataset.log.reset_index(drop=True)
    kept = {}
    for column in (USER, ITEM):
        kept[column], places = np.unique(log[column].to_numpy(), return_inverse=True)
        log[column] = places.astype(np.int64)
    return replace(
        dataset, log=log, users=_select(dataset.users, kept[USER]), items=_select(dataset.items, kept[ITEM])
    )


def prepare_contest(dataset: Dataset, split: Split, *, relevant_level: int) -> Contest:
    """Histories, rounds and features of one split.

    Args:
        dataset: From `tidy_dataset`.
        split: Cut from its log.
        relevant_level: Level from which an item counts as wanted, 1..C.

    Raises:
        InteractionError: The level does not exist, no validation row can be foretold, or nobody of the test or of the
            validation has an item to be found.
    """
    if not 1 <= relevant_level <= dataset.levels:
        raise InteractionError(
            f"`relevant_level` must lie in 1..{dataset.levels}, the levels of the log; got {relevant_level}. "
            f"Level {dataset.levels} is {dataset.level_names[-1]!r}."
        )
    n_items, everyone = len(dataset.items), np.arange(len(dataset.users))
    known = pd.concat([split.train, split.test.known])
    rounds: Mapping[str, Round] = {
        name: _round(holdout, n_items, dataset.has_times)
        for name, holdout in (("validation", split.validation), ("test", split.test))
    }
    for name, one in rounds.items():
        if not (one.levels >= relevant_level).any():
            raise InteractionError(
                f"The {name} part must hold rows at level {relevant_level} or deeper that were not known before; got "
                f"none among {len(one.levels)}, and {one.out_of_reach} rows that were known. Lower the relevant level, "
                "cut a larger part, or take what is to be predicted out of the other parts."
            )
    return Contest(
        dataset,
        split,
        relevant_level,
        histories_from_log(split.train, everyone, n_items),
        times_from_log(split.train, everyone, n_items) if dataset.has_times else None,
        rounds["validation"],
        rounds["test"],
        histories_from_log(known, everyone, n_items),
        _encode(dataset.users, split.train[USER]),
        _encode(dataset.items, split.train[ITEM]),
    )


def _round(holdout: Holdout, n_items: int, has_times: bool) -> Round:
    target = holdout.target
    users = np.unique(target[USER].to_numpy()).astype(np.int64)
    known = histories_from_log(holdout.known, users, n_items)
    rows = pd.Index(users).get_indexer(pd.Index(target[USER].to_numpy())).astype(np.int64)
    items = target[ITEM].to_numpy(dtype=np.int64)
    pairs = holdout.known[USER].to_numpy(dtype=np.int64) * n_items + holdout.known[ITEM].to_numpy()
    is_new = ~np.isin(users[rows] * n_items + items, pairs)
    return Round(
        users,
        known,
        histories_from_log(target[is_new], users, n_items),
        times_from_log(holdout.known, users, n_items) if has_times else None,
        rows[is_new],
        items[is_new],
        target[LEVEL].to_numpy(dtype=np.int64)[is_new],
        int((~is_new).sum()),
    )


def _encode(entities: Entities, named: pd.Series) -> FeatureTable:
    """Features of all, read with the eyes of those that train names."""
    return FeatureEncoder.fit(entities, np.unique(named.to_numpy())).transform(entities)


def _select(entities: Entities, rows: Ints) -> Entities:
    labels = entities.labels
    return Entities(
        entities.ids[rows],
        entities.features.iloc[rows].reset_index(drop=True),
        entities.kinds,
        None if labels is None else labels.iloc[rows].reset_index(drop=True),
    )


def _is_open(reached: np.ndarray) -> bool:
    return bool(reached.any() and not reached.all())
