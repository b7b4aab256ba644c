"""Baseline users: each follows its rule, keeps its secret, and behaves as a simulated user must."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from simulators.chat.model import ScriptedChat
from simulators.checks import check_simulated_user
from simulators.errors import PersonaError
from simulators.protocols import SimulatedUser
from simulators.types import SUCCESS_LEVEL, Dialogue, ItemCard, StopReason, Utterance
from simulators.users.baselines import RuleUsers, agreeable_rule, random_rule, wish_of
from simulators.users.persona_building import targets_of
from simulators.users.persona_prompt import PersonaPromptUsers
from simulators.users.personas import Interest, Persona, Target
from simulators.users.target_holders import TargetHolders, nearness_to
from simulators.users.title_guard import names_title
from tests.helpers.actor import Actor
from tests.helpers.persona_users import (
    RecordingChat,
    SteadyChat,
    UnsteadyChat,
    persona_world,
    share_masked,
    talk,
)

WORLD, AGENT, PERSONAS = persona_world()
USERS = list(range(40))
WORDS = ScriptedChat(lambda conversation: f"Something {conversation[0]['content'].rpartition(': ')[2]}.")
WISHES = {persona.user: wish_of(persona) for persona in PERSONAS}
ITEMS = [int(item) for item in np.random.default_rng(0).integers(0, len(WORLD.catalogue), len(USERS))]
TARGETS = {u: t for u, t in zip(USERS, targets_of(WORLD.catalogue, ITEMS), strict=True) if t is not None}
CARD, REPLY = WORLD.catalogue.card(ITEMS[0]), Utterance("See it.", "See it.")

KINDS: dict[str, Callable[[], SimulatedUser]] = {
    "random": lambda: RuleUsers(random_rule(), WISHES, WORDS),
    "agreeable": lambda: RuleUsers(agreeable_rule(), WISHES, WORDS),
    "persona prompt": lambda: PersonaPromptUsers(PERSONAS, Actor()),
    "target holder": lambda: TargetHolders(TARGETS, Actor()),
}


def opened(users: Sequence[int]) -> list[Dialogue]:
    return [Dialogue(user, opening=Utterance("Hi.", "Hi.")) for user in users]


@pytest.mark.parametrize("kind", KINDS)
def test_dialogues_end_for_a_reason_and_do_not_depend_on_company(kind: str) -> None:
    people = KINDS[kind]()
    found = talk(WORLD, AGENT, people, USERS)
    for dialogue in found:
        last = dialogue.turns[-1].feedback
        assert dialogue.stop is last.stop is not None
        assert (last.level >= SUCCESS_LEVEL) == (dialogue.stop is StopReason.ACCEPTED)
        assert len(dialogue.turns) <= 5
    assert talk(WORLD, AGENT, people, [7, 3]) == [found[7], found[3]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_promises_of_the_engine_are_kept(kind: str) -> None:
    cards = [WORLD.catalogue.card(item) for item in range(5)]
    check_simulated_user(KINDS[kind](), USERS[:6], cards, max_turns=5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_can_be_met_again(kind: str) -> None:
    people = KINDS[kind]()
    turns = [(d, i, t) for d in talk(WORLD, AGENT, people, USERS[:8]) for i, t in enumerate(d.turns)]
    again = people.decide(
        [d.before(i) for d, i, _ in turns],
        [t.card for _, _, t in turns],
        [t.reply for _, _, t in turns],
        seed=3,
    )
    assert [(a.level, a.satisfaction) for a in again] == [
        (t.feedback.level, t.feedback.satisfaction) for _, _, t in turns
    ]
    assert all(math.isnan(a.utility) for a in again)


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_an_answer_for_nobody(kind: str) -> None:
    people = KINDS[kind]()
    assert people.open([], seed=0) == []
    assert people.react([], [], [], seed=0) == []


def levels(people: SimulatedUser, card: ItemCard, seeds: int) -> list[tuple[int, float]]:
    now = opened(USERS)
    made = [
        decision
        for seed in range(seeds)
        for decision in people.decide(now, [card] * len(now), [REPLY] * len(now), seed=seed)
    ]
    return [(decision.level, decision.satisfaction) for decision in made]


def test_random_users_follow_their_shares_whatever_is_offered() -> None:
    shares = (0.5, 0.2, 0.1, 0.15, 0.05)
    people = RuleUsers(random_rule(shares), WISHES, WORDS)
    made = levels(people, CARD, 100)
    counts = Counter(level for level, _ in made)
    assert [counts[level] / len(made) for level in range(5)] == pytest.approx(list(shares), abs=0.03)
    stars = Counter(star for _, star in made)
    assert [stars[star] / len(made) for star in (1.0, 2.0, 3.0, 4.0, 5.0)] == pytest.approx(
        [0.2] * 5, abs=0.03
    )
    assert levels(people, WORLD.catalogue.card(0), 100) == made


def test_agreeable_users_are_never_displeased() -> None:
    made = levels(RuleUsers(agreeable_rule(0.6), WISHES, WORDS), CARD, 100)
    shares = Counter(level for level, _ in made)
    assert [shares[level] / len(made) for level in (2, 3, 4)] == pytest.approx([0.4, 0.3, 0.3], abs=0.03)
    assert {star for _, star in made} == {4.0, 5.0}


def test_rule_users_run_out_of_patience() -> None:
    bored = RuleUsers(
        lambda users, turns, seed: random_rule((1, 0, 0, 0, 0))(users, turns, seed), WISHES, WORDS
    )
    found = talk(WORLD, AGENT, bored, USERS)
    left = [d for d in found if d.stop is StopReason.OUT_OF_PATIENCE]
    assert left
    for dialogue in left:
        assert sum(turn.feedback.satisfaction <= 2 for turn in dialogue.turns) == 3


def test_target_holders_take_their_item_and_nothing_else() -> None:
    people = TargetHolders(TARGETS, Actor())
    cards = [WORLD.catalogue.card(ITEMS[0])] * len(USERS)
    made = people.decide(opened(USERS), cards, [REPLY] * len(USERS), seed=0)
    for user, decision in zip(USERS, made, strict=True):
        assert (decision.level == 4) == (TARGETS[user].title == cards[0].title)
        assert decision.level == 4 or (decision.level <= 2 and 1 <= decision.satisfaction <= 4)


def test_nearness_is_the_share_of_the_targets_facts() -> None:
    target = Target(
        title="A B", facts={"genre": "crime and drama", "mood": "dark", "year": "1994", "pace": "slow"}
    )
    near = ItemCard(0, "C D", {"genre": "drama", "mood": "dark", "pace": "fast", "year": "1994"})
    assert nearness_to(target, near) == 2 / 4
    assert nearness_to(target, ItemCard(0, "A B")) is None
    assert nearness_to(Target(title="A B"), near) == 0


@pytest.mark.parametrize("indiscretion", [0.6, 1.0])
def test_titles_are_asked_away_then_masked_and_counted(indiscretion: float) -> None:
    chat = Actor(indiscretion=indiscretion)
    minded = [p.model_copy(update={"target": TARGETS[p.user]}) for p in PERSONAS]
    for people in (TargetHolders(TARGETS, chat), PersonaPromptUsers(minded, chat)):
        found = talk(WORLD, AGENT, people, USERS[:15])
        assert [d.user for d in found] == USERS[:15]
        for dialogue in found:
            title, heard = TARGETS[dialogue.user].title, ""
            for turn in dialogue.turns:
                assert names_title(heard, title) or not names_title(turn.user.text, title)
                heard += f" {turn.reply.text}"
        share = share_masked(found)
        assert share == 1.0 if indiscretion == 1.0 else 0.0 < share < 1.0


def test_prompted_users_are_asked_once_a_turn_and_say_what_they_are_told() -> None:
    chat = RecordingChat(SteadyChat({"reply": "Sure.", "interest": 2, "rating": 4, "leave": False}))
    people = PersonaPromptUsers(PERSONAS, chat)
    found = people.react(opened(USERS), [CARD] * len(USERS), [REPLY] * len(USERS), seed=0)
    assert [len(batch) for batch in chat.batches] == [len(USERS)]
    assert {(f.level, f.satisfaction, f.utterance.text, f.stop) for f in found} == {(2, 4.0, "Sure.", None)}
    leaving = SteadyChat({"reply": "Bye.", "interest": 0, "rating": 1, "leave": True})
    people = PersonaPromptUsers(PERSONAS, leaving)
    (bye,) = people.react(opened([0]), [CARD], [REPLY], seed=0)
    assert bye.stop is StopReason.OUT_OF_PATIENCE


def test_failures_are_marked_and_none_is_lost() -> None:
    deaf = (
        RuleUsers(random_rule((0.9, 0.1, 0, 0, 0)), WISHES, UnsteadyChat(WORDS, 4)),
        PersonaPromptUsers(PERSONAS, UnsteadyChat(Actor(), 4)),
        TargetHolders(TARGETS, UnsteadyChat(Actor(), 4)),
    )
    for people in deaf:
        found = talk(WORLD, AGENT, people, USERS)
        failed = [d for d in found if d.stop is StopReason.MODEL_FAILED]
        assert [d.user for d in found] == USERS and 0 < len(failed) < len(USERS)
        assert all(d.said is not None and d.said.failure for d in failed)


def test_a_wish_is_what_is_liked_best() -> None:
    interests = [("genre", "western", 1), ("genre", "comedy", 2), ("mood", "dark", -2), ("era", "now", 2)]
    persona = Persona(
        user=0,
        interests=tuple(
            Interest.model_validate({"kind": k, "value": v, "liking": liking}) for k, v, liking in interests
        ),
    )
    assert wish_of(persona) == {"genre": "comedy"}


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(PersonaError, match=r"5 probabilities.*got \[0\.5, 0\.5\]"):
        random_rule((0.5, 0.5))
    with pytest.raises(PersonaError, match=r"\[0, 1\]; got 1\.5"):
        agreeable_rule(1.5)
    for people, told in (
        (RuleUsers(random_rule(), {}, WORDS), r"every user; got \[0\] without"),
        (PersonaPromptUsers([], Actor()), "got 0 without one"),
        (TargetHolders({}, Actor()), "every user; got 0 without"),
    ):
        with pytest.raises(PersonaError, match=told):
            people.open([0], seed=0)
