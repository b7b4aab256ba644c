import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from recsys.data.bandit import Values
from recsys.errors import InteractionError, PolicyError, ShapeError
from recsys.off_policy import SLATE_ESTIMATORS, SlateLog, cascade_dr_terms, evaluate_slates
from recsys.types import Ints
from tests.helpers.bandit_world import SlatePages, list_pages, value_slowly

Reward = Callable[[int, int], tuple[float, float]]
OWN = np.array([[0.1, 0.5, 0.9], [0.4, 0.2, 0.7]])
TOGETHER = np.array([[0.3, 0.9, 0.1], [0.2, 0.0, 0.8], [0.6, 0.5, 0.4]])


def independent(first: int, second: int) -> tuple[float, float]:
    return float(OWN[0, first]), float(OWN[1, second])


def cascade(first: int, second: int) -> tuple[float, float]:
    return float(OWN[0, first]), float(TOGETHER[first, second])


def anything(first: int, second: int) -> tuple[float, float]:
    return float(TOGETHER[second, first]), float(TOGETHER[first, second])


def log_of(world: SlatePages, reward: Reward) -> SlateLog:
    first, second = world.pages.T

    def chances(policy: Values) -> tuple[Values, Values]:
        top = policy.sum(axis=1)[first]
        cascade = np.column_stack([top, policy[first, second]])
        return cascade, np.column_stack([top, policy.sum(axis=0)[second]])

    logging, target = chances(world.logging), chances(world.target)
    rewards = np.array([reward(int(a), int(b)) for a, b in world.pages])
    return SlateLog(rewards, logging[0], logging[1], target[0], target[1])


def take(log: SlateLog, rows: Ints, clusters: Ints | None = None) -> SlateLog:
    return SlateLog(
        log.rewards[rows],
        log.logging_cascade[rows],
        log.logging_marginal[rows],
        log.target_cascade[rows],
        log.target_marginal[rows],
        clusters,
    )


@pytest.mark.parametrize(
    ("reward", "right", "wrong"),
    [
        (independent, ("sips", "iips", "rips"), ()),
        (cascade, ("sips", "rips"), ("iips",)),
        (anything, ("sips",), ("iips", "rips")),
    ],
)
def test_expectations_are_exact_where_the_assumption_holds_and_only_there(
    reward: Reward, right: tuple[str, ...], wrong: tuple[str, ...]
) -> None:
    world = list_pages()
    truth = value_slowly(world.target, reward)
    found = {one.name: one.value for one in evaluate_slates(log_of(world, reward), seed=0, n_boot=20)}
    for name in right:
        assert found[name] == pytest.approx(truth, abs=1e-12)
        assert found[f"sn{name}"] == pytest.approx(truth, abs=1e-12)
    for name in wrong:
        assert abs(found[name] - truth) > 0.01


def test_independent_slots_make_all_estimators_right_on_independent_rewards() -> None:
    world = list_pages(slots_are_independent=True)
    truth = value_slowly(world.target, independent)
    for one in evaluate_slates(log_of(world, independent), seed=0, n_boot=20):
        assert one.value == pytest.approx(truth, abs=1e-12)


def test_normalised_slots_are_weighted_means() -> None:
    log = log_of(list_pages(), anything)
    part = take(log, np.array([0, 5, 9, 20, 33]))
    found = {
        one.name: one.value
        for one in evaluate_slates(part, slot_weights=np.array([1.0, 0.5]), seed=0, n_boot=20)
    }
    joint = part.target_cascade[:, 1] / part.logging_cascade[:, 1]
    cascade_weights = part.target_cascade / part.logging_cascade
    counted = part.rewards * [1, 0.5]
    assert found["snsips"] == pytest.approx((joint * counted.sum(1)).sum() / joint.sum())
    assert found["snrips"] == pytest.approx(
        ((cascade_weights * counted).sum(0) / cascade_weights.sum(0)).sum()
    )
    assert found["rips"] == pytest.approx((cascade_weights * counted).sum(1).mean())


