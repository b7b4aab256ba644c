"""Choice scenes: no slot, no option and no history tells what was chosen."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare

from simulators.errors import MirrorError
from simulators.mirror import ChoiceScenes, place_uniformly, sampled_scenes, slate_scenes

N_ITEMS = 40


def taken_log(users: int = 30, per_user: int = 12, seed: int = 0) -> pd.DataFrame:
    """Who took what when; every second pair of a user's rows shares its moment."""
    rng = np.random.default_rng(seed)
    items = np.argsort(rng.random((users, N_ITEMS)), axis=1)[:, :per_user]
    times = np.tile(np.arange(per_user) // 2 * 10, (users, 1))
    return pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(users), per_user),
            "item_id": items.ravel(),
            "timestamp": times.ravel(),
        }
    )


def published_slots(count: int, n_options: int, rng: np.random.Generator) -> np.ndarray:
    """The published rule: a slot of randint(0, len - 1), ends included, of the list before the item is inserted."""
    return rng.integers(0, n_options - 1, size=count)


def test_the_published_slot_rule_fails_where_ours_is_uniform() -> None:
    rng = np.random.default_rng(0)
    published = np.bincount(published_slots(5000, 5, rng), minlength=5)
    assert published[-1] == 0 and chisquare(published).pvalue < 1e-6
    options, slot = place_uniformly(np.full(5000, 9), np.zeros((5000, 4), np.int64), rng)
    assert chisquare(np.bincount(slot, minlength=5)).pvalue > 0.01
    np.testing.assert_array_equal(options.argmax(axis=1), slot)
    np.testing.assert_array_equal(options.sum(axis=1), 9)


def test_placing_keeps_the_others_in_order() -> None:
    options, slot = place_uniformly(np.full(20, 7), np.tile([1, 2, 3], (20, 1)), np.random.default_rng(1))
    for row, place in zip(options.tolist(), slot.tolist(), strict=True):
        assert row.pop(place) == 7 and row == [1, 2, 3]


def test_histories_are_strictly_before_and_options_not_among_them() -> None:
    log = taken_log()
    scenes = sampled_scenes(log, n_items=N_ITEMS, n_options=5, min_history=3, seed=0)
    # Rows 4.. of each user: rows 2 and 3 share a moment, so they have two earlier rows only.
    assert len(scenes) == 30 * 8 and not scenes.positions.any()
    for s in range(len(scenes)):
        own = log[log["user_id"] == scenes.users[s]]
        before = own.loc[own["timestamp"] < scenes.times[s], "item_id"]
        assert set(scenes.history[[s]].indices) == set(before)
        assert len(set(scenes.options[s])) == 5 and not set(scenes.options[s]) & set(before)
        assert scenes.options[s, scenes.chosen[s]] in set(
            own.loc[own["timestamp"] == scenes.times[s], "item_id"]
        )


def test_an_item_taken_again_makes_no_scene() -> None:
    log = taken_log()
    again = log.groupby("user_id").head(4).assign(timestamp=10_000)
    once, twice = (
        sampled_scenes(rows, n_items=N_ITEMS, seed=0)
        for rows in (log, pd.concat([log, again], ignore_index=True))
    )
    assert len(once) == len(twice) and twice.times.max() < 10_000


def test_slots_and_options_tell_nothing_of_the_choice() -> None:
    log = taken_log(users=150)
    scenes = sampled_scenes(log, n_items=N_ITEMS, n_options=4, seed=3)
    assert chisquare(np.bincount(scenes.chosen, minlength=4)).pvalue > 0.01
    # What is taken later is on offer as often as anything else that was not met before.
    moment = np.full((150, N_ITEMS), -1)
    moment[log["user_id"], log["item_id"]] = log["timestamp"]
    is_later = moment[scenes.users] > scenes.times[:, None]
    is_other = np.arange(4) != scenes.chosen[:, None]
    found = np.take_along_axis(is_later, scenes.options, axis=1)[is_other].sum()
    unmet = N_ITEMS - np.diff(scenes.history.indptr) - 1
    assert found == pytest.approx((3 * is_later.sum(axis=1) / unmet).sum(), rel=0.12)


def test_weights_decide_what_is_drawn() -> None:
    weights = np.where(np.arange(N_ITEMS) < 20, 1.0, 1e-9)
    scenes = sampled_scenes(taken_log(), n_items=N_ITEMS, n_options=3, weights=weights, seed=0)
    others = scenes.options[np.arange(3) != scenes.chosen[:, None]]
    assert (others < 20).mean() > 0.99


def test_the_same_seed_draws_the_same_scenes() -> None:
    first, second, third = (sampled_scenes(taken_log(), n_items=N_ITEMS, seed=seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.options, second.options)
    assert (first.options != third.options).any()


def slates() -> pd.DataFrame:
    rows = [
        # user, item, level, time, place
        (0, 1, 0, 0, 0),
        (0, 2, 2, 1, 1),
        (0, 3, 1, 2, 2),
        (0, 4, 0, 100, 0),
        (0, 5, 0, 101, 1),
        (0, 6, 1, 200, 0),
        (0, 7, 1, 201, 1),
        (1, 1, 3, 5000, 1),
        (1, 2, 0, 9000, 2),
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "level", "timestamp", "position"])


def test_slates_are_cut_by_place_and_time_and_ties_left_out() -> None:
    scenes, left_out = slate_scenes(slates(), n_items=8)
    assert left_out == 1  # 6 and 7 of user 0
    np.testing.assert_array_equal(scenes.options, [[1, 2, 3], [4, 5, -1], [1, -1, -1], [2, -1, -1]])
    np.testing.assert_array_equal(scenes.chosen, [1, -1, 0, -1])
    np.testing.assert_array_equal(scenes.positions[:, 0], [0, 0, 1, 2])
    assert [sorted(scenes.history[[s]].indices.tolist()) for s in range(4)] == [[], [1, 2, 3], [], [1]]


def test_a_deeper_level_can_count_as_chosen() -> None:
    scenes, left_out = slate_scenes(slates(), n_items=8, chosen_level=3)
    assert left_out == 0
    np.testing.assert_array_equal(scenes.chosen, [-1, -1, -1, 0, -1])


def test_what_cannot_be_sampled_is_refused() -> None:
    log = taken_log()
    with pytest.raises(MirrorError, match="at least 2, or nothing is chosen; got 1"):
        sampled_scenes(log, n_items=N_ITEMS, n_options=1, seed=0)
    with pytest.raises(MirrorError, match=r"`n_options` \(35\) items not met .* got one with 30"):
        sampled_scenes(log, n_items=N_ITEMS, n_options=35, seed=0)
    with pytest.raises(MirrorError, match=r"40 positive numbers.* shape \(40,\) with 0 positive"):
        sampled_scenes(log, n_items=N_ITEMS, weights=np.zeros(N_ITEMS), seed=0)
    with pytest.raises(MirrorError, match="must have a column `position`"):
        slate_scenes(log, n_items=N_ITEMS)


def test_a_choice_must_be_on_offer() -> None:
    scenes, _ = slate_scenes(slates(), n_items=8)
    with pytest.raises(MirrorError, match=r"-1 for none; got \[2\]"):
        ChoiceScenes(
            scenes.users,
            scenes.times,
            scenes.options,
            scenes.positions,
            np.array([1, 2, 0, -1]),
            scenes.history,
        )
    with pytest.raises(MirrorError, match="one row a scene"):
        ChoiceScenes(
            scenes.users[:2], scenes.times, scenes.options, scenes.positions, scenes.chosen, scenes.history
        )
