"""What can be counted in a text: length, layout, marks, groups of words, ease of reading.

Broad and shallow on purpose, and documented column by column, so that anyone can check a figure by hand. How well a
named attribute can be read from these columns is measured by `persona.features.probes`, and belongs into every report,
because it bounds what any profile over them can learn.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

WORD_GROUPS: Mapping[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, words in {
        "first_person": "i me my mine we us our i'd i'm i've i'll we'd we're we've we'll",
        "second_person": "you your yours you'd you're you've you'll yourself",
        "causal_words": "because since so therefore thus hence why reason",
        "contrast_words": "but though although however yet while instead unless despite",
        "joining_words": "and also plus too both with then",
        "hedges": "may might maybe could would perhaps possibly seem seems probably likely quite rather somewhat "
        "generally usually often sometimes typically appears suggests",
        "certainty": "certainly definitely clearly obviously always never must surely undoubtedly absolutely",
        "negations": "no not never nothing none don't doesn't isn't can't won't didn't without",
        "positive_words": "good great best better nice fine fun enjoy enjoyed like love loved perfect beautiful "
        "favourite favorite happy glad wonderful amazing excellent fantastic",
        "excited_words": "amazing awesome fantastic incredible wow brilliant superb thrilling stunning wonderful "
        "exciting excited love delighted absolutely totally super great",
        "polite_words": "please thanks thank hello hi welcome sorry dear friend hope",
        "informal_words": "yeah yep ok okay hey gonna wanna kinda sorta stuff cool guys folks lots bit pretty really "
        "just basically actually anyway things thing",
        "formal_words": "furthermore moreover additionally consequently nevertheless therefore thus hence regarding "
        "upon whereas thereby accordingly individuals numerous obtain utilize provide require various",
        "advice_words": "should try consider ensure avoid make use remember recommend suggest need",
        "determiners": "a an the this that these those",
        "questioning_words": "what which who how where when shall want",
    }.items()
}
_GROUPS_OF = {
    word: tuple(name for name, group in WORD_GROUPS.items() if word in group)
    for word in frozenset().union(*WORD_GROUPS.values())
}
MARKS = {
    "exclamation_marks": "!",
    "question_marks": "?",
    "commas": ",",
    "colons": ":",
    "brackets": "(",
    "quotes": '"',
    "bold_marks": "**",
}
_LINES = {
    "list_items": re.compile(r"^\s*(?:[-*\u2022+]|\d{1,3}[.)])\s+", re.MULTILINE),
    "headings": re.compile(r"^\s*(?:#{1,6}\s|\*\*[^*\n]+\*\*:?\s*$)", re.MULTILINE),
    "paragraphs": re.compile(r"\S[^\n]*(?:\n(?!\s*\n)[^\n]*)*"),
    "code_fences": re.compile(r"```"),
    "links": re.compile(r"https?://"),
}
_OTHER_COUNTS = ("other_marks", "contractions", "noun_endings", "capital_letters", "capital_words", "digits")
_RATIOS = (
    "letters_per_word",
    "syllables_per_word",
    "words_per_sentence",
    "reading_ease",
    "different_words_share",
    "long_words_share",
    "short_words_share",
    "ends_in_question",
)
_SHARED = (*(mark for mark in MARKS if mark != "bold_marks"), "contractions", "noun_endings", *WORD_GROUPS)
SURFACE_NAMES = (
    "words",
    "sentences",
    *MARKS,
    *_LINES,
    *_OTHER_COUNTS,
    *WORD_GROUPS,
    *_RATIOS,
    *(f"{name}_share" for name in _SHARED),
)
"""Order of the surface axis S: counts as square roots, then ratios, then counts as shares of the words."""

LENGTH_COLUMN = SURFACE_NAMES.index("words")
"""Column that the length-only rule reads, where surface features come first."""

_SLOT = re.compile(r"<[a-z_]+>")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_SENTENCE = re.compile(r"[^.!?\n]*\w[^.!?\n]*")
_VOWELS = re.compile(r"[aeiouy]+")
_NOUN_ENDINGS = ("tion", "tions", "ment", "ments", "ness", "ity", "ities", "ance", "ence")


def surface_features(replies: Sequence[str]) -> NDArray[np.float32]:
    """Everything that `SURFACE_NAMES` lists, for each text; slots such as `<title>` are left out.

    Counts are square roots (the deviation of a count grows like its root, so this evens it out). Shares are counts
    over words. `reading_ease` is Flesch's, 206.835 - 1.015 words a sentence - 84.6 syllables a word, over 100 and cut
    to -1..1.5; syllables are runs of vowels, less a silent e. A text without words has zero ratios and shares.

    Args:
        replies: N texts.

    Returns:
        Shape (N, S), float32, columns in the order of `SURFACE_NAMES`.

    Source: Flesch (1948), "A New Readability Yardstick"; for formality: Heylighen & Dewaele (2002), "Variation in the
    Contextuality of Language", whose parts of speech are stood for by lists of words and noun endings.
    """
    rows = [_count(_SLOT.sub(" ", reply)) for reply in replies]
    return np.asarray(rows, dtype=np.float32).reshape(len(rows), len(SURFACE_NAMES))


def _count(text: str) -> list[float]:
    straight = text.replace("\u2019", "'")
    words = _WORD.findall(straight)
    lower = [word.lower() for word in words]
    n, sentences = len(words), sum(1 for _ in _SENTENCE.finditer(text))
    counts: dict[str, float] = {name: text.count(mark) for name, mark in MARKS.items()}
    counts |= {name: sum(1 for _ in pattern.finditer(text)) for name, pattern in _LINES.items()}
    counts["other_marks"] = sum(text.count(mark) for mark in ";\u2013\u2014-*/")
    counts["contractions"] = sum("'" in word for word in lower)
    counts["noun_endings"] = sum(word.endswith(_NOUN_ENDINGS) for word in lower)
    counts["capital_letters"] = sum(map(str.isupper, text))
    counts["capital_words"] = sum(len(word) > 2 and word.isupper() for word in words)
    counts["digits"] = sum(map(str.isdigit, text))
    counts |= dict.fromkeys(WORD_GROUPS, 0)
    for name in chain.from_iterable(_GROUPS_OF.get(word, ()) for word in lower):
        counts[name] += 1
    shares = [counts[name] / max(n, 1) for name in _SHARED]
    return (
        [float(count) ** 0.5 for count in (n, sentences, *counts.values())]
        + _ratios(text, lower, sentences)
        + shares
    )


def _ratios(text: str, words: list[str], sentences: int) -> list[float]:
    n = max(len(words), 1)
    lengths = [len(word) for word in words]
    syllables = sum(map(_syllables, words)) / n
    per_sentence = len(words) / max(sentences, 1)
    ease = (206.835 - 1.015 * per_sentence - 84.6 * syllables) / 100 if words else 0.0
    return [
        sum(lengths) / n,
        syllables,
        per_sentence,
        min(max(ease, -1.0), 1.5),
        len(set(words)) / n,
        sum(length >= 7 for length in lengths) / n,
        sum(length <= 3 for length in lengths) / n,
        float(text.rstrip().endswith("?")),
    ]


@lru_cache(maxsize=1 << 16)
def _syllables(word: str) -> int:
    runs = sum(1 for _ in _VOWELS.finditer(word))
    return max(runs - (runs > 1 and word.endswith("e") and not word.endswith("le")), 1)
