"""How users fared in the dialogues of `persona simulate`, read a block at a time, so that any number of them fits."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.significance import bootstrap_interval
from simulators.protocols import SimulatedUser
from simulators.rehearsal import Outcome, outcome_of
from simulators.types import Dialogue, StopReason

BLOCK = 1024
"""Dialogues that are judged together."""
_SHOWN_FAILURES = 3


class Fared(NamedTuple):
    """What dialogues came to.

    stops: How many ended for each reason.
    failures: How many failed for each reason of a model, the first one met first.
    outcome: How each user fared, in the order of the dialogues.
    """

    stops: Counter[StopReason | None]
    failures: Counter[str]
    outcome: Outcome


def read_outcomes(
    dialogues: Iterable[Dialogue], judge: SimulatedUser, *, seed: int, block: int = BLOCK
) -> Fared:
    """What dialogues came to, no more than two blocks of them in memory at a time.

    Args:
        dialogues: At least one, read once.
        judge: Knows the utility of what was shown; decides about each turn by itself, so blocks make no difference.
        seed: The seed of the dialogues.
        block: Dialogues judged together, at least 1.
    """
    stops, failures, outcomes = Counter[StopReason | None](), Counter[str](), []
    for some in _blocks(dialogues, block):
        stops.update(dialogue.stop for dialogue in some)
        failed = [dialogue.said for dialogue in some if dialogue.stop is StopReason.MODEL_FAILED]
        failures.update((said and said.failure) or "the agent gave no reply" for said in failed)
        outcomes.append(outcome_of(some, judge, seed=seed))
    return Fared(stops, failures, Outcome(*map(np.concatenate, zip(*outcomes, strict=True))))


def summarise(fared: Fared, *, seed: int) -> dict[str, Any]:
    """How many dialogues ended how, the commonest reasons of failure if any, and how users fared, with intervals.

    Args:
        fared: What the dialogues came to.
        seed: Draws users for the intervals.

    Returns:
        Plain JSON values.
    """
    return {
        "dialogues": fared.stops.total(),
        "stops": {str(reason): fared.stops[reason] for reason in StopReason if reason in fared.stops},
        **({"failures": dict(fared.failures.most_common(_SHOWN_FAILURES))} if fared.failures else {}),
        **{name: _measure(values, seed=seed) for name, values in fared.outcome._asdict().items()},
    }


def _blocks(dialogues: Iterable[Dialogue], block: int) -> Iterator[list[Dialogue]]:
    left = iter(dialogues)
    while some := list(islice(left, block)):
        yield some


def _measure(values: NDArray[np.float64], *, seed: int) -> dict[str, Any]:
    """Mean with its interval over users, which a single user does not have."""
    if len(values) < 2:
        return {"value": float(values.mean()), "ci95": None, "n": len(values)}
    return bootstrap_interval(values, seed=seed).to_report()
