"""Contract checks that anyone can run on an implementation; each says which promise is broken."""

from collections.abc import Mapping, Sequence

import numpy as np

from simulators.errors import ContractError, RolloutError
from simulators.protocols import SimulatedUser
from simulators.types import LEVELS, Dialogue, Feedback, ItemCard, StopReason, Turn, Utterance


def check_simulated_user(
    viewers: SimulatedUser,
    users: Sequence[int],
    cards: Sequence[ItemCard],
    *,
    max_turns: int,
    seed: int = 0,
    hidden: Mapping[int, Sequence[str]] | None = None,
) -> list[Dialogue]:
    """Hold simulated users to what the engine and every learner rely on.

    The users talk with an agent that offers `cards` one after another in plain words. The same seed gives the same
    dialogues; so do another order of the users and a user alone; all stop within `max_turns`, and only with their last
    reaction; levels and stars keep to their ranges; who goes on has words; `decide` and `react` agree under the same
    seed; and no one utters what is hidden before the agent has.

    Args:
        viewers: What to check.
        users: At least two different users.
        cards: At least `max_turns` items, offered in this order.
        max_turns: Turns within which everyone must have stopped.
        seed: Seed of the simulation.
        hidden: For each user, texts that must not be uttered, such as a target's title or lines of a persona.

    Returns:
        The dialogues, for further checks.

    Raises:
        ContractError: A promise is broken.
        RolloutError: The users or cards are too few to tell.
    """
    if len(set(users)) < 2 or len(set(users)) != len(users) or len(cards) < max_turns:
        raise RolloutError(
            "A check needs at least 2 different users and a card for each turn; got "
            f"{list(users)[:3]} and {len(cards)} cards for {max_turns} turns. Pass more."
        )
    dialogues = _talk(viewers, users, cards, seed, max_turns)
    _same(
        _talk(viewers, users, cards, seed, max_turns), dialogues, "the same seed must give the same dialogue"
    )
    backwards = _talk(viewers, users[::-1], cards, seed, max_turns)[::-1]
    _same(backwards, dialogues, "the order of the users must not matter")
    alone = [_talk(viewers, [user], cards, seed, max_turns)[0] for user in users]
    _same(alone, dialogues, "a user alone must have the same dialogue as in company")
    for dialogue in dialogues:
        _check_hidden(dialogue, (hidden or {}).get(dialogue.user, ()))
    _check_decisions(viewers, dialogues, seed)
    return dialogues


def _talk(
    viewers: SimulatedUser, users: Sequence[int], cards: Sequence[ItemCard], seed: int, max_turns: int
) -> list[Dialogue]:
    said = viewers.open(users, seed=seed)
    _one_each(said, users, "open")
    talks = [
        Dialogue(user, stop=StopReason.MODEL_FAILED if words.failure else None, opening=words)
        for user, words in zip(users, said, strict=True)
    ]
    for card in cards[:max_turns]:
        live = [row for row, talk in enumerate(talks) if talk.stop is None]
        now = [talks[row] for row in live]
        reply = Utterance(text := f"How about {card.title}?", text)
        reactions = viewers.react(now, [card] * len(now), [reply] * len(now), seed=seed)
        _one_each(reactions, now, "react")
        for row, talk, reaction in zip(live, now, reactions, strict=True):
            _check_reaction(talk.user, reaction)
            turn = Turn(said[row], card, reply, reaction)
            talks[row] = Dialogue(talk.user, (*talk.turns, turn), reaction.stop)
            said[row] = reaction.utterance
    if endless := [talk.user for talk in talks if talk.stop is None][:3]:
        raise ContractError(
            f"Every user must stop within {max_turns} turns; users {endless} went on. Give a reason to stop, "
            "`StopReason.MAX_TURNS` at the latest."
        )
    return talks


def _one_each(found: Sequence[object], asked: Sequence[object], method: str) -> None:
    if len(found) != len(asked):
        raise ContractError(
            f"`{method}` must give one result for each of the {len(asked)} rows; got {len(found)}. Mark rows "
            "that failed instead of leaving them out."
        )


def _check_reaction(user: int, reaction: Feedback) -> None:
    if not 0 <= reaction.level < len(LEVELS) or not 1 <= reaction.satisfaction <= 5:
        raise ContractError(
            f"Levels must lie in 0..{len(LEVELS) - 1} and satisfaction in 1..5; user {user} gave "
            f"{reaction.level} and {reaction.satisfaction}."
        )
    if reaction.stop is None and not reaction.utterance.text:
        raise ContractError(
            f"Who goes on must say something; user {user} said nothing. Stop with `StopReason.MODEL_FAILED` "
            "where the words failed."
        )


def _same(found: Sequence[Dialogue], expected: Sequence[Dialogue], promise: str) -> None:
    if wrong := [b.user for a, b in zip(found, expected, strict=True) if a != b]:
        raise ContractError(
            f"For simulated users, {promise}; it did not hold for users {wrong[:3]}. Draw everything from "
            "seeds that are keyed by user and turn."
        )


def _check_hidden(dialogue: Dialogue, hidden: Sequence[str]) -> None:
    heard = ""
    for turn in dialogue.turns:
        uttered = ((turn.user, heard), (turn.feedback.utterance, heard + turn.reply.text))
        heard += f"\n{turn.reply.text}"
        for utterance, known in uttered:
            words = f"{utterance.raw}\n{utterance.text}".casefold()
            if told := [h for h in hidden if h.casefold() in words and h.casefold() not in known.casefold()]:
                raise ContractError(
                    f"What is hidden must not be uttered; user {dialogue.user} told {told[0]!r}. Mask it."
                )


def _check_decisions(viewers: SimulatedUser, dialogues: Sequence[Dialogue], seed: int) -> None:
    turns = [(d, i, t) for d in dialogues for i, t in enumerate(d.turns)]
    made = viewers.decide(
        [dialogue.before(index) for dialogue, index, _ in turns],
        [turn.card for _, _, turn in turns],
        [turn.reply for _, _, turn in turns],
        seed=seed,
    )
    _one_each(made, turns, "decide")
    decided = np.asarray([(d.level, d.satisfaction) for d in made])
    reacted = np.asarray([(t.feedback.level, t.feedback.satisfaction) for _, _, t in turns])
    if (wrong := np.flatnonzero((decided != reacted).any(axis=-1))).size:
        dialogue, index, turn = turns[wrong[0]]
        raise ContractError(
            f"`decide` must find what `react` found under the same seed; for user {dialogue.user} at turn {index} it "
            f"found {made[wrong[0]][:2]}, not {(turn.feedback.level, turn.feedback.satisfaction)}."
        )
