"""Cutting a log into what may be learned from and what is kept for measuring, always along time."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from recsys.columns import TIMESTAMP, USER
from recsys.errors import InteractionError


class Split(NamedTuple):
    """Two parts of one log that share no row; each keeps the order and index labels of the whole.

    train: Rows to learn from.
    test: Rows to measure on, none of them earlier than what the same cut put into `train`.
    """

    train: pd.DataFrame
    test: pd.DataFrame


def split_per_user_by_time(log: pd.DataFrame, test_fraction: float) -> Split:
    """Each user's latest rows apart from the earlier ones.

    A user with n rows gives floor(n * test_fraction) of them to the test part. Rows of one user with equal times
    are taken in the order given. Other users' later rows stay in train, so use `split_by_time` where the future of
    the whole population must stay unknown.

    Args:
        log: A checked interaction log.
        test_fraction: Share of each user's rows, above 0 and below 1.

    Returns:
        The two parts.

    Raises:
        InteractionError: `test_fraction` is not between 0 and 1.
    """
    _check_fraction(test_fraction)
    users, times = log[USER].to_numpy(), log[TIMESTAMP].to_numpy()
    order = np.lexsort((times, users))
    _, first, counts = np.unique(users[order], return_index=True, return_counts=True)
    # 1e-9 keeps a product such as 10 * 0.3 = 2.9999999999999996 from losing a whole row to rounding.
    kept = counts - np.floor(counts * test_fraction + 1e-9).astype(np.int64)
    place_in_user = np.arange(len(order)) - np.repeat(first, counts)
    is_test = np.zeros(len(order), dtype=bool)
    is_test[order] = place_in_user >= np.repeat(kept, counts)
    return Split(log[~is_test], log[is_test])


def split_by_time(log: pd.DataFrame, test_fraction: float) -> Split:
    """The latest rows of the whole log apart from everything earlier.

    The cut falls on a moment: all rows of that moment go to the test part, which may make it a little larger than
    asked for.

    Args:
        log: A checked interaction log.
        test_fraction: Least share of all rows, above 0 and below 1.

    Returns:
        The two parts; every test row is later than every train row.

    Raises:
        InteractionError: `test_fraction` is not between 0 and 1, or all rows carry one time.
    """
    _check_fraction(test_fraction)
    times = log[TIMESTAMP].to_numpy()
    n_test = max(1, int(np.ceil(len(times) * test_fraction)))
    moment = np.sort(times)[len(times) - n_test]
    is_test = times >= moment
    if is_test.all():
        raise InteractionError(
            f"The log must hold rows earlier than its last {n_test}; all {len(times)} have timestamp {moment} or "
            "later. Use a smaller `test_fraction`, or a log with real times."
        )
    return Split(log[~is_test], log[is_test])


def _check_fraction(test_fraction: float) -> None:
    if not 0.0 < test_fraction < 1.0:
        raise InteractionError(
            f"`test_fraction` must lie between 0 and 1, both excluded; got {test_fraction}. 0.2 keeps a fifth."
        )
