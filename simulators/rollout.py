"""The turn loop: every live dialogue advances together, one batch of replies and one of reactions a turn."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from scipy.sparse import csr_array

from persona.types import Condition
from simulators.errors import RolloutError
from simulators.protocols import Agent, SimulatedUser
from simulators.randomness import keyed_seeds
from simulators.types import Dialogue, StopReason, Turn

BLOCK = 1024
"""Dialogues that are live together unless the caller says otherwise."""

_REPLY = 101


def rollout(
    users: Sequence[int],
    agent: Agent,
    viewers: SimulatedUser,
    *,
    histories: csr_array,
    condition: Condition | None,
    seed: int,
    attempt: int = 0,
    block: int = BLOCK,
    progress: Callable[[int], None] | None = None,
) -> list[Dialogue]:
    """Let each user talk with the agent until the user stops.

    A user's dialogue depends on the user, the seed and the models, not on who else is in the batch (up to floating
    point in the models), so two policies can be compared under the same luck. Users talk in blocks, one block after
    another; memory grows with the block, not with the number of users, but for the finished dialogues themselves.
    Where a local model multiplies in bfloat16, other batches round otherwise and many a word differs: for the same
    bits, keep the block.

    Args:
        users: Rows of N users in the population.
        agent: The recommender.
        viewers: The simulated users.
        histories: What the agent knows of each user's past. Shape (N, I).
        condition: One row a user, or None for the average user.
        seed: Seed of the simulation.
        attempt: Number of the attempt: another draws other replies, while the users meet the same luck.
        block: Most dialogues that are live together, at least 1.
        progress: Called after each turn with the number of finished dialogues.

    Returns:
        One finished dialogue a user, in the given order. One whose user or agent had no words is marked
        `StopReason.MODEL_FAILED`.

    Raises:
        RolloutError: `histories` or `condition` has not one row a user, or `block` is below 1.
    """
    check_rows(users, histories, condition)
    finished: list[Dialogue] = []
    for rows in user_blocks(len(users), block):
        finished += _block(
            users[rows],
            agent,
            viewers,
            histories=histories[rows],
            condition=condition.select(range(rows.start, rows.stop)) if condition else None,
            seed=seed,
            attempt=attempt,
            progress=_after(len(finished), progress),
        )
    return finished


def user_blocks(count: int, block: int) -> Iterator[slice]:
    """The rows of `count` users in blocks of at most `block`, in order.

    Raises:
        RolloutError: `block` is below 1.
    """
    if block < 1:
        raise RolloutError(f"`block` must be at least 1; got {block}. Use 256 or more to fill the batches.")
    return (slice(start, min(start + block, count)) for start in range(0, count, block))


def check_rows(users: Sequence[int], histories: csr_array, condition: Condition | None) -> None:
    """Raise `RolloutError` unless histories and condition have one row a user."""
    known = {"histories": histories.shape[0]} | ({"condition": len(condition)} if condition else {})
    if wrong := {name: rows for name, rows in known.items() if rows != len(users)}:
        raise RolloutError(
            f"`histories` and `condition` must have one row for each of the {len(users)} users; got {wrong}. "
            "Select the rows of these users."
        )


def _block(
    users: Sequence[int],
    agent: Agent,
    viewers: SimulatedUser,
    *,
    histories: csr_array,
    condition: Condition | None,
    seed: int,
    attempt: int,
    progress: Callable[[int], None] | None,
) -> list[Dialogue]:
    said = viewers.open(users, seed=seed)
    dialogues = [
        Dialogue(user, stop=StopReason.MODEL_FAILED if words.failure else None, opening=words)
        for user, words in zip(users, said, strict=True)
    ]
    live = _live(dialogues)
    while live:
        now = [dialogues[i] for i in live]
        words = [said[i] for i in live]
        cards = agent.choose(now, words, histories[live])
        prompts = [agent.prompt(d, w, c) for d, w, c in zip(now, words, cards, strict=True)]
        seeds = _reply_seeds(now, seed, attempt)
        replies = agent.word(prompts, cards, condition.select(live) if condition else None, seeds=seeds)
        # Who got no reply has nothing to react to; the turns so far are kept.
        for i, reply in zip(live, replies, strict=True):
            if reply.failure:
                dialogues[i] = replace(dialogues[i], stop=StopReason.MODEL_FAILED)
        heard = [row for row, reply in enumerate(replies) if not reply.failure]
        shown, answers = [cards[row] for row in heard], [replies[row] for row in heard]
        feedback = viewers.react([now[row] for row in heard], shown, answers, seed=seed)
        for row, card, reply, reaction in zip(heard, shown, answers, feedback, strict=True):
            i = live[row]
            turn = Turn(said[i], card, reply, reaction)
            turns = (*dialogues[i].turns, turn)
            dialogues[i] = replace(dialogues[i], turns=turns, stop=reaction.stop, opening=None)
            said[i] = reaction.utterance
        live = _live(dialogues)
        if progress:
            progress(len(users) - len(live))
    return dialogues


def _reply_seeds(dialogues: Sequence[Dialogue], seed: int, attempt: int) -> list[int]:
    users, turns = [d.user for d in dialogues], [len(d.turns) for d in dialogues]
    if attempt:
        return keyed_seeds(seed, users, turns, _REPLY, attempt)
    return keyed_seeds(seed, users, turns, _REPLY)


def _after(finished: int, progress: Callable[[int], None] | None) -> Callable[[int], None] | None:
    """Progress of a block as progress of all."""
    return None if progress is None else lambda done: progress(finished + done)


def _live(dialogues: Sequence[Dialogue]) -> list[int]:
    return [row for row, dialogue in enumerate(dialogues) if dialogue.stop is None]
