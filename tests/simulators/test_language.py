"""The grammar: what it may say, and that its styles can be measured."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from persona.rewards.attributes import ATTRIBUTES, measure_attributes
from simulators.world.conversations import film_conversations
from simulators.world.language import (
    CARD_SLOTS,
    Situation,
    expand,
    opening,
    reaction,
    reply,
    sample_style,
    speak,
)

EVERYTHING = Situation(frozenset(CARD_SLOTS))


def test_expand_takes_no_choice_that_needs_a_missing_fact() -> None:
    rng = np.random.default_rng(0)
    said = {expand("{by <director>|tonight}.", ("title",), rng) for _ in range(50)}
    assert said == {"tonight."}
    assert expand("It is from <year>.", ("title",), rng) is None
    assert speak(["<year>", "<cast>"], ("title",), rng) == ""


@pytest.mark.parametrize("facts", [("title",), ("title", "genre"), CARD_SLOTS])
def test_replies_name_the_title_and_only_facts_of_the_card(facts: tuple[str, ...]) -> None:
    rng = np.random.default_rng(1)
    missing = [f"<{name}>" for name in CARD_SLOTS if name not in facts]
    for _ in range(200):
        text = reply(sample_style(rng), Situation(frozenset(facts), again=bool(rng.integers(2))), rng)
        assert "<title>" in text
        assert not [slot for slot in missing if slot in text]
        assert "{" not in text and "|" not in text and "<missing>" not in text


def test_every_attribute_follows_its_style_dial() -> None:
    rng = np.random.default_rng(2)
    styles = [sample_style(rng) for _ in range(1500)]
    measured = measure_attributes([reply(style, EVERYTHING, rng) for style in styles])
    for column, attribute in enumerate(ATTRIBUTES):
        asked = [style[attribute] for style in styles]
        assert spearmanr(asked, measured[:, column]).statistic > 0.25


def test_same_seed_says_the_same() -> None:
    first, second = (film_conversations(np.random.default_rng(3)) for _ in range(2))
    assert [next(first) for _ in range(20)] == [next(second) for _ in range(20)]


def test_every_level_and_complaint_can_be_said() -> None:
    rng = np.random.default_rng(4)
    for level in range(5):
        for attribute in ATTRIBUTES:
            for sign in (-1, 1):
                said = reaction(level, (attribute, sign), goes_on=level < 3, facts=("title",), rng=rng)
                assert said and "<genre>" not in said


def test_openings_ask_for_the_wish() -> None:
    rng = np.random.default_rng(5)
    said = [opening(("genre",), rng) for _ in range(100)]
    assert all("<mood>" not in text for text in said)
    assert sum("<genre>" in text for text in said) > 90


def test_conversations_end_with_what_is_to_be_learned() -> None:
    conversations = film_conversations(
        np.random.default_rng(6), remarks=("any good ones",), words=("comedy",)
    )
    for _ in range(200):
        messages = next(conversations)
        assert messages[0]["role"] == "system" and messages[-1]["role"] == "assistant"
        assert messages[-1]["content"]
