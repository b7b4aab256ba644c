"""Users as they are usually made of a language model: a persona in one prompt, and no more.

No policy, no patience, no gradual disclosure: the model says a message, an interest and stars. The baseline that AILO
and users learned from logs must be better than.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from simulators.chat.model import ChatModel, Message
from simulators.chat.structured import complete_json
from simulators.errors import PersonaError
from simulators.types import (
    LEVELS,
    SUCCESS_LEVEL,
    Decision,
    Dialogue,
    Feedback,
    ItemCard,
    StopReason,
    Utterance,
)
from simulators.users.ailo import decided
from simulators.users.ailo_prompts import again_prompt, persona_block, shown_lines, talk_lines, talk_of
from simulators.users.ailo_types import PlainReply, Words
from simulators.users.personas import Persona
from simulators.users.places import place_seeds, places_of
from simulators.users.title_guard import guarded, heard_in, kept_secret

_OPENING, _WORDS, _AGAIN = range(411, 414)

_OPENING_TASK = """You are a person who looks for a {item}, described below. Write your first message to a
recommender, as JSON with the one field reply."""

_REACTION_TASK = """You are a person who looks for a {item}, described below. React to the recommender's last
message with one JSON object: reply, your next message; interest, how far your interest in the shown {item} goes,
0 ignored, 1 opened, 2 saved, 3 watched, 4 loved; rating, 1 to 5 stars for the recommender's message; leave, true if
you stop here."""


class PromptedReaction(BaseModel):
    """All that a prompted user is asked for at a turn."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    reply: Words
    # Depth of interest in the item, as in `simulators.types.LEVELS`.
    interest: Annotated[int, Field(ge=0, le=len(LEVELS) - 1)]
    # Stars for the turn.
    rating: Annotated[int, Field(ge=1, le=5)]
    leave: bool


class PersonaPromptUsers:
    """Personas told to a chat model in one prompt. See `simulators.protocols.SimulatedUser`.

    Args:
        personas: The users; each is met by its `user`.
        chat: Speaks and rates.
        item_word: What is recommended, in the singular.
        max_turns: Turns after which a dialogue ends.
        temperature: Of the sampling.
    """

    def __init__(
        self,
        personas: Iterable[Persona],
        chat: ChatModel,
        *,
        item_word: str = "film",
        max_turns: int = 5,
        temperature: float = 0.7,
    ) -> None:
        self._persona_of = {persona.user: persona for persona in personas}
        self._chat = chat
        self._item_word = item_word
        self._max_turns = max_turns
        self._temperature = temperature

    def open(self, users: Sequence[int], *, seed: int) -> list[Utterance]:
        """See `SimulatedUser.open`.

        Raises:
            PersonaError: A user without a persona.
        """
        dialogues = [Dialogue(user) for user in users]
        asked = [self._prompt(dialogue, None, None) for dialogue in dialogues]
        said = self._say(asked, dialogues, seed, _OPENING)
        nothing = [None] * len(users)
        return self._guarded(dialogues, nothing, nothing, asked, said, seed)

    def react(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        *,
        seed: int,
    ) -> list[Feedback]:
        """See `SimulatedUser.react`; a turn whose call failed counts as ignored and rated 1."""
        asked = [
            self._prompt(d, card, reply) for d, card, reply in zip(dialogues, cards, replies, strict=True)
        ]
        found = complete_json(
            self._chat,
            asked,
            PromptedReaction,
            seeds=place_seeds(seed, places_of(dialogues), _WORDS),
            temperature=self._temperature,
        )
        said = [_uttered(answer.value.reply if answer.value else "", answer.failure) for answer in found]
        said = self._guarded(dialogues, cards, replies, asked, said, seed)
        return [
            self._feedback(dialogue, answer.value, words)
            for dialogue, answer, words in zip(dialogues, found, said, strict=True)
        ]

    def decide(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        *,
        seed: int,
    ) -> list[Decision]:
        """See `SimulatedUser.decide`; costs as much as `react`, and is as undecided as `AiloUsers.decide`."""
        return [decided(reaction) for reaction in self.react(dialogues, cards, replies, seed=seed)]

    def _prompt(self, dialogue: Dialogue, card: ItemCard | None, reply: Utterance | None) -> list[Message]:
        persona = self._persona_of.get(dialogue.user)
        if persona is None:
            raise PersonaError(f"`users` must have personas; got {dialogue.user} without one. Add it.")
        task = (_OPENING_TASK if reply is None else _REACTION_TASK).format(item=self._item_word)
        lines = [*talk_lines(talk_of(dialogue, reply)), *shown_lines(card)]
        return [
            {"role": "system", "content": f"{task}\n\n{persona_block(persona)}"},
            {"role": "user", "content": "\n".join(lines)},
        ]

    def _say(
        self, asked: Sequence[Sequence[Message]], dialogues: Sequence[Dialogue], seed: int, purpose: int
    ) -> list[Utterance]:
        found = complete_json(
            self._chat,
            asked,
            PlainReply,
            seeds=place_seeds(seed, places_of(dialogues), purpose),
            temperature=self._temperature,
        )
        return [_uttered(answer.value.reply if answer.value else "", answer.failure) for answer in found]

    def _guarded(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard | None],
        replies: Sequence[Utterance | None],
        asked: Sequence[Sequence[Message]],
        said: Sequence[Utterance],
        seed: int,
    ) -> list[Utterance]:
        titles = [
            kept_secret(self._persona_of[dialogue.user].target, heard_in(dialogue, reply), card)
            for dialogue, card, reply in zip(dialogues, cards, replies, strict=True)
        ]

        def say_again(rows: list[int]) -> list[Utterance]:
            prompts = [again_prompt(asked[i], said[i].text) for i in rows]
            return self._say(prompts, [dialogues[i] for i in rows], seed, _AGAIN)

        return guarded(said, titles, say_again)

    def _feedback(self, dialogue: Dialogue, made: PromptedReaction | None, words: Utterance) -> Feedback:
        if made is None:
            return Feedback(0, 1.0, words, stop=StopReason.MODEL_FAILED)
        stop = None
        if made.interest >= SUCCESS_LEVEL:
            stop = StopReason.ACCEPTED
        elif made.leave:
            stop = StopReason.OUT_OF_PATIENCE
        elif len(dialogue.turns) + 1 >= self._max_turns:
            stop = StopReason.MAX_TURNS
        return Feedback(made.interest, float(made.rating), words, stop=stop)


def _uttered(text: str, failure: str | None) -> Utterance:
    return Utterance(text, text, failure)
