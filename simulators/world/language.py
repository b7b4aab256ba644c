"""A seeded grammar for both sides of a film conversation: the text that the embedded language model learns from.

It speaks in slots (`<title>`, `<year>` ...) that the agent fills from the item card, so what it says about a film is
right by construction. It shows a model how to phrase things; no simulated decision is made here.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from persona.rewards.attributes import ATTRIBUTES
from simulators.world import phrases

CARD_SLOTS = (
    "title", "year", "genre", "mood", "era", "pace", "length", "director", "cast", "plot",
)  # fmt: skip
"""Facts of a film that a reply may name; each has the slot token `<name>`."""

_CHOICE = re.compile(r"\{([^{}]*)\}")
_SLOT = re.compile(r"<([a-z]+)>")


@dataclass(frozen=True, slots=True)
class Situation:
    """What the speaker of a reply knows besides the card.

    Attributes:
        facts: Slot names that the card offers, "title" among them.
        again: Whether an earlier suggestion in this dialogue failed.
    """

    facts: frozenset[str]
    again: bool = False


def expand(phrase: str, facts: Collection[str], rng: np.random.Generator) -> str | None:
    """One wording of a phrase that names only the given facts, or None if it has none.

    Every `{a|b}` is replaced by one of its choices; choices that need a missing fact are not taken.
    """

    def pick(match: re.Match[str]) -> str:
        choices = [c for c in match[1].split("|") if set(_SLOT.findall(c)) <= set(facts)]
        return choices[rng.integers(len(choices))] if choices else "<missing>"

    text = _CHOICE.sub(pick, phrase)
    return text if set(_SLOT.findall(text)) <= set(facts) else None


def speak(options: Sequence[str], facts: Collection[str], rng: np.random.Generator) -> str:
    """One wording of one of the options; an empty string if none can be said with the given facts."""
    for index in rng.permutation(len(options)):
        if (text := expand(options[index], facts, rng)) is not None:
            return text
    return ""


def reply(style: Mapping[str, float], situation: Situation, rng: np.random.Generator) -> str:
    """A recommendation in slots, worded to lean towards a style.

    Args:
        style: Degree of every attribute of `ATTRIBUTES`, -1 (as little as possible) to 1.
        situation: What the card offers and whether an earlier suggestion failed.
        rng: Source of every choice.
    """
    said: set[str] = set()

    def tone(low: str, high: str, attribute: str) -> str:
        return high if rng.random() < (1 + style[attribute]) / 2 else low

    def say(table: Mapping[str, Sequence[str]], count: int) -> list[str]:
        sentences = []
        for _ in range(count):
            text = speak(table[tone("elaborate", "plain", "plainness")], situation.facts, rng)
            if text and text not in said:
                said.add(text)
                sentences.append(text)
        return sentences

    opener = phrases.AGAIN if situation.again else phrases.OPENERS
    opening_style = (
        "warm" if rng.random() < 0.5 + 0.6 * style["warmth"] else tone("elaborate", "plain", "plainness")
    )
    wordy = 0.5 - 0.5 * style["brevity"]
    parts = []
    if rng.random() < 0.15 + 0.55 * wordy + 0.3 * max(style["warmth"], 0):
        parts.append(speak(opener[opening_style], situation.facts, rng))
    mood = tone("calm", "excited", "enthusiasm")
    parts.append(
        speak(phrases.SUGGESTIONS[tone("elaborate", "plain", "plainness"), mood], situation.facts, rng)
    )
    middle = say(phrases.FACTS, int(rng.binomial(3, 0.8 * wordy)))
    middle += say(phrases.REASONS, int(rng.binomial(3, _share(style["reasons"]))))
    middle += say(phrases.CHEERS, int(rng.binomial(2, _share(style["enthusiasm"]))))
    parts += [middle[i] for i in rng.permutation(len(middle))]
    parts += say(phrases.CARES, int(rng.binomial(2, _share(style["warmth"]))))
    parts += say(phrases.QUESTIONS, int(rng.binomial(2, _share(style["curiosity"]))))
    return " ".join(part for part in parts if part)


def _share(degree: float) -> float:
    """Probability of one more phrase of a kind: rare at -1, likely at 1."""
    return float(np.clip(0.3 + 0.5 * degree, 0.02, 0.9))


def sample_style(rng: np.random.Generator) -> dict[str, float]:
    """A style with every attribute drawn evenly from -1 to 1."""
    return dict(zip(ATTRIBUTES, rng.uniform(-1, 1, len(ATTRIBUTES)).tolist(), strict=True))


def opening(facts: Collection[str], rng: np.random.Generator) -> str:
    """What a user says first; `facts` are the slots of the wish (genre, mood)."""
    return speak(phrases.OPENINGS, facts, rng)


def reaction(
    level: int,
    complaint: tuple[str, int] | None,
    *,
    goes_on: bool,
    facts: Collection[str],
    rng: np.random.Generator,
) -> str:
    """What a user says after a reply.

    Args:
        level: Interest in the film, 0..4.
        complaint: The attribute that was off and the sign of what was heard (1 = too much), if any.
        goes_on: Whether the user asks for another film.
        facts: Slots that may be used: title, and the wish's genre and mood.
        rng: Source of every choice.
    """
    parts = [speak(phrases.REACTIONS[level], facts, rng)]
    if complaint is not None:
        attribute, sign = complaint
        parts.append(speak(phrases.COMPLAINTS[attribute, sign], facts, rng))
    elif rng.random() < 0.3:
        parts.append(speak(phrases.PRAISES, facts, rng))
    if goes_on:
        parts.append(speak(phrases.FOLLOW_UPS, facts, rng))
    return " ".join(part for part in parts if part)
