"""Gymnasium environments of the film world in which a slate is the action: alone, or many as one vector.

Importing this module registers `persona/FilmSlate-v0` and `persona/FilmDialogue-v0` (`simulators.dialogue_env`). An
observation holds what a real service knows (a history of levels, the last slate's levels), never the hidden truth.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from recsys import columns
from simulators.errors import RolloutError
from simulators.randomness import keyed_bits
from simulators.sessions import STOPS, ChoiceModel, Sessions
from simulators.types import LEVELS, StopReason
from simulators.world import World, build_film_world

SLATE_ENV, DIALOGUE_ENV = "persona/FilmSlate-v0", "persona/FilmDialogue-v0"

Observation: TypeAlias = dict[str, Any]
"""`history`: mean features of the films that the user has opened or gone deeper into, weighted by level, (F,).
`levels`: 1 + level of each place of the last slate, 0 before the first, (K,). `deepest`: the deepest level of the
episode so far, 0..4. `turn`: steps so far."""

_USER, _LUCK = 311, 312
_TRUNCATED = STOPS.index(StopReason.MAX_TURNS)


@lru_cache(maxsize=2)
def film_world(films: int, users: int, seed: int) -> World:
    """The embedded world, built once for all environments of a process."""
    return build_film_world(films, users, seed=seed)


def episode_draws(
    seeds: ArrayLike, episodes: ArrayLike, n_users: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Who comes in an episode, and the seed of all that is random in it.

    Args:
        seeds: Seed of each environment. Shape (N,).
        episodes: Number of the episode since it was seeded. Shape (N,).
        n_users: Number of users to draw from.

    Returns:
        User and seed, each of shape (N,), int64.
    """
    users = keyed_bits(seeds, episodes, _USER) % np.uint64(n_users)
    luck = keyed_bits(seeds, episodes, _LUCK) >> np.uint64(1)
    return np.atleast_1d(users).astype(np.int64), np.atleast_1d(luck).astype(np.int64)


class _SlateEpisodes:
    """N episodes side by side, as arrays; the environments are views of it."""

    def __init__(
        self, count: int, world: World, choice: ChoiceModel | None, slate: int, max_turns: int
    ) -> None:
        films = len(world.catalogue)
        choice = world.oracle if choice is None else choice
        if choice.n_users != world.n_users:
            raise RolloutError(
                f"`choice` must have the world's {world.n_users} users, as their histories are shown; got "
                f"{choice.n_users}. Fit it on the world's log."
            )
        if not 1 <= slate <= films:
            raise RolloutError(f"`slate` must lie in 1..{films}, the number of films; got {slate}.")
        self._history = _liked_features(world)
        self._n_users = world.n_users
        self._max_turns = max_turns
        self._seeds = np.zeros(count, np.int64)
        self._episodes = np.zeros(count, np.int64)
        self._last = np.zeros((count, slate), np.int64)
        self._deepest = np.zeros(count, np.int64)
        self.sessions = Sessions(choice, np.zeros(count, np.int64), seeds=0, max_turns=max_turns)
        features = world.catalogue.features
        self.observation_space = spaces.Dict(
            {
                "history": spaces.Box(
                    np.minimum(features.min(axis=0), 0.0),
                    np.maximum(features.max(axis=0), 0.0),
                    dtype=np.float32,
                ),
                "levels": spaces.MultiDiscrete([len(LEVELS) + 1] * slate),
                "deepest": spaces.Discrete(len(LEVELS)),
                "turn": spaces.Discrete(max_turns + 1),
            }
        )
        self.action_space: spaces.Space[Any] = (
            spaces.Discrete(films) if slate == 1 else spaces.MultiDiscrete([films] * slate)
        )

    def seed(self, seeds: ArrayLike) -> None:
        """Start every environment's count of episodes anew under these seeds, shape (N,)."""
        self._seeds[:] = seeds
        self._episodes[:] = -1

    def begin(self, rows: NDArray[np.int64], user: int | None = None) -> None:
        """The next episode of some environments, shape (M,); with a user of the caller's choice if one is given."""
        if user is not None and not 0 <= user < self._n_users:
            raise RolloutError(f"`user` must be a row of the population, 0..{self._n_users - 1}; got {user}.")
        self._episodes[rows] += 1
        users, luck = episode_draws(self._seeds[rows], self._episodes[rows], self._n_users)
        self.sessions.restart(rows, users if user is None else np.full(len(rows), user), luck)
        self._last[rows] = 0
        self._deepest[rows] = 0

    def step(self, actions: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Show a slate to each; returns the reward, 0 where the episode was over, and the satisfaction, each (N,)."""
        found = self.sessions.step(actions)
        self._last[:] = found.levels + 1
        deepest = np.maximum(self._deepest, found.levels.max(axis=1))
        reward = (deepest - self._deepest).astype(np.float64)
        self._deepest = deepest
        return reward, found.satisfaction

    def observe(self) -> dict[str, NDArray[Any]]:
        """What is known of each, as arrays of their own with N rows."""
        return {
            "history": self._history[self.sessions.users],
            "levels": self._last.copy(),
            "deepest": self._deepest.copy(),
            "turn": self.sessions.turns.copy(),
        }


class FilmSlateEnv(gymnasium.Env[Observation, Any]):
    """One user at a time is shown slates of films until it finds one to watch, loses patience, or time is up.

    Observation: see `Observation`. Action: a film's row, or with `slate` > 1 the rows of a slate, the first place
    first; the second showing of a film in one slate is ignored. Reward: by how many levels the slate took the user
    deeper than anything before it in the episode, 0..4, so that the undiscounted return is the deepest level reached,
    0..4, and showing a film again earns nothing. Terminated when the user has found something or lost patience,
    truncated after `max_turns`. `info` has the user, `stop`, an index of `simulators.sessions.STOPS`, and after a step
    the user's satisfaction.

    As an episode ends at the first film that is watched, one that would have been loved must come no later: the best
    that can be done for a user is to show the film that goes deepest at once.

    The first `reset(seed=...)` fixes all that follows; later ones without a seed bring the next user. The option
    `{"user": row}` of `reset` chooses one.

    Args:
        world: A world to recommend in; None builds the embedded one from the next three.
        films: Its number of films.
        users: Its number of users.
        world_seed: Its seed.
        choice: How its users react, such as `simulators.mirror.LearnedChoices`; None lets their hidden truth decide.
        slate: Films shown at once, K.
        max_turns: Slates after which an episode is truncated.

    Raises:
        RolloutError: `slate` exceeds the films, `max_turns` is below 1, `choice` has other users than the world, or
            the option names no user.
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        films: int = 2400,
        users: int = 1000,
        world_seed: int = 0,
        choice: ChoiceModel | None = None,
        slate: int = 1,
        max_turns: int = 5,
    ) -> None:
        self._stage = _SlateEpisodes(
            1, world or film_world(films, users, world_seed), choice, slate, max_turns
        )
        self.observation_space = self._stage.observation_space
        self.action_space = self._stage.action_space
        self._seeded = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Bring the next user; see the class."""
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            self._stage.seed([int(self.np_random.integers(2**62)) if seed is None else seed])
            self._seeded = True
        self._stage.begin(np.zeros(1, np.int64), (options or {}).get("user"))
        return self._observe(), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Show the user a film or a slate; see the class."""
        reward, satisfaction = self._stage.step(np.atleast_1d(action)[None])
        stop = int(self._stage.sessions.stops[0])
        over, late = stop not in {0, _TRUNCATED}, stop == _TRUNCATED
        return (
            self._observe(),
            float(reward[0]),
            over,
            late,
            {**self._info(), "satisfaction": float(satisfaction[0])},
        )

    def _observe(self) -> Observation:
        found = self._stage.observe()
        return {name: value[0] for name, value in found.items()}

    def _info(self) -> dict[str, Any]:
        sessions = self._stage.sessions
        return {"user": int(sessions.users[0]), "stop": int(sessions.stops[0])}


