"""The order of policies: tau-b as scipy has it, logs, and importance weights."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from recsys.off_policy import evaluate_policy
from recsys.off_policy.weights import at_positions, importance_weights
from simulators.errors import FaithfulnessError
from simulators.faithfulness import kendall_tau_b, ranking_agreement, terms_from_rows
from simulators.faithfulness.ranking import PolicyTerms, policy_values
from tests.helpers.bandit_world import make_world

RNG = np.random.default_rng(0)


def test_tau_b_equals_scipy_with_ties() -> None:
    first, second = RNG.integers(4, size=(2, 50, 6)).astype(float)
    found = kendall_tau_b(first, second)
    expected = [kendalltau(one, other).statistic for one, other in zip(first, second, strict=True)]
    np.testing.assert_allclose(found, expected)
    assert np.isnan(kendall_tau_b(np.ones((1, 4)), second[:1, :4]))[0]


def rows(values: dict[str, float], users: int, seed: int) -> PolicyTerms:
    """Every user meets every policy once."""
    rng = np.random.default_rng(seed)
    who = np.tile(np.arange(users), len(values))
    policy = np.repeat(list(values), users)
    reward = rng.random(len(who)) < np.repeat(list(values.values()), users)
    return terms_from_rows(who, policy, reward)


def test_values_are_means_of_each_policys_rows() -> None:
    terms = terms_from_rows(["u", "v", "u", "v"], ["b", "b", "a", "a"], [1.0, 0.0, 3.0, 5.0])
    assert terms.names == ("a", "b") and policy_values(terms.sums.sum(0)[None]).tolist() == [[4.0, 0.5]]
    weighted = terms_from_rows(["u", "v"], ["a", "a"], [1.0, 0.0], [3.0, 1.0])
    assert policy_values(weighted.sums.sum(0)[None]).tolist() == [[0.75]]


def test_the_same_world_orders_policies_alike_and_a_mirror_image_the_other_way() -> None:
    truth = {"a": 0.1, "b": 0.2, "c": 0.35, "d": 0.5}
    real = rows(truth, 800, 0)
    same = ranking_agreement(rows(truth, 800, 1), real, seed=0, n_boot=200)
    assert same.names == ("d", "c", "b", "a") and same.tau.value == 1 and same.tau.low > 0
    assert same.settled == same.settled_alike == 6
    other = {name: 0.6 - value for name, value in truth.items()}
    mirrored = ranking_agreement(rows(other, 800, 1), real, seed=0, n_boot=200)
    assert mirrored.tau.value == -1 and mirrored.settled_alike == 0


def test_whoever_likes_all_policies_alike_has_no_order() -> None:
    real = rows({"a": 0.1, "b": 0.2, "c": 0.35}, 500, 0)
    found = ranking_agreement(rows({"a": 1.0, "b": 1.0, "c": 1.0}, 500, 0), real, seed=0, n_boot=100)
    assert np.isnan(found.tau.value) and found.settled > 0 and found.settled_alike == 0


def test_importance_weights_give_the_estimates_of_off_policy_evaluation() -> None:
    log = make_world().draw(400, 0)[0]
    rng = np.random.default_rng(1)
    dists = rng.random((3, len(log), log.n_actions))
    dists /= dists.sum(axis=2, keepdims=True)
    weights = [importance_weights(at_positions(dist, log), log) for dist in dists]
    terms = terms_from_rows(
        np.tile(np.arange(len(log)), 3),
        np.repeat(["x", "y", "z"], len(log)),
        np.tile(log.rewards, 3),
        np.concatenate(weights),
    )
    for dist, value in zip(dists, policy_values(terms.sums.sum(0)[None])[0], strict=True):
        (target,) = evaluate_policy(log, dist, estimators=["snips"], seed=0).estimates
        assert value == pytest.approx(target.value)


def test_orders_of_fewer_than_three_policies_are_refused() -> None:
    one, other = rows({"a": 0.1, "b": 0.2, "c": 0.3}, 20, 0), rows({"a": 0.1, "b": 0.2, "x": 0.3}, 20, 0)
    with pytest.raises(FaithfulnessError, match=r"got 2 \(a, b\)"):
        ranking_agreement(one, other, seed=0)
    empty = terms_from_rows(["u"] * 3, ["a", "b", "c"], [1.0, 1.0, 1.0], [1.0, 1.0, 0.0])
    with pytest.raises(FaithfulnessError, match="rows that count on both sides; got none for c"):
        ranking_agreement(one, empty, seed=0)
