"""AUC of answers, and the position slope: by hand, and scikit-learn as the twin."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from simulators.errors import FaithfulnessError
from simulators.faithfulness import acceptance_auc, compare_position_bias
from simulators.faithfulness.acceptance import weighted_auc
from simulators.faithfulness.position import logistic_slope

RNG = np.random.default_rng(0)


def test_weighted_auc_equals_repeating_rows() -> None:
    scores, happened = RNG.integers(4, size=30).astype(float), RNG.random(30) < 0.4
    weights = RNG.integers(3, size=(5, 30)).astype(float)
    found = weighted_auc(scores, happened.astype(float), weights)
    for row, own in zip(found, weights.astype(int), strict=True):
        assert row == pytest.approx(roc_auc_score(np.repeat(happened, own), np.repeat(scores, own)))
    assert np.isnan(weighted_auc(scores, np.ones(30), weights)).all()


def test_yes_to_everything_knows_nothing() -> None:
    accepted = np.arange(200) % 5 == 0
    found = acceptance_auc(np.full(200, 4), accepted, np.arange(200) % 20, seed=0)
    assert (found.pooled.value, found.pooled.low, found.pooled.high) == (0.5, 0.5, 0.5)
    assert accepted.mean() == 0.2 and found.pairs == 200 and found.pooled.n == 20


def test_within_user_sees_through_generous_users() -> None:
    # User 1 accepts twice as much and gets higher answers for all, yet among own items the answers say nothing.
    users = np.repeat([0, 1], 300)
    accepted = np.concatenate([RNG.random(300) < 0.2, RNG.random(300) < 0.8])
    found = acceptance_auc(users + 0.01 * RNG.random(600), accepted, users, seed=0)
    assert found.pooled.value > 0.7
    assert found.within_user is not None and found.within_user.value == pytest.approx(0.5, abs=0.06)


def test_interval_covers_and_follows_the_seed() -> None:
    answers = RNG.random(400)
    accepted = RNG.random(400) < answers
    found = acceptance_auc(answers, accepted, np.arange(400), seed=1)
    assert found.pooled.low < roc_auc_score(accepted, answers) < found.pooled.high
    assert found == acceptance_auc(answers, accepted, np.arange(400), seed=1)


@pytest.mark.parametrize("accepted", [[True, True], [False, False]])
def test_one_class_is_refused(accepted: list[bool]) -> None:
    with pytest.raises(FaithfulnessError, match=f"got {sum(accepted)} accepted of 2"):
        acceptance_auc([0.1, 0.2], accepted, ["a", "b"], seed=0)


def test_slope_equals_a_logistic_regression_on_rows() -> None:
    x = np.log1p(np.arange(5.0))
    trials, success = np.array([40.0, 50, 60, 30, 20]), np.array([30.0, 30, 25, 10, 3])
    rows = np.concatenate([np.repeat(x, success.astype(int)), np.repeat(x, (trials - success).astype(int))])
    twin = LogisticRegression(C=np.inf).fit(rows[:, None], np.arange(len(rows)) < success.sum())
    found = logistic_slope(np.concatenate([success, trials])[None], x)
    assert found[0] == pytest.approx(twin.coef_[0, 0], rel=2e-3)


def test_slope_of_two_positions_is_a_difference_of_logits() -> None:
    # 3 of 4 at x = 0, 1 of 4 at x = 1: logit(1/4) - logit(3/4), less what the weak prior takes.
    found = logistic_slope(np.array([[3000.0, 1000.0, 4000.0, 4000.0]]), np.array([0.0, 1.0]))
    assert found[0] == pytest.approx(-2 * np.log(3), abs=1e-4)


def test_slope_stays_finite_where_everything_is_opened() -> None:
    assert logistic_slope(
        np.array([[5.0, 5.0, 5.0, 5.0], [0.0, 0, 5, 5]]), np.array([0.0, 1.0])
    ) == pytest.approx(0)


def test_a_reader_of_tops_differs_from_one_who_reads_all() -> None:
    users, position = np.repeat(np.arange(300), 10), np.tile(np.arange(10), 300)
    fading = RNG.random(3000) < 1 / (1 + np.exp(0.5 + 0.6 * np.log1p(position)))
    even = RNG.random(3000) < 0.25
    found = compare_position_bias((users, position, even), (users, position, fading), seed=0, n_boot=200)
    assert found.real.low < -0.6 < found.real.high
    assert found.gap.low > 0.2 and found.positions.tolist() == list(range(10))


@pytest.mark.parametrize(
    ("position", "said"),
    [([0, -1], r"got \[-1.0\] on the simulated"), ([2, 2], "got 1 on the simulated side")],
)
def test_positions_that_are_none_are_refused(position: list[int], said: str) -> None:
    with pytest.raises(FaithfulnessError, match=said):
        compare_position_bias((["a", "b"], position, [1, 0]), (["a", "b"], [0, 1], [1, 0]), seed=0)


def test_binning_for_the_interval_hardly_moves_it() -> None:
    # A thousand distinct answers are cut into 512 bins; rounding them to 500 needs no bins.
    answers, users = RNG.random(3000), np.arange(3000) % 300
    accepted = RNG.random(3000) < answers
    fine = acceptance_auc(answers, accepted, users, seed=0).pooled
    coarse = acceptance_auc(np.round(answers * 500), accepted, users, seed=0).pooled
    assert fine.low == pytest.approx(coarse.low, abs=2e-3) and fine.high == pytest.approx(
        coarse.high, abs=2e-3
    )
    assert fine.value == pytest.approx(roc_auc_score(accepted, answers)) and fine.n == 300
