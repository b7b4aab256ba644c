import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from recsys.errors import MissingDependency
from recsys.features import FeatureTable
from recsys.metrics import exact_level_nll
from recsys.models.pointwise import (
    PRIOR_ROWS,
    AdditiveLogistic,
    BoostedTrees,
    ItemRates,
    Rows,
    fall_along_levels,
)
from recsys.types import histories_from_log
from tests.helpers.contest_world import make_dataset

NONE = Rows(*(np.empty(0, dtype=np.int64) for _ in range(3)))


def drawn_rows(n: int, *, seed: int, users: int = 30, items: int = 12) -> Rows:
    """Rows whose level depends on a weight of the user and one of the item, by an additive logistic model."""
    truth = np.random.default_rng(0)
    likes, appeal = 1.5 * truth.normal(size=users), 1.5 * truth.normal(size=items)
    rng = np.random.default_rng(seed)
    user, item = rng.integers(users, size=n), rng.integers(items, size=n)
    score = (likes[user] + appeal[item])[:, None] - np.array([0.0, 1.5])
    return Rows(user, item, (rng.random(n)[:, None] < expit(score)).cumprod(axis=1).sum(axis=1))


def test_rates_are_counts_drawn_to_those_of_the_log() -> None:
    train = Rows(np.array([0, 1, 2, 3]), np.array([0, 0, 0, 1]), np.array([2, 1, 0, 0]))
    model = ItemRates.fit(train, NONE, n_items=3, levels=2)
    prior, rates = PRIOR_ROWS[len(PRIOR_ROWS) // 2], np.array([(2 + 0.5) / 5, (1 + 0.5) / 5])
    expected = [(np.array([2, 1]) + prior * rates) / (3 + prior), prior * rates / (1 + prior), rates]
    assert model.foretell(np.array([0, 1, 2])) == pytest.approx(np.array(expected), rel=1e-6)


def test_the_prior_is_chosen_by_the_validation() -> None:
    train, validation = drawn_rows(300, seed=1), drawn_rows(300, seed=2)
    chosen = ItemRates.fit(train, validation, n_items=12, levels=2)
    losses = [
        exact_level_nll(
            ItemRates(chosen.reached, chosen.rows, chosen.rates, prior).foretell(validation.items),
            validation.levels,
        )
        for prior in PRIOR_ROWS
    ]
    assert chosen.prior_rows == PRIOR_ROWS[int(np.argmin(losses))]


def test_refreshed_rates_count_other_rows_with_the_same_prior() -> None:
    train, later = drawn_rows(100, seed=1), drawn_rows(200, seed=2)
    model = ItemRates.fit(train, NONE, n_items=12, levels=2).refreshed(later)
    assert model.rows.sum() == 200
    assert model.rates.tolist() == ItemRates.fit(train, NONE, n_items=12, levels=2).rates.tolist()


def test_the_regression_finds_the_model_that_drew_the_rows() -> None:
    train, test = drawn_rows(6000, seed=1), drawn_rows(2000, seed=2)
    blank = FeatureTable.empty(30), FeatureTable.empty(12)
    model = AdditiveLogistic.fit(train, drawn_rows(500, seed=3), levels=2, users=blank[0], items=blank[1])
    found = model.foretell(test.users, test.items)
    rates = ItemRates.fit(train, NONE, n_items=12, levels=2).foretell(test.items)
    assert exact_level_nll(found, test.levels) < exact_level_nll(rates, test.levels) - 0.1
    assert (np.diff(found, axis=1) <= 0).all()
    happened = (test.levels[:, None] >= [1, 2]).mean(0)
    assert found.mean(0) == pytest.approx(happened, abs=0.03)


def test_a_user_whom_training_did_not_see_is_what_the_features_say() -> None:
    train = drawn_rows(3000, seed=1)
    side = FeatureTable.of_dense(np.linspace(-1, 1, 31)[:, None])
    model = AdditiveLogistic.fit(train, NONE, levels=2, users=side, items=FeatureTable.empty(12))
    found = model.foretell(np.array([30]), np.array([4]))[0]
    weights = model.weights[[31 + 4]] + side.dense[30] * model.weights[[-1]]
    assert found == pytest.approx(np.minimum.accumulate(expit(weights[0] + model.constants)), rel=1e-5)
    assert model.weights[30].tolist() == [0.0, 0.0]


def test_saved_models_foretell_the_same(tmp_path: Path) -> None:
    dataset = make_dataset()
    train = Rows.of(dataset.log)
    rates = ItemRates.fit(train, NONE, n_items=40, levels=3)
    rates.save(tmp_path / "rates")
    assert np.array_equal(
        ItemRates.load(tmp_path / "rates").foretell(train.items), rates.foretell(train.items)
    )
    side = FeatureTable.of_dense(np.arange(60.0)[:, None] / 60)
    model = AdditiveLogistic.fit(train, NONE, levels=3, users=side, items=FeatureTable.empty(40))
    model.save(tmp_path / "logistic")
    loaded = AdditiveLogistic.load(tmp_path / "logistic")
    assert np.array_equal(loaded.foretell(train.users, train.items), model.foretell(train.users, train.items))
    assert loaded.ridge == model.ridge


@pytest.mark.integration
def test_trees_learn_what_statistics_tell_and_are_the_same_for_the_same_seed() -> None:
    train, judged, test = (drawn_rows(n, seed=n) for n in (4000, 800, 1500))
    first, again = (
        BoostedTrees.fit(train, judged, shape=(30, 12), levels=2, seed=0).foretell(test.users, test.items)
        for _ in range(2)
    )
    assert np.array_equal(first, again)
    rates = ItemRates.fit(train, NONE, n_items=12, levels=2).foretell(test.items)
    assert exact_level_nll(first, test.levels) < exact_level_nll(rates, test.levels) - 0.05
    assert (np.diff(first, axis=1) <= 0).all()


@pytest.mark.integration
def test_trees_give_a_level_of_one_class_its_rate() -> None:
    train = drawn_rows(300, seed=1)
    model = BoostedTrees.fit(
        train._replace(levels=np.minimum(train.levels, 1)), NONE, shape=(30, 12), levels=2, seed=0
    )
    assert model.trees[1] is None
    assert model.foretell(train.users, train.items)[:, 1].max() <= 0.5 / 301 + 1e-6


def test_trees_without_their_package_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(MissingDependency, match=r"`scikit-learn` must be installed for boosted trees"):
        BoostedTrees.fit(NONE, NONE, shape=(1, 1), levels=1, seed=0)


def test_deeper_levels_are_held_below_shallower_ones() -> None:
    assert fall_along_levels(np.array([[0.2, 0.9, 0.1]])).tolist() == [
        pytest.approx([0.2, 0.2, 0.1]),
    ]


def test_rows_of_histories_are_those_of_the_log() -> None:
    log = make_dataset().log
    found = Rows.of_histories(histories_from_log(log, range(60), 40))
    ordered = log.sort_values(["user_id", "item_id"])
    assert [part.tolist() for part in found] == [part.tolist() for part in Rows.of(ordered)]
