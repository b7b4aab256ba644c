"""Splits that do not follow time: random shares of each user, held-out users, and the source's own cut."""

from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.columns import TIMESTAMP, USER
from recsys.data.splits.parts import (
    SLACK,
    Holdout,
    Known,
    Part,
    Split,
    TimeOrder,
    assemble,
    check_rows,
    check_shares,
    floor_share,
    places_from_last,
    shuffled_keys,
)
from recsys.errors import InteractionError
from recsys.types import Bools, Ints


def split_at_random(
    log: pd.DataFrame,
    *,
    test: float = 0.1,
    validation: float = 0.1,
    seed: int,
    known: Known = "train",
) -> Split:
    """Random shares of each user's rows, as RecBole (Zhao et al., CIKM 2021) cuts by default.

    A user with n rows gives floor(n * share) of them to each part, yet at least one to the test and then one to the
    validation as long as one stays in train. It needs no times and looks into the future where there are some: use
    it to compare with published figures only. The draw does not depend on the order of the rows; repeats of a user
    with an item may fall apart, so merge them before.

    Args:
        log: A checked interaction log.
        test: Share of each user's rows, above 0 and below 1.
        validation: Share of each user's rows, 0 or more and below 1.
        seed: Of the draw.
        known: Which rows are known when ranking for the test. "train" leaves validation rows among the candidates.

    Raises:
        InteractionError: A share is out of range, or `known` is neither of the two.
    """
    check_rows(log, caller="split_at_random", needs_times=False)
    check_shares(test, validation)
    if known not in get_args(Known):
        raise InteractionError(
            f"`known` must be one of {', '.join(map(repr, get_args(Known)))}; got {known!r}. Choose one."
        )
    keys = shuffled_keys(log, np.random.default_rng(seed))
    part = _shares_of_users(log[USER].to_numpy(), keys, test=test, validation=validation)
    counts = np.bincount(part, minlength=3)
    sentence = (
        f"random per user, seed {seed}: a share {test:.3g} of each user's rows is the test ({counts[2]:,} rows), "
        f"{validation:.3g} the validation ({counts[1]:,}), {counts[0]:,} are train; ranking for the test knows {known}"
    )
    return assemble(log, part, protocol=sentence, order=TimeOrder.NONE, known=known)


def split_users(
    log: pd.DataFrame,
    *,
    test: float = 0.1,
    validation: float = 0.1,
    n_test: int | None = None,
    n_validation: int | None = None,
    known_share: float = 0.8,
    seed: int,
    by_time: bool = False,
) -> Split:
    """Strong generalisation: whole users are held out, known by a part of their rows and measured on the rest.

    The protocol of Liang et al. ("Variational Autoencoders for Collaborative Filtering", WWW 2018). Of a held-out
    user's n rows, floor(n * (1 - known_share)) are to be predicted; a user too short for one has known rows only.
    The draw does not depend on the order of the rows.

    Args:
        log: A checked interaction log.
        test: Share of the users, above 0 and below 1, rounded down but at least one user.
        validation: Share of the users, 0 or more and below 1, rounded likewise.
        n_test: Number of test users, 1 or more; None takes the share.
        n_validation: Number of validation users, 0 or more; None takes the share.
        known_share: Share of a held-out user's rows that is known, above 0 and below 1.
        seed: Of the draw of users, and of their known rows unless `by_time`.
        by_time: Predict each held-out user's latest rows rather than random ones; equal times in the order given.

    Returns:
        `train` holds no row of a held-out user; the known rows of each part are those of its own users.

    Raises:
        InteractionError: A share or number is out of range, no user is left to learn from, or `by_time` is asked of
            a log without times.
    """
    check_rows(log, caller="split_users", needs_times=False)
    if by_time:
        check_rows(log, caller="split_users(by_time=True)", needs_times=True)
    if not 0.0 < known_share < 1.0:
        raise InteractionError(
            f"`known_share` must lie between 0 and 1, both excluded; got {known_share}. 0.8 is usual."
        )
    check_shares(test, validation)
    rng = np.random.default_rng(seed)
    users, owner = np.unique(log[USER].to_numpy(), return_inverse=True)
    wanted = (_n_users(test, n_test, len(users)), _n_users(validation, n_validation, len(users)))
    _check_users(*wanted, len(users))
    part_of_user = np.full(len(users), Part.TRAIN, dtype=np.int8)
    drawn = rng.permutation(len(users))
    part_of_user[drawn[: wanted[0]]] = Part.TEST
    part_of_user[drawn[wanted[0] : sum(wanted)]] = Part.VALIDATION
    keys = log[TIMESTAMP].to_numpy() if by_time else shuffled_keys(log, rng)
    follow, total = places_from_last(owner, keys)
    is_target, part = follow < floor_share(total, 1.0 - known_share), part_of_user[owner]
    validation_part, test_part = (
        Holdout(log[(part == code) & ~is_target], log[(part == code) & is_target])
        for code in (Part.VALIDATION, Part.TEST)
    )
    sentence = (
        f"strong generalisation, seed {seed}: {wanted[0]:,} test and {wanted[1]:,} validation users held out of "
        f"{len(users):,}; {known_share:.3g} of their rows, {'the earliest' if by_time else 'drawn at random'}, are "
        f"known, {len(test_part.target):,} test rows to be predicted; {int((part == Part.TRAIN).sum()):,} train rows"
    )
    order = TimeOrder.PER_USER if by_time else TimeOrder.NONE
    return Split(log[part == Part.TRAIN], validation_part, test_part, sentence, order)


