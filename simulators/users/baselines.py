"""Users who decide by a rule that no real user follows: what any simulator worth its cost must be told apart from.

A random user likes anything and nothing; an over-agreeable one, as prompted assistants tend to be, takes what it is
offered and says so. Their words come from a chat model, like those of the film viewers.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from simulators.chat.model import ChatModel
from simulators.errors import PersonaError
from simulators.randomness import keyed_uniforms
from simulators.types import LEVELS, Decision, Dialogue, Feedback, ItemCard, Utterance
from simulators.users.film_viewers import open_dialogues, put_into_words, stop_of
from simulators.users.personas import Persona
from simulators.users.places import Place, place_arrays, place_seeds, places_of

Rule = Callable[[NDArray[np.int64], NDArray[np.int64], int], list[Decision]]
"""Decides for users at turns, both of shape (N,), under a seed; whatever it draws is keyed by all three."""

_LEVEL, _RATING, _OPENING, _WORDS = range(401, 405)
_UNKNOWN = float("nan")


class RuleUsers:
    """Users who decide by a rule. See `simulators.protocols.SimulatedUser`.

    Args:
        rule: Decides; `random_rule` or `agreeable_rule`.
        wishes: Genre and mood that each user asks for, by user; `wish_of` reads one off a persona.
        chat: Finds the words.
        patience: Turns of at most two stars that a user puts up with.
        max_turns: Turns after which a dialogue ends.
    """

    def __init__(
        self,
        rule: Rule,
        wishes: Mapping[int, Mapping[str, str]],
        chat: ChatModel,
        *,
        patience: int = 3,
        max_turns: int = 5,
    ) -> None:
        self._rule = rule
        self._wishes = wishes
        self._chat = chat
        self._patience = patience
        self._max_turns = max_turns

    def open(self, users: Sequence[int], *, seed: int) -> list[Utterance]:
        """See `SimulatedUser.open`.

        Raises:
            PersonaError: A user without a wish.
        """
        seeds = place_seeds(seed, [Place(user, 0) for user in users], _OPENING)
        return open_dialogues(self._chat, self._wishes_of(users), seeds=seeds)

    def decide(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        *,
        seed: int,
    ) -> list[Decision]:
        """See `SimulatedUser.decide`; items and replies do not matter. The utility is NaN: there is none."""
        return self._rule(*place_arrays(places_of(dialogues)), seed)

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
        stops = [
            stop_of(dialogue, decision, patience=self._patience, max_turns=self._max_turns)
            for dialogue, decision in zip(dialogues, made, strict=True)
        ]
        wishes = self._wishes_of([dialogue.user for dialogue in dialogues])
        seeds = place_seeds(seed, places_of(dialogues), _WORDS)
        return put_into_words(self._chat, wishes, cards, replies, made, stops=stops, seeds=seeds)

    def _wishes_of(self, users: Sequence[int]) -> list[Mapping[str, str]]:
        if absent := [user for user in users if user not in self._wishes]:
            raise PersonaError(f"`wishes` must hold every user; got {absent[:3]} without one. Add them.")
        return [self._wishes[user] for user in users]


def random_rule(shares: Sequence[float] = (0.2,) * len(LEVELS)) -> Rule:
    """Levels drawn by fixed shares and whole stars drawn evenly, whatever is offered.

    Args:
        shares: Probability of each level; sums to 1.

    Raises:
        PersonaError: The shares are not one probability a level.
    """
    if len(shares) != len(LEVELS) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise PersonaError(
            f"`shares` must be {len(LEVELS)} probabilities, one a level, that sum to 1; got {list(shares)}."
        )
    bounds = np.cumsum(shares)[:-1]

    def rule(users: NDArray[np.int64], turns: NDArray[np.int64], seed: int) -> list[Decision]:
        levels = np.searchsorted(bounds, keyed_uniforms(seed, users, turns, _LEVEL), side="right")
        stars = 1 + np.floor(5 * keyed_uniforms(seed, users, turns, _RATING))
        return _decisions(levels, stars)

    return rule


def agreeable_rule(accepts: float = 0.5) -> Rule:
    """Takes an item with probability `accepts`, loving every second one of those, else saves it; never below 4 stars.

    Raises:
        PersonaError: `accepts` is no probability.
    """
    if not 0 <= accepts <= 1:
        raise PersonaError(f"`accepts` must lie in [0, 1]; got {accepts}.")

    def rule(users: NDArray[np.int64], turns: NDArray[np.int64], seed: int) -> list[Decision]:
        draws = keyed_uniforms(seed, users, turns, _LEVEL)
        levels = np.where(draws < accepts / 2, 4, np.where(draws < accepts, 3, 2))
        stars = np.where(keyed_uniforms(seed, users, turns, _RATING) < 0.7, 5.0, 4.0)
        return _decisions(levels, stars)

    return rule


def wish_of(persona: Persona) -> dict[str, str]:
    """The genre and the mood that a persona likes best, as a wish; a part of which it likes none is left out."""
    liked = sorted((i for i in persona.interests if i.liking > 0), key=lambda i: -i.liking)
    return {
        kind: next(i.value for i in liked if i.kind == kind)
        for kind in ("genre", "mood")
        if any(i.kind == kind for i in liked)
    }


def _decisions(levels: NDArray[np.int64], stars: NDArray[np.float64]) -> list[Decision]:
    return [
        Decision(int(level), float(star), None, _UNKNOWN) for level, star in zip(levels, stars, strict=True)
    ]
