"""A simulated user that knows the title it is after must not say it: finding titles in speech, and blanking them out.

Titles are compared as words without case and punctuation, and nearly equal runs of words count too, since a model may
misspell what it gives away. A title of one word is found only as it is written, for "Heat" is a film and heat is not.
"""

import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from simulators.types import Dialogue, ItemCard, Utterance
from simulators.users.personas import Target
from simulators.words import WORD

MASK = "that one"
"""What stands in the place of a title."""

_NEARLY = 0.9
_YEAR = re.compile(r"\s*\(\d{4}\)\s*$")
_ARTICLES = frozenset({"a", "an", "the"})

Span = tuple[int, int]


def names_title(text: str, title: str) -> bool:
    """Whether the text says the title, or nearly so.

    Args:
        text: What somebody said.
        title: A title; a year in brackets at its end and an article at its start are not needed to give it away.
    """
    return bool(_title_spans(text, title))


def mask_title(text: str, title: str) -> str:
    """The text with every saying of the title replaced by `MASK`."""
    for start, end in reversed(_title_spans(text, title)):
        text = text[:start] + MASK + text[end:]
    return text


def masked(utterance: Utterance, title: str) -> Utterance:
    """The utterance without the title in either of its texts, and marked; itself where it does not say the title."""
    if not (names_title(utterance.text, title) or names_title(utterance.raw, title)):
        return utterance
    raw, text = mask_title(utterance.raw, title), mask_title(utterance.text, title)
    return Utterance(raw, text, utterance.failure, masked=True)


def guarded(
    said: Sequence[Utterance],
    titles: Sequence[str | None],
    say_again: Callable[[list[int]], Sequence[Utterance]],
) -> list[Utterance]:
    """The same messages without the titles they must not tell; none leaves the batch.

    Args:
        said: What users want to say.
        titles: What each must not tell; None for nothing.
        say_again: Gives new messages for the rows, by index, that told their title; what tells it again is masked.
    """
    final = list(said)
    leaky = [i for i, title in enumerate(titles) if title and names_title(said[i].text, title)]
    if leaky:
        for i, words in zip(leaky, say_again(leaky), strict=True):
            final[i] = said[i] if words.failure else words
    return [masked(words, title) if title else words for words, title in zip(final, titles, strict=True)]


def heard_in(dialogue: Dialogue, reply: Utterance | None) -> list[str]:
    """The agent's messages of a dialogue, and then the reply to come, if any."""
    return [turn.reply.text for turn in dialogue.turns] + ([] if reply is None else [reply.text])


def kept_secret(target: Target | None, heard: Sequence[str], card: ItemCard | None) -> str | None:
    """The title that a user must not tell: that of its target, unless the agent has named or shown it already.

    Args:
        target: What the user has in mind.
        heard: The agent's messages.
        card: What is shown now.
    """
    if target is None or (card is not None and card.title == target.title):
        return None
    return None if any(names_title(text, target.title) for text in heard) else target.title


def _title_spans(text: str, title: str) -> list[Span]:
    """Where the title is said: disjoint spans of characters, in order."""
    wanted = [match[0] for match in WORD.finditer(_YEAR.sub("", title))]
    if len(wanted) > 1 and wanted[0].lower() in _ARTICLES:
        wanted = wanted[1:]
    if not wanted:
        return []
    words = list(WORD.finditer(text))
    same = _likeness(wanted)
    spans: list[Span] = []
    start = 0
    while start + len(wanted) <= len(words):
        run = words[start : start + len(wanted)]
        if same([match[0] for match in run]):
            led = start > 0 and len(wanted) > 1 and words[start - 1][0].lower() in _ARTICLES
            spans.append((words[start - led].start(), run[-1].end()))
            start += len(wanted)
        else:
            start += 1
    return spans


def _likeness(wanted: Sequence[str]) -> Callable[[Sequence[str]], bool]:
    """Whether a run of words is the wanted one, or nearly so."""
    if len(wanted) == 1:
        return lambda said: said[0] == wanted[0]
    matcher = SequenceMatcher(None, autojunk=False)
    matcher.set_seq2(" ".join(wanted).casefold())

    def nearly(said: Sequence[str]) -> bool:
        matcher.set_seq1(" ".join(said).casefold())
        bounds = (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)
        return all(bound() >= _NEARLY for bound in bounds)

    return nearly
