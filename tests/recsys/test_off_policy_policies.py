import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.data.bandit import BanditLog
from recsys.errors import PolicyError, ShapeError
from recsys.off_policy import (
    RewardConfig,
    evaluate_policy,
    logged_policy,
    popular_policy,
    read_policy,
    softmax_policy,
    uniform_policy,
)
from tests.helpers.bandit_world import make_world, random_log


def with_actions(actions: list[int], rewards: list[float], positions: list[int], n: int = 3) -> BanditLog:
    return BanditLog(
        np.array(actions),
        np.array(rewards),
        np.full(len(actions), 0.5),
        np.array(positions),
        np.zeros((len(actions), 1)),
        n,
        2,
    )


def test_uniform_spreads_evenly() -> None:
    log, _ = random_log(0)
    assert (uniform_policy(log) == 0.25).all()


def test_popular_shows_the_best_mean_and_explores() -> None:
    fitted_on = with_actions([0, 0, 1, 1, 2], [0, 1, 1, 1, 0], [0, 0, 0, 1, 1])
    found = popular_policy(fitted_on, with_actions([2, 2], [0, 0], [0, 0]), epsilon=0.3, prior_rows=0)
    np.testing.assert_allclose(found, np.array([[0.1, 0.8, 0.1], [0.1, 0.8, 0.1]]))


def test_popular_does_not_fall_for_one_lucky_row() -> None:
    rewards = [1.0] * 60 + [0.0] * 40 + [1.0] + [0.0] * 200
    fitted_on = with_actions([0] * 100 + [1] + [2] * 200, rewards, [0] * 301)
    log = with_actions([0], [0], [0])
    assert popular_policy(fitted_on, log)[0].argmax() == 0
    assert popular_policy(fitted_on, log, prior_rows=0)[0].argmax() == 1


def test_popular_takes_an_action_never_tried_for_average() -> None:
    fitted_on, log = with_actions([0] * 3, [1.0, 0.0, 0.0], [0] * 3), with_actions([0], [0], [0])
    assert popular_policy(fitted_on, log, prior_rows=0)[0].argmax() == 0
    assert np.isfinite(popular_policy(fitted_on, log, prior_rows=0)).all()


def test_another_log_is_followed_slot_by_slot() -> None:
    other = with_actions([0, 0, 1, 2], [0] * 4, [0, 0, 0, 1])
    found = logged_policy(other, with_actions([1, 1, 1], [0] * 3, [1, 0, 1]))
    np.testing.assert_allclose(found, np.array([[0, 0, 1], [2 / 3, 1 / 3, 0], [0, 0, 1]]))


def test_a_fitted_softmax_policy_earns_more_than_the_uniform_one() -> None:
    world = make_world(is_uniform=True)
    log, _ = world.draw(3000, 0)
    early, late = log.select(np.arange(1500)), log.select(np.arange(1500, 3000))
    truth = world.means(late.context, late.positions)
    dist = softmax_policy(early, late, temperature=0.3)
    assert (dist * truth).sum(1).mean() > (uniform_policy(late) * truth).sum(1).mean() + 0.1
    alike = softmax_policy(early, late, config=RewardConfig())
    np.testing.assert_allclose(alike, np.broadcast_to(alike[0], alike.shape), atol=1e-12)


def test_a_file_gives_back_its_probabilities(tmp_path: Path) -> None:
    log, dist = random_log(0)
    np.save(tmp_path / "p.npy", dist)
    pd.DataFrame(dist).to_csv(tmp_path / "p.csv", index=False)
    pd.DataFrame(dist).rename(columns=str).to_parquet(tmp_path / "p.parquet")
    by_slot = np.stack([dist, dist], axis=2)
    np.save(tmp_path / "slots.npy", by_slot)
    for name in ("p.npy", "p.csv", "p.parquet"):
        np.testing.assert_allclose(read_policy(tmp_path / name, log), dist, rtol=1e-12)
    assert np.array_equal(read_policy(tmp_path / "slots.npy", log), by_slot)


def test_a_file_that_is_no_policy_is_refused(tmp_path: Path) -> None:
    log, dist = random_log(0)
    with pytest.raises(PolicyError, match=r"must end in \.npy, \.csv, \.parquet; got 'p\.txt'"):
        read_policy(tmp_path / "p.txt", log)
    with pytest.raises(PolicyError, match=r"gone\.npy must be a readable table .* No such file"):
        read_policy(tmp_path / "gone.npy", log)
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(
        PolicyError, match=r"objects\.npy must be a readable table of probabilities; got: Object"
    ):
        read_policy(tmp_path / "objects.npy", log)
    (tmp_path / "words.csv").write_text("a,b\nx,y\n")
    with pytest.raises(PolicyError, match="could not convert string to float"):
        read_policy(tmp_path / "words.csv", log)
    np.save(tmp_path / "short.npy", dist[:5])
    with pytest.raises(
        ShapeError, match=re.escape("short.npy must have shape (60, 4) or (60, 4, 2); got (5, 4)")
    ):
        read_policy(tmp_path / "short.npy", log)


def test_policies_that_make_no_sense_are_refused() -> None:
    log, _ = random_log(0)
    other = with_actions([0], [0], [0])
    with pytest.raises(PolicyError, match=r"`epsilon` must lie in 0\.\.1; got 1\.5"):
        popular_policy(log, log, epsilon=1.5)
    with pytest.raises(PolicyError, match="got 3 actions in 2 slots and 4 in 2"):
        popular_policy(other, log)
    with pytest.raises(PolicyError, match=r"`temperature` must be above 0; got 0"):
        softmax_policy(log, log, temperature=0)
    with pytest.raises(PolicyError, match=r"it lacks \[1\]"):
        logged_policy(other, with_actions([0], [0], [1]))
    wide = BanditLog(log.actions, log.rewards, log.propensities, log.positions, log.context[:, :1], 4, 2)
    with pytest.raises(PolicyError, match="got 1 and 2 columns"):
        softmax_policy(wide, log)


def test_every_built_in_policy_can_be_evaluated() -> None:
    log, _ = make_world().draw(300, 0)
    early, late = log.select(np.arange(150)), log.select(np.arange(150, 300))
    for dist in (
        uniform_policy(late),
        popular_policy(early, late),
        logged_policy(early, late),
        softmax_policy(early, late),
    ):
        assert np.isfinite(
            evaluate_policy(late, dist, estimators=["dr"], seed=0, n_boot=20).estimates[0].value
        )
