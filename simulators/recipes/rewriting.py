"""Backward derivation: turns that fell short are written anew, and a rewrite is kept where gates find it better.

The second half of expectation confirmation, Feng et al. (2025), arXiv 2506.14302; its departures are listed in
`simulators.recipes.ecpo`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Annotated, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition
from simulators.agent import Recommender
from simulators.chat.model import ChatModel
from simulators.grounding import in_slots, slot_values, spoken
from simulators.judge import PairwiseJudge, Verdict, conversation_text
from simulators.prompts import Message, rewriting_prompt
from simulators.protocols import Agent, SimulatedUser
from simulators.randomness import keyed_seeds
from simulators.types import Dialogue, ItemCard, Turn, Utterance

_REWRITE = 211
_CHANCE = 223


class RewritingConfig(BaseModel):
    """How turns are chosen and how often a rewrite is tried."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Turns rated at most this fell short; stars of satisfaction, 1 to 5; lambda in the paper.
    threshold: Annotated[float, Field(ge=1, le=5)] = 3.0
    # Rewrites tried for each turn that fell short, at least 1.
    candidates: Annotated[int, Field(ge=1)] = 4


class ShortTurn(NamedTuple):
    """A turn to be written anew.

    row: Row of the dialogue among those given.
    number: Index of the turn in its dialogue, from 0.
    before: The dialogue as it stood when the reply was to come.
    turn: What was said and how it was met.
    prompt: The conversation that the policy had answered.
    """

    row: int
    number: int
    before: Dialogue
    turn: Turn
    prompt: list[Message]

    def blind(self) -> "ShortTurn":
        """The same turn without the reasons that its user gave."""
        silent = replace(self.turn.feedback, complaint=None, confirmation=None)
        return self._replace(turn=replace(self.turn, feedback=silent))


class RewrittenTurn(NamedTuple):
    """A turn whose rewrite was accepted.

    short: The turn as it was.
    reply: The accepted rewrite.
    gains: How much better each gate found it; empty without gates.
    """

    short: ShortTurn
    reply: Utterance
    gains: tuple[float, ...]


Gate: TypeAlias = Callable[
    [Sequence[Dialogue], Sequence[ItemCard], Sequence[Utterance], Sequence[Utterance]], NDArray[np.float64]
]
"""From dialogues before the reply, cards, replies and rewrites to how much better each rewrite is, above 0 if it is."""


class Rewriter(Protocol):
    """Writes a reply anew, knowing how its user met it."""

    def rewrite(
        self, turns: Sequence[ShortTurn], condition: Condition, *, seeds: Sequence[int]
    ) -> list[Utterance]:
        """One rewrite a turn; `condition` holds what the policy knew of each turn's user."""
        ...


class SteeredRewriter:
    """The agent's own policy, steered away from what the user minded: no larger model is needed.

    Args:
        agent: Its policy follows directions over the attributes.
        steer: Length of the direction added for the complaint, 0 to 1; 0 steers nothing.
    """

    def __init__(self, agent: Recommender, steer: float = 1.0) -> None:
        self._agent = agent
        self._steer = steer

    def rewrite(
        self, turns: Sequence[ShortTurn], condition: Condition, *, seeds: Sequence[int]
    ) -> list[Utterance]:
        """See `Rewriter.rewrite`."""
        away = torch.stack([complaint_direction(t.turn.feedback.complaint, self._steer) for t in turns])
        direction = torch.nn.functional.normalize(condition.direction + away, dim=1)
        steered = Condition(condition.latent, direction, condition.text)
        return self._agent.word([t.prompt for t in turns], [t.turn.card for t in turns], steered, seeds=seeds)


class ChatRewriter:
    """Another language model, told the reply and the user's reasons, as published.

    Args:
        chat: The model.
        slots: Slot tokens of the policy that is to learn from the rewrites: facts of the card become its slots.
        max_new_tokens: Longest rewrite, in tokens.
        temperature: Of its sampling.
    """

    def __init__(
        self,
        chat: ChatModel,
        *,
        slots: Collection[str] = (),
        max_new_tokens: int = 160,
        temperature: float = 0.8,
    ) -> None:
        self._chat = chat
        self._slots = slots
        self._max_new_tokens = max_new_tokens
        self._temperature = temperature

    def rewrite(
        self, turns: Sequence[ShortTurn], condition: Condition, *, seeds: Sequence[int]
    ) -> list[Utterance]:
        """See `Rewriter.rewrite`; what the policy knew of the user is not told."""
        said = self._chat.complete(
            [rewriting_prompt(t.prompt, t.turn, self._chat.slots) for t in turns],
            seeds=seeds,
            max_new_tokens=self._max_new_tokens,
            temperature=self._temperature,
        )
        told = [spoken(words, slot_values(t.turn.card)) for words, t in zip(said, turns, strict=True)]
        return [
            replace(words, raw=in_slots(words.raw, slot_values(t.turn.card), self._slots))
            for words, t in zip(told, turns, strict=True)
        ]


