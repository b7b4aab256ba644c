"""What a user has told of itself and what it tells next: bit by bit, never the title it has in mind.

What was told is read off the words, not remembered, so that a dialogue can be taken up again at any turn, and a user
that did not say what it was to say gets to say it later.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from simulators.users.personas import Interest, Persona
from simulators.words import plural_of

LIKINGS = {2: "loved", 1: "liked", -1: "disliked", -2: "hated"}
"""Words for how much an interest is liked."""

_TARGET_FACTS = ("genre", "mood", "era", "pace", "year", "director")


class Tellable(NamedTuple):
    """One thing that a user can tell of itself.

    value: The words that show that it was told.
    text: The whole of it, as the user's prompt has it.
    """

    value: str
    text: str


def tellables(persona: Persona) -> tuple[Tellable, ...]:
    """Everything that the user can tell: its interests, then what it has in mind short of the title."""
    found = [Tellable(interest.value, interest_words(interest)) for interest in persona.interests]
    if persona.target is not None:
        for kind in _TARGET_FACTS:
            values = persona.target.facts.get(kind, "").split(" and ")
            found += [Tellable(value, f"{value} ({kind}, in mind)") for value in values if value]
    return tuple(found)


def interest_words(interest: Interest) -> str:
    """An interest in the words of a prompt: its value, then its kind and how much it is liked."""
    return f"{interest.value} ({interest.kind}, {LIKINGS[interest.liking]})"


def told(persona: Persona, texts: Sequence[str]) -> frozenset[int]:
    """Which `tellables`, by index, have been told: those whose value occurs in the words, in the plural too.

    Args:
        persona: The user.
        texts: What the user said.
    """
    said = " ".join(texts)
    return frozenset(index for index, thing in enumerate(tellables(persona)) if _occurs(thing.value, said))


def next_to_tell(persona: Persona, texts: Sequence[str], draws: Sequence[float]) -> tuple[Tellable, ...]:
    """What the user tells in its next message.

    Efficiency-seeking users tell two things at a time, others one. The first message tells of what is liked or looked
    for before of what is not.

    Args:
        persona: The user.
        texts: What the user said so far.
        draws: Independent draws from [0, 1), two of them: each picks one thing of what is left.
    """
    things = tellables(persona)
    known = told(persona, texts)
    left = [index for index in range(len(things)) if index not in known]
    if not texts:
        wanted = [i for i in left if i >= len(persona.interests) or persona.interests[i].liking > 0]
        left = wanted or left
    count = 2 if persona.activity == "efficiency-seeking" else 1
    chosen = []
    for draw in draws[:count]:
        if left:
            chosen.append(things[left.pop(int(draw * len(left)))])
    return tuple(chosen)


def _occurs(value: str, said: str) -> bool:
    # A name of a person takes a mere s, also after a y.
    forms = value, plural_of(value), f"{value}s"
    return any(re.search(rf"\b{re.escape(form)}\b", said, re.IGNORECASE) for form in forms)
