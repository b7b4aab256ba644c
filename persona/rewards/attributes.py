"""Named, measurable attributes of a reply: the objectives that sliders and directions speak of.

Every attribute is a documented count over the words of a reply, so that anyone can check a figure by hand. Slots
such as `<title>` and, where the caller names them, the facts of an item card are left out of the counts: a style
is a property of the wording, not of the film that is talked about.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from persona.errors import DataError, ShapeError

ATTRIBUTES = ("brevity", "warmth", "plainness", "reasons", "curiosity", "enthusiasm")
"""Order of the attribute axis A everywhere."""

WARM = frozenset(
    "glad happy hope welcome friend thanks thank lovely dear kind cosy warm care sweet together sorry gladly "
    "cheers hug gentle comfort pleasure smile heart delighted".split()
)
EXCITED = frozenset(
    "amazing fantastic incredible wow brilliant superb thrilling stunning wonderful awesome unforgettable "
    "absolutely love spectacular gem magnificent totally huge".split()
)
REASON = re.compile(
    r"\b(because|since|as it|as you|so you|which means|that is why|given that|thanks to|for its)\b"
)
SLOT = re.compile(r"<[a-z_]+>")
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def measure_attributes(
    replies: Sequence[str], facts: Sequence[Sequence[str]] | None = None
) -> NDArray[np.float64]:
    """The raw value of every attribute of every reply; larger means more of it.

    With n words: brevity = -log(1 + n); warmth = log(1 + warm words); plainness = -(mean letters a word);
    reasons = log(1 + causal connectives); curiosity = log(1 + question marks); enthusiasm = log(1 + exclamation
    marks + excited words). A reply without words has the plainness of five-letter words.

    Args:
        replies: N replies, with or without unfilled slots.
        facts: For each reply, strings to leave out of the counts, such as the film's title and cast.

    Returns:
        Shape (N, A), columns in the order of `ATTRIBUTES`.

    Raises:
        ShapeError: `facts` has not one entry a reply.
    """
    if facts is not None and len(facts) != len(replies):
        raise ShapeError(
            f"`facts` must have one entry for each reply ({len(replies)}); got {len(facts)}. Pass an empty entry where "
            "a reply has no facts."
        )
    hidden = facts if facts is not None else ((),) * len(replies)
    rows = [_measure(reply, known) for reply, known in zip(replies, hidden, strict=True)]
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), len(ATTRIBUTES))


def _measure(reply: str, facts: Sequence[str]) -> tuple[float, ...]:
    for fact in sorted(facts, key=len, reverse=True):
        reply = reply.replace(fact, " ")
    text = SLOT.sub(" ", reply).lower()
    words = WORD.findall(text)
    warm = sum(word in WARM for word in words)
    excited = sum(word in EXCITED for word in words) + text.count("!")
    letters = sum(len(word) for word in words) / len(words) if words else 5.0
    counts = (warm, len(REASON.findall(text)), text.count("?"), excited)
    warmth, reasons, curiosity, enthusiasm = np.log1p(counts).tolist()
    return (-float(np.log1p(len(words))), warmth, -letters, reasons, curiosity, enthusiasm)


@dataclass(frozen=True, slots=True)
class AttributeScale:
    """Standardises raw attributes against a reference set of replies, so that one unit is one standard deviation.

    Attributes:
        mean: Shape (A,).
        std: Shape (A,), positive.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def fit(cls, raw: NDArray[np.float64]) -> "AttributeScale":
        """Mean and deviation of reference replies, raw values of shape (N, A).

        Raises:
            DataError: Fewer than two replies, or an attribute that does not vary among them.
        """
        if len(raw) < 2 or (flat := np.ptp(raw, axis=0) == 0).any():
            constant = (
                [name for name, still in zip(ATTRIBUTES, flat, strict=True) if still] if len(raw) > 1 else []
            )
            raise DataError(
                f"Reference replies must vary in every attribute; got {len(raw)} replies, constant in {constant}. "
                "Sample more replies, or at a higher temperature."
            )
        return cls(raw.mean(axis=0), raw.std(axis=0))

    def __call__(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standardised attributes, same shape as `raw`, limited to +-3 so that no outlier rules a user's choice."""
        return np.clip((raw - self.mean) / self.std, -3.0, 3.0)
