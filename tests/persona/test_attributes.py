import math

import numpy as np
import pytest

from persona.errors import DataError, ShapeError
from persona.rewards import ATTRIBUTES, AttributeScale, measure_attributes


def column(name: str, *replies: str) -> list[float]:
    return [float(v) for v in measure_attributes(replies)[:, ATTRIBUTES.index(name)]]


def test_every_attribute_of_a_counted_reply() -> None:
    reply = "I love it, dear friend, because it is slow. Shall we?"
    # 11 words of 1+4+2+4+6+7+2+2+4+5+2 = 39 letters; warm: dear, friend; excited: love.
    expected = [-math.log(12), math.log(3), -39 / 11, math.log(2), math.log(2), math.log(2)]
    np.testing.assert_allclose(measure_attributes([reply])[0], expected)


@pytest.mark.parametrize(
    ("name", "more", "less"),
    [
        ("brevity", "Watch it.", "Watch it when you have a quiet evening."),
        ("warmth", "I am so glad, dear friend.", "I have a film."),
        ("plainness", "A sad old man goes home.", "A melancholic pensioner returns."),
        ("reasons", "Watch it because it is slow.", "Watch it."),
        ("curiosity", "What do you like? Comedy?", "Tell me."),
        ("enthusiasm", "Wow, what a gem!", "It is a film."),
    ],
)
def test_more_of_an_attribute_measures_higher(name: str, more: str, less: str) -> None:
    high, low = column(name, more, less)
    assert high > low


def test_slots_and_named_facts_are_not_counted() -> None:
    plain, slotted = "Watch it because it is slow.", "Watch <title> it because it is slow."
    np.testing.assert_array_equal(measure_attributes([plain]), measure_attributes([slotted]))
    told = "Watch Wonderful Love! it because it is slow."
    np.testing.assert_array_equal(
        measure_attributes([plain]), measure_attributes([told], [["Wonderful Love!"]])
    )


def test_longer_facts_are_left_out_before_shorter_ones() -> None:
    kept = measure_attributes(["see  now"])
    np.testing.assert_array_equal(
        kept, measure_attributes(["see Love Actually now"], [["Love", "Love Actually"]])
    )


def test_a_reply_without_words_has_neutral_plainness() -> None:
    assert measure_attributes(["!"])[0].tolist() == [-0.0, 0.0, -5.0, 0.0, 0.0, math.log(2)]


def test_no_replies_give_no_rows() -> None:
    assert measure_attributes([]).shape == (0, len(ATTRIBUTES))


def test_facts_must_match_the_replies() -> None:
    with pytest.raises(ShapeError, match=r"one entry for each reply \(2\); got 1"):
        measure_attributes(["a", "b"], [[]])


def test_scale_standardises_its_own_reference_and_cuts_at_three() -> None:
    raw = np.random.default_rng(0).normal(2.0, 5.0, size=(200, len(ATTRIBUTES)))
    scale = AttributeScale.fit(raw)
    inside = np.abs((raw - raw.mean(0)) / raw.std(0)) < 3
    np.testing.assert_allclose(scale(raw)[inside], ((raw - raw.mean(0)) / raw.std(0))[inside])
    assert scale(raw + 1000.0).max() == 3.0
    assert scale(raw - 1000.0).min() == -3.0


def test_scale_names_the_constant_attribute() -> None:
    raw = np.random.default_rng(0).normal(size=(5, len(ATTRIBUTES)))
    raw[:, 2] = 1.0
    with pytest.raises(DataError, match=r"5 replies, constant in \['plainness'\]"):
        AttributeScale.fit(raw)
    with pytest.raises(DataError, match="got 1 replies"):
        AttributeScale.fit(raw[:1])
