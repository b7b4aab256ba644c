"""The turn loop: every live dialogue advances together, one batch of replies and one of reactions a turn."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array

from persona.types import Condition
from simulators.protocols import Agent, SimulatedUser
from simulators.randomness import keyed_seeds
from simulators.types import Dialogue, StopReason, Turn

_REPLY = 101


def rollout(
    users: Sequence[int],
    agent: Agent,
    viewers: SimulatedUser,
    *,
    histories: csr_array,
    condition: Condition | None,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> list[Dialogue]:
    """Let each user talk with the agent until the user stops.

    A user's dialogue depends on the user, the seed and the models, not on who else is in the batch (up to floating
    point in the models), so two policies can be compared under the same luck.

    Args:
        users: Rows of N users in the population.
        agent: The recommender.
        viewers: The simulated users.
        histories: What the agent knows of each user's past. Shape (N, I).
        condition: One row a user, or None for the average user.
        seed: Seed of the simulation.
        progress: Called after each turn with the number of finished dialogues.

    Returns:
        One finished dialogue a user, in the given order.
    """
    said = viewers.open(users, seed=seed)
    dialogues = [
        Dialogue(user, stop=StopReason.MODEL_FAILED if words.failure else None, opening=words)
        for user, words in zip(users, said, strict=True)
    ]
    live = [i for i, dialogue in enumerate(dialogues) if dialogue.stop is None]
    while live:
        now = [dialogues[i] for i in live]
        words = [said[i] for i in live]
        cards = agent.choose(now, words, histories[live])
        prompts = [agent.prompt(d, w, c) for d, w, c in zip(now, words, cards, strict=True)]
        seeds = keyed_seeds(seed, np.asarray([d.user for d in now]), [len(d.turns) for d in now], _REPLY)
        replies = agent.word(prompts, cards, condition.select(live) if condition else None, seeds=seeds)
        feedback = viewers.react(now, cards, replies, seed=seed)
        for i, card, reply, reaction in zip(live, cards, replies, feedback, strict=True):
            turn = Turn(said[i], card, reply, reaction)
            turns = (*dialogues[i].turns, turn)
            dialogues[i] = replace(dialogues[i], turns=turns, stop=reaction.stop, opening=None)
            said[i] = reaction.utterance
        live = [i for i in live if dialogues[i].stop is None]
        if progress:
            progress(len(users) - len(live))
    return dialogues
