"""Looking for everything that a split lets the models know of what they are measured on."""

from collections.abc import Mapping

import pandas as pd

from recsys.data.dataset import Dataset
from recsys.data.leaks.features import feature_leaks
from recsys.data.leaks.findings import Leak, Severity
from recsys.data.leaks.pairs import known_pairs, pairs_in_other_log, targets_of
from recsys.data.leaks.rows import rows_of
from recsys.data.leaks.time_travel import time_travel
from recsys.data.splits import Split, TimeOrder
from recsys.errors import InteractionError


def find_leaks(
    split: Split,
    *,
    dataset: Dataset | None = None,
    relevant_level: int,
    auxiliary: Mapping[str, pd.DataFrame] | None = None,
    events: pd.DataFrame | None = None,
) -> list[Leak]:
    """What the rows, the other logs and the features tell of the rows to be predicted.

    Four kinds are looked for: known rows later than the test; pairs of the test that are known already; such pairs
    in a shallower behaviour, of this log or of an auxiliary one; features computed with the test rows in the log.
    O(N log N), about a second for a million rows.

    Args:
        split: Any; what its `order` promises about time is held against it.
        dataset: Where given, its dense feature columns are looked at.
        relevant_level: Test rows count as hits from this level on.
        auxiliary: Further logs that models learn from, by name, over the same user and item ids: columns user_id and
            item_id, and timestamp where known.
        events: What the log of `dataset` was merged from, repeats included, where features may have been counted on
            that; ids as in `dataset`, -1 for users and items that it lacks.

    Returns:
        Findings that make figures wrong first, then warnings.

    Raises:
        InteractionError: No test row reaches `relevant_level`, or `dataset` does not fit the split.
    """
    validation_known = [split.train, split.validation.known]
    parts = {
        "validation": (rows_of(validation_known), rows_of([split.validation.target])),
        "test": (
            rows_of([*validation_known, split.validation.target, split.test.known]),
            rows_of([split.test.target]),
        ),
    }
    leaks: list[Leak] = []
    for part, (known, target) in parts.items():
        relevant = target.take(target.levels >= relevant_level)
        if part == "test" and len(relevant) == 0:
            raise InteractionError(
                f"`relevant_level` must be reached by some test row; none of {len(target)} reaches {relevant_level}. "
                "Lower it, or cut a larger test part."
            )
        targets = targets_of(relevant)
        leaks += time_travel(part, known, "the known rows", target, split.order)
        leaks += known_pairs(part, known, targets, relevant_level)
        for name, log in (auxiliary or {}).items() if part == "test" else ():
            other = rows_of([log])
            leaks += pairs_in_other_log(part, name, other, targets)
            if split.order is not TimeOrder.NONE:
                leaks += time_travel(part, other, f"the log {name!r}", target, split.order)
    if dataset is not None:
        leaks += feature_leaks(split, dataset, events)
    return sorted(leaks, key=lambda leak: leak.severity is Severity.WARNING)
