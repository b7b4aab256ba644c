import numpy as np
import pytest

from recsys.data.dataset import Entities, FeatureKind
from recsys.metrics import (
    catalogue_coverage,
    item_popularity,
    keep_items,
    ndcg_at_k,
    novelty,
    popularity_lift,
    recall_at_k,
    slice_items,
)
from recsys.recipes.contest_data import Contest
from recsys.recipes.contest_measures import as_measure, item_tags, measure_lists, measure_tables
from recsys.significance import bootstrap_interval
from recsys.types import Ints, relevant_items
from tests.helpers.contest_world import GENRES, make_contest


@pytest.fixture(name="contest", scope="module")
def a_contest() -> Contest:
    return make_contest()


@pytest.fixture(name="lists", scope="module")
def some_lists(contest: Contest) -> Ints:
    """Random lists of 8 for two seeds."""
    rng = np.random.default_rng(0)
    shape = (2, len(contest.test.users), contest.n_items)
    return np.argsort(rng.random(shape), axis=2)[:, :, :8].astype(np.int64)


def test_figures_are_means_over_seeds_of_the_metrics(contest: Contest, lists: Ints) -> None:
    found = measure_lists(contest, lists, cutoffs=(4, 8), seed=0)
    relevant = relevant_items(contest.test.target, 1)
    by_hand = [ndcg_at_k(own, relevant, 4) for own in lists]
    assert found.metrics["ndcg@4"]["value"] == pytest.approx(np.mean([one.values for one in by_hand]))
    assert found.metrics["recall@8"]["value"] == pytest.approx(
        np.mean([recall_at_k(own, relevant, 8).values for own in lists])
    )
    assert found.metrics["ndcg@4"]["n"] == len(by_hand[0].users)
    assert np.array_equal(found.main, np.stack([one.values for one in by_hand]))
    low, high = found.metrics["ndcg@4"]["ci95"]
    assert low < found.metrics["ndcg@4"]["value"] < high


def test_with_one_seed_the_interval_is_the_bootstrap_over_users() -> None:
    values = np.random.default_rng(1).random((1, 50))
    found = measure_tables({"a": values, "b": 1 - values}, seed=5)
    expected = bootstrap_interval(values[0], seed=5)
    assert found["a"]["ci95"] == pytest.approx([expected.low, expected.high])
    # Both tables meet the same draws, so that what one gains the other loses.
    assert found["b"]["ci95"] == pytest.approx([1 - expected.high, 1 - expected.low])


def test_seeds_that_differ_widen_the_interval() -> None:
    one = np.random.default_rng(2).random((1, 400))
    apart = measure_tables({"a": np.concatenate([one - 0.3, one, one + 0.3])}, seed=0)["a"]["ci95"]
    alike = measure_tables({"a": np.concatenate([one, one, one])}, seed=0)["a"]["ci95"]
    assert apart[1] - apart[0] > 3 * (alike[1] - alike[0])


def test_slices_of_items_count_their_own_relevant_items_alone(contest: Contest, lists: Ints) -> None:
    found = measure_lists(contest, lists[:1], cutoffs=(4,), seed=0).slices
    mask = slice_items(contest.train)["tail"]
    by_hand = ndcg_at_k(lists[0], keep_items(relevant_items(contest.test.target, 1), mask), 4)
    assert found["tail"]["ndcg@4"]["value"] == pytest.approx(by_hand.values.mean())
    assert found["tail"]["ndcg@4"]["n"] == len(by_hand.users)


def test_slices_of_users_add_up_to_all_users(contest: Contest, lists: Ints) -> None:
    found = measure_lists(contest, lists[:1], cutoffs=(4,), seed=0)
    parts = [
        part for name, part in found.slices.items() if name == "cold_users" or name.startswith("activity")
    ]
    total = sum(part["recall@4"]["value"] * part["recall@4"]["n"] for part in parts)
    whole = found.metrics["recall@4"]
    assert total / whole["n"] == pytest.approx(whole["value"])


def test_beyond_accuracy_is_counted_over_users_that_train_knows(contest: Contest, lists: Ints) -> None:
    found = measure_lists(contest, lists, cutoffs=(4,), seed=0).beyond
    assert found["coverage@4"] == {
        "value": pytest.approx(np.mean([catalogue_coverage(own, contest.n_items, 4) for own in lists])),
        "ci95": None,
        "n": len(contest.test.users),
    }
    trained = contest.train[np.flatnonzero(np.diff(contest.train.indptr))]
    expected = np.mean([novelty(own, trained, 4).values.mean() for own in lists])
    assert found["novelty@4"]["value"] == pytest.approx(expected)
    lift = popularity_lift(lists[0], contest.test.known, item_popularity(contest.train), 4)
    alone = measure_lists(contest, lists[:1], cutoffs=(4,), seed=0).beyond["popularity_lift@4"]
    assert alone["value"] == pytest.approx(lift.value)
    assert alone["ci95"][0] < lift.value < alone["ci95"][1]
    assert {"diversity@4", "genre_calibration@4"} <= found.keys()


def test_tags_are_those_of_the_items(contest: Contest) -> None:
    tags = item_tags(contest.dataset.items)
    assert tags is not None
    names = sorted(GENRES)
    for item in range(5):
        found = {names[place] for place in np.flatnonzero(tags[[item]].toarray())}
        assert found == set(contest.dataset.items.features["tags"].iloc[item])
    plain = Entities(
        contest.dataset.items.ids,
        contest.dataset.items.features[["group"]],
        {"group": FeatureKind.CATEGORICAL},
    )
    assert item_tags(plain) is None


def test_what_is_not_finite_is_none() -> None:
    assert as_measure(float("nan"), (0.0, 1.0), 3) == {"value": None, "ci95": None, "n": 3}
