"""Dialogues: the turn loop, the viewers' decisions, and common random numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from recsys.types import Histories, histories_from_log
from simulators.agent import Recommender
from simulators.chat.model import Completion, Message, ScriptedChat
from simulators.errors import RolloutError
from simulators.rollout import rollout
from simulators.transcripts import dialogue_from_json, dialogue_to_json
from simulators.types import SUCCESS_LEVEL, Dialogue, ItemCard, StopReason, Utterance
from simulators.users.film_viewers import FilmViewers
from tests.helpers.talking import SLOTS, reference_scale, talking_world

WORLD, AGENT, VIEWERS = talking_world()
USERS = list(range(40))


def histories(users: list[int]) -> Histories:
    return histories_from_log(WORLD.log, users, len(WORLD.catalogue))


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    return rollout(USERS, AGENT, VIEWERS, histories=histories(USERS), condition=None, seed=3)


def test_every_dialogue_ends_for_its_own_reason(dialogues: list[Dialogue]) -> None:
    assert [d.user for d in dialogues] == USERS
    for dialogue in dialogues:
        last = dialogue.turns[-1].feedback
        assert dialogue.stop is last.stop is not None
        assert (last.level >= SUCCESS_LEVEL) == (dialogue.stop is StopReason.ACCEPTED)
        assert all(turn.feedback.stop is None for turn in dialogue.turns[:-1])
        assert len(dialogue.turns) <= 5
        if dialogue.stop is StopReason.OUT_OF_PATIENCE:
            poor = sum(turn.feedback.satisfaction <= 2 for turn in dialogue.turns)
            assert poor >= WORLD.oracle.patience([dialogue.user])[0]
    assert {d.stop for d in dialogues} >= {StopReason.ACCEPTED}


def test_no_film_is_offered_twice_and_none_that_was_seen(dialogues: list[Dialogue]) -> None:
    for dialogue in dialogues:
        items = [turn.card.item for turn in dialogue.turns]
        assert len(set(items)) == len(items)
        seen = WORLD.log.loc[WORLD.log["user_id"] == dialogue.user, "item_id"]
        assert not set(items) & set(seen)


def test_the_genre_that_was_asked_for_is_offered(dialogues: list[Dialogue]) -> None:
    for dialogue in dialogues:
        wished = WORLD.catalogue.genres
        asked = next(genre for genre in wished if f"something {genre}" in dialogue.turns[0].user.text)
        assert WORLD.catalogue.has_genre(asked)[dialogue.turns[0].card.item]


def test_replies_name_their_film_and_the_next_words_follow(dialogues: list[Dialogue]) -> None:
    for dialogue in dialogues:
        for turn, following in zip(dialogue.turns, dialogue.turns[1:], strict=False):
            assert following.user == turn.feedback.utterance
        assert all(turn.card.title in turn.reply.text for turn in dialogue.turns)
        assert all("<" not in turn.reply.text for turn in dialogue.turns)


def test_company_does_not_change_a_dialogue(dialogues: list[Dialogue]) -> None:
    some = [5, 17, 31]
    assert rollout(some, AGENT, VIEWERS, histories=histories(some), condition=None, seed=3) == [
        dialogues[i] for i in some
    ]
    assert rollout(some, AGENT, VIEWERS, histories=histories(some), condition=None, seed=4) != [
        dialogues[i] for i in some
    ]


def test_deciding_again_under_the_same_luck_decides_the_same(dialogues: list[Dialogue]) -> None:
    turns = [(d, i, t) for d in dialogues for i, t in enumerate(d.turns)]
    again = VIEWERS.decide(
        [d.before(i) for d, i, _ in turns],
        [t.card for _, _, t in turns],
        [t.reply for _, _, t in turns],
        seed=3,
    )
    assert [(a.level, a.satisfaction) for a in again] == [
        (t.feedback.level, t.feedback.satisfaction) for _, _, t in turns
    ]


def test_complaints_name_what_hurt(dialogues: list[Dialogue]) -> None:
    complaints = [t.feedback.complaint for d in dialogues for t in d.turns if t.feedback.complaint]
    assert complaints
    content = [t.feedback for d in dialogues for t in d.turns if t.feedback.satisfaction >= 4]
    assert all(feedback.complaint is None for feedback in content)
    assert {sign for _, sign in complaints} <= {-1, 1}


def test_transcripts_come_back_as_they_were(dialogues: list[Dialogue]) -> None:
    assert [dialogue_from_json(dialogue_to_json(d)) for d in dialogues] == dialogues


def test_a_better_wording_never_gets_a_worse_reaction() -> None:
    rng = np.random.default_rng(0)
    users, items, draws = rng.integers(0, 60, 500), rng.integers(0, 300, 500), rng.random(500)
    low, high = (WORLD.oracle.levels(users, items, draws, reply=np.full(500, x)) for x in (-1, 1))
    assert (high >= low).all() and (high > low).any()


class _SometimesDead(ScriptedChat):
    """Fails for some seeds, as an endpoint that is down does."""

    def __init__(self, dead_share: int) -> None:
        super().__init__(lambda _: "I want something <genre>.", SLOTS)
        self._dead_share = dead_share

    def complete(
        self, conversations: Sequence[Sequence[Message]], *, seeds: Sequence[int], **settings: Any
    ) -> list[Completion]:
        alive = super().complete(conversations, seeds=seeds)
        return [
            Completion("", "the endpoint did not answer") if seed % self._dead_share == 0 else row
            for seed, row in zip(seeds, alive, strict=True)
        ]


def test_a_dialogue_whose_model_fails_is_marked_and_none_is_lost() -> None:
    viewers = FilmViewers(WORLD.oracle, reference_scale(), _SometimesDead(3))
    found = rollout(USERS, AGENT, viewers, histories=histories(USERS), condition=None, seed=3)
    assert [d.user for d in found] == USERS
    failed = [d for d in found if d.stop is StopReason.MODEL_FAILED]
    assert any(not d.turns for d in failed) and any(d.turns for d in failed)
    assert all(d.said is not None and d.said.failure for d in failed)
    assert [dialogue_from_json(dialogue_to_json(d)) for d in found] == found


def test_blocks_change_nothing_and_progress_counts_all(dialogues: list[Dialogue]) -> None:
    told: list[int] = []
    found = rollout(
        USERS,
        AGENT,
        VIEWERS,
        histories=histories(USERS),
        condition=None,
        seed=3,
        block=7,
        progress=told.append,
    )
    assert found == dialogues
    assert told == sorted(told) and told[-1] == len(USERS)


class _SometimesMute(Recommender):
    """Has no reply for some films, as a policy behind an endpoint may."""

    def __init__(self) -> None:
        vars(self).update(vars(AGENT))

    def word(self, prompts: Any, cards: Sequence[ItemCard], *args: Any, **settings: Any) -> list[Utterance]:
        replies = super().word(prompts, cards, *args, **settings)
        mute = Utterance("", "", "the endpoint did not answer")
        return [mute if card.item % 4 == 0 else reply for card, reply in zip(cards, replies, strict=True)]


def test_an_agent_without_words_ends_that_dialogue_only(dialogues: list[Dialogue]) -> None:
    found = rollout(USERS, _SometimesMute(), VIEWERS, histories=histories(USERS), condition=None, seed=3)
    assert {d.stop for d in found} > {StopReason.MODEL_FAILED}
    for whole, cut in zip(dialogues, found, strict=True):
        assert whole.turns[: len(cut.turns)] == cut.turns
        assert (cut.stop is StopReason.MODEL_FAILED) == (cut != whole)


def test_rows_and_blocks_are_checked() -> None:
    with pytest.raises(RolloutError, match=r"each of the 40 users; got {'histories': 3}"):
        rollout(USERS, AGENT, VIEWERS, histories=histories([1, 2, 3]), condition=None, seed=3)
    with pytest.raises(RolloutError, match="`block` must be at least 1; got 0"):
        rollout(USERS, AGENT, VIEWERS, histories=histories(USERS), condition=None, seed=3, block=0)
