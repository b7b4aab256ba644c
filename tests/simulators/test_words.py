"""Words as speech has them, and plurals as users say them."""

import pytest

from simulators.words import plural_of, words_of


def test_words_are_without_case_and_punctuation() -> None:
    assert words_of("It's the Babadook, 2014!") == ["it's", "the", "babadook", "2014"]
    assert words_of("snake_case o\u2019clock -- '") == ["snake", "case", "o\u2019clock"]


@pytest.mark.parametrize(
    ("name", "plural"),
    [
        ("comedy", "comedies"),
        ("science fiction", "science fictions"),
        ("play", "plays"),
        ("COMEDY", "COMEDies"),
        ("y", "ys"),
        ("", "s"),
    ],
)
def test_plurals_are_regular(name: str, plural: str) -> None:
    assert plural_of(name) == plural
