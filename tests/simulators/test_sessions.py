"""Sessions without words: held to a loop over single reactions, and to the rules of leaving."""

import numpy as np
import pytest

from simulators.errors import RolloutError
from simulators.randomness import keyed_uniforms
from simulators.sessions import _LEVEL, _RATING, STOPS, Sessions
from simulators.types import StopReason
from simulators.world import build_film_world

WORLD = build_film_world(300, 60, seed=1)
ORACLE = WORLD.oracle
USERS = np.arange(60)
MAX_TURNS = 4


def slates(width: int, steps: int = MAX_TURNS, seed: int = 0) -> np.ndarray:
    """What is shown at each step. Shape (steps, users, width), the same items now and then."""
    return np.random.default_rng(seed).integers(0, 40, (steps, len(USERS), width))


def slow_session(
    user: int, seed: int, shown: np.ndarray
) -> tuple[list[list[int]], list[float], StopReason | None]:
    """One session, one reaction at a time."""
    levels: list[list[int]] = []
    stars: list[float] = []
    for turn, slate in enumerate(shown):
        found: list[int] = []
        for place, item in enumerate(slate.tolist()):
            luck = keyed_uniforms(seed, user, item, _LEVEL)
            level = int(ORACLE.levels([user], [item], [luck], position=[place])[0])
            found.append(0 if item in slate[:place] else level)
        levels.append(found)
        item = int(slate[found.index(max(found))])
        luck = keyed_uniforms(seed, user, turn, _RATING)
        stars.append(float(ORACLE.satisfaction([user], [item], np.zeros((1, 6)), [luck])[0]))
        if max(found) >= 3:
            return levels, stars, StopReason.ACCEPTED
        if sum(star <= 2 for star in stars) >= ORACLE.patience([user])[0]:
            return levels, stars, StopReason.OUT_OF_PATIENCE
    return levels, stars, StopReason.MAX_TURNS if len(shown) == MAX_TURNS else None


@pytest.mark.parametrize("width", [1, 5])
def test_is_the_loop_over_single_reactions(width: int) -> None:
    shown = slates(width)
    seeds = np.arange(60) % 3
    sessions = Sessions(ORACLE, USERS, seeds=seeds, max_turns=MAX_TURNS)
    steps = [sessions.step(slate[:, 0] if width == 1 else slate) for slate in shown]
    for user in USERS.tolist():
        levels, stars, stop = slow_session(user, int(seeds[user]), shown[:, user])
        assert [step.levels[user].tolist() for step in steps[: len(levels)]] == levels
        assert [step.satisfaction[user] for step in steps[: len(stars)]] == stars
        assert all((step.levels[user] == -1).all() for step in steps[len(levels) :])
        assert all(np.isnan(step.satisfaction[user]) for step in steps[len(levels) :])
        assert STOPS[sessions.stops[user]] is stop
        assert sessions.turns[user] == len(levels)
    assert len(set(sessions.stops.tolist())) > 1 and sessions.stopped.all()


def test_company_does_not_matter() -> None:
    shown = slates(3)
    everyone = Sessions(ORACLE, USERS, seeds=7)
    some = Sessions(ORACLE, USERS[[30, 4]], seeds=7)
    for slate in shown:
        whole, part = everyone.step(slate), some.step(slate[[30, 4]])
        np.testing.assert_array_equal(part.levels, whole.levels[[30, 4]])
        np.testing.assert_array_equal(part.satisfaction, whole.satisfaction[[30, 4]])
        np.testing.assert_array_equal(part.stopped, whole.stopped[[30, 4]])


def test_a_later_place_never_makes_an_item_go_deeper() -> None:
    items = np.arange(60)
    slate = np.stack([items, items + 60, items + 120], axis=1)
    first = Sessions(ORACLE, USERS, seeds=0).step(slate).levels[:, 0]
    last = Sessions(ORACLE, USERS, seeds=0).step(slate[:, ::-1]).levels[:, 2]
    assert (last <= first).all() and (last < first).any()


def test_a_restarted_session_is_a_new_one() -> None:
    shown = slates(2)
    sessions = Sessions(ORACLE, USERS, seeds=1, max_turns=2)
    for slate in shown[:2]:
        sessions.step(slate)
    sessions.restart([3, 5], [8, 9], [40, 41])
    assert not sessions.stopped[[3, 5]].any() and sessions.stopped[[0, 1]].all()
    fresh = Sessions(ORACLE, [8, 9], seeds=[40, 41], max_turns=2)
    np.testing.assert_array_equal(sessions.step(shown[2]).levels[[3, 5]], fresh.step(shown[2][[3, 5]]).levels)


def test_refuses_what_does_not_fit() -> None:
    sessions = Sessions(ORACLE, USERS, seeds=0)
    with pytest.raises(RolloutError, match=r"shape \(60,\) or \(60, K\); got \(59,\)"):
        sessions.step(np.zeros(59, int))
    with pytest.raises(RolloutError, match=r"got \(60, 0\)"):
        sessions.step(np.zeros((60, 0), int))
    with pytest.raises(RolloutError, match=r"got \(60,\), \(3,\) and 5"):
        Sessions(ORACLE, USERS, seeds=[1, 2, 3])
    with pytest.raises(RolloutError, match="and 0"):
        Sessions(ORACLE, USERS, seeds=0, max_turns=0)
