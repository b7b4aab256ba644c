"""A Gymnasium environment in which the action is what an agent says about a film, and the answer is a user's words."""

import string
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from persona.policy.language_model import load_language_model
from persona.rewards.attributes import AttributeScale, measure_attributes
from recsys.models.popularity import Popularity
from recsys.types import Histories, histories_from_log
from simulators.chat.model import LocalChat
from simulators.env import episode_draws, film_world
from simulators.errors import RolloutError
from simulators.grounding import fill, render_card, slot_values
from simulators.item_finder import ItemFinder
from simulators.protocols import SimulatedUser
from simulators.types import Dialogue, ItemCard, StopReason, Turn, Utterance
from simulators.users.film_viewers import FilmViewers
from simulators.world import Catalogue, World
from simulators.world.language import CARD_SLOTS, Situation, reply, sample_style

NEUTRAL = 3.0
"""Satisfaction, in stars, that is worth nothing as a reward."""

_REFERENCE_REPLIES = 400


@cache
def grammar_scale() -> AttributeScale:
    """The scale of reply attributes among replies of the world's grammar in every style."""
    rng = np.random.default_rng(0)
    everything = Situation(frozenset(CARD_SLOTS))
    return AttributeScale.fit(
        measure_attributes([reply(sample_style(rng), everything, rng) for _ in range(_REFERENCE_REPLIES)])
    )


class FilmDialogueEnv(gymnasium.Env[str, str]):
    """One user at a time talks about films: retrieval finds the film, the action is the reply that presents it.

    Observation: what the user said last and, on a line of its own, the card of the film that the reply is to present;
    after the last reaction, the user's words alone. Action: the reply, with the card's facts or with slots such as
    `<title>` in their place. Reward: the user's satisfaction less `NEUTRAL`, so that going on for its own sake does not
    pay. Terminated when the user accepts, leaves or has no words, truncated when the user's own limit of turns is
    reached. `info` has the user, the film's row, and after a reply the level, satisfaction and stop reason.

    The first `reset(seed=...)` fixes all that follows; later ones without a seed bring the next user. The option
    `{"user": row}` of `reset` chooses one.

    Args:
        world: A world to recommend in; None builds the embedded one from `films`, `users` and `world_seed`.
        viewers: Its simulated users; None lets film viewers speak through the embedded language model.
        finder: Finds the films; None ranks by popularity.
        films: Number of films of the embedded world.
        users: Number of its users.
        world_seed: Its seed.
        max_length: Characters of an observation or action; what is longer is cut off.
    """

    def __init__(
        self,
        world: World | None = None,
        viewers: SimulatedUser | None = None,
        finder: ItemFinder | None = None,
        *,
        films: int = 2400,
        users: int = 1000,
        world_seed: int = 0,
        max_length: int = 2000,
    ) -> None:
        self._world = world or film_world(films, users, world_seed)
        self._histories = _histories(self._world)
        self._viewers = viewers or FilmViewers(
            self._world.oracle, grammar_scale(), LocalChat(load_language_model("nano"))
        )
        self._finder = finder or ItemFinder(self._world.catalogue, Popularity.fit(self._histories))
        self._charset = _characters(self._world.catalogue)
        self._max_length = max_length
        self.observation_space = spaces.Text(max_length, min_length=0, charset=self._charset)
        self.action_space = spaces.Text(max_length, min_length=0, charset=self._charset)
        self._seed: int | None = None
        self._episode = 0
        self._luck = 0
        self._dialogue = Dialogue(0, stop=StopReason.MAX_TURNS)
        self._card = self._world.catalogue.card(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Bring the next user, who speaks first.

        Raises:
            RolloutError: The option names no user, or the user's model has no words.
        """
        super().reset(seed=seed)
        if seed is not None or self._seed is None:
            self._seed = int(self.np_random.integers(2**62)) if seed is None else seed
            self._episode = -1
        self._episode += 1
        users, luck = episode_draws([self._seed], [self._episode], self._world.n_users)
        user = int((options or {}).get("user", users[0]))
        if not 0 <= user < self._world.n_users:
            raise RolloutError(
                f"`user` must be a row of the population, 0..{self._world.n_users - 1}; got {user}."
            )
        self._luck = int(luck[0])
        said = self._viewers.open([user], seed=self._luck)[0]
        if said.failure:
            raise RolloutError(f"A user must be able to speak first; user {user} is not: {said.failure}")
        self._dialogue = Dialogue(user, opening=said)
        return self._offer(said), {"user": user, "item": self._card.item}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Say something about the film on the card, and hear the user.

        Raises:
            RolloutError: The dialogue is over, or was never begun.
        """
        said = self._dialogue.said
        if self._dialogue.stop is not None or said is None:
            raise RolloutError("A dialogue that is over cannot go on; call `reset` for the next user.")
        card, answer = self._card, _reply(action[: self._max_length], self._card)
        reaction = self._viewers.react([self._dialogue], [card], [answer], seed=self._luck)[0]
        turns = (*self._dialogue.turns, Turn(said, card, answer, reaction))
        self._dialogue = replace(self._dialogue, turns=turns, stop=reaction.stop, opening=None)
        over = reaction.stop is not None
        observation = self._readable(reaction.utterance.text) if over else self._offer(reaction.utterance)
        info = {
            "user": self._dialogue.user,
            "item": card.item if over else self._card.item,
            "level": reaction.level,
            "satisfaction": reaction.satisfaction,
            "stop": reaction.stop,
        }
        late = reaction.stop is StopReason.MAX_TURNS
        return observation, reaction.satisfaction - NEUTRAL, over and not late, late, info

    @property
    def dialogue(self) -> Dialogue:
        """The dialogue so far."""
        return self._dialogue

    def _offer(self, said: Utterance) -> str:
        """Find the next film; what the user said with its card."""
        known = self._histories[[self._dialogue.user]]
        self._card = self._finder.choose([self._dialogue], [said], known)[0]
        return self._readable(f"{said.text}\n{render_card(self._card, ())}")

    def _readable(self, text: str) -> str:
        return "".join(c if c in self._charset else "?" for c in text)[: self._max_length]


def _reply(action: str, card: ItemCard) -> Utterance:
    return fill(action, slot_values(card)) if "<" in action else Utterance(action, action)


def _histories(world: World) -> Histories:
    return histories_from_log(world.log, np.arange(world.n_users), len(world.catalogue))


def _characters(catalogue: Catalogue) -> frozenset[str]:
    """All that may stand in a card or be typed."""
    cards: Collection[str] = [render_card(catalogue.card(item), ()) for item in range(len(catalogue))]
    return frozenset(string.printable) | frozenset("".join(cards))
