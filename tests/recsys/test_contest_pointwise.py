import numpy as np
import pytest

from recsys.metrics import auc, exact_level_nll, grouped_auc, level_metrics
from recsys.metrics.calibration import brier_score, log_loss
from recsys.recipes.contest_data import Contest
from recsys.recipes.contest_pointwise import auc_draws, draw_users, level_draws, measure_chances
from tests.helpers.contest_world import make_contest


@pytest.fixture(name="contest", scope="module")
def a_contest() -> Contest:
    return make_contest()


def chances_of(contest: Contest, seeds: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (seeds, len(contest.test.rows), contest.levels)
    return -np.sort(-rng.random(shape), axis=2)


def test_resamples_are_the_metrics_of_a_log_in_which_users_stand_as_often_as_drawn() -> None:
    rng = np.random.default_rng(3)
    rows = rng.integers(6, size=80) * 2  # ids with gaps
    p, happened = np.round(rng.random(80), 1), rng.random(80) < 0.4
    drawn = draw_users(rows, seed=1)
    whole = level_metrics(p[:, None], happened.astype(np.int64), rows)[0]
    found = level_draws(p, happened, whole, drawn)
    for place in range(5):
        times = drawn.counts[place].astype(int)[drawn.owner]
        again = np.repeat(np.arange(80), times)
        assert found["auc"][place] == pytest.approx(auc(p[again], happened[again]))
        assert found["log_loss"][place] == pytest.approx(log_loss(p[again], happened[again]))
        assert found["brier"][place] == pytest.approx(brier_score(p[again], happened[again]))
        # A user drawn twice is two users.
        copy = np.concatenate([np.arange(count) for count in times])
        alone = grouped_auc(p[again], happened[again], rows[again] + 100 * copy)
        assert found["gauc"][place] == pytest.approx(alone.mean)


def test_a_calibration_error_is_drawn_in_the_bins_of_the_whole() -> None:
    rows, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.9, 0.1, 0.9])
    happened = np.array([False, True, True, False])
    drawn = draw_users(rows, seed=0)
    whole = level_metrics(p[:, None], happened.astype(np.int64), rows)[0]
    found = level_draws(p, happened, whole, drawn)["ece_width"]
    # User 0 alone is off by .1 in either bin, user 1 alone by .9, both together by .4.
    expected = {2: 0.1, 1: 0.4, 0: 0.9}
    assert found == pytest.approx([expected[int(first)] for first in drawn.counts[:, 0]])


def test_a_resample_with_one_class_has_no_auc() -> None:
    drawn = draw_users(np.array([0, 1]), seed=0)
    found = auc_draws(np.array([0.2, 0.8]), np.array([False, True]), drawn)
    both = (drawn.counts > 0).all(1)
    assert np.isnan(found[~both]).all() and (found[both] == 1.0).all()


def test_figures_are_means_over_seeds(contest: Contest) -> None:
    chances, asked = chances_of(contest, 2), contest.test
    found = measure_chances(asked, chances, seed=0)
    assert found["rows"] == len(asked.rows) and found["users"] == len(asked.users)
    expected = np.mean([exact_level_nll(own, asked.levels) for own in chances])
    assert found["nll"]["value"] == pytest.approx(expected)
    for place, level in enumerate(found["levels"]):
        happened = asked.levels >= place + 1
        own = [auc(one[:, place], happened) for one in chances]
        assert level["metrics"]["auc"]["value"] == pytest.approx(np.mean(own))
        low, high = level["metrics"]["log_loss"]["ci95"]
        assert low < level["metrics"]["log_loss"]["value"] < high
        assert sum(level["curve"]["rows"]) == 2 * len(asked.rows)
        assert level["rate"] == happened.mean()


def test_a_level_that_every_row_reached_has_no_auc_but_a_loss(contest: Contest) -> None:
    asked = contest.test._replace(levels=np.maximum(contest.test.levels, 1))
    found = measure_chances(asked, chances_of(contest, 1), seed=0)["levels"][0]["metrics"]
    assert found["auc"]["value"] is None and found["gauc"]["value"] is None
    assert found["log_loss"]["value"] > 0


def test_same_seed_same_figures(contest: Contest) -> None:
    first, again = (measure_chances(contest.test, chances_of(contest, 2), seed=7) for _ in range(2))
    assert first == again
