"""What a rehearsal brought, by user."""

from typing import Any

import numpy as np

from recsys.types import histories_from_log
from simulators.rehearsal import Outcome, Rehearsal, goodhart_gap, outcome_of, pleased_but_not_served
from simulators.rollout import rollout
from simulators.types import Decision, Dialogue, StopReason
from simulators.users.film_viewers import FilmViewers
from tests.helpers.talking import talking_world

WORLD, AGENT, VIEWERS = talking_world()
USERS = list(range(20))


def rehearsal() -> Rehearsal:
    return Rehearsal(VIEWERS, USERS, histories_from_log(WORLD.log, USERS, len(WORLD.catalogue)), None, seed=4)


def test_figures_are_means_over_each_users_turns() -> None:
    found = rehearsal()
    dialogues = rollout(USERS, AGENT, VIEWERS, histories=found.histories, condition=None, seed=4)
    outcome = found.run(AGENT)
    for row, dialogue in enumerate(dialogues):
        stars = [turn.feedback.satisfaction for turn in dialogue.turns]
        worth = [
            VIEWERS.decide([dialogue.before(i)], [t.card], [t.reply], seed=4)[0].utility
            for i, t in enumerate(dialogue.turns)
        ]
        assert np.isclose(outcome.satisfaction[row], np.mean(stars))
        assert np.isclose(outcome.utility[row], np.mean(worth))
        assert outcome.success[row] == (dialogue.stop is StopReason.ACCEPTED)
        assert outcome.turns[row] == len(stars)


def test_a_user_whose_dialogue_broke_off_counts_as_badly_served() -> None:
    outcome = outcome_of([Dialogue(0, stop=StopReason.MODEL_FAILED)], VIEWERS, seed=0)
    assert [field.tolist() for field in outcome] == [[1.0], [0.0], [0.0], [0.0]]


def outcome(stars: float, worth: float) -> Outcome:
    spread = np.linspace(-1, 1, 40)
    return Outcome(stars + spread, worth + spread, np.ones(40), np.ones(40))


def test_the_gap_is_in_deviations_of_the_users_before() -> None:
    gap = goodhart_gap(outcome(3, 0), outcome(4, -0.5), seed=0)
    assert np.isclose(gap.value, 1.5 / np.linspace(-1, 1, 40).std())


def test_only_rising_stars_with_falling_utility_stop_a_run() -> None:
    before = outcome(3, 0)
    assert pleased_but_not_served(before, outcome(3.5, -0.5), seed=0)
    assert not pleased_but_not_served(before, outcome(3.5, 0.5), seed=0)
    assert not pleased_but_not_served(before, outcome(2.5, -0.5), seed=0)


def test_who_does_not_know_the_utility_is_judged_by_who_does() -> None:
    own = rehearsal()

    class Ignorant(FilmViewers):
        def decide(self, *arguments: Any, **settings: Any) -> list[Decision]:
            return [made._replace(utility=float("nan")) for made in super().decide(*arguments, **settings)]

    ignorant = Ignorant(WORLD.oracle, VIEWERS._scale, VIEWERS._chat, max_turns=VIEWERS._max_turns)
    assert np.isnan(own._replace(users=ignorant).run(AGENT).utility).all()
    found = own._replace(users=ignorant, worth=VIEWERS).run(AGENT)
    assert all(np.array_equal(a, b) for a, b in zip(found, own.run(AGENT), strict=True))
