import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from recsys.errors import ShapeError
from recsys.metrics import (
    PerUser,
    catalogue_coverage,
    exposure_entropy,
    exposure_gini,
    genre_calibration,
    intra_list_diversity,
    item_popularity,
    novelty,
    popularity_lift,
)
from recsys.types import Histories, Ints
from tests.helpers import slow_metrics

USERS, ITEMS = 9, 12


def draw_lists(seed: int) -> tuple[Ints, Histories]:
    """Lists of 6 places, some padded or empty, and histories, some empty; item 11 is met by nobody."""
    rng = np.random.default_rng(seed)
    items = rng.permuted(np.tile(np.arange(ITEMS), (USERS, 1)), axis=1)[:, :6].astype(np.int64)
    items[np.arange(6)[None] >= rng.integers(0, 9, size=(USERS, 1))] = -1
    stored = rng.integers(1, 4, size=(USERS, ITEMS)) * (
        rng.random((USERS, ITEMS)) < rng.choice([0, 0.4], (USERS, 1))
    )
    stored[:, 11] = 0
    return items, csr_array(stored.astype(np.float32))


def check_users(found: PerUser, expected: list[float | None]) -> None:
    """Values equal those of the users that have one, and the others are counted."""
    wanted = {user: value for user, value in enumerate(expected) if value is not None}
    assert found.users.tolist() == list(wanted) and found.skipped == len(expected) - len(wanted)
    np.testing.assert_allclose(found.values, list(wanted.values()), rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), k=st.integers(1, 6))
def test_exposure_equals_its_slow_twins(seed: int, k: int) -> None:
    items, _ = draw_lists(seed)
    counts = slow_metrics.exposure(items.tolist(), ITEMS, k)
    assert catalogue_coverage(items, ITEMS, k) == sum(1 for count in counts if count) / ITEMS
    if sum(counts):
        assert exposure_gini(items, ITEMS, k) == pytest.approx(slow_metrics.gini(counts), abs=1e-12)
        assert exposure_entropy(items, ITEMS, k) == pytest.approx(slow_metrics.entropy(counts), abs=1e-12)


def test_exposure_of_all_alike_and_of_one_alone_are_the_limits() -> None:
    alike, alone = np.arange(8)[:, None], np.zeros((8, 1), dtype=np.int64)
    assert catalogue_coverage(alike, 8, 1) == 1 and catalogue_coverage(alone, 8, 1) == 1 / 8
    assert exposure_gini(alike, 8, 1) == 0 and exposure_gini(alone, 8, 1) == pytest.approx(1 - 1 / 8)
    assert exposure_entropy(alike, 8, 1) == 3 and exposure_entropy(alone, 8, 1) == 0
    empty = np.full((2, 1), -1)
    assert math.isnan(exposure_gini(empty, 8, 1)) and math.isnan(exposure_entropy(empty, 8, 1))
    assert catalogue_coverage(empty, 8, 1) == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), k=st.integers(1, 6))
def test_novelty_and_lift_equal_their_slow_twins(seed: int, k: int) -> None:
    items, histories = draw_lists(seed)
    met = (histories.toarray() > 0).sum(0).tolist()
    assert item_popularity(histories).tolist() == met
    surprise = [-math.log2(max(count, 1) / USERS) for count in met]
    check_users(
        novelty(items, histories, k), [slow_metrics.list_mean(row, surprise, k) for row in items.tolist()]
    )
    lift = popularity_lift(items, histories, item_popularity(histories), k)
    pairs = [
        (
            slow_metrics.list_mean(row, met, k),
            slow_metrics.list_mean(np.flatnonzero(own).tolist(), met, ITEMS),
        )
        for row, own in zip(items.tolist(), histories.toarray(), strict=True)
    ]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    assert lift.skipped == USERS - len(both)
    np.testing.assert_allclose(
        np.stack([lift.in_lists, lift.in_histories], 1).ravel(), [x for p in both for x in p]
    )
    if both:
        assert lift.value == pytest.approx(sum(a for a, _ in both) / sum(b for _, b in both) - 1, abs=1e-12)
    else:
        assert math.isnan(lift.value)


def test_lists_that_are_the_histories_have_no_lift() -> None:
    histories = csr_array(np.array([[1, 1, 0], [0, 1, 1]], dtype=np.float32))
    found = popularity_lift(np.array([[1, 0], [2, 1]]), histories, item_popularity(histories), 2)
    assert found.value == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), k=st.integers(1, 6), sparse=st.booleans())
def test_diversity_equals_going_through_the_pairs(seed: int, k: int, sparse: bool) -> None:
    items, _ = draw_lists(seed)
    vectors = np.random.default_rng(seed).integers(-2, 3, size=(ITEMS, 3)).astype(np.float64)
    found = intra_list_diversity(items, csr_array(vectors) if sparse else vectors, k)
    check_users(found, [slow_metrics.diversity(row, vectors.tolist(), k) for row in items.tolist()])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), k=st.integers(1, 6), smoothing=st.sampled_from([0.01, 0.3]))
def test_genre_calibration_equals_its_slow_twin(seed: int, k: int, smoothing: float) -> None:
    items, histories = draw_lists(seed)
    genres = (np.random.default_rng(seed).random((ITEMS, 4)) < 0.3).astype(np.int64)
    own = [np.flatnonzero(row).tolist() for row in histories.toarray()]
    expected = [
        slow_metrics.genre_divergence(row, mine, genres.tolist(), k, smoothing)
        for row, mine in zip(items.tolist(), own, strict=True)
    ]
    check_users(genre_calibration(items, histories, csr_array(genres), k, smoothing=smoothing), expected)


def test_a_list_with_the_historys_genres_is_calibrated_and_one_with_none_of_them_is_not() -> None:
    genres = np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
    histories = csr_array(np.array([[1, 1, 0, 0], [1, 0, 0, 0]]))
    found = genre_calibration(np.array([[2, 3], [3, 1]]), histories, genres, 2)
    np.testing.assert_allclose(found.values, [0, math.log(100)], atol=1e-12)


def test_arguments_that_do_not_fit_are_refused() -> None:
    items, histories = draw_lists(0)
    with pytest.raises(ShapeError, match=r"at least 7 places .* got shape \(9, 6\)"):
        catalogue_coverage(items, ITEMS, 7)
    with pytest.raises(ShapeError, match=r"rows of the catalogue, 0\.\.10, or -1; got \[11"):
        exposure_gini(np.full((1, 1), 11), 11, 1)
    with pytest.raises(ShapeError, match=r"\(9, 11\); got \(9, 12\)"):
        popularity_lift(items, histories, np.ones(11, dtype=np.int64), 2)
    with pytest.raises(ShapeError, match=r"\(8, 12\); got \(9, 12\)"):
        genre_calibration(items[1:], histories, np.ones((ITEMS, 2)), 2)
    with pytest.raises(ShapeError, match="above 0 and below 1; got 0"):
        genre_calibration(items, histories, np.ones((ITEMS, 2)), 2, smoothing=0)
