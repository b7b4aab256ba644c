"""Expectation confirmation preference optimisation: turns that fell short, rewritten and checked, become pairs.

After Feng et al. (2025), "Expectation Confirmation Preference Optimization for Multi-Turn Conversational
Recommendation Agent" (arXiv 2506.14302). Departures, each with its reason:

1. A rewrite is accepted only if the simulated user, met again at the same turn under the same random numbers, rates
   it higher; the published code trusts the rewriter.
2. The rewriter is the policy itself, steered by the user's complaint (its attribute, its sign) as a direction, so
   that no larger model is needed; the published code calls a commercial one.
3. Only wording that the user saw is scored; retrieval steps never become the rejected side of a pair.
4. The last turn of a dialogue is rated and used like every other.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition
from simulators.agent import Recommender
from simulators.prompts import Message
from simulators.randomness import keyed_seeds
from simulators.types import Decision, Dialogue, Turn, Utterance
from simulators.users.film_viewers import FilmViewers

_REWRITE = 211


class EcpoConfig(BaseModel):
    """How turns are chosen and rewritten."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Turns rated at most this fell short; stars of satisfaction, 1 to 5; lambda in the paper.
    threshold: Annotated[float, Field(ge=1, le=5)] = 3.0
    # Rewrites tried for each turn that fell short, at least 1.
    candidates: Annotated[int, Field(ge=1)] = 4
    # Length of the direction added for the complaint, 0 to 1, the longest a direction may be; 0 steers nothing.
    steer: Annotated[float, Field(ge=0, le=1)] = 1.0


class ShortTurn(NamedTuple):
    """A turn that fell short of its user's expectation.

    row: Row of the dialogue among those given.
    number: Index of the turn in its dialogue, from 0.
    prompt: The conversation that the policy had answered.
    """

    row: int
    number: int
    turn: Turn
    prompt: list[Message]


class RewrittenTurn(NamedTuple):
    """A turn whose rewrite was accepted.

    short: The turn as it was.
    reply: The accepted rewrite.
    before, after: What the user decided about the original and about the rewrite, under the same random numbers.
    """

    short: ShortTurn
    reply: Utterance
    before: Decision
    after: Decision


def short_turns(dialogues: Sequence[Dialogue], agent: Recommender, threshold: float) -> list[ShortTurn]:
    """Forward expectation confirmation: every turn that its user rated at most `threshold`."""
    found = []
    for row, dialogue in enumerate(dialogues):
        for index, turn in enumerate(dialogue.turns):
            if turn.feedback.satisfaction <= threshold:
                prompt = agent.prompt(dialogue.before(index), turn.user, turn.card)
                found.append(ShortTurn(row, index, turn, prompt))
    return found


def complaint_direction(complaint: tuple[str, int] | None, length: float) -> torch.Tensor:
    """The direction away from what the user minded: less of what was too much. Shape (A,)."""
    direction = torch.zeros(len(ATTRIBUTES))
    if complaint is not None:
        attribute, sign = complaint
        direction[ATTRIBUTES.index(attribute)] = -sign * length
    return direction


def rewrite_turns(
    dialogues: Sequence[Dialogue],
    agent: Recommender,
    viewers: FilmViewers,
    condition: Condition,
    config: EcpoConfig,
    *,
    seed: int,
) -> tuple[list[RewrittenTurn], int]:
    """Backward derivation: rewrite every turn that fell short and keep what its user really rates higher.

    Args:
        dialogues: N finished dialogues, simulated with `seed`.
        agent: The recommender that held them; its policy rewrites.
        viewers: The same simulated users.
        condition: What the policy knew of each user, N rows.
        config: Threshold and number of tries.
        seed: The seed of the dialogues, so that the re-simulated turn meets the same luck.

    Returns:
        The accepted rewrites and the number of turns that fell short.
    """
    short = short_turns(dialogues, agent, config.threshold)
    if not short:
        return [], 0
    tries = [s for s in short for _ in range(config.candidates)]
    known = condition.select([s.row for s in tries])
    steer = torch.stack([complaint_direction(s.turn.feedback.complaint, config.steer) for s in tries])
    direction = torch.nn.functional.normalize(known.direction + steer, dim=1)
    steered = Condition(known.latent, direction, known.text)
    users = [dialogues[s.row].user for s in tries]
    number = np.tile(np.arange(config.candidates), len(short))
    when = [s.number for s in tries]
    cards = [s.turn.card for s in tries]
    seeds = keyed_seeds(seed, np.asarray(users), when, number, _REWRITE)
    replies = agent.word([s.prompt for s in tries], cards, steered, seeds=seeds)
    after = viewers.decide([dialogues[s.row].before(s.number) for s in tries], cards, replies, seed=seed)
    before = viewers.decide(
        [dialogues[s.row].before(s.number) for s in short],
        [s.turn.card for s in short],
        [s.turn.reply for s in short],
        seed=seed,
    )
    return _accepted(short, before, replies, after, config.candidates), len(short)


def _accepted(
    short: Sequence[ShortTurn],
    before: Sequence[Decision],
    replies: Sequence[Utterance],
    after: Sequence[Decision],
    candidates: int,
) -> list[RewrittenTurn]:
    """The best-rated rewrite of each turn, where it beats the original; the first of equals."""
    kept = []
    for number, (turn, was) in enumerate(zip(short, before, strict=True)):
        options = range(number * candidates, (number + 1) * candidates)
        best = max(options, key=lambda i: (after[i].satisfaction, -i))
        if after[best].satisfaction > was.satisfaction and replies[best].raw:
            kept.append(RewrittenTurn(turn, replies[best], was, after[best]))
    return kept
