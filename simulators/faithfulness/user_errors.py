"""Faults of a simulated user that change what an agent learns from it, each with a tag and a severity.

The idea of tags with severities by whom the fault helped is that of the user audit of tau2-bench; the tags and the
rules are this project's own. A fault is *critical helped* where it made an agent succeed that might not have, *critical
hindered* where it stands in a dialogue that failed, and *minor* else. The rules are plain and find some in real
users too, so what counts is how much more often a simulator commits them than people do.
"""

import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

from simulators.faithfulness.speech import Message, SpokenDialogue, dialogue_items
from simulators.faithfulness.stated import Vocabulary, contradictions
from simulators.types import DISSATISFIED, SUCCESS_LEVEL, StopReason
from simulators.users.title_guard import names_title
from simulators.words import words_of

_REPEATED_WORDS = 4
_LONG_WORD = 4


class Tag(StrEnum):
    """What a user did that a real one would not."""

    TITLE_LEAK = "told a title before the agent did"
    ROLE_SWAP = "spoke as the agent"
    EARLY_STOP = "stopped without cause"
    WORDS_AGAINST_DEED = "said one thing and did another"
    CONTRADICTION = "contradicted itself"
    REPEAT = "said the same again"
    EMPTY = "said nothing"


class Severity(StrEnum):
    """What the fault did to the agent."""

    HELPED = "critical helped"
    HINDERED = "critical hindered"
    MINOR = "minor"


class UserError(NamedTuple):
    """One fault.

    tag: Which.
    severity: What it did.
    turn: Number of the user's message, from 0; that of the last one where the fault is in the end of the dialogue.
    """

    tag: Tag
    severity: Severity
    turn: int


_AS_AGENT = re.compile(
    r"^\s*(?:assistant|agent|recommender|system|ai)\s*:"
    r"|\bas an ai\b|\blanguage model\b|\bhow (?:can|may) i (?:help|assist)"
    r"|\b(?:i'd|i would|i can|let me|i'?ll) (?:recommend|suggest)\b|\bi (?:recommend|suggest)\b"
    r"|\bmy recommendation\b"
    r"|\bwhat (?:kinds?|types?|sorts?|genres?) of (?:movies?|films?|items?|things?) (?:do|are|would) you"
    r"|\byou (?:might|may|would|will|should) (?:really |also )?(?:like|love|enjoy)\b"
    r"|\b(?:would you like|do you want) (?:me|another|more)\b|\bshall i\b"
)
_SAYS_YES = re.compile(
    r"\bi(?:'ll| will|'m going to| am going to) (?:definitely |surely )?(?:watch|take|buy|see|get) (?:it|that|this)\b"
    r"|\bi (?:love|adore) (?:it|this|that one)\b|\bthat works\b|\bjust what i wanted\b|^\s*(?:perfect|deal|sold)\b"
)
_SAYS_NO = re.compile(
    r"\bno,? thanks\b|\bnot (?:for me|my kind|interested|into (?:it|that|this))\b"
    r"|\bi(?:'ll| will) pass\b|\bdoes(?:n't| not) grab me\b"
)


def speaks_as_agent(text: str) -> bool:
    """Whether a message is what the recommending side would say: an offer, a suggestion, a question for tastes."""
    return bool(_AS_AGENT.search(text.casefold().replace("\u2019", "'")))


def find_user_errors(
    dialogue: SpokenDialogue, things: Vocabulary, *, accept_level: int = SUCCESS_LEVEL
) -> list[UserError]:
    """Every fault of one dialogue's user, by turn.

    Args:
        dialogue: What was said and what came of it; rules that need levels or stars are silent where there are none.
        things: What may be wished for, see `simulators.faithfulness.stated`.
        accept_level: Level from which an item counts as accepted.
    """
    succeeded = _succeeded(dialogue, accept_level)
    found = [
        UserError(tag, _severity(tag, succeeded), turn)
        for tag, rule in _RULES.items()
        for turn in rule(dialogue)
    ]
    found += [
        UserError(Tag.CONTRADICTION, _severity(Tag.CONTRADICTION, succeeded), statement.turn)
        for statement in contradictions(dialogue, things)
    ]
    found += _deeds(dialogue, accept_level)
    return sorted(found, key=lambda error: (error.turn, error.tag))


