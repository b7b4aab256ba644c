"""Simulated viewers of the film world: the choice model decides, a chat model finds the words.

Decisions (interest, satisfaction, patience, complaint) come from the oracle under random numbers keyed by user and
turn; the words come from any `ChatModel`. So a turn can be decided again for another reply without writing a word.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from persona.rewards.attributes import AttributeScale
from simulators.chat.model import ChatModel
from simulators.grounding import banned_slots, reply_attributes, spoken
from simulators.prompts import viewer_opening_prompt, viewer_reaction_prompt
from simulators.randomness import keyed_seeds, keyed_uniforms
from simulators.types import (
    DISSATISFIED,
    SUCCESS_LEVEL,
    Decision,
    Dialogue,
    Feedback,
    ItemCard,
    StopReason,
    Utterance,
)
from simulators.users.complaints import find_complaints
from simulators.world.oracle import Oracle

_WISH, _LEVEL, _RATING, _WORDS, _OPENING = range(5)
_TEMPERATURE = 0.7


def open_dialogues(
    chat: ChatModel,
    wishes: Sequence[Mapping[str, str]],
    *,
    seeds: Sequence[int],
    temperature: float = _TEMPERATURE,
) -> list[Utterance]:
    """What users say first, one a wish.

    Args:
        chat: Finds the words.
        wishes: Genre and mood that each looks for.
        seeds: One seed a wish.
        temperature: Higher for more ways to ask.
    """
    slots = chat.slots
    said = chat.complete(
        [viewer_opening_prompt(wish, slots) for wish in wishes],
        seeds=seeds,
        max_new_tokens=32,
        temperature=temperature,
        banned=[banned_slots(wish, slots) for wish in wishes],
    )
    return [spoken(words, wish) for words, wish in zip(said, wishes, strict=True)]


def say_reactions(
    chat: ChatModel,
    wishes: Sequence[Mapping[str, str]],
    cards: Sequence[ItemCard],
    replies: Sequence[Utterance],
    decisions: Sequence[Decision],
    *,
    goes_on: Sequence[bool],
    seeds: Sequence[int],
) -> list[Utterance]:
    """The words for decisions that are made; all arguments have one entry a row.

    Args:
        chat: Finds the words.
        wishes: What each user looks for.
        cards: The film that each was shown.
        replies: The reply that each heard.
        decisions: What each decided.
        goes_on: Whether each asks for another film.
        seeds: One seed a row.
    """
    slots = chat.slots
    prompts = [
        viewer_reaction_prompt(
            wish, reply.raw if slots else reply.text, made.level, made.complaint, goes_on=more, slots=slots
        )
        for wish, reply, made, more in zip(wishes, replies, decisions, goes_on, strict=True)
    ]
    known = [{"title": card.title, **wish} for card, wish in zip(cards, wishes, strict=True)]
    said = chat.complete(
        prompts,
        seeds=seeds,
        max_new_tokens=40,
        temperature=_TEMPERATURE,
        banned=[banned_slots(values, slots) for values in known],
    )
    return [spoken(words, values) for words, values in zip(said, known, strict=True)]


def put_into_words(
    chat: ChatModel,
    wishes: Sequence[Mapping[str, str]],
    cards: Sequence[ItemCard],
    replies: Sequence[Utterance],
    decisions: Sequence[Decision],
    *,
    stops: Sequence[StopReason | None],
    seeds: Sequence[int],
) -> list[Feedback]:
    """Reactions whose decisions are made, words and all; arguments as of `say_reactions`, and why each user stops."""
    goes_on = [stop is None for stop in stops]
    said = say_reactions(chat, wishes, cards, replies, decisions, goes_on=goes_on, seeds=seeds)
    return [
        Feedback(
            made.level,
            made.satisfaction,
            words,
            made.complaint,
            # Who has decided to leave needs no words for it.
            StopReason.MODEL_FAILED if stop is None and words.failure else stop,
        )
        for made, words, stop in zip(decisions, said, stops, strict=True)
    ]


def stop_of(dialogue: Dialogue, made: Decision, *, patience: int, max_turns: int) -> StopReason | None:
    """Why a user stops with a decision: an item is accepted, too many turns were poor, or it was the last turn.

    Args:
        dialogue: As it stood before the decision.
        made: The decision.
        patience: Turns of at most `DISSATISFIED` stars that the user puts up with.
        max_turns: Turns after which a dialogue ends.
    """
    if made.level >= SUCCESS_LEVEL:
        return StopReason.ACCEPTED
    stars = [*(turn.feedback.satisfaction for turn in dialogue.turns), made.satisfaction]
    if sum(star <= DISSATISFIED for star in stars) >= patience:
        return StopReason.OUT_OF_PATIENCE
    return StopReason.MAX_TURNS if len(stars) >= max_turns else None


def _wishes(oracle: Oracle, users: Sequence[int], seed: int) -> list[dict[str, str]]:
    who = np.asarray(users)
    return oracle.wish(who, keyed_uniforms(seed, who, _WISH))


class FilmViewers:
    """The population of a film world, ready to talk.

    Args:
        oracle: Holder of the hidden truth.
        scale: Standardises reply attributes to the units that the hidden style weights are in.
        chat: Finds the words.
        max_turns: Turns after which a dialogue ends.
    """

    def __init__(self, oracle: Oracle, scale: AttributeScale, chat: ChatModel, *, max_turns: int = 5) -> None:
        self._oracle = oracle
        self._scale = scale
        self._chat = chat
        self._max_turns = max_turns

    def open(self, users: Sequence[int], *, seed: int) -> list[Utterance]:
        """What each user says first."""
        seeds = keyed_seeds(seed, np.asarray(users), _OPENING)
        return open_dialogues(self._chat, _wishes(self._oracle, users, seed), seeds=seeds)

    def decide(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        *,
        seed: int,
    ) -> list[Decision]:
        """Decide about one reply a row; the same user, turn and seed meet the same luck whatever the reply.

        Args:
            dialogues: As they stood before the reply; only the user and the number of turns matter.
            cards: Item shown.
            replies: Reply shown.
            seed: Seed of the simulation.
        """
        who = np.asarray([dialogue.user for dialogue in dialogues], np.int64)
        when = np.asarray([len(dialogue.turns) for dialogue in dialogues], np.int64)
        items = np.asarray([card.item for card in cards])
        attributes = self._scale(reply_attributes(replies, cards))
        style = self._oracle.reply_utility(who, attributes)
        levels = self._oracle.levels(who, items, keyed_uniforms(seed, who, when, _LEVEL), reply=style)
        stars = self._oracle.satisfaction(who, items, attributes, keyed_uniforms(seed, who, when, _RATING))
        utility = self._oracle.item_utility(who, items) + style
        complaints = find_complaints(self._oracle.reply_contributions(who, attributes), attributes, stars)
        return [
            Decision(int(level), float(star), complaint, float(worth))
            for level, star, complaint, worth in zip(levels, stars, complaints, utility, strict=True)
        ]

    def level_probabilities(
        self, users: ArrayLike, items: ArrayLike, *, position: ArrayLike = 0, seed: int
    ) -> NDArray[np.float64]:
        """P(level = k) as the oracle has it, with no reply. Shape (B, K), rows sum to 1.

        Args:
            users: Rows of the users. Shape (B,).
            items: Rows of the items. Shape (B,).
            position: 0-based place in a slate, one for all or shape (B,).
            seed: Not read: a viewer is the same person in every simulation.
        """
        return self._oracle.level_probabilities(users, items, position=position)

    def react(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        *,
        seed: int,
    ) -> list[Feedback]:
        """Decide about one reply a dialogue and say so in words."""
        users = [dialogue.user for dialogue in dialogues]
        turns = [len(dialogue.turns) for dialogue in dialogues]
        decisions = self.decide(dialogues, cards, replies, seed=seed)
        patience = self._oracle.patience(np.asarray(users, np.int64)).tolist()
        stops = [
            stop_of(dialogue, made, patience=int(most), max_turns=self._max_turns)
            for dialogue, made, most in zip(dialogues, decisions, patience, strict=True)
        ]
        seeds = keyed_seeds(seed, np.asarray(users), np.asarray(turns), _WORDS)
        wishes = _wishes(self._oracle, users, seed)
        return put_into_words(self._chat, wishes, cards, replies, decisions, stops=stops, seeds=seeds)
