"""The contract of simulated users: those of the film world keep it, and each broken promise is found."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from simulators.checks import check_simulated_user
from simulators.errors import ContractError, RolloutError
from simulators.types import Decision, Dialogue, Feedback, Utterance
from simulators.users.film_viewers import FilmViewers
from tests.helpers.talking import talking_world

WORLD, _, VIEWERS = talking_world()
USERS = [3, 11, 17, 24, 40]
CARDS = [WORLD.catalogue.card(item) for item in (5, 80, 120, 200, 299)]


def check(viewers: Any, **settings: Any) -> list[Dialogue]:
    return check_simulated_user(viewers, USERS, CARDS, max_turns=5, **settings)


def test_film_viewers_keep_the_contract() -> None:
    dialogues = check(VIEWERS, hidden={3: ["persona of user 3"]})
    assert [d.user for d in dialogues] == USERS and all(d.stop for d in dialogues)


class _Changed(FilmViewers):
    """Film viewers with one method changed by a subclass."""

    def __init__(self) -> None:
        vars(self).update(vars(VIEWERS))


class _Forgetful(_Changed):
    calls = 0

    def open(self, users: Sequence[int], *, seed: int) -> list[Utterance]:
        self.calls += 1
        return super().open(users, seed=seed + self.calls)


class _ReadsCompany(_Changed):
    def open(self, users: Sequence[int], *, seed: int) -> list[Utterance]:
        said = super().open(users, seed=seed)
        return [replace(words, text=f"{words.text} {len(users)}") for words in said]


class _ReadsOrder(_Changed):
    def open(self, users: Sequence[int], *, seed: int) -> list[Utterance]:
        said = super().open(users, seed=seed)
        return [replace(words, text=f"{words.text} {row}") for row, words in enumerate(said)]


class _Endless(_Changed):
    def react(self, *args: Any, **settings: Any) -> list[Feedback]:
        return [
            replace(f, stop=None, utterance=Utterance("more", "more"))
            for f in super().react(*args, **settings)
        ]


class _Speechless(_Changed):
    def react(self, *args: Any, **settings: Any) -> list[Feedback]:
        return [replace(f, stop=None, utterance=Utterance("", "")) for f in super().react(*args, **settings)]


class _SixStars(_Changed):
    def react(self, *args: Any, **settings: Any) -> list[Feedback]:
        return [replace(f, satisfaction=6.0) for f in super().react(*args, **settings)]


class _LosesARow(_Changed):
    def react(self, *args: Any, **settings: Any) -> list[Feedback]:
        return super().react(*args, **settings)[1:]


class _DecidesAnew(_Changed):
    def decide(self, *args: Any, **settings: Any) -> list[Decision]:
        return [made._replace(level=(made.level + 1) % 5) for made in super().decide(*args, **settings)]

    def react(self, *args: Any, **settings: Any) -> list[Feedback]:
        return VIEWERS.react(*args, **settings)  # which asks its own `decide`


@pytest.mark.parametrize(
    ("viewers", "promise"),
    [
        (_Forgetful(), "the same seed must give the same dialogue"),
        (_ReadsCompany(), "a user alone must have the same dialogue"),
        (_ReadsOrder(), "the order of the users must not matter"),
        (_Endless(), "must stop within 5 turns; users"),
        (_Speechless(), "must say something; user 3 said nothing"),
        (_SixStars(), r"satisfaction in 1\.\.5; user 3 gave \d and 6"),
        (_LosesARow(), "`react` must give one result for each of the 5 rows; got 4"),
        (_DecidesAnew(), "`decide` must find what `react` found"),
    ],
)
def test_each_broken_promise_is_found(viewers: FilmViewers, promise: str) -> None:
    with pytest.raises(ContractError, match=promise):
        check(viewers)


def test_what_is_hidden_may_be_said_only_after_the_agent() -> None:
    class Tells(_Changed):
        def react(self, *args: Any, **settings: Any) -> list[Feedback]:
            said = Utterance(title := CARDS[0].title, title)
            return [replace(f, utterance=said) for f in super().react(*args, **settings)]

    check(Tells(), hidden={3: [CARDS[0].title]})  # the agent had just named it
    with pytest.raises(ContractError, match="user 3 told 'i want'"):
        check(VIEWERS, hidden={3: ["i want"]})


def test_a_check_needs_company_and_cards() -> None:
    with pytest.raises(RolloutError, match=r"got \[3\] and 5 cards"):
        check_simulated_user(VIEWERS, [3], CARDS, max_turns=5)
    with pytest.raises(RolloutError, match="5 cards for 6 turns"):
        check_simulated_user(VIEWERS, USERS, CARDS, max_turns=6)
