"""Tables of what users did, checked, and what the measures of behaviour read off them: sessions, features, pairs."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.columns import ITEM, LEVEL, POSITION, TIMESTAMP, USER
from simulators.errors import FaithfulnessError
from simulators.faithfulness.resampling import cells_by_user
from simulators.faithfulness.speech import SpokenDialogue
from simulators.faithfulness.survival import Sessions
from simulators.faithfulness.two_sample import Features
from simulators.types import StopReason

SESSION, POLICY, WEIGHT, PROBABILITY, SATISFACTION, ACTION = (
    "session_id", "policy", "weight", "probability", "satisfaction", "action",
)  # fmt: skip
SESSION_GAP_S = 1800
"""Seconds of silence after which a new session begins, the half hour of web analytics."""
_NUMBERS = (TIMESTAMP, POSITION, WEIGHT, PROBABILITY, SATISFACTION)
INTERACTION_COLUMNS = (USER, ITEM, LEVEL, SESSION, POLICY, ACTION, *_NUMBERS)
"""Every column that a table of interactions may have."""
_MISSING_SHOWN = 3


def checked_interactions(frame: pd.DataFrame, *, side: str, max_level: int) -> pd.DataFrame:
    """The same table with ids as texts and numbers as numbers, or an error that says what is wrong.

    Args:
        frame: One row a reaction of a user to an item: user_id, item_id, level, and what is known of timestamp
            (seconds), position (from 0), session_id, policy (who recommended), weight (importance weight of the row),
            probability (predicted chance of acceptance), satisfaction (stars) and action (kind). Others are dropped.
        side: "simulated" or "real", for messages.
        max_level: The deepest level C; levels are whole numbers 0..C.

    Raises:
        FaithfulnessError: A column is missing, there is no row or one user only, a value is missing or out of range,
            or a row stands twice.
    """
    missing = [name for name in (USER, ITEM, LEVEL) if name not in frame]
    if missing:
        raise FaithfulnessError(
            f"The {side} interactions must have the columns {USER}, {ITEM} and {LEVEL}; {', '.join(missing)} missing "
            f"among {', '.join(map(str, frame.columns))}. Rename the columns."
        )
    if frame.empty:
        raise FaithfulnessError(
            f"The {side} interactions must hold at least one row; got none. Check how they were written."
        )
    known = [name for name in INTERACTION_COLUMNS if name in frame]
    found = frame[known].reset_index(drop=True)
    _refuse_missing(found, side)
    for name in {USER, ITEM, SESSION, POLICY, ACTION} & set(known):
        found[name] = _as_text(found[name])
    for name in {*_NUMBERS, LEVEL} & set(known):
        found[name] = _as_numbers(found[name], side)
    _check_values(found, side, max_level)
    found[LEVEL] = found[LEVEL].astype(np.int64)
    twice = found.duplicated()
    if twice.any():
        row = found[twice].iloc[0]
        raise FaithfulnessError(
            f"A row of the {side} interactions must stand once; got user {row[USER]} with item {row[ITEM]} twice in "
            f"all columns, and {int(twice.sum())} such rows in all. Drop the repeats, or add a timestamp."
        )
    refuse_one_user(found[USER].to_numpy(), side)
    return found


def refuse_one_user(users: Iterable[str], side: str) -> None:
    """Refuse a side whose rows are all of one user.

    Raises:
        FaithfulnessError: There is one user only.
    """
    if len(names := set(users)) < 2:
        raise FaithfulnessError(
            f"The {side} side must have at least two users, as users are what intervals draw; got {len(names)} "
            f"({', '.join(map(str, names))}). Add users."
        )


def interactions_of_dialogues(dialogues: Sequence[SpokenDialogue]) -> pd.DataFrame:
    """One row for each reply with a known level: user_id, item_id, level, satisfaction (NaN if unknown), session_id.

    Where it is known of every dialogue who recommends, policy stands beside.

    Args:
        dialogues: Each is a session.
    """
    rows = [
        (dialogue.user, reply.title or "", reply.level, reply.satisfaction, str(number), dialogue.policy)
        for number, dialogue in enumerate(dialogues)
        for reply in dialogue.replies
        if reply.level is not None
    ]
    frame = pd.DataFrame(rows, columns=[USER, ITEM, LEVEL, SATISFACTION, SESSION, POLICY])
    frame = frame.astype({LEVEL: np.int64, SATISFACTION: np.float64})
    return frame.drop(columns=POLICY) if frame[POLICY].isna().any() else frame


def sessions_of_interactions(frame: pd.DataFrame) -> Sessions | None:
    """Lengths of sessions in rows, all of them ended; None where the table tells neither sessions nor times.

    Args:
        frame: From `checked_interactions`; without session_id, sessions are parted by `SESSION_GAP_S`.
    """
    if SESSION in frame:
        keys = frame[USER] + "\x1f" + frame[SESSION]
    elif TIMESTAMP in frame:
        frame = frame.sort_values([USER, TIMESTAMP], kind="stable")
        is_new = (frame[USER] != frame[USER].shift()) | (frame[TIMESTAMP].diff() > SESSION_GAP_S)
        keys = is_new.cumsum()
    else:
        return None
    found = frame.groupby(keys, sort=True)[USER].agg(["first", "size"])
    return Sessions(found["first"].to_numpy(), found["size"].to_numpy(), np.ones(len(found)))


def sessions_of_dialogues(dialogues: Sequence[SpokenDialogue], *, abandoned: bool) -> Sessions:
    """Lengths of dialogues in replies; those that a limit of turns or a failed model cut off are censored.

    Args:
        dialogues: Those without a reply are left out.
        abandoned: Whether only walking out counts as an end, and acceptance cuts the watch short.
    """
    cut = {StopReason.MAX_TURNS, StopReason.MODEL_FAILED}
    spoken = [dialogue for dialogue in dialogues if dialogue.replies]
    ended = [
        dialogue.stop is StopReason.OUT_OF_PATIENCE if abandoned else dialogue.stop not in cut
        for dialogue in spoken
    ]
    return Sessions(
        np.asarray([dialogue.user for dialogue in spoken], dtype=np.str_),
        np.asarray([len(dialogue.replies) for dialogue in spoken]),
        np.asarray(ended),
    )


def behaviour_features(frame: pd.DataFrame, *, max_level: int) -> tuple[Features, tuple[str, ...]]:
    """What one user's rows look like, for a classifier: shares of levels, and what else both sides may have.

    Args:
        frame: From `checked_interactions`.
        max_level: The deepest level C.

    Returns:
        One row a user, and names of the columns: share of each level, mean level of the earlier and of the later half
        of the rows, how often a level repeats the one before, and mean satisfaction where the table has it.
    """
    ordered = frame.sort_values([USER, TIMESTAMP] if TIMESTAMP in frame else [USER], kind="stable")
    users = ordered[USER].to_numpy(dtype=np.str_)
    level = ordered[LEVEL].to_numpy(dtype=np.int64)
    ids, counts = cells_by_user(users, level, max_level + 1, 1)
    place = ordered.groupby(USER, sort=False).cumcount().to_numpy()
    size = ordered.groupby(USER, sort=False)[LEVEL].transform("size").to_numpy()
    is_late = (place >= size / 2).astype(np.int64)
    repeats = (level == np.roll(level, 1)) & (place > 0)
    _, halves = cells_by_user(users, is_late, 2, level, 1)
    _, again = cells_by_user(users, np.zeros(len(users), np.int64), 1, repeats, place > 0)
    columns = [
        counts / counts.sum(1, keepdims=True),
        _ratio(halves[:, :2], halves[:, 2:]),
        _ratio(again[:, :1], again[:, 1:]),
    ]
    names = [f"share of level {k}" for k in range(max_level + 1)]
    names += ["mean level early", "mean level late", "level as before"]
    if SATISFACTION in ordered and ordered[SATISFACTION].notna().all():
        _, stars = cells_by_user(users, np.zeros(len(users), np.int64), 1, ordered[SATISFACTION], 1)
        columns.append(_ratio(stars[:, :1], stars[:, 1:]))
        names.append("mean satisfaction")
    return Features(ids, np.concatenate(columns, axis=1)), tuple(names)


def shared_pairs(simulated: pd.DataFrame, real: pd.DataFrame) -> pd.DataFrame:
    """Rows of both tables about the same user and item, the deepest level of each side.

    Args:
        simulated: From `checked_interactions`.
        real: The same of the real side.

    Returns:
        Columns user_id, answer (predicted probability if the simulated table has it, else its level) and level (real).
    """
    answer = PROBABILITY if PROBABILITY in simulated else LEVEL
    one = simulated[[USER, ITEM, answer]].rename(columns={answer: "answer"})
    deepest = [
        table.groupby([USER, ITEM], as_index=False).max() for table in (one, real[[USER, ITEM, LEVEL]])
    ]
    return deepest[0].merge(deepest[1], on=[USER, ITEM])


def _ratio(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return sums / np.maximum(counts, 1.0)


def _refuse_missing(found: pd.DataFrame, side: str) -> None:
    lacking = found.isna().any()
    if lacking.any():
        name = str(lacking.index[lacking][0])
        rows = np.flatnonzero(found[name].isna())
        raise FaithfulnessError(
            f"Column `{name}` of the {side} interactions must have a value in every row; got none in {len(rows)} rows, "
            f"such as row {rows[:_MISSING_SHOWN].tolist()}. Fill or drop these rows."
        )


def _as_text(column: pd.Series) -> pd.Series:
    """Ids as texts; 7.0, which a missing value elsewhere makes of 7, is 7."""
    if pd.api.types.is_float_dtype(column) and (column.abs() < 2**53).all() and (column % 1 == 0).all():
        column = column.astype(np.int64)
    return column.astype(str)


def _as_numbers(column: pd.Series, side: str) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    bad = ~np.isfinite(numbers)
    if bad.any():
        raise FaithfulnessError(
            f"Column `{column.name}` of the {side} interactions must hold finite numbers; got "
            f"{column[bad].tolist()[:_MISSING_SHOWN]}. Correct these rows."
        )
    return numbers


def _check_values(found: pd.DataFrame, side: str, max_level: int) -> None:
    level = found[LEVEL]
    allowed = {
        LEVEL: ((level >= 0) & (level <= max_level) & (level == np.floor(level)), f"be whole numbers in 0..{max_level}",
                "Recode them, or give the deepest level with --max-level."),
    }  # fmt: skip
    if PROBABILITY in found:
        allowed[PROBABILITY] = (
            found[PROBABILITY].between(0, 1),
            "lie in 0..1",
            "Write probabilities, not logits.",
        )
    if WEIGHT in found:
        allowed[WEIGHT] = (found[WEIGHT] >= 0, "be 0 or more", "Write importance weights.")
    for name, (is_fine, what, remedy) in allowed.items():
        if not is_fine.all():
            raise FaithfulnessError(
                f"Column `{name}` of the {side} interactions must {what}; got "
                f"{found[name][~is_fine].tolist()[:_MISSING_SHOWN]} in {int((~is_fine).sum())} rows. {remedy}"
            )
