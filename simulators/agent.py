"""The conversational recommender: finds an item for each user and lets the policy put it into words."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

from persona.policy.conditioned import ConditionedPolicy
from persona.types import Condition
from recsys.types import Retriever
from simulators.grounding import banned_slots, fill, slot_values, whole_sentences
from simulators.item_finder import ItemFinder
from simulators.prompts import Message, recommender_prompt
from simulators.randomness import keyed_seeds
from simulators.types import Dialogue, GeneratedTokens, ItemCard, Utterance
from simulators.world.catalogue import Catalogue


class Recommender:
    """Retrieval and wording behind one agent.

    Args:
        catalogue: The items.
        retriever: Ranks items by a user's history.
        policy: Words the recommendation under the user's condition.
        history_turns: Earlier turns that the policy is shown.
        temperature: Sampling temperature of the wording.
        max_new_tokens: Longest reply, in tokens.
        attempts: How often a reply that lost its film's title is sampled, at most.
        keep_tokens: Whether replies keep the tokens that the policy read and drew, for training on dialogues.
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
        attempts: int = 3,
        keep_tokens: bool = False,
    ) -> None:
        self.catalogue = catalogue
        self.policy = policy
        self._finder = ItemFinder(catalogue, retriever)
        self._history_turns = history_turns
        self._temperature = temperature
        self._max_new_tokens = max_new_tokens
        self._attempts = attempts
        self._keep_tokens = keep_tokens

    def choose(
        self, dialogues: Sequence[Dialogue], said: Sequence[Utterance], histories: csr_array
    ) -> list[ItemCard]:
        """See `ItemFinder.choose`."""
        return self._finder.choose(dialogues, said, histories)

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
        for attempt in range(1, self._attempts):
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
            raw, tokens = self._generate(
                prompts,
                condition,
                seeds=seeds,
                max_new_tokens=self._max_new_tokens,
                temperature=self._temperature,
                banned=[banned_slots(slot_values(card), slots) for card in cards],
            )
        filled = [
            fill(whole_sentences(text), slot_values(card)) for text, card in zip(raw, cards, strict=True)
        ]
        return [replace(said, tokens=drawn) for said, drawn in zip(filled, tokens, strict=True)]

    def _generate(
        self, prompts: Sequence[Sequence[Message]], condition: Condition | None, **settings: Any
    ) -> tuple[list[str], Sequence[GeneratedTokens | None]]:
        """Raw replies, and the tokens of each where they are kept."""
        if not self._keep_tokens:
            return self.policy.generate(prompts, condition, **settings), [None] * len(prompts)
        rows = self.policy.generate_rows(prompts, condition, **settings)
        split = [row.policy.index(True) for row in rows]
        tokens = [GeneratedTokens(row.ids[:at], row.ids[at:]) for row, at in zip(rows, split, strict=True)]
        return [self.policy.reply_text(row) for row in rows], tokens
