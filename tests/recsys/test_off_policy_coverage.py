"""Whether intervals hold what they promise, on logs whose truth is known."""

import numpy as np
import pytest

from recsys.off_policy import ESTIMATORS, RewardConfig, evaluate_policy
from tests.helpers.bandit_world import make_world

LOGS, ROWS = 200, 1500
WRONG_ON_PURPOSE = RewardConfig(interactions=False, l2=0.1)
RIGHT = RewardConfig(interactions=True, l2=0.1)


def coverage(config: RewardConfig, *, is_uniform: bool, logs: int = LOGS) -> dict[str, float]:
    """Share of logs whose 95 % interval holds the true value, by estimator."""
    world = make_world(is_uniform=is_uniform)
    truth = world.true_value()
    hits = dict.fromkeys(ESTIMATORS, 0)
    for seed in range(logs):
        log, dist = world.draw(ROWS, seed)
        for one in evaluate_policy(log, dist, reward_model=config, seed=seed, n_boot=400).estimates:
            hits[one.name] += one.low <= truth <= one.high
    return {name: count / logs for name, count in hits.items()}


@pytest.mark.statistical
def test_intervals_cover_the_truth_from_a_log_of_random_choices() -> None:
    found = coverage(RIGHT, is_uniform=True)
    assert min(found.values()) >= 0.9, found


@pytest.mark.statistical
def test_all_but_replay_cover_the_truth_from_a_log_of_another_mind() -> None:
    found = coverage(RIGHT, is_uniform=False)
    assert found.pop("replay") < 0.1
    assert min(found.values()) >= 0.9, found


@pytest.mark.statistical
def test_a_wrong_model_fails_alone_and_doubly_robust_estimates_still_cover() -> None:
    found = coverage(WRONG_ON_PURPOSE, is_uniform=False)
    assert found["dm"] < 0.1
    assert min(found[name] for name in ("ips", "snips", "dr", "sndr", "switch-dr", "dros")) >= 0.9, found


@pytest.mark.statistical
def test_the_interval_of_the_model_alone_knows_the_error_of_its_fit() -> None:
    world = make_world()
    values, widths = [], []
    for seed in range(100):
        log, dist = world.draw(600, seed)
        one = evaluate_policy(
            log, dist, reward_model=RIGHT, estimators=["dm"], seed=seed, n_boot=300
        ).estimates[0]
        values.append(one.value)
        widths.append((one.high - one.low) / (2 * 1.96))
    assert np.mean(widths) == pytest.approx(np.std(values), rel=0.25)
