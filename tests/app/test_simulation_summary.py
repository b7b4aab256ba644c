"""What dialogues came to, read a block at a time."""

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from app.simulation_summary import read_outcomes, summarise
from recsys.types import histories_from_log
from simulators.rehearsal import outcome_of
from simulators.rollout import rollout
from simulators.transcripts import dialogue_from_json, dialogue_to_json
from simulators.types import Decision, Dialogue, StopReason, Utterance
from tests.helpers.talking import talking_world

WORLD, AGENT, VIEWERS = talking_world()
USERS = list(range(11))


def held() -> list[Dialogue]:
    histories = histories_from_log(WORLD.log, USERS, len(WORLD.catalogue))
    talks = rollout(USERS, AGENT, VIEWERS, histories=histories, condition=None, seed=4)
    silent = [Dialogue(20 + n, stop=StopReason.MODEL_FAILED) for n in range(4)]
    refused = Dialogue(30, stop=StopReason.MODEL_FAILED, opening=Utterance("", "", "refused"))
    return [*talks[:5], refused, *silent, *talks[5:]]


@pytest.mark.parametrize("block", [1, 2, 4, 1000])
def test_blocks_make_no_difference(block: int) -> None:
    dialogues = held()
    fared = read_outcomes(iter(dialogues), VIEWERS, seed=4, block=block)
    whole = outcome_of(dialogues, VIEWERS, seed=4)
    assert all(np.array_equal(own, other) for own, other in zip(fared.outcome, whole, strict=True))
    summary = summarise(fared, seed=0)
    assert summary["dialogues"] == 16 == sum(summary["stops"].values())
    assert summary["stops"]["model_failed"] == 5
    assert list(summary["failures"].items()) == [("the agent gave no reply", 4), ("refused", 1)]
    assert summary["turns"]["value"] == np.mean([len(dialogue.turns) for dialogue in dialogues])


class Marked(Dialogue):
    """A dialogue that weak references may point at."""


def test_memory_does_not_follow_the_number_of_dialogues() -> None:
    saved = [dialogue_to_json(dialogue) for dialogue in held()]
    seen: list[weakref.ref[Dialogue]] = []
    alive, asked = [], []

    def told() -> Iterator[Dialogue]:
        for row in saved:
            read = dialogue_from_json(row)
            marked = Marked(read.user, read.turns, read.stop, read.opening)
            seen.append(weakref.ref(marked))
            yield marked
            del marked
            alive.append(sum(one() is not None for one in seen))

    class Judge:
        def decide(self, dialogues: Sequence[Dialogue], *given: Any, seed: int) -> list[Decision]:
            asked.append(len({dialogue.user for dialogue in dialogues}))
            return VIEWERS.decide(dialogues, *given, seed=seed)

    judge: Any = Judge()
    read_outcomes(told(), judge, seed=4, block=3)
    assert max(asked) == 3 and len(alive) == 16 and max(alive) <= 2 * 3
