import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.bandit import BanditLog, Values
from recsys.errors import InteractionError, PolicyError, ShapeError
from recsys.off_policy import ESTIMATORS, PolicyEvaluation, RewardConfig, evaluate_policy
from recsys.off_policy.estimators import Rounds, Terms, estimator_terms
from recsys.off_policy.intervals import bernstein_half_width, bernstein_interval, bootstrap_terms
from recsys.off_policy.reward_model import RewardEstimates
from recsys.off_policy.tuning import Rule, choose_level
from recsys.off_policy.weights import CLIP, clip, pull_to_one, shrink_optimistically, switch_off
from tests.helpers.bandit_world import make_world, random_log, replay_slowly


def values_of(found: PolicyEvaluation) -> dict[str, float]:
    return {one.name: one.value for one in found.estimates}


def evaluate(log: BanditLog, dist: Values, *names: str, **levels: float) -> dict[str, float]:
    given = {name.replace("_", "-"): level for name, level in levels.items()}
    predicted = np.random.default_rng(5).random(dist.shape)
    return values_of(
        evaluate_policy(log, dist, reward_model=predicted, estimators=names, seed=0, levels=given, n_boot=20)
    )


def test_the_logging_policy_itself_is_worth_its_mean_reward() -> None:
    log, _ = make_world().draw(500, 1)
    found = evaluate_policy(
        log, make_world().logging(log.context), estimators=["ips", "snips"], seed=0, n_boot=50
    )
    for one in found.estimates:
        assert one.value == pytest.approx(log.rewards.mean(), abs=1e-12)
        assert one.ess == pytest.approx(500)
    assert found.overlap.mean_weight.value == pytest.approx(1)
    assert found.logged.value == log.rewards.mean() and found.notes == ()


def test_each_estimate_is_its_formula() -> None:
    log, dist = random_log(3)
    predicted = np.random.default_rng(5).random(dist.shape)
    rows = np.arange(len(log))
    w = dist[rows, log.actions] / log.propensities
    q, v, r = predicted[rows, log.actions], (dist * predicted).sum(axis=1), log.rewards
    found = evaluate(
        log, dist, *ESTIMATORS, clipped_ips=3.0, switch_dr=3.0, dros=3.0, sub_gaussian_ips=0.3, sub_gaussian_dr=0.3
    )  # fmt: skip
    soft = np.divide(w, 0.7 + 0.3 * w)
    assert found == pytest.approx(
        {
            "replay": (dist[rows, log.actions] * r).sum() / dist[rows, log.actions].sum(),
            "ips": (w * r).mean(),
            "snips": (w * r).sum() / w.sum(),
            "clipped-ips": (np.minimum(w, 3) * r).mean(),
            "sub-gaussian-ips": (soft * r).mean(),
            "dm": v.mean(),
            "dr": (v + w * (r - q)).mean(),
            "sndr": v.mean() + (w * (r - q)).sum() / w.sum(),
            "switch-dr": (v + w * (w <= 3) * (r - q)).mean(),
            "dros": (v + 3 * w / (w**2 + 3) * (r - q)).mean(),
            "sub-gaussian-dr": (v + soft * (r - q)).mean(),
        },
        rel=1e-9,
    )


def test_replay_is_what_reading_row_by_row_finds() -> None:
    log, _ = random_log(1, rows=300)
    sure = np.eye(4)[np.random.default_rng(0).integers(4, size=300)]
    assert evaluate(log, sure, "replay")["replay"] == pytest.approx(
        replay_slowly(log, sure, np.random.default_rng(0))
    )


def test_replay_of_a_drawing_policy_is_the_mean_over_its_draws() -> None:
    log, dist = random_log(1, rows=120)
    rng = np.random.default_rng(0)
    draws = [replay_slowly(log, dist, rng) for _ in range(60)]
    assert evaluate(log, dist, "replay")["replay"] == pytest.approx(
        np.mean(draws), abs=4 * float(np.std(draws)) / math.sqrt(60)
    )


def test_doubly_robust_is_ips_where_the_model_says_zero_and_dm_where_it_knows_all() -> None:
    log, dist = random_log(2)
    nothing = evaluate_policy(
        log, dist, reward_model=np.zeros_like(dist), estimators=["dr", "ips"], seed=0, n_boot=20
    )
    assert values_of(nothing)["dr"] == values_of(nothing)["ips"]
    known = np.zeros_like(dist)
    known[np.arange(len(log)), log.actions] = log.rewards
    found = values_of(
        evaluate_policy(log, dist, reward_model=known, estimators=["dr", "dm", "sndr"], seed=0, n_boot=20)
    )
    assert found["dr"] == found["dm"] == found["sndr"]


