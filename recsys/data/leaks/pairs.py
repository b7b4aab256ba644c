"""Finding pairs of user and item that are to be predicted and are already known, in the same log or in another.

In a shop, "carted but not bought" wins a ranking whose test purchases are still in the cart log. Where times prove
that every known row of the pair is earlier, it is natural behaviour; without such proof it is a leak.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from recsys.data.leaks.findings import NAMED_AT_MOST, Leak, LeakKind, Severity
from recsys.data.leaks.rows import Rows
from recsys.types import Ints


class Targets(NamedTuple):
    """The distinct pairs to be predicted.

    rows: Each pair's first row, and with it the time that known rows must be earlier than.
    keys: One a pair.
    width: Keys are user * width + item.
    """

    rows: Rows
    keys: pd.Index
    width: int


def targets_of(target: Rows) -> Targets:
    """The distinct pairs of the rows to be predicted, each at its earliest."""
    times = np.zeros(len(target)) if target.times is None else target.times
    rows = target.take(np.lexsort((times, target.items, target.users)))
    width = int(rows.items.max(initial=0)) + 1
    keys = rows.users * width + rows.items
    first = np.flatnonzero(np.diff(keys, prepend=-1) != 0)
    return Targets(rows.take(first), pd.Index(keys[first]), width)


def known_pairs(part: str, known: Rows, targets: Targets, relevant_level: int) -> list[Leak]:
    """Pairs that the known rows of the same log hold already, at the level to be predicted and at shallower ones.

    Args:
        part: What to call the part, such as "test".
        known: Rows that models learn from or are shown.
        targets: Of the rows at `relevant_level` or deeper.
        relevant_level: The level to be predicted.
    """
    place = _places(known, targets)
    found = known.take(place >= 0)
    place = place[place >= 0]
    is_deep = found.levels >= relevant_level
    return [
        *_finding(
            LeakKind.DUPLICATE,
            found.take(is_deep),
            place[is_deep],
            targets,
            f"of the {part} pairs are known at level {relevant_level} or deeper",
        ),
        *_finding(
            LeakKind.OTHER_LOG,
            found.take(~is_deep),
            place[~is_deep],
            targets,
            f"of the {part} pairs are known at a level shallower than {relevant_level}",
        ),
    ]


def pairs_in_other_log(part: str, name: str, other: Rows, targets: Targets) -> list[Leak]:
    """Pairs that a log of another behaviour holds, at whatever level."""
    place = _places(other, targets)
    inside = place >= 0
    what = f"of the {part} pairs are in the log {name!r}"
    return _finding(LeakKind.OTHER_LOG, other.take(inside), place[inside], targets, what)


def _places(known: Rows, targets: Targets) -> Ints:
    """Place of each known row's pair among the targets, -1 where it is none. Shape (N,)."""
    keys = known.users * targets.width + known.items
    keys[known.items >= targets.width] = -1
    return targets.keys.get_indexer(pd.Index(keys)).astype(np.int64)


def _finding(kind: LeakKind, found: Rows, place: Ints, targets: Targets, what: str) -> list[Leak]:
    """One finding if any known row falls on a target; a warning if times prove each of them earlier."""
    if len(found) == 0:
        return []
    met, late = (np.zeros(len(targets.keys), dtype=bool) for _ in range(2))
    met[place] = True
    if found.times is None or targets.rows.times is None:
        late, why = met, "no times prove that this was before"
    else:
        late[place[found.times >= targets.rows.times[place]]] = True
        why = f"{int(late.sum()):,} of them not earlier than what is to be predicted"
    is_leak = bool(late.any())
    shown = late if is_leak else met
    if not is_leak:
        why = (
            "all at earlier times, which is natural but tells a model much, and lists that leave out what was seen "
            "cannot hold them"
        )
    examples = targets.rows.named(np.flatnonzero(shown)[:NAMED_AT_MOST])
    sentence = (
        f"{int(met.sum()):,} of {len(met):,} ({met.mean():.2%}) {what}: {why} (e.g. {', '.join(examples)})."
    )
    severity = Severity.LEAK if is_leak else Severity.WARNING
    return [Leak(kind, severity, float(shown.mean()), int(shown.sum()), examples, sentence)]
