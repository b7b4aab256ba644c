"""What the engine asks of the two sides of a conversation; anything that does this can take part in a rollout."""

from collections.abc import Sequence
from typing import Protocol

from scipy.sparse import csr_array

from persona.types import Condition
from simulators.prompts import Message
from simulators.types import Decision, Dialogue, Feedback, ItemCard, Utterance


class SimulatedUser(Protocol):
    """A population of users who talk with an agent, many at a time.

    Whatever is random about a user at a turn follows from the seed, the user and the turn alone, so that company does
    not matter and a turn can be met again under the same luck. Hidden state stays inside: an agent reads utterances and
    nothing else. `simulators.checks.check_simulated_user` holds an implementation to this.
    """

    def open(self, users: Sequence[int], *, seed: int) -> list[Utterance]:
        """What each user says first.

        Args:
            users: Rows of N users in the population.
            seed: Seed of the simulation.

        Returns:
            N utterances; one without words says why in `failure`.
        """
        ...

    def react(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        *,
        seed: int,
    ) -> list[Feedback]:
        """What each user makes of the reply to its latest words, and whether it stops.

        Args:
            dialogues: N dialogues so far, without the turn that is reacted to; `Dialogue.said` is what was answered.
            cards: Item shown in each.
            replies: Reply shown in each.
            seed: Seed of the simulation.

        Returns:
            N reactions. One in which a user goes on holds its next words.
        """
        ...

    def decide(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        *,
        seed: int,
    ) -> list[Decision]:
        """What users decide about replies, without a word: the same user, turn and seed meet the same luck.

        Args:
            dialogues: N dialogues as they stood before the replies; `Dialogue.before` gives them.
            cards: Item shown.
            replies: Reply shown.
            seed: Seed of the simulation.
        """
        ...


class Agent(Protocol):
    """The side that recommends: finds an item, and puts it into words."""

    def choose(
        self, dialogues: Sequence[Dialogue], said: Sequence[Utterance], histories: csr_array
    ) -> list[ItemCard]:
        """The item that each user is shown next.

        Args:
            dialogues: B dialogues so far.
            said: What each user said last.
            histories: What is known of each user's past. Shape (B, I).
        """
        ...

    def prompt(self, dialogue: Dialogue, said: Utterance, card: ItemCard) -> list[Message]:
        """The conversation that the agent's model answers."""
        ...

    def word(
        self,
        prompts: Sequence[Sequence[Message]],
        cards: Sequence[ItemCard],
        condition: Condition | None,
        *,
        seeds: Sequence[int],
    ) -> list[Utterance]:
        """One reply a row; one without words says why in `failure`.

        Args:
            prompts: B conversations from `prompt`.
            cards: The item of each.
            condition: One row a conversation, or None for the average user.
            seeds: One seed a conversation; the same seed and conversation give the same reply.
        """
        ...