@pytest.mark.parametrize("name", ["switch-dr", "dros"])
def test_shrinking_leads_from_doubly_robust_to_the_model_alone(name: str) -> None:
    log, dist = random_log(4)
    key = name.replace("-", "_")
    found = evaluate(log, dist, "dm", "dr", name, **{key: 0.0})
    assert found[name] == pytest.approx(found["dm"], rel=1e-12)
    assert evaluate(log, dist, name, **{key: math.inf})[name] == found["dr"]
    assert evaluate(log, dist, name, **{key: 1e30})[name] == pytest.approx(found["dr"])


def test_clipping_leads_from_ips_to_nothing() -> None:
    log, dist = random_log(4)
    assert evaluate(log, dist, "clipped-ips", clipped_ips=0.0)["clipped-ips"] == 0
    found = evaluate(log, dist, "clipped-ips", "ips", clipped_ips=math.inf)
    assert found["clipped-ips"] == found["ips"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1e12), st.floats(0, 1))
def test_shrunk_weights_stay_between_nothing_and_what_they_were(
    seed: int, level: float, share: float
) -> None:
    weights = np.append(10.0 ** np.random.default_rng(seed).uniform(-9, 9, 20), 0.0)
    for shrunk in (
        clip(weights, level),
        switch_off(weights, level),
        shrink_optimistically(weights, level),
    ):
        assert (shrunk >= 0).all() and (shrunk <= weights).all()
    pulled = pull_to_one(weights, share)
    assert (np.abs(np.log(pulled[:-1])) <= np.abs(np.log(weights[:-1])) + 1e-9).all() and pulled[-1] == 0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_any_propensities_give_numbers(seed: int, in_clusters: bool) -> None:
    log, dist = random_log(seed, clusters=12 if in_clusters else None)
    found = evaluate_policy(log, dist, seed=0, n_boot=30)
    for one in found.estimates:
        assert np.isfinite([one.value, one.low, one.high, one.ess, one.bias_bound]).all(), one
        assert one.low <= one.high
        if one.bernstein is not None:
            assert one.bernstein[0] <= one.value <= one.bernstein[1]
    assert json.loads(json.dumps([one.to_report() for one in found.estimates], allow_nan=False))
    assert json.loads(json.dumps(found.overlap.to_report(), allow_nan=False))


def test_the_same_seed_gives_the_same_bits() -> None:
    log, dist = make_world().draw(200, 0)
    first, again, other = (evaluate_policy(log, dist, seed=seed, n_boot=50) for seed in (0, 0, 1))
    assert first.estimates == again.estimates != other.estimates
    assert first.table().loc["dr", "value"] == values_of(first)["dr"]
    assert first.table().index.tolist() == list(ESTIMATORS)


def test_a_policy_that_the_log_never_followed_has_no_replay_and_says_so() -> None:
    log, _ = make_world().draw(100, 0)
    unseen = np.zeros((100, 5))
    unseen[np.arange(100), (log.actions + 1) % 5] = 1
    found = evaluate_policy(log, unseen, estimators=["replay", "snips", "ips", "dm"], seed=0, n_boot=50)
    by_name = {one.name: one for one in found.estimates}
    assert math.isnan(by_name["replay"].value) and math.isnan(by_name["snips"].low)
    assert by_name["replay"].to_report()["value"] is None and by_name["ips"].value == 0
    assert found.overlap.share_without_support == 1 and found.overlap.ess == 0
    assert any("mean weight is 0.000" in note for note in found.notes)
    assert any("worth 0 rows" in note for note in found.notes)
    assert any("replay is biased" in note for note in found.notes)


