"""What counts as a word in speech, and how a thing's name reads in the plural."""

import re

WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
"""One word: letters and digits, with apostrophes inside."""

_CONSONANT_Y = re.compile(r"(?<=[^\W_aeiou])y$", re.IGNORECASE)


def words_of(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return [match[0].casefold() for match in WORD.finditer(text)]


def plural_of(name: str) -> str:
    """The regular English plural, in which comedy becomes comedies, and play plays."""
    plural, is_changed = _CONSONANT_Y.subn("ies", name)
    return plural if is_changed else f"{name}s"
