"""How a card of facts reaches a reply, for models that copy facts and for small ones that leave slots to be filled.

A model with slot tokens (`LanguageModel.slots`) sees a card as its slot names and answers in slots, which are
filled here; any other model sees the values and must copy them. Both come out as the same `Utterance`, and both are
held to the card by the same check.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from persona.rewards.attributes import measure_attributes
from simulators.chat.model import Completion
from simulators.types import ItemCard, Utterance

_SLOT = re.compile(r"<([a-z]+)>")
_ARTICLE = re.compile(r"\b([Aa]) (<[a-z]+>)")
_NUMBER = re.compile(r"\b\d{2,4}\b")
_NAME = re.compile(r"\b[A-Z][a-z'\u2019-]+(?: [A-Z][a-z'\u2019-]+)+")
_SENTENCE_START = re.compile(r"(?:^|[.!?]\s+)\"?([A-Z][a-z'\u2019-]+)")


def slot_values(card: ItemCard) -> dict[str, str]:
    """Every fact of the card by slot name, the title included."""
    return {"title": card.title, **card.facts}


def slot_token(name: str) -> str:
    """The token that stands for a fact."""
    return f"<{name}>"


def render_card(card: ItemCard, slots: Collection[str]) -> str:
    """The card as one line of a prompt: slot names for a model that has slots, values for one that has none."""
    values = slot_values(card)
    if slots:
        return "Card: " + " ".join(slot_token(name) for name in values if slot_token(name) in slots)
    return "Card: " + "; ".join(f"{name}: {value}" for name, value in values.items())


def banned_slots(known: Collection[str], slots: Collection[str]) -> frozenset[str]:
    """The slot tokens that must not be written because their fact is not among the `known` slot names."""
    return frozenset(slots) - {slot_token(name) for name in known}


def fill(raw: str, values: Mapping[str, str]) -> Utterance:
    """Fill the slots of a generated text, mending "a" before a value that begins with a vowel.

    A sentence that begins with a slot gets a capital letter. Unknown slots are dropped with the space before them.
    """

    def article(match: re.Match[str]) -> str:
        value = values.get(match[2][1:-1], "")
        return f"{match[1]}n {match[2]}" if value[:1].lower() in {"a", "e", "i", "o", "u"} else match[0]

    text = _SLOT.sub(lambda m: values.get(m[1], ""), _ARTICLE.sub(article, raw))
    text = re.sub(r" {2,}", " ", re.sub(r"\s+([.,!?])", r"\1", text)).strip()
    text = re.sub(r"(^|[.!?] )([a-z])", lambda m: m[1] + m[2].upper(), text)
    return Utterance(raw, text)


def in_slots(text: str, values: Mapping[str, str], slots: Collection[str]) -> str:
    """The inverse of `fill`: facts of a card as slots, for a model that writes slots to learn from one that does not.

    Args:
        text: What another model wrote.
        values: Facts by slot name. Where one holds another, the longer one is replaced.
        slots: Slot tokens of the model that is to learn; a fact without one stays.

    Example:
        >>> in_slots("Alien is a horror film. Horror!", {"title": "Alien", "genre": "horror"}, {"<title>", "<genre>"})
        '<title> is a <genre> film. <genre>!'
    """
    named = {value: slot_token(name) for name, value in values.items() if value and slot_token(name) in slots}
    if not named:
        return text
    # A sentence may begin with a fact, whose first letter `fill` makes a capital.
    forms = {form: token for value, token in named.items() for form in (value, value[0].upper() + value[1:])}
    longest = sorted(forms, key=len, reverse=True)
    slotted = re.sub(rf"(?<!\w)({'|'.join(map(re.escape, longest))})(?!\w)", lambda m: forms[m[1]], text)
    return re.sub(r"\b([Aa])n (<[a-z]+>)", r"\1 \2", slotted)  # `fill` mends it for each fact anew


def spoken(completion: Completion, values: Mapping[str, str]) -> Utterance:
    """What a speaker says: the completion's whole sentences with their slots filled, or why there are none."""
    if completion.failure is not None:
        return Utterance("", "", completion.failure)
    return fill(whole_sentences(completion.text), values)


def whole_sentences(raw: str) -> str:
    """The text without a last sentence that the limit of tokens cut off, and without anything after a line break.

    A text that holds no whole sentence is kept as it is.
    """
    line = raw.strip().split("\n")[0].strip()
    end = max(line.rfind(mark) for mark in ".!?")
    return line[: end + 1] if end >= 0 else line


class Grounding(NamedTuple):
    """How a reply holds to its card.

    exact_title: The title occurs, letter by letter.
    invented_title: Another title of the catalogue is named.
    invented_facts: Numbers and names of people that are not on the card.
    """

    exact_title: bool
    invented_title: bool
    invented_facts: tuple[str, ...]


class GroundingCheck:
    """Holds replies to their cards, knowing every title and person of the catalogue."""

    def __init__(self, titles: Collection[str]) -> None:
        """Remember the titles that count as films; one-word titles that are plain words cannot be told from speech."""
        self._titles = frozenset(title for title in titles if " " in title)

    def __call__(self, text: str, card: ItemCard) -> Grounding:
        """Check one reply, as shown to the user, against the card it was written from."""
        said = text
        values = slot_values(card).values()
        for value in sorted(values, key=len, reverse=True):
            said = said.replace(value, " ").replace(value[:1].upper() + value[1:], " ")
        starts = {match[1] for match in _SENTENCE_START.finditer(said)}
        names = [name for name in _NAME.findall(said) if name.split()[0] not in starts]
        invented = tuple(sorted({*_NUMBER.findall(said), *(n for n in names if n not in self._titles)}))
        other = any(name in self._titles for name in _NAME.findall(said))
        return Grounding(card.title in text, other, invented)


def reply_attributes(replies: Sequence[Utterance], cards: Sequence[ItemCard]) -> NDArray[np.float64]:
    """Raw named attributes of replies, the card's facts left out of the counts. Shape (N, A).

    A reply written in slots carries no facts in its raw text; elsewhere the card's values are taken out.
    """
    facts = [
        () if reply.raw != reply.text else tuple(slot_values(card).values())
        for reply, card in zip(replies, cards, strict=True)
    ]
    return measure_attributes([reply.raw for reply in replies], facts)
