"""The conversational recommender: finds an item for each user and lets the policy put it into words."""

import re
from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import csr_array

from persona.policy.conditioned import ConditionedPolicy
from persona.types import Condition
from recsys.types import Retriever
from simulators.grounding import banned_slots, fill, slot_values
from simulators.prompts import Message, recommender_prompt
from simulators.randomness import keyed_seeds
from simulators.types import Dialogue, ItemCard, Utterance
from simulators.world.catalogue import Catalogue

_ATTEMPTS = 3


class Recommender:
    """Retrieval and wording behind one agent.

    Args:
        catalogue: The items.
        retriever: Ranks items by a user's history.
        policy: Words the recommendation under the user's condition.
        history_turns: Earlier turns that the policy is shown.
        temperature: Sampling temperature of the wording.
        max_new_tokens: Longest reply, in tokens.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        retriever: Retriever,
        policy: ConditionedPolicy,
        *,
        history_turns: int = 2,
        temperature: float = 0.8,
        max_new_tokens: int = 72,
    ) -> None:
        self.catalogue = catalogue
        self.policy = policy
        self._retriever = retriever
        self._history_turns = history_turns
        self._temperature = temperature
        self._max_new_tokens = max_new_tokens
        self._genres = {genre: catalogue.has_genre(genre) for genre in catalogue.genres}
        names = sorted(map(re.escape, catalogue.genres), key=len, reverse=True)
        self._genre_pattern = re.compile(rf"\b({'|'.join(names)})", re.IGNORECASE)

    def choose(
        self, dialogues: Sequence[Dialogue], said: Sequence[Utterance], histories: csr_array
    ) -> list[ItemCard]:
        """The best item that each user has not met, within the genre that the user last named, if any.

        Args:
            dialogues: B dialogues so far.
            said: What each user said last.
            histories: What is known of each user. Shape (B, I), level + 1 where an item was met.
        """
        allowed = np.ones((len(dialogues), len(self.catalogue)), dtype=bool)
        for row, (dialogue, words) in enumerate(zip(dialogues, said, strict=True)):
            genre = self._named_genre([*(turn.user.text for turn in dialogue.turns), words.text])
            if genre is not None:
                allowed[row] = self._genres[genre]
            allowed[row, [turn.card.item for turn in dialogue.turns]] = False
        best = self._retriever.search(histories, 1, allowed=allowed).items[:, 0]
        missing = best < 0
        if missing.any():
            # A genre whose every film was met: any unseen film is better than none.
            rows = np.flatnonzero(missing)
            best[rows] = self._retriever.search(histories[rows], 1).items[:, 0]
        return [self.catalogue.card(int(item)) for item in best]

    def prompt(self, dialogue: Dialogue, said: Utterance, card: ItemCard) -> list[Message]:
        """The conversation that the policy answers."""
        slots = self.policy.slots
        history = dialogue.turns[-self._history_turns :] if self._history_turns else ()
        return recommender_prompt(history, said.raw if slots else said.text, card, slots)

    def word(
        self,
        prompts: Sequence[Sequence[Message]],
        cards: Sequence[ItemCard],
        condition: Condition | None,
        *,
        seeds: Sequence[int],
    ) -> list[Utterance]:
        """One reply a row, its slots filled from its card; one that lost the film's title is sampled again.

        Args:
            prompts: B conversations from `prompt`.
            cards: The film of each.
            condition: One row a conversation, or None for the average user.
            seeds: One seed a conversation.
        """
        replies = self._word(prompts, cards, condition, seeds)
        for attempt in range(1, _ATTEMPTS):
            lost = [row for row, card in enumerate(cards) if card.title not in replies[row].text]
            if not lost:
                break
            again = self._word(
                [prompts[row] for row in lost],
                [cards[row] for row in lost],
                condition.select(lost) if condition else None,
                keyed_seeds(attempt, np.asarray([seeds[row] >> 1 for row in lost])),
            )
            for row, reply in zip(lost, again, strict=True):
                replies[row] = reply
        return replies

    def _word(
        self,
        prompts: Sequence[Sequence[Message]],
        cards: Sequence[ItemCard],
        condition: Condition | None,
        seeds: Sequence[int],
    ) -> list[Utterance]:
        slots = self.policy.slots
        with torch.inference_mode():
            raw = self.policy.generate(
                prompts,
                condition,
                seeds=seeds,
                max_new_tokens=self._max_new_tokens,
                temperature=self._temperature,
                banned=[banned_slots(slot_values(card), slots) for card in cards],
            )
        return [fill(text, slot_values(card)) for text, card in zip(raw, cards, strict=True)]

    def _named_genre(self, texts: Sequence[str]) -> str | None:
        for text in reversed(texts):
            if found := self._genre_pattern.findall(text):
                name = found[-1].lower()
                return next(genre for genre in self._genres if genre.lower() == name)
        return None
