"""Cards, slots, and the check that holds replies to their card."""

import pytest

from simulators.grounding import (
    GroundingCheck,
    banned_slots,
    fill,
    in_slots,
    render_card,
    reply_attributes,
    slot_values,
)
from simulators.types import ItemCard, Utterance

CARD = ItemCard(3, "The Amber Door", {"year": "1994", "genre": "animation", "director": "Ada Rosander"})
SLOTS = frozenset({"<title>", "<year>", "<genre>", "<director>", "<mood>"})


def test_a_slot_model_sees_names_and_a_copying_model_sees_values() -> None:
    assert render_card(CARD, SLOTS) == "Card: <title> <year> <genre> <director>"
    shown = render_card(CARD, ())
    assert shown == "Card: title: The Amber Door; year: 1994; genre: animation; director: Ada Rosander"


def test_slots_without_a_fact_are_banned() -> None:
    assert banned_slots(slot_values(CARD), SLOTS) == {"<mood>"}


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Try <title>, a <genre> film!", "Try The Amber Door, an animation film!"),
        ("<genre> at heart. it is from <year>.", "Animation at heart. It is from 1994."),
        ("A <mood> film by <director> .", "A film by Ada Rosander."),
        ("Nothing to fill.", "Nothing to fill."),
    ],
)
def test_fill_puts_facts_where_slots_were(raw: str, text: str) -> None:
    assert fill(raw, slot_values(CARD)) == Utterance(raw, text)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Try <title>, a <genre> film!", "Try The Amber Door, an animation film!"),
        ("<genre> at heart. It is from <year>.", "Animation at heart. It is from 1994."),
        ("<director> made it; 19945 and animations are no facts.", None),
    ],
)
def test_slots_are_found_where_another_model_wrote_facts(raw: str, text: str | None) -> None:
    text = text or "Ada Rosander made it; 19945 and animations are no facts."
    assert in_slots(text, slot_values(CARD), SLOTS) == raw and fill(raw, slot_values(CARD)).text == text
    assert in_slots(text, slot_values(CARD), ()) == text


def test_of_facts_within_facts_the_longer_one_is_found() -> None:
    values = {"title": "Amber", "plot": "Amber is lost"}
    assert in_slots("Amber is lost. Amber!", values, {"<title>", "<plot>"}) == "<plot>. <title>!"


@pytest.mark.parametrize(
    ("text", "exact", "other", "facts"),
    [
        ("Try The Amber Door from 1994 by Ada Rosander.", True, False, ()),
        ("Try The Amber Door from 1995.", True, False, ("1995",)),
        ("Try the amber door.", False, False, ()),
        ("Try The Amber Door, as good as The Long Harbour.", True, True, ()),
        ("The Amber Door stars the great Milo Wren.", True, False, ("Milo Wren",)),
        ("Sorry about that. The Amber Door runs 90 minutes.", True, False, ("90",)),
    ],
)
def test_what_is_not_on_the_card_is_found(
    text: str, exact: bool, other: bool, facts: tuple[str, ...]
) -> None:
    check = GroundingCheck(["The Amber Door", "The Long Harbour"])
    assert check(text, CARD) == (exact, other, facts)


def test_a_style_does_not_depend_on_the_film() -> None:
    card = ItemCard(0, "Oh! What a Lovely Door!", {"mood": "warm"})
    values = slot_values(card)
    slotted = fill("It is <mood>: <title>.", values)
    copied = Utterance(slotted.text, slotted.text)
    a, b = reply_attributes([slotted, copied], [card, card])
    assert a.tolist() == b.tolist()