def split_as_given(
    log: pd.DataFrame, is_test: pd.Series | Bools, *, validation: float = 0.1, seed: int
) -> Split:
    """The source's own test rows; the validation is a random share of each user's other rows.

    When ranking for the test, all other rows are known. What the source promises about time is not known.

    Args:
        log: A checked interaction log.
        is_test: Whether each row is of the test, by place, not by label. Shape (N,), bool.
        validation: Share of each user's other rows, 0 or more and below 1; at least one row where one is left.
        seed: Of the draw of the validation.

    Raises:
        InteractionError: `is_test` is not a flag for each row, leaves either part empty, or the share is out of range.
    """
    check_rows(log, caller="split_as_given", needs_times=False)
    flags = np.asarray(is_test)
    if flags.dtype != np.bool_ or flags.shape != (len(log),):
        raise InteractionError(
            f"`is_test` must hold one bool for each of the {len(log)} rows; got shape {flags.shape}, {flags.dtype}. "
            "Read both parts into one log and mark the rows."
        )
    n_test = int(flags.sum())
    if n_test in {0, len(log)}:
        raise InteractionError(
            f"`is_test` must mark some rows and leave others; it marks {n_test} of {len(log)}. Check both files."
        )
    if not 0.0 <= validation < 1.0:
        raise InteractionError(
            f"`validation` must lie between 0 (none) and 1 (excluded); got {validation}. 0.1 keeps a tenth."
        )
    part = np.full(len(log), Part.TEST, dtype=np.int8)
    rest = log[~flags]
    keys = shuffled_keys(rest, np.random.default_rng(seed))
    part[~flags] = _shares_of_users(rest[USER].to_numpy(), keys, test=0.0, validation=validation)
    n_validation = int((part == Part.VALIDATION).sum())
    sentence = (
        f"as given by the source: {n_test:,} test rows; of the other {len(rest):,}, {n_validation:,} are the "
        f"validation (a random share {validation:.3g} of each user, seed {seed}); ranking for the test knows both"
    )
    return assemble(log, part, protocol=sentence, order=TimeOrder.NONE, known="train+validation")


def _shares_of_users(
    users: Ints, keys: NDArray[np.float64], *, test: float, validation: float
) -> NDArray[np.int8]:
    """Part of each row: shares of each user rounded down, but one row where train keeps one. Shape (N,)."""
    follow, total = places_from_last(users, keys)
    n_test, n_validation = floor_share(total, test), floor_share(total, validation)
    if test > 0.0:
        n_test += (n_test == 0) & (total - n_validation > 1)
    if validation > 0.0:
        n_validation += (n_validation == 0) & (total - n_test > 1)
    part = np.full(len(users), Part.TRAIN, dtype=np.int8)
    part[follow < n_test + n_validation] = Part.VALIDATION
    part[follow < n_test] = Part.TEST
    return part


def _n_users(share: float, number: int | None, n_users: int) -> int:
    if number is not None:
        return number
    return max(1, int(np.floor(n_users * share + SLACK))) if share else 0


def _check_users(n_test: int, n_validation: int, n_users: int) -> None:
    if n_test < 1 or n_validation < 0:
        raise InteractionError(
            f"`n_test` must be at least 1 and `n_validation` at least 0; got {n_test} and {n_validation}. "
            "Hold out one user or more."
        )
    if n_test + n_validation >= n_users:
        raise InteractionError(
            f"Held-out users must leave someone to learn from; got {n_test} test and {n_validation} validation users "
            f"of {n_users}. Hold out fewer."
        )