def test_cascade_doubly_robust_is_right_with_any_baseline_and_rips_without() -> None:
    world = list_pages()
    log = log_of(world, cascade)
    truth = value_slowly(world.target, cascade)
    rng = np.random.default_rng(0)
    at_top, below = rng.random(3), rng.random((3, 3))
    first, second = world.pages.T
    top = world.target.sum(axis=1)
    given = world.target / top[:, None]
    predicted = np.column_stack([at_top[first], below[first, second]])
    expected = np.column_stack([np.full(len(first), top @ at_top), (given * below).sum(axis=1)[first]])
    assert cascade_dr_terms(log, predicted, expected).value() == pytest.approx(truth, abs=1e-12)
    zeros = np.zeros_like(predicted)
    rips = evaluate_slates(log, estimators=["rips"], seed=0, n_boot=20)[0].value
    assert cascade_dr_terms(log, zeros, zeros).value() == pytest.approx(rips)


@pytest.mark.statistical
def test_intervals_cover_the_value_of_sampled_pages() -> None:
    world = list_pages()
    log, truth = log_of(world, cascade), value_slowly(world.target, cascade)
    hits = dict.fromkeys(("sips", "rips", "snsips", "snrips"), 0)
    for seed in range(200):
        rows = np.random.default_rng(seed).integers(len(log.rewards), size=400)
        drawn = take(log, rows)
        for one in evaluate_slates(drawn, estimators=tuple(hits), seed=seed, n_boot=300):
            hits[one.name] += one.low <= truth <= one.high
    assert min(hits.values()) >= 180, hits


def test_a_page_that_stands_twice_in_one_cluster_counts_once() -> None:
    log = log_of(list_pages(), cascade)
    pages = len(log.rewards)
    alone = evaluate_slates(log, seed=0, n_boot=300)
    doubled = take(log, np.repeat(np.arange(pages), 2), np.repeat(np.arange(pages), 2))
    for one, other in zip(alone, evaluate_slates(doubled, seed=0, n_boot=300), strict=True):
        assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high))


def test_a_target_that_never_shows_what_was_logged_has_no_normalised_value() -> None:
    log = log_of(list_pages(), cascade)
    zeros = np.zeros_like(log.rewards)
    lost = SlateLog(log.rewards, log.logging_cascade, log.logging_marginal, zeros, zeros)
    found = {one.name: one.value for one in evaluate_slates(lost, seed=0, n_boot=20)}
    assert found["sips"] == 0 and np.isnan(found["snrips"])
    assert set(found) == set(SLATE_ESTIMATORS)


def test_pages_that_do_not_fit_are_refused() -> None:
    ones = np.ones((3, 2))

    def make(**change: Any) -> SlateLog:
        names = ("rewards", "logging_cascade", "logging_marginal", "target_cascade", "target_marginal")
        return SlateLog(**(dict.fromkeys(names, ones) | change))

    with pytest.raises(ShapeError, match=re.escape("'target_cascade': (3, 1)")):
        make(target_cascade=ones[:, :1])
    with pytest.raises(InteractionError, match=r"`rewards` must be finite; got \[nan, nan\] in row 0"):
        make(rewards=ones * np.nan)
    with pytest.raises(
        InteractionError, match=r"`logging_marginal` must be above 0 and at most 1; got \[0\.0"
    ):
        make(logging_marginal=ones * 0)
    with pytest.raises(
        InteractionError, match=r"`target_marginal` must be 0 or more and at most 1; got \[2\.0"
    ):
        make(target_marginal=ones * 2)
    log = make()
    with pytest.raises(PolicyError, match=r"one or more of sips, .*; got \['ips'\]"):
        evaluate_slates(log, estimators=["ips"], seed=0)
    with pytest.raises(ShapeError, match=re.escape("shape (2,); got (3,)")):
        evaluate_slates(log, slot_weights=np.ones(3), seed=0)
    with pytest.raises(ShapeError, match=re.escape("shape (3, 2); got (3, 1) and (3, 2)")):
        cascade_dr_terms(log, ones[:, :1], ones)
