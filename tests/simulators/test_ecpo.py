"""Expectation confirmation: which turns are rewritten, and which rewrites are accepted."""

import pytest
from pydantic import ValidationError

from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition
from recsys.types import histories_from_log
from simulators.recipes.ecpo import EcpoConfig, complaint_direction, rewrite_turns, short_turns
from simulators.rollout import rollout
from simulators.types import Dialogue
from tests.helpers.talking import talking_world

WORLD, AGENT, VIEWERS = talking_world()
USERS = list(range(50))
ABSENT = Condition.absent(len(USERS), latent_dim=4, direction_dim=len(ATTRIBUTES))


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    histories = histories_from_log(WORLD.log, USERS, len(WORLD.catalogue))
    return rollout(USERS, AGENT, VIEWERS, histories=histories, condition=ABSENT, seed=5)


def test_short_turns_are_those_rated_at_most_the_threshold(dialogues: list[Dialogue]) -> None:
    short = short_turns(dialogues, AGENT, 3.0)
    expected = [
        (r, i) for r, d in enumerate(dialogues) for i, t in enumerate(d.turns) if t.feedback.satisfaction <= 3
    ]
    assert [(s.row, s.number) for s in short] == expected
    for turn in short:
        assert turn.prompt == AGENT.prompt(
            Dialogue(turn.row, dialogues[turn.row].turns[: turn.number]), turn.turn.user, turn.turn.card
        )


def test_last_turns_are_used_like_every_other(dialogues: list[Dialogue]) -> None:
    short = short_turns(dialogues, AGENT, 3.0)
    assert any(s.number == len(dialogues[s.row].turns) - 1 for s in short)


def test_only_rewrites_that_are_rated_higher_under_the_same_luck_are_accepted(
    dialogues: list[Dialogue],
) -> None:
    accepted, fell_short = rewrite_turns(dialogues, AGENT, VIEWERS, ABSENT, EcpoConfig(), seed=5)
    assert 0 < len(accepted) <= fell_short
    for rewrite in accepted:
        turn = rewrite.short.turn
        assert rewrite.before.satisfaction == turn.feedback.satisfaction
        again = VIEWERS.decide(
            [dialogues[rewrite.short.row].before(rewrite.short.number)], [turn.card], [rewrite.reply], seed=5
        )
        assert again[0].satisfaction == rewrite.after.satisfaction > turn.feedback.satisfaction


def test_steering_by_the_complaint_finds_more_rewrites(dialogues: list[Dialogue]) -> None:
    steered, _ = rewrite_turns(dialogues, AGENT, VIEWERS, ABSENT, EcpoConfig(candidates=2), seed=5)
    blind, _ = rewrite_turns(dialogues, AGENT, VIEWERS, ABSENT, EcpoConfig(candidates=2, steer=0.0), seed=5)
    assert len(steered) > len(blind)


def test_a_complaint_points_away_from_what_was_heard() -> None:
    direction = complaint_direction(("brevity", -1), 0.5)
    assert direction.tolist() == [0.5, 0, 0, 0, 0, 0]
    assert not complaint_direction(None, 1.0).any()


@pytest.mark.parametrize(
    ("field", "value", "bound"),
    [
        ("threshold", 0.5, "greater than or equal to 1"),
        ("threshold", 5.5, "less than or equal to 5"),
        ("candidates", 0, "greater than or equal to 1"),
        ("steer", -0.1, "greater than or equal to 0"),
        ("steer", 1.5, "less than or equal to 1"),
    ],
)
def test_settings_keep_to_their_ranges(field: str, value: float, bound: str) -> None:
    with pytest.raises(ValidationError, match=rf"{field}\n.*{bound}"):
        EcpoConfig.model_validate({field: value})


def test_nothing_short_gives_nothing() -> None:
    assert rewrite_turns([], AGENT, VIEWERS, ABSENT.select([]), EcpoConfig(), seed=0) == ([], 0)
