"""Off-policy estimates on the Open Bandit sample, where that folder is at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from recsys.data.bandit import BanditLog, bandit_log_from_frame
from recsys.data.readers.open_bandit import read_bandit_log
from recsys.off_policy import PolicyEvaluation, evaluate_policy, logged_policy, uniform_policy

DATA = Path(os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "openbandit"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not (DATA / "bts" / "men.csv").exists(), reason=f"{DATA} holds no bts/men.csv"),
]


def read(policy: str) -> BanditLog:
    frame = read_bandit_log(DATA / policy)
    context = [str(name) for name in frame if str(name).startswith("user")]
    return bandit_log_from_frame(frame, position="position", context=context, action_ids=range(34))


def follow(policy: str, log: BanditLog) -> tuple[PolicyEvaluation, float]:
    """Estimates of a policy from another's log, and what it earned on its own."""
    own = read(policy)
    return evaluate_policy(log, logged_policy(own, log), seed=0, n_boot=500), float(own.rewards.mean())


def test_the_random_log_puts_thompson_sampling_where_its_own_log_does() -> None:
    found, own = follow("bts", read("random"))
    assert own == pytest.approx(0.0069) and found.logged.value == pytest.approx(0.0046)
    assert 2000 < found.overlap.ess < 4000 and found.notes == ()
    for one in found.estimates:
        assert one.low < own < one.high, one


def test_the_log_of_thompson_sampling_says_less_of_random_choice() -> None:
    found, own = follow("random", read("bts"))
    assert 400 < found.overlap.ess < 900 and found.overlap.max_weight > 100
    by_name = {one.name: one for one in found.estimates}
    for name in ("dr", "sndr", "switch-dr", "dros", "snips"):
        assert by_name[name].low < own < by_name[name].high, by_name[name]
    assert any("replay is biased" in note for note in found.notes)
    assert abs(by_name["replay"].value - own) > 1.5 * abs(by_name["dr"].value - own)


def test_uniform_on_the_random_log_is_its_mean() -> None:
    log = read("random")
    found = evaluate_policy(log, uniform_policy(log), estimators=["ips"], seed=0, n_boot=50)
    assert found.estimates[0].value == pytest.approx(float(np.mean(log.rewards)))
    assert found.overlap.ess == pytest.approx(len(log))
