"""Thinning a log out to its k-core, and counting what a log or a split holds, so that nothing is dropped silently."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from recsys.columns import ITEM, LEVEL, USER
from recsys.data.splits import Split
from recsys.errors import InteractionError


class Filtered(NamedTuple):
    """What a filter left.

    log: The rows that stay, in the order given, with their index labels and ids.
    note: One sentence to print: the rule and what it dropped, with counts.
    """

    log: pd.DataFrame
    note: str


class Description(NamedTuple):
    """Counts of one part.

    rows: Number of rows.
    users: Distinct users.
    items: Distinct items.
    density: Distinct pairs of user and item over users times items; 0 where there are none.
    level_counts: Rows left at level 0, 1, and so on up to the deepest of the log or split.
    duplicates: Rows beyond the first of their user and item.
    cold_users: Users without a row in train; 0 for a log and for train.
    cold_items: Items without a row in train.
    cold_rows: Rows whose user or item has none in train.
    users_without_history: Users to be predicted without any known row; 0 for parts that are not to be predicted.
    """

    rows: int
    users: int
    items: int
    density: float
    level_counts: tuple[int, ...]
    duplicates: int
    cold_users: int = 0
    cold_items: int = 0
    cold_rows: int = 0
    users_without_history: int = 0


def k_core(log: pd.DataFrame, *, users: int, items: int) -> Filtered:
    """The largest part of a log in which every user met enough items and every item enough users.

    Users and items with too few are dropped in turn until none is left that has too few. Ids stay as they are.

    Args:
        log: A checked interaction log; repeats of a user with an item count once.
        users: Least number of distinct items of each user, 0 or more.
        items: Least number of distinct users of each item, 0 or more.

    Returns:
        The rows that stay, and a sentence.

    Raises:
        InteractionError: A number is negative, or nothing stays.
    """
    if users < 0 or items < 0:
        raise InteractionError(
            f"`users` and `items` must be 0 or more; got {users} and {items}. 5 and 5 is a common core."
        )
    user_codes, user_ids = pd.factorize(log[USER])
    item_codes, item_ids = pd.factorize(log[ITEM])
    pairs = np.unique(user_codes.astype(np.int64) * len(item_ids) + item_codes)
    user, item = np.divmod(pairs, max(len(item_ids), 1))
    while len(user):
        per_user = np.bincount(user, minlength=len(user_ids))
        per_item = np.bincount(item, minlength=len(item_ids))
        keep = (per_user[user] >= users) & (per_item[item] >= items)
        if keep.all():
            break
        user, item = user[keep], item[keep]
    if len(user) == 0:
        raise InteractionError(
            f"The core must hold rows; no part of the {len(log)} rows has {users} items for each user and {items} "
            "users for each item. Ask for less."
        )
    stays_user, stays_item = np.zeros(len(user_ids), dtype=bool), np.zeros(len(item_ids), dtype=bool)
    stays_user[user], stays_item[item] = True, True
    kept = log[stays_user[user_codes] & stays_item[item_codes]]
    note = (
        f"{users},{items}-core (items for each user, users for each item): dropped {len(log) - len(kept):,} of "
        f"{len(log):,} rows, {int((~stays_user).sum()):,} of {len(user_ids):,} users and "
        f"{int((~stays_item).sum()):,} of {len(item_ids):,} items"
    )
    return Filtered(kept, note)


def describe(log_or_split: pd.DataFrame | Split) -> dict[str, Description]:
    """Counts of a log, or of each part of a split.

    Args:
        log_or_split: A checked interaction log, or what a split function made of one.

    Returns:
        By part: "log" alone, or "train", "validation known", "validation target", "test known" and "test target".
    """
    if isinstance(log_or_split, pd.DataFrame):
        return {"log": _count(log_or_split, _deepest([log_or_split]))}
    split = log_or_split
    holdouts = {"validation": split.validation, "test": split.test}
    deepest = _deepest([split.train, *(part for holdout in holdouts.values() for part in holdout)])
    found = {"train": _count(split.train, deepest)}
    for name, (known, target) in holdouts.items():
        found[f"{name} known"] = _compared(_count(known, deepest), known, split.train)
        strangers = len(np.setdiff1d(target[USER].to_numpy(), known[USER].to_numpy()))
        counted = _compared(_count(target, deepest), target, split.train)
        found[f"{name} target"] = counted._replace(users_without_history=strangers)
    return found


def _deepest(parts: list[pd.DataFrame]) -> int:
    return max((int(part[LEVEL].max()) for part in parts if len(part)), default=0)


def _count(log: pd.DataFrame, deepest: int) -> Description:
    users, items = log[USER].nunique(), log[ITEM].nunique()
    repeats = int(log.duplicated([USER, ITEM]).sum())
    levels = np.bincount(log[LEVEL].to_numpy(dtype=np.int64), minlength=deepest + 1)
    return Description(
        rows=len(log),
        users=users,
        items=items,
        density=(len(log) - repeats) / (users * items) if len(log) else 0.0,
        level_counts=tuple(levels.tolist()),
        duplicates=repeats,
    )


def _compared(counted: Description, part: pd.DataFrame, train: pd.DataFrame) -> Description:
    """The counts with users, items and rows that train says nothing of."""
    if part is train:
        return counted
    cold_user = ~part[USER].isin(train[USER].unique())
    cold_item = ~part[ITEM].isin(train[ITEM].unique())
    return counted._replace(
        cold_users=part.loc[cold_user, USER].nunique(),
        cold_items=part.loc[cold_item, ITEM].nunique(),
        cold_rows=int((cold_user | cold_item).sum()),
    )
