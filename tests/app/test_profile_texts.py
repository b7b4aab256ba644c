from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from app.errors import ConfigError
from app.profile_texts import (
    Committee,
    TextPairs,
    ask_committee,
    build_text_lens,
    draw_text_portrait,
    jackknife_deviation,
    text_questions,
)
from persona.profiles.shots import Shot
from persona.profiles.texts import PairGaps, text_log_odds
from persona.types import Conversation

ASKED: Conversation = [{"role": "user", "content": "Where to?"}]


class WantsLength:
    """Finds replies worth their length, as much as its shots chose longer ones on average."""

    scale = 0.5

    def read(self, shots: Sequence[Shot]) -> float:
        return float(np.mean([len(s.chosen) - len(s.rejected) for s in shots])) if shots else 0.0

    def gaps(
        self,
        reading: float,
        conversations: Sequence[Conversation],
        first: Sequence[str],
        second: Sequence[str],
    ) -> PairGaps:
        longer = torch.tensor([float(len(a) - len(b)) for a, b in zip(first, second, strict=True)])
        return PairGaps(longer * (1.0 + reading), longer)

    def save(self, folder: Path) -> None:
        raise NotImplementedError


def shots(*gaps: int) -> list[Shot]:
    """Choices of replies that are longer by so many characters."""
    return [Shot(ASKED, "x" * max(1, 1 + gap), "x" * max(1, 1 - gap)) for gap in gaps]


def pairs(*gaps: int) -> TextPairs:
    made = shots(*gaps)
    return TextPairs([ASKED] * len(made), [s.chosen for s in made], [s.rejected for s in made])


def test_log_odds_are_the_scaled_gap_over_the_reference() -> None:
    odds = text_log_odds(WantsLength(), 2.0, *pairs(3, -1))
    assert odds.tolist() == [0.5 * 3 * 2.0, 0.5 * -1 * 2.0]
    assert text_log_odds(WantsLength(), 2.0, [], [], []).shape == (0,)


def test_a_committee_reads_all_choices_each_left_out_and_none() -> None:
    told = ask_committee(WantsLength(), shots(2, 4), pairs(1))
    assert told.full.tolist() == [0.5 * 3.0]
    assert told.without.tolist() == [[0.5 * 4.0], [0.5 * 2.0]]
    assert told.stranger.tolist() == [0.0]
    with pytest.raises(ConfigError, match=r"at least 2 choices to tell its doubt; got 1. Add choices"):
        ask_committee(WantsLength(), shots(2), pairs(1))


def test_the_deviation_of_a_mean_is_that_of_its_jackknife() -> None:
    values = np.random.default_rng(0).normal(size=12)
    without = np.array([np.delete(values, place).mean() for place in range(12)])
    assert jackknife_deviation(without) == pytest.approx(values.std(ddof=1) / np.sqrt(12))


def test_a_portrait_of_someone_who_wants_length() -> None:
    lens = build_text_lens(pairs(1, -1), np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]]))
    own = shots(2, 3, 4)
    asked = pairs(1, -1, 2, 3, 4)
    portrait = draw_text_portrait(ask_committee(WantsLength(), own, asked), range(2, 5), lens, ["brevity"])
    wish = portrait.wishes[0]
    assert wish.mean == pytest.approx(0.5 * 3.0) and wish.sure > 0.95  # log-odds of one unit of the attribute
    deviation = np.sqrt(2 / 3 * (0.25**2 + 0.25**2))  # without: 1.75, 1.5, 1.25
    assert (wish.high - wish.mean) == pytest.approx(4.302653 * deviation, rel=1e-5)  # Student's t, 2 degrees
    assert portrait.doubt_left is None and portrait.stranger == 0.5
    assert portrait.foretells == pytest.approx(1 / (1 + np.exp(-1.5)))
    assert {telling.place for telling in portrait.tellings} == {0, 1, 2}
    assert (
        portrait.tellings[-1].place == 1 and portrait.tellings[-1].words == ""
    )  # the middle one moves nothing


def test_questions_on_which_the_committee_is_split_come_first() -> None:
    told = Committee(np.zeros(2), np.array([[9.0, 0.1], [-9.0, 0.1]]), np.zeros(2))
    first, second = text_questions(told, [1, 0])
    assert (first.place, second.place) == (1, 0)
    assert first.gain_bits == pytest.approx(1.0, abs=2e-3) and second.gain_bits == pytest.approx(
        0.0, abs=1e-9
    )