def test_overlap_counts_what_the_arrays_hold() -> None:
    log = BanditLog(
        np.array([0, 0, 1, 1]),
        np.array([1.0, 0, 0, 1]),
        np.array([0.5, 0.5, 0.25, 0.5]),
        np.zeros(4, dtype=np.int64),
        np.zeros((4, 0)),
        3,
    )
    dist = np.array([[0.5, 0.25, 0.25], [0.5, 0.5, 0.0], [0.25, 0.5, 0.25], [1.0, 0.0, 0.0]])
    found = evaluate_policy(log, dist, estimators=["ips"], seed=0, n_boot=50).overlap
    assert found.ess == pytest.approx((1 + 1 + 2) ** 2 / (1 + 1 + 4))
    assert (found.max_weight, found.mean_weight.value, found.share_without_support) == (2, 1, 0.25)
    assert found.mass_never_logged == pytest.approx(0.5 / 4)
    assert found.counts.sum() == 3 and found.counts[0] == 2 and found.counts[-1] == 1
    assert found.edges[0] == 0 and found.edges[-1] == pytest.approx(math.log(2))


def test_slots_pick_their_own_distribution() -> None:
    log, dist = random_log(6)
    by_slot = np.stack([dist, dist[:, ::-1]], axis=2)
    own = np.where(log.positions[:, None] == 0, dist, dist[:, ::-1])
    assert evaluate(log, by_slot, "ips") == evaluate(log, own, "ips")


def test_the_bootstrap_of_a_mean_is_normal_and_clusters_count_as_one() -> None:
    values = np.random.default_rng(0).normal(2, 3, size=3000)
    one = Terms(np.zeros(3000), values, None, values, None)
    (low, high), *_ = bootstrap_terms([one], None, seed=0, n_boot=2000, level=0.95)
    half = 1.96 * values.std() / math.sqrt(3000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    twice = Terms(np.zeros(6000), np.repeat(values, 2), None, values, None)
    pairs = np.repeat(np.arange(3000), 2)
    (wide_low, wide_high), *_ = bootstrap_terms([twice], pairs, seed=0, n_boot=2000, level=0.95)
    assert (wide_low, wide_high) == pytest.approx((low, high))


def test_a_long_log_is_drawn_in_bundles_with_the_same_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).exponential(size=4000)
    one = Terms(np.zeros(4000), values, None, values, None)
    whole = bootstrap_terms([one], None, seed=0, n_boot=1000, level=0.95)[0]
    monkeypatch.setattr("recsys.off_policy.intervals.MOST_UNITS", 500)
    bundled = bootstrap_terms([one], None, seed=0, n_boot=1000, level=0.95)[0]
    assert np.ptp(bundled) == pytest.approx(np.ptp(whole), rel=0.15)


def test_bernstein_widths_are_the_theorems() -> None:
    values = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    log_term = math.log(4 / 0.05)
    expected = math.sqrt(2 * values.var(ddof=1) * log_term / 5) + 7 * log_term / (3 * 4)
    assert bernstein_half_width(values, 1.0, level=0.95) == pytest.approx(expected)
    assert bernstein_half_width(values[:1], 1.0, level=0.95) == math.inf
    terms = Terms(np.zeros(5), values, None, values, 1.0)
    assert bernstein_interval(terms, None, level=0.95) == pytest.approx((0.6 - expected, 0.6 + expected))
    alone = bernstein_interval(terms, np.arange(5), level=0.95)
    assert alone == pytest.approx((0.6 - expected, 0.6 + expected))
    assert bernstein_interval(terms._replace(denominator=values), None, level=0.95) is None


def test_clipping_states_its_share_and_a_bound_on_its_bias() -> None:
    log, dist = make_world().draw(400, 0)
    found = evaluate_policy(
        log, dist, estimators=["ips", "clipped-ips"], levels={"clipped-ips": 1.5}, seed=0, n_boot=20
    )
    plain, clipped = found.estimates
    weights = dist[np.arange(400), log.actions] / log.propensities
    assert clipped.level == 1.5 and clipped.share_shrunk == (weights > 1.5).mean() > 0
    assert plain.level is None and plain.share_shrunk == plain.bias_bound == 0
    assert abs(plain.value - clipped.value) <= clipped.bias_bound + 1e-12
    assert clipped.ess > plain.ess


CLIPPED = ESTIMATORS["clipped-ips"]
RULES: tuple[Rule, ...] = ("bound", "mse", "slope")


def rounds_with(weights: Values, rewards: Values) -> Rounds:
    zeros = np.zeros_like(weights)
    return Rounds(weights, zeros, rewards, RewardEstimates(zeros, zeros, np.zeros_like))