def _succeeded(dialogue: SpokenDialogue, accept_level: int) -> bool | None:
    """Whether the agent reached acceptance; None where nothing tells."""
    levels = [reply.level for reply in dialogue.replies if reply.level is not None]
    if levels:
        return max(levels) >= accept_level
    return None if dialogue.stop is None else dialogue.stop is StopReason.ACCEPTED


def _severity(tag: Tag, succeeded: bool | None) -> Severity:
    if tag is Tag.REPEAT or succeeded is None:
        return Severity.MINOR
    if tag is Tag.TITLE_LEAK:
        return Severity.HELPED if succeeded else Severity.MINOR
    return Severity.MINOR if succeeded else Severity.HINDERED


def _title_leaks(dialogue: SpokenDialogue) -> Iterable[int]:
    """Messages that name a title which the agent shows later, or that the user is after, before the agent named it."""
    wanted = list(dict.fromkeys((*dialogue.targets, *dialogue_items(dialogue))))
    turn, named = 0, set[str]()
    for message in dialogue.messages:
        fresh = [title for title in wanted if title not in named and _names(message.text, title)]
        if message.is_user:
            if fresh:
                yield turn
            turn += 1
        if message.title is not None:
            named.add(message.title)
        named.update(fresh)


def _names(text: str, title: str) -> bool:
    """`names_title`, asked only where the text holds a word of the title, as comparing runs of words is slow."""
    said = set(words_of(text))
    words = words_of(title)
    rare = [word for word in words if len(word) >= _LONG_WORD] or words
    return any(word in said for word in rare) and names_title(text, title)


def _role_swaps(dialogue: SpokenDialogue) -> Iterable[int]:
    return (turn for turn, text in enumerate(dialogue.said) if speaks_as_agent(text))


def _repeats(dialogue: SpokenDialogue) -> Iterable[int]:
    heard: set[tuple[str, ...]] = set()
    for turn, text in enumerate(dialogue.said):
        words = tuple(words_of(text))
        if len(words) >= _REPEATED_WORDS and words in heard:
            yield turn
        heard.add(words)


def _silences(dialogue: SpokenDialogue) -> Iterable[int]:
    return (turn for turn, text in enumerate(dialogue.said) if not words_of(text))


def _early_stops(dialogue: SpokenDialogue) -> Iterable[int]:
    """The end of a dialogue that a user left out of patience although no turn displeased."""
    stars = [reply.satisfaction for reply in dialogue.replies if reply.satisfaction is not None]
    if dialogue.stop is StopReason.OUT_OF_PATIENCE and stars and min(stars) > DISSATISFIED:
        yield max(len(dialogue.said) - 1, 0)


_RULES: dict[Tag, Callable[[SpokenDialogue], Iterable[int]]] = {
    Tag.TITLE_LEAK: _title_leaks,
    Tag.ROLE_SWAP: _role_swaps,
    Tag.REPEAT: _repeats,
    Tag.EMPTY: _silences,
    Tag.EARLY_STOP: _early_stops,
}


def _deeds(dialogue: SpokenDialogue, accept_level: int) -> list[UserError]:
    """Acceptance that words and levels tell differently; which of the two the agent is misled by sets the severity."""
    found = []
    last = max(len(dialogue.said) - 1, 0)
    levels = [reply.level for reply in dialogue.replies if reply.level is not None]
    if dialogue.stop is StopReason.ACCEPTED and levels and max(levels) < accept_level:
        found.append(UserError(Tag.EARLY_STOP, Severity.HELPED, last))
    for turn, reply, text in _answers(dialogue):
        said = text.casefold().replace("\u2019", "'")
        if reply.level == 0 and _SAYS_YES.search(said) and not _SAYS_NO.search(said):
            found.append(UserError(Tag.WORDS_AGAINST_DEED, Severity.HINDERED, turn))
        elif reply.level is not None and reply.level >= accept_level and _SAYS_NO.search(said):
            found.append(UserError(Tag.WORDS_AGAINST_DEED, Severity.HELPED, turn))
    return found


def _answers(dialogue: SpokenDialogue) -> list[tuple[int, Message, str]]:
    """Number of each message of the user that follows one of the agent, the agent's message, and the user's words."""
    found, turn = [], -1
    for before, message in zip((None, *dialogue.messages), dialogue.messages, strict=False):
        turn += message.is_user
        if message.is_user and before is not None and not before.is_user:
            found.append((turn, before, message.text))
    return found
