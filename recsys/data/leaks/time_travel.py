"""Finding known rows that are later than the rows to be predicted.

Ji, Sun et al. ("A Critical Study on Data Leakage in Recommender System Offline Evaluation", TOIS 2023) show that
leave-last-out and random splits do this by design; there it is a warning. It is a leak where the protocol promises
otherwise, or where the parts were plainly cut along time and some rows are on the wrong side.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data.leaks.findings import NAMED_AT_MOST, Leak, LeakKind, Severity
from recsys.data.leaks.rows import Rows
from recsys.data.splits import TimeOrder
from recsys.types import Bools, Ints

# Parts count as cut along time if their rows look into the user's future at most this often, measured against a
# random cut of the same rows, and if a random cut would do so often enough to tell.
RATHER_THAN_RANDOM = 0.5
ENOUGH_EXPECTED = 30.0


def time_travel(part: str, known: Rows, source: str, target: Rows, order: TimeOrder) -> list[Leak]:
    """Rows to be predicted before something that is known.

    Args:
        part: What to call the part, such as "test".
        known: Rows that models learn from or are shown.
        source: What to call these, such as "the known rows".
        target: Rows to be predicted.
        order: What the protocol promises.

    Returns:
        One finding or none; none where either lacks times.
    """
    if known.times is None or target.times is None or len(target) == 0:
        return []
    of_anyone = known.times.max() > target.times
    if not of_anyone.any():
        return []
    last_of_user = pd.Series(known.times).groupby(known.users).max()
    of_user = last_of_user.reindex(target.users).to_numpy() > target.times
    at_random = 0.0
    if order is TimeOrder.NONE and of_user.any():
        at_random = _expected_of_user(known.users, known.times, target.users, target.times)
    said, is_leak, shown = _judge(order, of_anyone, of_user, at_random)
    whose = "of the same user" if shown is of_user else "of someone"
    more = "" if shown is of_user else f", {of_user.mean():.2%} of the same user"
    examples = target.named(np.flatnonzero(shown)[:NAMED_AT_MOST])
    sentence = (
        f"{int(shown.sum()):,} of {len(target):,} {part} rows ({shown.mean():.2%}) have a later row {whose} among "
        f"{source}{more}; {said} (e.g. {', '.join(examples)})."
    )
    severity = Severity.LEAK if is_leak else Severity.WARNING
    return [Leak(LeakKind.TIME_TRAVEL, severity, float(shown.mean()), int(shown.sum()), examples, sentence)]


def _judge(order: TimeOrder, of_anyone: Bools, of_user: Bools, at_random: float) -> tuple[str, bool, Bools]:
    """What to say of the promise, whether it is broken, and the rows that tell."""
    if order is TimeOrder.GLOBAL:
        return "the protocol promises that nobody's future is known", True, of_anyone
    if order is TimeOrder.PER_USER and of_user.any():
        return "the protocol promises that no user's own future is known", True, of_user
    if order is TimeOrder.PER_USER:
        return "the protocol lets other users' future be known", False, of_anyone
    if of_user.any() and at_random >= ENOUGH_EXPECTED and of_user.sum() < RATHER_THAN_RANDOM * at_random:
        said = (
            f"a random cut of the same rows would give about {at_random:,.0f}, so the parts were cut along time and "
            "these rows lie on the wrong side"
        )
        return said, True, of_user
    return "the protocol promises nothing about time and looks into the future by design", False, of_anyone


def _expected_of_user(
    known_users: Ints, known_times: NDArray[np.float64], users: Ints, times: NDArray[np.float64]
) -> float:
    """Rows that would have a later known row of their user, were each user's rows dealt out at random.

    With L of the user's other N - 1 rows strictly later, of which s are known: about 1 - (1 - s / (N - 1))^L.
    Rows that are known twice, from train and from the part itself, raise it a little; the bound leaves room for that.
    """
    near = pd.Index(users).unique().get_indexer(pd.Index(known_users)) >= 0
    known_users = known_users[near]
    all_users, all_times = np.concatenate([known_users, users]), np.concatenate([known_times[near], times])
    order = np.lexsort((all_times, all_users))
    new_user = np.diff(all_users[order]) != 0
    new_moment = new_user | (np.diff(all_times[order]) != 0)
    later = np.empty(len(order))
    later[order] = _run_ends(new_user) - _run_ends(new_moment)
    n_known = pd.Series(known_users).value_counts().reindex(users, fill_value=0).to_numpy()
    n_others = n_known + pd.Series(users).value_counts().reindex(users).to_numpy() - 1
    share = n_known / np.maximum(n_others, 1)
    return float((1.0 - (1.0 - share) ** later[len(known_users) :]).sum())


def _run_ends(changes: Bools) -> NDArray[np.int64]:
    """For each place, the last place of its run; `changes` marks places after which a new run begins. Shape (N,)."""
    ends = np.append(np.flatnonzero(changes), len(changes))
    return np.repeat(ends, np.diff(ends, prepend=-1))
