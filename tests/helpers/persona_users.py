"""Users with personas in the film world, and chat models that record, fail or say one thing only."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from recsys.types import histories_from_log
from simulators.agent import Recommender
from simulators.chat.model import ChatModel, Completion, Message
from simulators.protocols import SimulatedUser
from simulators.rollout import rollout
from simulators.types import Dialogue
from simulators.users.persona_building import personas_from_log
from simulators.users.personas import Persona
from simulators.world import World
from tests.helpers.talking import talking_world


class RecordingChat:
    """Passes everything on and keeps what was asked, batch by batch."""

    def __init__(self, inner: ChatModel) -> None:
        self._inner = inner
        self.batches: list[list[Sequence[Message]]] = []
        self.answers: list[Completion] = []

    @property
    def slots(self) -> frozenset[str]:
        return self._inner.slots

    def complete(self, conversations: Sequence[Sequence[Message]], **settings: Any) -> list[Completion]:
        self.batches.append(list(conversations))
        found = self._inner.complete(conversations, **settings)
        self.answers += found
        return found

    @property
    def prompts(self) -> list[Sequence[Message]]:
        return [conversation for batch in self.batches for conversation in batch]


class SteadyChat:
    """Answers every question with the fields of one object that the schema asks for; text is its `reply`."""

    slots: frozenset[str] = frozenset()

    def __init__(self, answers: Mapping[str, object]) -> None:
        self._answers = answers

    def complete(
        self, conversations: Sequence[Sequence[Message]], *, schema: Mapping[str, Any] | None = None, **_: Any
    ) -> list[Completion]:
        text = str(self._answers["reply"])
        if schema is not None:
            text = json.dumps({name: self._answers[name] for name in schema["properties"]})
        return [Completion(text) for _ in conversations]


class UnsteadyChat:
    """Fails for one seed in `every`, and answers like another chat model for the rest."""

    def __init__(self, inner: ChatModel, every: int) -> None:
        self._inner = inner
        self._every = every

    @property
    def slots(self) -> frozenset[str]:
        return self._inner.slots

    def complete(
        self, conversations: Sequence[Sequence[Message]], *, seeds: Sequence[int], **settings: Any
    ) -> list[Completion]:
        found = self._inner.complete(conversations, seeds=seeds, **settings)
        return [
            Completion("", "the endpoint did not answer") if seed % self._every == 0 else row
            for seed, row in zip(seeds, found, strict=True)
        ]


def persona_world(users: int = 40) -> tuple[World, Recommender, list[Persona]]:
    """A small world, an agent, and the personas that the world's log shows."""
    world, agent, _ = talking_world()
    return world, agent, personas_from_log(world.log, world.catalogue, range(users), seed=0)


def talk(
    world: World, agent: Recommender, people: SimulatedUser, users: Sequence[int], *, seed: int = 3
) -> list[Dialogue]:
    """The dialogues of some users with an agent that knows their history."""
    histories = histories_from_log(world.log, list(users), len(world.catalogue))
    return rollout(users, agent, people, histories=histories, condition=None, seed=seed)


def share_masked(dialogues: Sequence[Dialogue]) -> float:
    """Share of dialogues in which a title had to be blanked out of what the user said."""
    leaky = [any(turn.user.masked or turn.feedback.utterance.masked for turn in d.turns) for d in dialogues]
    return sum(leaky) / len(leaky)
