"""What users say of themselves: what they want, whether it holds together, and how fast they tell it.

Rules read plain sentences, "I love comedies", "I cannot stand horror", for things out of a given list. They miss much
that is said in other ways, on both sides alike; what they find is nearly always there.
"""

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from simulators.faithfulness.speech import SpokenDialogue
from simulators.words import plural_of, words_of

GENRES = frozenset(
    {
        "action", "adventure", "animation", "comedy", "crime", "documentary", "drama", "family", "fantasy", "horror",
        "musical", "mystery", "romance", "sci-fi", "science fiction", "thriller", "war", "western",
    }
)  # fmt: skip
"""Things that are wished for where cards tell of none."""

_HOW = r"(?:(?:really|also|usually|always|just|generally|absolutely|do|so|mostly|mainly)\s+)*"
_DISLIKE = re.compile(
    r"\bi(?:'m| am)?\s+" + _HOW + r"(?:(?:do\s+not|don'?t|did\s+not|didn'?t|never)\s+" + _HOW
    + r"(?:like|love|enjoy|want|care\s+for)|hate|dislike|can(?:no|')t\s+stand|not\s+(?:into|in\s+the\s+mood\s+for|a\s+"
    r"(?:big\s+)?fan\s+of|fond\s+of)|tired\s+of|sick\s+of)\b([^.!?;]*)"
)  # fmt: skip
_LIKE = re.compile(
    r"\bi(?:'m| am)?\s+" + _HOW + r"(?:like|love|enjoy|adore|want|prefer|into|fond\s+of|in\s+the\s+mood\s+for|"
    r"(?:a\s+)?(?:big\s+|huge\s+)?fan\s+of)\b([^.!?;]*)"
)  # fmt: skip
_TURNS = re.compile(r"\b(?:but|though|although|except|not|however|instead)\b")


class Statement(NamedTuple):
    """Something that a user said to want or not to want.

    turn: Number of the user's message, from 0.
    thing: Out of the list of things.
    likes: Whether it is wanted.
    """

    turn: int
    thing: str
    likes: bool


class Vocabulary:
    """Things that users may wish for, found in speech in the singular or the plural.

    Args:
        things: Each of one word or more, such as genres and moods.
    """

    def __init__(self, things: Collection[str]) -> None:
        self._thing_of: dict[str, str] = {}
        for thing in sorted(things):
            words = " ".join(words_of(thing))
            if not words:
                continue
            self._thing_of |= {words: thing, plural_of(words): thing}
        forms = sorted(map(re.escape, self._thing_of), key=len, reverse=True)
        self._pattern = re.compile(rf"\b(?:{'|'.join(forms)})\b" if forms else r"(?!)")

    def __len__(self) -> int:
        """Number of things."""
        return len(set(self._thing_of.values()))

    def named(self, text: str) -> list[str]:
        """Things named in a text, in order, each as it stands in the list."""
        return [self._thing_of[found] for found in self._pattern.findall(" ".join(words_of(text)))]


def statements(said: Sequence[str], things: Vocabulary) -> list[Statement]:
    """What a user states about things of a list.

    Args:
        said: The user's messages, oldest first.
        things: What statements may be about.
    """
    found = []
    for turn, text in enumerate(said):
        lowered = text.casefold().replace("\u2019", "'")
        for pattern, likes in ((_DISLIKE, False), (_LIKE, True)):
            for match in pattern.finditer(lowered):
                about = _TURNS.split(match[1])[0]
                found += [Statement(turn, thing, likes) for thing in things.named(about)]
    return found


def contradictions(dialogue: SpokenDialogue, things: Vocabulary) -> list[Statement]:
    """Statements against an earlier one of the same dialogue, or against what the user is known to be like.

    Args:
        dialogue: What was said, and likes and dislikes where they are known.
        things: What statements may be about.
    """
    held: dict[str, bool] = {}
    for likes, known in ((True, dialogue.likes), (False, dialogue.dislikes)):
        for text in known:
            held.update(dict.fromkeys(things.named(text.casefold()), likes))
    found = []
    for statement in statements(dialogue.said, things):
        if held.setdefault(statement.thing, statement.likes) != statement.likes:
            found.append(statement)
    return found


def disclosures(dialogue: SpokenDialogue, things: Vocabulary) -> list[int]:
    """How many things of the list the user names for the first time in each message, before the agent did.

    Args:
        dialogue: What was said.
        things: What statements may be about.

    Returns:
        One count a message of the user.
    """
    known: set[str] = set()
    found = []
    for message in dialogue.messages:
        named = set(things.named(message.text.casefold()))
        if message.is_user:
            found.append(len(named - known))
        known |= named
    return found
