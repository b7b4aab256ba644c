"""What a split is, and the few steps that every way of cutting shares: checks, places among a user's rows, assembly."""

from enum import IntEnum, StrEnum
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.columns import ITEM, LEVEL, TIMESTAMP, USER
from recsys.errors import InteractionError
from recsys.types import Floats, Ints

# Keeps a product such as 10 * 0.3 = 2.9999999999999996 from losing a whole row to rounding.
SLACK = 1e-9

Known: TypeAlias = Literal["train", "train+validation"]


class TimeOrder(StrEnum):
    """What a protocol promises about time, so that a breach of the promise can be told from a protocol without any."""

    # Nothing that is known, of anyone, is later than what is to be predicted.
    GLOBAL = "global"
    # Nothing that is known of a user is later than what is to be predicted of that user.
    PER_USER = "per user"
    # No promise.
    NONE = "none"


class Part(IntEnum):
    """Codes of the parts that a row can fall into."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


class Holdout(NamedTuple):
    """What is to be predicted, and what may be known while predicting it. The two share no row.

    known: Rows that may be known about users when ranking for this part.
    target: Rows to be predicted.
    """

    known: pd.DataFrame
    target: pd.DataFrame


class Split(NamedTuple):
    """One log cut for learning, choosing and measuring; every part keeps the order and index labels of the whole.

    train: Rows to fit models on.
    validation: For choosing settings; its target may be empty.
    test: For the final figures.
    protocol: One sentence to print: how it was cut, with the numbers.
    order: What the protocol promises about time.
    """

    train: pd.DataFrame
    validation: Holdout
    test: Holdout
    protocol: str
    order: TimeOrder = TimeOrder.NONE


def assemble(
    log: pd.DataFrame, part: NDArray[np.int8], *, protocol: str, order: TimeOrder, known: Known
) -> Split:
    """The split in which every row goes to the part that its code names.

    Args:
        log: Shape (N, ...).
        part: Code of each row. Shape (N,).
        protocol: How it was cut.
        order: What it promises about time.
        known: Whether the validation rows are known when ranking for the test part.
    """
    train = log[part == Part.TRAIN]
    validation = log[part == Part.VALIDATION]
    both = known == "train+validation" and len(validation) > 0
    return Split(
        train,
        Holdout(train, validation),
        Holdout(log[part != Part.TEST] if both else train, log[part == Part.TEST]),
        protocol,
        order,
    )


def places_from_last(users: Ints, key: Ints | Floats | NDArray[np.float64]) -> tuple[Ints, Ints]:
    """How many rows of the same user follow each row when ordered by `key`, and how many rows that user has.

    Equal keys are taken in the order given.

    Args:
        users: Shape (N,).
        key: Shape (N,).

    Returns:
        Rows that follow (0 at the user's last) and rows of the user. Both of shape (N,), int64.
    """
    order = np.lexsort((key, users))
    _, first, counts = np.unique(users[order], return_index=True, return_counts=True)
    of_user = np.repeat(counts, counts)
    follow = np.empty(len(order), dtype=np.int64)
    follow[order] = np.repeat(first + counts, counts) - 1 - np.arange(len(order))
    total = np.empty(len(order), dtype=np.int64)
    total[order] = of_user
    return follow, total


def shuffled_keys(log: pd.DataFrame, rng: np.random.Generator) -> NDArray[np.float64]:
    """A number in 0..1 for each row, the same whatever order the rows come in (repeats of a pair apart)."""
    columns = [log[ITEM].to_numpy(), log[USER].to_numpy()]
    if TIMESTAMP in log.columns:
        columns.insert(0, log[TIMESTAMP].to_numpy())
    keys = np.empty(len(log))
    keys[np.lexsort(columns)] = rng.random(len(log))
    return keys


def check_rows(log: pd.DataFrame, *, caller: str, needs_times: bool) -> None:
    """Check that the log has what a split needs.

    Raises:
        InteractionError: The log is empty, or a needed column or time is missing.
    """
    absent = [name for name in (USER, ITEM, LEVEL) if name not in log.columns]
    if absent:
        raise InteractionError(
            f"A log must have the columns {USER}, {ITEM} and {LEVEL}; {', '.join(absent)} missing among "
            f"{[str(name) for name in log.columns]}. Rename the columns."
        )
    if needs_times and TIMESTAMP not in log.columns:
        raise InteractionError(
            f"`{caller}` needs the column {TIMESTAMP}; got {[str(name) for name in log.columns]}. Use "
            "`split_at_random`, `split_users` or `split_as_given`, which need no times."
        )
    if log.empty:
        raise InteractionError(
            f"`{caller}` needs a log with rows; got none. Check how it was read and filtered."
        )
    if needs_times and (gaps := int(log[TIMESTAMP].isna().sum())):
        raise InteractionError(
            f"`{caller}` needs a {TIMESTAMP} in every row; {gaps} of {len(log)} rows have none. Drop these rows, or "
            "use `split_at_random`, `split_users` or `split_as_given`, which need no times."
        )


def check_shares(test: float, validation: float) -> None:
    """Check the shares of the parts.

    Raises:
        InteractionError: A share is out of range, or nothing is left to learn from.
    """
    if not 0.0 < test < 1.0:
        raise InteractionError(
            f"`test` must lie between 0 and 1, both excluded; got {test}. 0.2 keeps a fifth."
        )
    if not 0.0 <= validation < 1.0:
        raise InteractionError(
            f"`validation` must lie between 0 (none) and 1 (excluded); got {validation}. 0.1 keeps a tenth."
        )
    if test + validation >= 1.0:
        raise InteractionError(
            f"`test` and `validation` must leave rows to learn from; got {test} and {validation}, together "
            f"{test + validation:g}. Lower one of them."
        )


def floor_share(counts: Ints, share: float) -> Ints:
    """Whole rows in `share` of each count, rounded down. Shape of `counts`."""
    whole: Ints = np.floor(counts * share + SLACK).astype(np.int64)
    return whole
