"""Splits along time: at moments of the whole log, at each user's own moments, or at each user's last rows."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.columns import TIMESTAMP, USER
from recsys.data.splits.parts import (
    SLACK,
    Part,
    Split,
    TimeOrder,
    assemble,
    check_rows,
    check_shares,
    floor_share,
    places_from_last,
)
from recsys.errors import InteractionError


def split_by_time(log: pd.DataFrame, *, test: float = 0.1, validation: float = 0.1) -> Split:
    """The latest rows of the whole log apart from everything earlier, and the latest of those for choosing settings.

    Cuts fall on moments: all rows of one time go to one part, the later one, which may make it a little larger than
    asked for. When ranking for the test, train and validation rows are known. No part sees the future of anyone, as
    Ji, Sun et al. ("A Critical Study on Data Leakage in Recommender System Offline Evaluation", TOIS 2023) ask.

    Args:
        log: A checked interaction log with timestamps.
        test: Least share of all rows, above 0 and below 1.
        validation: Least share of all rows, 0 or more and below 1; 0 leaves that part empty.

    Returns:
        Every test row is later than every validation row, and that than every train row.

    Raises:
        InteractionError: A share is out of range, times are missing, or too few moments differ.
    """
    check_rows(log, caller="split_by_time", needs_times=True)
    check_shares(test, validation)
    times = log[TIMESTAMP].to_numpy()
    ordered = np.sort(times)
    part = np.full(len(times), Part.TRAIN, dtype=np.int8)
    earlier, starts = len(times), {}
    for code, share in ((Part.TEST, test), (Part.VALIDATION, validation)):
        if share == 0.0:
            continue
        wanted = max(1, int(np.ceil(len(times) * share - SLACK)))
        moment = ordered[max(0, earlier - wanted)]
        part[(times >= moment) & (part == Part.TRAIN)] = code
        earlier, starts[code] = int(np.searchsorted(ordered, moment)), moment
        if earlier == 0:
            raise InteractionError(
                f"The log must hold rows earlier than its last {int((part != Part.TRAIN).sum())}; all {len(times)} "
                f"have timestamp {moment} or later. Use smaller shares, or a log with real times."
            )
    sentence = f"global temporal: {_rows(part, Part.TEST)} test rows from {_moment(starts[Part.TEST])} on"
    if validation:
        sentence += (
            f", {_rows(part, Part.VALIDATION)} validation rows from {_moment(starts[Part.VALIDATION])} on"
        )
    sentence += (
        f", {earlier:,} earlier train rows of {len(times):,}; ranking for the test knows all earlier rows"
    )
    return assemble(log, part, protocol=sentence, order=TimeOrder.GLOBAL, known="train+validation")


def split_per_user_by_time(log: pd.DataFrame, *, test: float = 0.1, validation: float = 0.0) -> Split:
    """Each user's latest rows apart from the earlier ones.

    A user with n rows gives floor(n * test) of them to the test, and of the rest the latest floor(n * validation) to
    the validation. Rows of one user with equal times are taken in the order given. Other users' later rows stay in
    train, so use `split_by_time` where the future of the whole population must stay unknown.

    Args:
        log: A checked interaction log with timestamps.
        test: Share of each user's rows, above 0 and below 1.
        validation: Share of each user's rows, 0 or more and below 1.

    Returns:
        No user's train row is later than that user's validation row, nor that than a test row. When ranking for the
        test, train and validation rows are known.

    Raises:
        InteractionError: A share is out of range, or times are missing.
    """
    check_rows(log, caller="split_per_user_by_time", needs_times=True)
    check_shares(test, validation)
    follow, total = places_from_last(log[USER].to_numpy(), log[TIMESTAMP].to_numpy())
    n_test, n_validation = floor_share(total, test), floor_share(total, validation)
    part = np.full(len(log), Part.TRAIN, dtype=np.int8)
    part[follow < n_test + n_validation] = Part.VALIDATION
    part[follow < n_test] = Part.TEST
    sentence = (
        f"temporal per user: each user's latest {test:.3g} of rows, rounded down, are the test "
        f"({_rows(part, Part.TEST)} rows), the {validation:.3g} before them the validation "
        f"({_rows(part, Part.VALIDATION)}), the earlier {_rows(part, Part.TRAIN)} train; ranking for the test knows "
        "the user's earlier rows"
    )
    return assemble(log, part, protocol=sentence, order=TimeOrder.PER_USER, known="train+validation")


def split_leave_last_out(log: pd.DataFrame, *, min_rows: int = 3) -> Split:
    """Each user's last row for the test, the one before it for the validation, everything earlier to learn from.

    Rows of one user with equal times are taken in the order given. Other users' later rows stay in train.

    Args:
        log: A checked interaction log with timestamps.
        min_rows: Users with fewer rows stay in train as they are. 3 or more.

    Returns:
        One test and one validation row for each user with `min_rows` rows. When ranking for the test, train and
        validation rows are known.

    Raises:
        InteractionError: `min_rows` is below 3, or times are missing.
    """
    check_rows(log, caller="split_leave_last_out", needs_times=True)
    if min_rows < 3:
        raise InteractionError(
            f"`min_rows` must be at least 3, a row for each part; got {min_rows}. Keep shorter histories in train."
        )
    follow, total = places_from_last(log[USER].to_numpy(), log[TIMESTAMP].to_numpy())
    part = np.full(len(log), Part.TRAIN, dtype=np.int8)
    part[(follow == 1) & (total >= min_rows)] = Part.VALIDATION
    part[(follow == 0) & (total >= min_rows)] = Part.TEST
    sentence = (
        f"leave last out: the last row of each of {_rows(part, Part.TEST)} users with {min_rows} rows or more is the "
        f"test, the one before it the validation, the other {_rows(part, Part.TRAIN)} rows train; ranking for the "
        "test knows all but the last row"
    )
    return assemble(log, part, protocol=sentence, order=TimeOrder.PER_USER, known="train+validation")


def _rows(part: NDArray[np.int8], code: Part) -> str:
    """How many rows have the code, for people to read."""
    return f"{int((part == code).sum()):,}"


def _moment(seconds: float) -> str:
    """A timestamp with its date, UTC."""
    return f"timestamp {int(seconds)} ({np.datetime64(int(seconds), 's').astype('datetime64[D]')})"
