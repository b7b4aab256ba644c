"""Users after one item that they know by its title, after iEvaLM.

After Wang et al. (2023), "Rethinking the Evaluation for Conversational Recommendation in the Era of Large Language
Models", arXiv 2305.13112: a user is told the very item it is after, describes it without its title, and takes it when
it is offered. Departures: success is the item itself, not its title somewhere in a reply; a title that slips out is
asked away and then masked, not cut by sentence; each turn is rated, by a rule.
"""

from collections.abc import Mapping, Sequence

from simulators.chat.model import ChatModel, Message
from simulators.errors import PersonaError
from simulators.types import SUCCESS_LEVEL, Decision, Dialogue, Feedback, ItemCard, StopReason, Utterance
from simulators.users.ailo_prompts import again_prompt, mind_line, shown_lines, talk_lines, talk_of
from simulators.users.personas import Target
from simulators.users.places import place_seeds, places_of
from simulators.users.title_guard import guarded, heard_in, kept_secret

_WORDS, _AGAIN = range(421, 423)
_UNKNOWN = float("nan")
_COMPARED = ("genre", "mood", "era", "pace")

_TASK = """You are a person who looks for one certain {item}. Chat with a recommender until it offers that very {item}:
describe it bit by bit, answer what you are asked, refuse what is not it, and never say its title. Write your next
message alone, in one or two sentences."""


class TargetHolders:
    """Users after one item that they know by title. See `simulators.protocols.SimulatedUser`.

    The item itself is loved and given 5 stars; any other is given 1 to 4 by the share of the target's genres, mood, era
    and pace that it has, and is saved, opened or ignored by thirds of that share.

    Args:
        targets: What each user is after, by user.
        chat: Finds the words.
        item_word: What is recommended, in the singular.
        max_turns: Turns after which a dialogue ends.
        temperature: Of the sampling.
    """

    def __init__(
        self,
        targets: Mapping[int, Target],
        chat: ChatModel,
        *,
        item_word: str = "film",
        max_turns: int = 5,
        temperature: float = 0.7,
    ) -> None:
        self._targets = targets
        self._chat = chat
        self._item_word = item_word
        self._max_turns = max_turns
        self._temperature = temperature

    def open(self, users: Sequence[int], *, seed: int) -> list[Utterance]:
        """See `SimulatedUser.open`.

        Raises:
            PersonaError: A user without a target.
        """
        nothing = [None] * len(users)
        return self._say([Dialogue(user) for user in users], nothing, nothing, seed)

    def decide(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        *,
        seed: int,
    ) -> list[Decision]:
        """See `SimulatedUser.decide`; only the item matters, and nothing is random."""
        nearness = [nearness_to(self._target(d.user), card) for d, card in zip(dialogues, cards, strict=True)]
        return [
            Decision(4, 5.0, None, _UNKNOWN)
            if near is None
            else Decision(min(int(3 * near), 2), 1 + 3 * near, None, _UNKNOWN)
            for near in nearness
        ]

    def react(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        *,
        seed: int,
    ) -> list[Feedback]:
        """See `SimulatedUser.react`."""
        made = self.decide(dialogues, cards, replies, seed=seed)
        said = self._say(dialogues, cards, replies, seed)
        reactions = []
        for dialogue, decision, words in zip(dialogues, made, said, strict=True):
            stop = StopReason.MAX_TURNS if len(dialogue.turns) + 1 >= self._max_turns else None
            if decision.level >= SUCCESS_LEVEL:
                stop = StopReason.ACCEPTED
            elif stop is None and words.failure:
                stop = StopReason.MODEL_FAILED
            reactions.append(Feedback(decision.level, decision.satisfaction, words, stop=stop))
        return reactions

    def _say(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard | None],
        replies: Sequence[Utterance | None],
        seed: int,
    ) -> list[Utterance]:
        shown = list(zip(dialogues, cards, replies, strict=True))
        asked = [self._prompt(*row) for row in shown]
        titles = [kept_secret(self._target(d.user), heard_in(d, reply), card) for d, card, reply in shown]
        said = self._complete(asked, dialogues, seed, _WORDS)

        def say_again(rows: list[int]) -> list[Utterance]:
            prompts = [again_prompt(asked[i], said[i].text, as_json=False) for i in rows]
            return self._complete(prompts, [dialogues[i] for i in rows], seed, _AGAIN)

        return guarded(said, titles, say_again)

    def _complete(
        self, asked: Sequence[Sequence[Message]], dialogues: Sequence[Dialogue], seed: int, purpose: int
    ) -> list[Utterance]:
        found = self._chat.complete(
            asked,
            seeds=place_seeds(seed, places_of(dialogues), purpose),
            max_new_tokens=120,
            temperature=self._temperature,
            # What is in mind stands in the prompt in words, so that there is nothing to fill a slot from.
            banned=[self._chat.slots] * len(asked),
        )
        texts = [" ".join(row.text.split()) for row in found]
        return [Utterance(text, text, row.failure) for text, row in zip(texts, found, strict=True)]

    def _prompt(self, dialogue: Dialogue, card: ItemCard | None, reply: Utterance | None) -> list[Message]:
        task = _TASK.format(item=self._item_word)
        lines = [*talk_lines(talk_of(dialogue, reply)), *shown_lines(card)]
        return [
            {"role": "system", "content": f"{task}\n{mind_line(self._target(dialogue.user))}"},
            {"role": "user", "content": "\n".join(lines)},
        ]

    def _target(self, user: int) -> Target:
        if user not in self._targets:
            raise PersonaError(f"`targets` must hold every user; got {user} without one. Add it.")
        return self._targets[user]


def nearness_to(target: Target, card: ItemCard) -> float | None:
    """Share of the target's genres, mood, era and pace that another item has, 0 to 1; None for the target itself."""
    if card.title == target.title:
        return None
    wanted = {(k, part) for k in _COMPARED for part in target.facts.get(k, "").split(" and ") if part}
    has = {(k, part) for k in _COMPARED for part in card.facts.get(k, "").split(" and ")}
    return len(wanted & has) / max(len(wanted), 1)
