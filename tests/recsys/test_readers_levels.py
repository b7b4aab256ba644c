import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recsys.data.readers.levels import (
    ContradictionPolicy,
    Levels,
    levels_from_events,
    levels_from_flags,
    levels_from_ratings,
)
from recsys.errors import OrdinalError

STEPS = ("click", "like", "follow")


def every_combination() -> pd.DataFrame:
    return pd.DataFrame(list(itertools.product([False, True], repeat=3)), columns=list(STEPS))


def slow_level(row: tuple[bool, ...], policy: ContradictionPolicy) -> int | None:
    deepest = max((place + 1 for place, flag in enumerate(row) if flag), default=0)
    unbroken = next((place for place, flag in enumerate(row) if not flag), len(row))
    if deepest == unbroken or policy is ContradictionPolicy.DEEPEST:
        return deepest
    return unbroken if policy is ContradictionPolicy.SHALLOW else None


@pytest.mark.parametrize("policy", list(ContradictionPolicy))
def test_each_combination_of_flags_gets_the_level_that_the_policy_says(policy: ContradictionPolicy) -> None:
    flags = every_combination()
    found = levels_from_flags(flags, STEPS, policy)
    expected = [slow_level(tuple(row), policy) for row in flags.to_numpy().tolist()]
    assert found.keep.tolist() == [level is not None for level in expected]
    assert found.level[found.keep].tolist() == [level for level in expected if level is not None]
    assert found.names == ("shown", *STEPS)


def test_contradictions_are_counted_and_what_was_done_is_said() -> None:
    counts = {
        policy: levels_from_flags(every_combination(), STEPS, policy).notes for policy in ContradictionPolicy
    }
    assert counts[ContradictionPolicy.DEEPEST] == (
        "4 of 8 rows reached a step without a shallower one (click, like, follow); the deepest step counts.",
    )
    assert "these rows are left out" in counts[ContradictionPolicy.DROP][0]
    assert "the last step before the first one missing counts" in counts[ContradictionPolicy.SHALLOW][0]
    assert levels_from_flags(every_combination(), ("like",)).notes == ()


def test_steps_keep_the_order_in_which_they_are_named() -> None:
    flags = pd.DataFrame({"follow": [False, True], "click": [True, True]})
    assert levels_from_flags(flags, ("click", "follow")).level.tolist() == [1, 2]
    assert levels_from_flags(flags, ("follow", "click")).level.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), r"each once, among \['click', 'like', 'follow'\]; got \[\], none\."),
        (("click", "click"), r"got \['click', 'click'\], a repeat"),
        (("click", "buy"), r"got \['click', 'buy'\], \['buy'\] unknown"),
    ],
)
def test_steps_that_are_not_there_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(OrdinalError, match=message):
        levels_from_flags(every_combination(), names)


def test_a_rating_counts_its_cut_points_at_or_below_it() -> None:
    values = np.array([0.5, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0])
    found = levels_from_ratings(values, ("3", "4.5"))
    assert found.level.tolist() == [sum(value >= cut for cut in (3, 4.5)) for value in values]
    assert found.names == ("rated below 3", "rated 3 or more", "rated 4.5 or more")


def test_five_stars_are_cut_at_three_four_and_five_unless_told_otherwise() -> None:
    found = levels_from_ratings(np.array([1.0, 3.0, 4.0, 5.0]), None)
    assert found.level.tolist() == [0, 1, 2, 3]
    assert found.notes == ("Ratings are cut at 3, 4 and 5, as nothing else was asked for.",)


@pytest.mark.parametrize("values", [[0.0, 1.0], [1.0, 10.0], [-1.0, 4.0], []])
def test_another_scale_needs_cut_points(values: list[float]) -> None:
    with pytest.raises(
        OrdinalError, match=r"cut-points unless ratings are of at most five stars; got ratings in"
    ):
        levels_from_ratings(np.array(values), None)


@pytest.mark.parametrize("cuts", [("4", "3"), ("3", "3"), ("three",), (), ("nan",)])
def test_cut_points_must_ascend(cuts: tuple[str, ...]) -> None:
    with pytest.raises(OrdinalError, match="must be ascending cut-points"):
        levels_from_ratings(np.array([1.0]), cuts)


def events(*names: str) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(names)]).dictionary_encode()


def test_events_below_the_named_ones_are_level_zero() -> None:
    found = levels_from_events(events("view", "cart", "buy", "view"), ("cart", "buy"))
    assert found.level.tolist() == [0, 1, 2, 0]
    assert found.names == ("view", "cart", "buy")
    assert found.notes == ("Level 0 holds the events {'view': 2}.",)


def test_without_events_below_level_zero_stays_empty() -> None:
    found = levels_from_events(events("view", "buy"), ("view", "buy"))
    assert found.level.tolist() == [1, 2]
    assert found.names == ("not met", "view", "buy")


def test_a_single_event_needs_no_order_and_several_do() -> None:
    assert levels_from_events(events("play", "play"), None).level.tolist() == [1, 1]
    with pytest.raises(
        OrdinalError, match=r"order of depth; got none, and the log holds \{'view': 2, 'buy': 1\}"
    ):
        levels_from_events(events("view", "buy", "view"), None)


def test_an_event_that_never_happens_is_taken_for_a_slip() -> None:
    with pytest.raises(OrdinalError, match=r"among \['view', 'buy'\]; got \['buuy'\], \['buuy'\] unknown"):
        levels_from_events(events("view", "buy", "view"), ("buuy",))


def test_levels_are_whole_numbers() -> None:
    made: list[Levels] = [
        levels_from_flags(every_combination(), STEPS),
        levels_from_ratings(np.array([5.0]), None),
        levels_from_events(events("a"), None),
    ]
    assert all(found.level.dtype == np.int64 and found.keep.dtype == np.bool_ for found in made)