class FilmSlateVectorEnv(VectorEnv[Observation, Any, NDArray[Any]]):
    """`FilmSlateEnv` N times, all advanced by one array operation; environment i seeded with s is the single one.

    `reset(seed=s)` seeds environment i with s + i. An environment that ended resets at the next step, whose action
    is not read (`AutoresetMode.NEXT_STEP`). Rewards and ends are those of `FilmSlateEnv`, and so are the arguments,
    with the number of environments first.
    """

    def __init__(
        self,
        num_envs: int = 1,
        world: World | None = None,
        *,
        films: int = 2400,
        users: int = 1000,
        world_seed: int = 0,
        choice: ChoiceModel | None = None,
        slate: int = 1,
        max_turns: int = 5,
    ) -> None:
        super().__init__()
        self.metadata = {**self.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self._stage = _SlateEpisodes(
            num_envs, world or film_world(films, users, world_seed), choice, slate, max_turns
        )
        self.num_envs = num_envs
        self.single_observation_space = self._stage.observation_space
        self.single_action_space = self._stage.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._seeded = False

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Bring everyone's next user; a sequence seeds each environment by itself."""
        super().reset(seed=seed if seed is None or isinstance(seed, int) else seed[0])
        if seed is not None or not self._seeded:
            first = int(self.np_random.integers(2**62)) if seed is None else seed
            self._stage.seed(first + np.arange(self.num_envs) if isinstance(first, int) else first)
            self._seeded = True
        self._stage.begin(np.arange(self.num_envs), (options or {}).get("user"))
        return self._stage.observe(), self._info()

    def step(
        self, actions: Any
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Show everyone a film or a slate; who had ended gets a new user instead, and reward 0."""
        was_over = np.flatnonzero(self._stage.sessions.stopped)
        reward, satisfaction = self._stage.step(actions)
        if len(was_over):
            self._stage.begin(was_over)
        stops = self._stage.sessions.stops
        late = stops == _TRUNCATED
        rated = {"satisfaction": satisfaction, "_satisfaction": ~np.isnan(satisfaction)}
        return self._stage.observe(), reward, (stops > 0) & ~late, late, self._info() | rated

    def _info(self) -> dict[str, Any]:
        sessions = self._stage.sessions
        everyone = np.ones(self.num_envs, bool)
        return {
            "user": sessions.users.copy(),
            "_user": everyone,
            "stop": sessions.stops.copy(),
            "_stop": everyone.copy(),
        }


def _liked_features(world: World) -> NDArray[np.float32]:
    """Mean features of the films that each user went into, weighted by level; zeros for none. Shape (U, F)."""
    log, features = world.log, world.catalogue.features
    levels = log[columns.LEVEL].to_numpy(np.float64)
    depth = csr_array(
        (levels, (log[columns.USER].to_numpy(), log[columns.ITEM].to_numpy())),
        shape=(world.n_users, len(features)),
    )
    weight = np.maximum(depth.sum(axis=1), 1.0)
    return np.asarray((depth @ features) / weight[:, None], np.float32)


gymnasium.register(
    SLATE_ENV,
    entry_point="simulators.env:FilmSlateEnv",
    vector_entry_point="simulators.env:FilmSlateVectorEnv",
)
gymnasium.register(DIALOGUE_ENV, entry_point="simulators.dialogue_env:FilmDialogueEnv")
