"""What a leak is, how bad it is, and the error that stops an evaluation which has one."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from recsys.errors import LeakError

NAMED_AT_MOST = 3


class LeakKind(StrEnum):
    """Ways in which something of the test reaches the models."""

    TIME_TRAVEL = "time travel"
    DUPLICATE = "duplicates across parts"
    OTHER_LOG = "test pairs in another behaviour"
    FEATURE = "features of the whole log"


class Severity(StrEnum):
    """Whether figures can stand beside the finding."""

    # Natural or part of the protocol: print it beside the figures.
    WARNING = "warning"
    # The figures would be wrong: refuse them.
    LEAK = "leak"


@dataclass(frozen=True, slots=True)
class Leak:
    """One finding.

    Attributes:
        kind: How it reaches the models.
        severity: Whether figures can stand beside it.
        share: Of the rows or pairs to be predicted, or of the users or items of a feature table, 0..1.
        count: How many that are.
        examples: Up to three of them: rows by the ids of the log, users or items of a table by their outside ids.
        sentence: The whole finding, for people.
    """

    kind: LeakKind
    severity: Severity
    share: float
    count: int
    examples: tuple[str, ...]
    sentence: str


def refuse_leaks(leaks: Sequence[Leak]) -> None:
    """Stop if any finding makes figures wrong; warnings pass.

    Raises:
        LeakError: There is a finding of severity "leak"; each of them is named.
    """
    found = [f"{leak.kind}: {leak.sentence}" for leak in leaks if leak.severity is Severity.LEAK]
    if found:
        raise LeakError(
            f"Nothing of the test may reach the models; {len(found)} leak{'s' if len(found) > 1 else ''} found. "
            + " ".join(found)
            + " Cut the log again or drop what leaks; override only for a report that says so."
        )
