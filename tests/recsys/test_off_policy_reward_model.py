import numpy as np
import pytest
from scipy.special import logit

from recsys.data.bandit import BanditLog
from recsys.errors import PolicyError
from recsys.off_policy.reward_model import RewardConfig, cross_fit_rewards, fit_rewards, rewards_from_table
from tests.helpers.bandit_world import make_world, random_log

FREE = RewardConfig(l2=1e-7)


def one_slot_log(rows: int = 400, *, clusters: bool = False) -> BanditLog:
    rng = np.random.default_rng(0)
    actions = rng.integers(3, size=rows)
    return BanditLog(
        actions,
        (rng.random(rows) < np.array([0.2, 0.5, 0.7])[actions]).astype(np.float64),
        np.full(rows, 1 / 3),
        np.zeros(rows, dtype=np.int64),
        np.zeros((rows, 0)),
        3,
        clusters=rng.integers(20, size=rows) if clusters else None,
    )


def test_without_context_the_fit_is_each_actions_mean() -> None:
    log = one_slot_log()
    means = [log.rewards[log.actions == action].mean() for action in range(3)]
    scores = fit_rewards(log, FREE).scores(log)
    np.testing.assert_allclose(scores[0], logit(means), atol=1e-4)
    plain = fit_rewards(log, FREE.model_copy(update={"link": "identity"})).scores(log)
    np.testing.assert_allclose(plain[5], means, atol=1e-5)


def test_slopes_by_action_are_those_of_least_squares_in_that_action() -> None:
    log, _ = random_log(0, rows=200)
    log = BanditLog(log.actions, log.rewards, log.propensities, log.positions * 0, log.context, 4)
    scores = fit_rewards(log, RewardConfig(l2=1e-7, interactions=True)).scores(log)
    inputs = np.column_stack([np.ones(200), log.context])
    for action in range(4):
        own = log.actions == action
        solved = np.linalg.lstsq(inputs[own], log.rewards[own], rcond=None)[0]
        np.testing.assert_allclose(scores[:, action], inputs @ solved, atol=1e-4)


def test_features_of_actions_carry_over_to_an_action_never_logged() -> None:
    rng = np.random.default_rng(0)
    actions, features = rng.integers(3, size=300), np.array([[0.0], [1.0], [2.0], [3.0]])
    log = BanditLog(
        actions,
        actions.astype(np.float64) * 2,
        np.full(300, 0.3),
        actions * 0,
        np.zeros((300, 0)),
        4,
        action_features=features,
    )
    assert fit_rewards(log, RewardConfig(l2=1e-2)).scores(log)[0, 3] > 4.5
    without = BanditLog(
        actions, actions.astype(np.float64) * 2, np.full(300, 0.3), actions * 0, np.zeros((300, 0)), 4
    )
    assert fit_rewards(without, RewardConfig(l2=1e-2)).scores(without)[0, 3] == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize("in_blocks", [False, True])
def test_no_row_and_no_one_of_its_cluster_helps_to_predict_it(in_blocks: bool) -> None:
    log, config = one_slot_log(clusters=True), RewardConfig(folds=4, in_blocks=in_blocks)
    target = np.full((400, 3), 1 / 3)
    assert log.clusters is not None
    before = cross_fit_rewards(log, target, config, seed=0)
    own = log.clusters == log.clusters[17]
    turned = BanditLog(
        log.actions,
        np.where(own, 1 - log.rewards, log.rewards),
        log.propensities,
        log.positions,
        log.context,
        3,
        clusters=log.clusters,
    )
    after = cross_fit_rewards(turned, target, config, seed=0)
    assert np.array_equal(before.logged[own], after.logged[own])
    assert np.array_equal(before.target[own], after.target[own])
    assert not np.array_equal(before.logged, after.logged)


def test_the_effect_of_a_row_through_the_fit_is_the_derivative() -> None:
    log, target = random_log(0, rows=80)
    config = RewardConfig(link="identity", l2=1e-6, folds=2, in_blocks=True)
    weights = np.random.default_rng(1).random(80)
    base = cross_fit_rewards(log, target, config, seed=0)
    first = np.arange(80) < 40
    gaps = np.zeros(80)
    for half in (first, ~first):
        scores = fit_rewards(log.select(half), config).scores(log.select(half))
        gaps[half] = log.rewards[half] - scores[np.arange(40), log.actions[half]]
    effect = np.zeros(80)
    for row in range(80):
        moved = BanditLog(
            log.actions,
            log.rewards + np.eye(80)[row],
            log.propensities,
            log.positions,
            log.context,
            4,
            2,
        )
        other = cross_fit_rewards(moved, target, config, seed=0)
        change = (other.target - base.target) - weights * (other.logged - base.logged)
        effect[row] = change.sum() * gaps[row]
    np.testing.assert_allclose(base.correction(weights), effect - effect.mean(), atol=1e-4)


def test_predictions_from_outside_have_no_effect_through_a_fit() -> None:
    log, target = random_log(0)
    predicted = np.random.default_rng(0).random(target.shape)
    found = rewards_from_table(log, target, predicted)
    assert not found.correction(np.ones(60)).any()
    assert found.logged[3] == predicted[3, log.actions[3]]


def test_a_log_without_any_reward_is_predicted_near_zero() -> None:
    log = one_slot_log()
    none = BanditLog(log.actions, log.rewards * 0, log.propensities, log.positions, log.context, 3)
    found = cross_fit_rewards(none, np.full((400, 3), 1 / 3), RewardConfig(), seed=0)
    assert found.target.max() < 1e-3


def test_what_cannot_be_fitted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    log, target = make_world().draw(10, 0)
    with pytest.raises(PolicyError, match=r"number of clusters, or of rows .* \(10\); got 11"):
        cross_fit_rewards(log, target, RewardConfig(folds=11), seed=0)
    monkeypatch.setattr("recsys.off_policy.reward_model._MOST_WEIGHTS", 10)
    with pytest.raises(PolicyError, match="at most 10 inputs; got 11"):
        fit_rewards(log, RewardConfig())