def short_turns(dialogues: Sequence[Dialogue], agent: Agent, threshold: float) -> list[ShortTurn]:
    """Forward expectation confirmation: every turn, the last one too, that its user rated at most `threshold`."""
    return [turn for turn in _all_turns(dialogues, agent) if turn.turn.feedback.satisfaction <= threshold]


def turns_by_chance(dialogues: Sequence[Dialogue], agent: Agent, count: int, *, seed: int) -> list[ShortTurn]:
    """As many turns whatever their rating, for the comparison without expectation confirmation."""
    turns = _all_turns(dialogues, agent)
    picked = np.random.default_rng((seed, _CHANCE)).permutation(len(turns))[:count]
    return [turns[i] for i in sorted(picked.tolist())]


def felt_by(users: SimulatedUser, *, seed: int) -> Gate:
    """The gain in stars that simulated users feel, met again at the same turn under the same random numbers."""

    def gain(
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        rewrites: Sequence[Utterance],
    ) -> NDArray[np.float64]:
        was, now = (users.decide(dialogues, cards, said, seed=seed) for said in (replies, rewrites))
        return np.asarray([b.satisfaction - a.satisfaction for a, b in zip(was, now, strict=True)])

    return gain


def judged_by(judge: PairwiseJudge, *, seed: int, heard: list[Verdict] | None = None) -> Gate:
    """The preference of an independent judge for the rewrite, above even: -.5 to .5, NaN where it gave no verdict.

    It reads the conversation up to the reply, and neither the user's persona nor what the user said later.

    Args:
        judge: Compares replies.
        seed: Of its votes.
        heard: Gets its verdicts, to see how far it favours a place.
    """

    def gain(
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        rewrites: Sequence[Utterance],
    ) -> NDArray[np.float64]:
        verdicts = judge.compare(
            [conversation_text(dialogue) for dialogue in dialogues],
            [rewrite.text for rewrite in rewrites],
            [reply.text for reply in replies],
            seed=seed,
        )
        if heard is not None:
            heard.extend(verdicts)
        return np.asarray([verdict.preference - 0.5 for verdict in verdicts])

    return gain


def rewrite_turns(
    turns: Sequence[ShortTurn],
    rewriter: Rewriter,
    condition: Condition,
    config: RewritingConfig,
    *,
    gates: Sequence[Gate],
    seed: int,
) -> list[RewrittenTurn]:
    """Write turns anew and keep, of each, the best rewrite that every gate finds better than the reply it replaces.

    Args:
        turns: What to write anew.
        rewriter: Writes.
        condition: What the policy knew of each dialogue's user; rows as `ShortTurn.row` counts them.
        config: Number of tries.
        gates: The first one's gain decides between tries. Without any the first try is trusted, as published.
        seed: Draws the tries.

    Returns:
        Accepted rewrites; one that says what the reply said, or does not name the item, is never among them.
    """
    if not turns:
        return []
    tries = [turn for turn in turns for _ in range(config.candidates)]
    number = np.tile(np.arange(config.candidates), len(turns))
    users, when = np.asarray([t.before.user for t in tries]), np.asarray([t.number for t in tries])
    seeds = keyed_seeds(seed, users, when, number, _REWRITE)
    rewrites = rewriter.rewrite(tries, condition.select([t.row for t in tries]), seeds=seeds)
    replies = [t.turn.reply for t in tries]
    before, cards = [t.before for t in tries], [t.turn.card for t in tries]
    gains = np.asarray([gate(before, cards, replies, rewrites) for gate in gates]).reshape(
        len(gates), len(tries)
    )
    new = np.asarray(
        [
            bool(r.raw) and r.raw != was.raw and card.title in r.text
            for r, was, card in zip(rewrites, replies, cards, strict=True)
        ]
    )
    accepted = (new & (gains > 0).all(0)).reshape(len(turns), -1)
    rank = (gains[0] if len(gates) else np.zeros(len(tries))).reshape(accepted.shape)
    best = np.where(accepted, rank, -np.inf).argmax(1)  # the first of equals
    kept = []
    for row in np.flatnonzero(accepted.any(1)).tolist():
        place = row * config.candidates + int(best[row])
        kept.append(RewrittenTurn(turns[row], rewrites[place], tuple(gains[:, place].tolist())))
    return kept


def complaint_direction(complaint: tuple[str, int] | None, length: float) -> torch.Tensor:
    """The direction away from what the user minded: less of what was too much. Shape (A,)."""
    direction = torch.zeros(len(ATTRIBUTES))
    if complaint is not None:
        attribute, sign = complaint
        direction[ATTRIBUTES.index(attribute)] = -sign * length
    return direction


def _all_turns(dialogues: Sequence[Dialogue], agent: Agent) -> list[ShortTurn]:
    found = []
    for row, dialogue in enumerate(dialogues):
        for index, turn in enumerate(dialogue.turns):
            before = dialogue.before(index)
            found.append(ShortTurn(row, index, before, turn, agent.prompt(before, turn.user, turn.card)))
    return found
