"""Environments of slates: Gymnasium's own check, determinism, and the vector against single environments."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import simulators.env
from simulators.env import SLATE_ENV, FilmSlateEnv, FilmSlateVectorEnv
from simulators.errors import RolloutError
from simulators.sessions import STOPS
from simulators.types import StopReason
from simulators.world import build_film_world

WORLD = build_film_world(80, 40, seed=1, impressions_per_user=20)


def play(env: FilmSlateEnv, seed: int, steps: int) -> list[tuple[Any, ...]]:
    """What a fixed row of actions meets, episode after episode; at an end the next call resets."""
    actions = np.random.default_rng(0).integers(0, 80, (steps, 3))
    seen: list[tuple[Any, ...]] = [env.reset(seed=seed)]
    over = False
    for action in actions:
        if over:
            observation, info = env.reset()
            seen.append((observation, 0.0, False, False, info))
            over = False
        else:
            seen.append(env.step(action))
            over = seen[-1][2] or seen[-1][3]
    return seen


@pytest.mark.parametrize("slate", [1, 4])
def test_passes_the_check_of_gymnasium(slate: int) -> None:
    check_env(FilmSlateEnv(WORLD, slate=slate), skip_render_check=True)


def test_is_registered_alone_and_as_a_vector() -> None:
    gymnasium.register_envs(simulators.env)
    env = gymnasium.make(SLATE_ENV, world=WORLD, slate=2)
    observation, info = env.reset(seed=3)
    assert env.observation_space.contains(observation) and 0 <= info["user"] < 40
    many = gymnasium.make_vec(SLATE_ENV, num_envs=3, vectorization_mode="vector_entry_point", world=WORLD)
    assert isinstance(many.unwrapped, FilmSlateVectorEnv) and many.num_envs == 3
    observations, _ = many.reset(seed=3)
    assert many.observation_space.contains(observations)
    assert many.action_space.contains(many.action_space.sample())


def test_the_same_seed_brings_the_same_episodes_and_another_others() -> None:
    first, again, other = (play(FilmSlateEnv(WORLD, slate=3), seed, 30) for seed in (5, 5, 6))
    assert all(gymnasium.utils.env_checker.data_equivalence(a, b) for a, b in zip(first, again, strict=True))
    assert [step[-1]["user"] for step in first] != [step[-1]["user"] for step in other]


def test_the_vector_is_its_single_environments() -> None:
    steps = 30
    singles = [play(FilmSlateEnv(WORLD, slate=3), 5 + i, steps) for i in range(4)]
    actions = np.random.default_rng(0).integers(0, 80, (steps, 3))
    many = FilmSlateVectorEnv(4, WORLD, slate=3)
    observations, _ = many.reset(seed=5)
    earned = 0.0
    for i in range(4):
        assert (observations["history"][i] == singles[i][0][0]["history"]).all()
    for step, action in enumerate(actions, start=1):
        observations, rewards, terminated, truncated, info = many.step(np.tile(action, (4, 1)))
        for i, single in enumerate(singles):
            seen, reward, over, late, told = single[step]
            assert (rewards[i], terminated[i], truncated[i]) == (reward, over, late)
            earned += reward
            assert (info["user"][i], info["stop"][i]) == (told["user"], told["stop"])
            for name, value in seen.items():
                np.testing.assert_array_equal(observations[name][i], value)
    assert earned > 0


def test_ends_as_its_user_does() -> None:
    env = FilmSlateEnv(WORLD, slate=2, max_turns=3)
    ends = set()
    for episode in range(60):
        env.reset(seed=episode)
        while True:
            _, _, over, late, info = env.step(env.np_random.integers(0, 80, 2))
            if over or late:
                break
        assert late == (STOPS[info["stop"]] is StopReason.MAX_TURNS)
        ends.add(STOPS[info["stop"]])
    assert ends == {StopReason.ACCEPTED, StopReason.OUT_OF_PATIENCE, StopReason.MAX_TURNS}


def levels_at_once(seed: int) -> np.ndarray:
    """Level of each of the 80 films for the first user of a seed, each shown alone and first."""
    env = FilmSlateEnv(WORLD)
    found = []
    for film in range(80):
        env.reset(seed=seed)
        found.append(int(env.step(film)[0]["levels"][0]) - 1)
    return np.array(found)


def rewards_of(seed: int, films: Sequence[int]) -> list[float]:
    """Rewards of showing one film after the other until the episode ends."""
    env = FilmSlateEnv(WORLD)
    env.reset(seed=seed)
    found: list[float] = []
    for film in films:
        _, reward, over, late, _ = env.step(film)
        found.append(float(reward))
        if over or late:
            break
    return found


def test_rewards_are_steps_deeper_and_add_up_to_the_deepest_level() -> None:
    env = FilmSlateEnv(WORLD, slate=2)
    returns = set()
    for episode in range(60):
        observation, _ = env.reset(seed=episode)
        before, total, over, late = int(observation["deepest"]), 0.0, False, False
        assert before == 0
        while not over and not late:
            observation, reward, over, late, _ = env.step(env.np_random.integers(0, 80, 2))
            after = max(before, int(observation["levels"].max()) - 1)
            assert reward == after - before and observation["deepest"] == after
            before, total = after, total + float(reward)
        assert total == before
        returns.add(total)
    assert {0.0, 1.0, 4.0} <= returns <= {0.0, 1.0, 2.0, 3.0, 4.0}


def test_showing_a_film_again_never_pays() -> None:
    repeated = 0
    for seed in range(20):
        levels = levels_at_once(seed)
        for film in (int(np.argmax(levels == depth)) for depth in (1, 2) if (levels == depth).any()):
            rewards = rewards_of(seed, [film] * 5)
            assert rewards == [float(levels[film]), *[0.0] * (len(rewards) - 1)]
            repeated += len(rewards) - 1
        twice = FilmSlateEnv(WORLD, slate=2)
        twice.reset(seed=seed)
        deepest = int(levels.argmax())
        assert twice.step([deepest, deepest])[1] == levels.max()
    assert repeated > 20


def test_the_best_that_can_be_done_is_to_show_what_goes_deepest_first() -> None:
    discount = 0.9
    tempting = 0
    for seed in range(6):
        levels = levels_at_once(seed)
        films = [int(np.argmax(levels == depth)) for depth in np.unique(levels)]
        best = films[-1]

        def gain(plan: Sequence[int], seed: int = seed) -> tuple[float, float]:
            rewards = rewards_of(seed, plan)
            return sum(rewards), sum(discount**turn * reward for turn, reward in enumerate(rewards))

        first = gain([best, *films])
        assert first == (levels.max(), levels.max())
        for plan in product(films, repeat=3):
            total, worth = gain(plan)
            assert total <= first[0]
            assert worth < first[1] or plan[0] == best
            tempting += total < first[0]
    assert tempting


def test_history_is_the_level_weighted_mean_of_features() -> None:
    env = FilmSlateEnv(WORLD)
    observation, _ = env.reset(options={"user": 7})
    mine = WORLD.log[WORLD.log["user_id"] == 7]
    weights = mine["level"].to_numpy()
    expected = np.average(WORLD.catalogue.features[mine["item_id"]], axis=0, weights=weights)
    np.testing.assert_allclose(observation["history"], expected, rtol=1e-5, atol=1e-6)


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(RolloutError, match=r"must lie in 1\.\.80, the number of films; got 81"):
        FilmSlateEnv(WORLD, slate=81)
    with pytest.raises(RolloutError, match=r"0\.\.39; got 40"):
        FilmSlateEnv(WORLD).reset(options={"user": 40})