def test_a_huge_weight_without_bearing_is_cut_unless_safety_counts() -> None:
    rng = np.random.default_rng(0)
    rewards = (rng.random(20_000) < 0.5).astype(float)
    rewards[-1] = 0.0
    spiked = rounds_with(np.append(np.ones(19_999), 19_000.0), rewards)
    plain = estimator_terms(CLIPPED, spiked, None).value()
    for rule in RULES:
        level = choose_level(CLIPPED, spiked, rule)
        assert estimator_terms(CLIPPED, spiked, level).value() == pytest.approx(plain)
    rewards[-1] = 1.0
    assert choose_level(CLIPPED, spiked, "slope") == 1
    assert choose_level(CLIPPED, spiked, "bound") == math.inf


def test_each_rule_takes_the_level_that_its_definition_takes() -> None:
    rng = np.random.default_rng(3)
    weights = np.exp(rng.normal(size=4000)) / math.exp(0.5)
    rounds = rounds_with(weights, (rng.random(4000) < 0.3).astype(float))
    levels = CLIP.candidates(weights)
    values, errors, biases = [], [], []
    for level in levels:
        kept = np.minimum(weights, level) * rounds.rewards
        values.append(kept.mean())
        errors.append(kept.std(ddof=1) / math.sqrt(4000))
        biases.append(abs((weights * rounds.rewards - kept).mean()))
    assert choose_level(CLIPPED, rounds, "mse") == levels[np.argmin(np.square(errors) + np.square(biases))]
    met = [
        max(values[j] - 2 * errors[j] for j in range(i + 1))
        <= min(values[j] + 2 * errors[j] for j in range(i + 1))
        for i in range(len(levels))
    ]
    assert choose_level(CLIPPED, rounds, "slope") == levels[max(i for i, holds in enumerate(met) if holds)]
    assert choose_level(ESTIMATORS["ips"], rounds, "slope") == math.inf


def test_a_model_based_estimator_without_its_model_is_refused() -> None:
    rounds = rounds_with(np.ones(3), np.ones(3))._replace(model=None)
    with pytest.raises(PolicyError, match="must be given one; got None beside 3 rewards"):
        estimator_terms(ESTIMATORS["dr"], rounds, None)


def test_arguments_that_do_not_fit_are_refused() -> None:
    log, dist = random_log(0)
    with pytest.raises(PolicyError, match=r"one or more of replay, .*; got \['best'\]"):
        evaluate_policy(log, dist, estimators=["best"], seed=0)
    with pytest.raises(PolicyError, match="got none"):
        evaluate_policy(log, dist, estimators=[], seed=0)
    with pytest.raises(PolicyError, match=r"shrink weights \(\['dros'\]\); got 'ips'"):
        evaluate_policy(log, dist, estimators=["ips", "dros"], levels={"ips": 3}, seed=0)
    with pytest.raises(PolicyError, match=r"level of `dros` must lie in 0\.\.inf; got -1"):
        evaluate_policy(log, dist, estimators=["dros"], levels={"dros": -1}, seed=0)
    with pytest.raises(PolicyError, match=r"`sub-gaussian-ips` must lie in 0\.\.1; got 2"):
        evaluate_policy(log, dist, estimators=["sub-gaussian-ips"], levels={"sub-gaussian-ips": 2}, seed=0)
    with pytest.raises(ShapeError, match=re.escape("shape (60, 4) or (60, 4, 2); got (60, 3)")):
        evaluate_policy(log, dist[:, :3], seed=0)
    with pytest.raises(ShapeError, match=re.escape("shape (60, 4); got shape (60, 3) with 180 finite")):
        evaluate_policy(log, dist, reward_model=np.zeros((60, 3)), seed=0)
    wrong = dist.copy()
    wrong[7] *= 2
    with pytest.raises(InteractionError, match=r"must sum to 1; got 2\.0\d* in row 7"):
        evaluate_policy(log, wrong, seed=0)
    wrong[7] = [2, -1, 0, 0]
    with pytest.raises(InteractionError, match=r"probabilities of 0 or more; got -1\.0 in row 7"):
        evaluate_policy(log, wrong, seed=0)
    wrong[7] = np.nan
    with pytest.raises(InteractionError, match=r"probabilities of 0 or more; got nan in row 7"):
        evaluate_policy(log, wrong, seed=0)
    with pytest.raises(PolicyError, match=r"in 0\.\.1 for `link` logit; got -"):
        evaluate_policy(log, dist, reward_model=RewardConfig(link="logit"), seed=0)
