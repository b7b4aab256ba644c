"""The conversational recommender: finds an item for each user and lets the policy put it into words."""

import re
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from persona.policy.conditioned import ConditionedPolicy
from persona.types import Condition
from recsys.types import Retriever
from simulators.grounding import banned_slots, fill, slot_values, whole_sentences
from simulators.prompts import Message, recommender_prompt
from simulators.randomness import keyed_seeds
from simulators.types import Dialogue, ItemCard, Utterance
from simulators.world.catalogue import Catalogue


class _Wish:
    """A kind of wish that users put into words, such as a genre: which words there are, and which films they mean."""

    def __init__(self, films_of: dict[str, NDArray[np.bool_]]) -> None:
        self._films_of = films_of
        self._name_of = {form: name for name in films_of for form in _spoken_forms(name)}
        forms = sorted(map(re.escape, self._name_of), key=len, reverse=True)
        self._pattern = re.compile(rf"\b({'|'.join(forms)})\b" if forms else r"(?!)", re.IGNORECASE)

    def films(self, spoken: Sequence[str]) -> NDArray[np.bool_] | bool:
        """Films of the wish named last; True, which allows all, if none was named. `spoken`: newest first."""
        for text in spoken:
            if found := self._pattern.findall(text):
                return self._films_of[self._name_of[found[-1].lower()]]
        return True


def _spoken_forms(name: str) -> tuple[str, ...]:
    """A wish's name as users say it: also in the plural, and science fiction also in short."""
    plural = f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"
    return (name, plural, "sci-fi") if name == "science fiction" else (name, plural)


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
    ) -> None:
        self.catalogue = catalogue
        self.policy = policy
        self._retriever = retriever
        self._history_turns = history_turns
        self._temperature = temperature
        self._max_new_tokens = max_new_tokens
        self._attempts = attempts
        moods = catalogue.films["mood"]
        self._wishes = (
            _Wish({genre.lower(): catalogue.has_genre(genre) for genre in catalogue.genres}),
            _Wish({str(mood).lower(): (moods == mood).to_numpy(bool) for mood in moods.dropna().unique()}),
        )

    def choose(
        self, dialogues: Sequence[Dialogue], said: Sequence[Utterance], histories: csr_array
    ) -> list[ItemCard]:
        """The best item that each user has not met, of the genre and the mood that the user last named, if any.

        Where no such film is left, the mood is given up first, then the genre.

        Args:
            dialogues: B dialogues so far.
            said: What each user said last.
            histories: What is known of each user. Shape (B, I), level + 1 where an item was met.
        """
        allowed = np.ones((len(dialogues), len(self.catalogue)), dtype=bool)
        for row, (dialogue, words) in enumerate(zip(dialogues, said, strict=True)):
            allowed[row, [turn.card.item for turn in dialogue.turns]] = False
            allowed[row, histories[[row]].indices] = False
            spoken = _without_titles(dialogue, words)
            for wish in self._wishes:
                narrowed = allowed[row] & wish.films(spoken)
                allowed[row] = narrowed if narrowed.any() else allowed[row]
        best = self._retriever.search(histories, 1, allowed=allowed).items[:, 0]
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
            raw = self.policy.generate(
                prompts,
                condition,
                seeds=seeds,
                max_new_tokens=self._max_new_tokens,
                temperature=self._temperature,
                banned=[banned_slots(slot_values(card), slots) for card in cards],
            )
        return [fill(whole_sentences(text), slot_values(card)) for text, card in zip(raw, cards, strict=True)]


def _without_titles(dialogue: Dialogue, words: Utterance) -> list[str]:
    """What the user said, newest first, less the titles: "True Romance" is no wish for romance."""
    spoken = [words.text, *(turn.user.text for turn in reversed(dialogue.turns))]
    for turn in dialogue.turns:
        spoken = [text.replace(turn.card.title, " ") for text in spoken]
    return spoken
