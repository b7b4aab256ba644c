"""Titles in speech: found as said, nearly said, never where only their words are, and blanked out."""

import pytest

from simulators.types import Utterance
from simulators.users.title_guard import mask_title, masked, names_title


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("I want The Silver Harbour tonight.", "The Silver Harbour"),
        ("something like silver harbour", "The Silver Harbour (1994)"),
        ("Is it 'Silver-Harbour'?", "The Silver Harbour"),
        ("I mean Silver Harbor!", "The Silver Harbour"),
        ("Heat, please.", "Heat"),
        ("Amélie's Garden it is.", "Amélie's Garden"),
    ],
)
def test_a_title_is_found_as_it_is_said(text: str, title: str) -> None:
    assert names_title(text, title)
    assert not names_title(mask_title(text, title), title)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("A harbour in silver light.", "The Silver Harbour"),
        ("I like the heat.", "Heat"),
        ("The year 1994 was good.", "The Silver Harbour (1994)"),
        ("Silver", "The Silver Harbour"),
        ("", "Heat"),
        ("Anything.", "!!!"),
    ],
)
def test_words_of_a_title_are_not_the_title(text: str, title: str) -> None:
    assert not names_title(text, title)
    assert mask_title(text, title) == text


def test_every_saying_is_blanked_out_and_nothing_else() -> None:
    said = "Silver Harbour? Yes, the Silver Harbour, by the sea."
    assert mask_title(said, "Silver Harbour") == "that one? Yes, that one, by the sea."


def test_a_masked_utterance_is_marked_and_hides_its_raw_text_too() -> None:
    found = masked(
        Utterance("I want Silver Harbour <mood>.", "I want Silver Harbour dark."), "Silver Harbour"
    )
    assert found == Utterance("I want that one <mood>.", "I want that one dark.", masked=True)
    innocent = Utterance("Something dark.", "Something dark.")
    assert masked(innocent, "Silver Harbour") is innocent
