import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from recsys.errors import ShapeError
from recsys.metrics import PerUser, keep_items, recall_at_k, slice_items, slice_users, slice_values
from recsys.metrics.slices import SLICES
from recsys.types import Histories


def draw_histories(seed: int) -> Histories:
    rng = np.random.default_rng(seed)
    chance = rng.choice([0.0, 0.1, 0.9], size=(40, 1)) * rng.choice([0.0, 0.2, 1.0], size=(1, 30))
    return csr_array((rng.random((40, 30)) < chance).astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_items_are_cut_where_those_before_hold_a_third_and_two_thirds(seed: int) -> None:
    training = draw_histories(seed)
    count = (training.toarray() > 0).sum(0).tolist()
    expected: dict[str, list[int]] = {"head": [], "torso": [], "tail": [], "cold_items": [], "warm_items": []}
    before = 0
    for item in sorted(range(30), key=lambda i: (-count[i], i)):
        place = 0 if 3 * before < sum(count) else 1 if 3 * before < 2 * sum(count) else 2
        expected["cold_items" if count[item] == 0 else ("head", "torso", "tail")[place]].append(item)
        if count[item]:
            expected["warm_items"].append(item)
        before += count[item]
    found = slice_items(training)
    assert {name: np.flatnonzero(mask).tolist() for name, mask in found.items()} == {
        name: sorted(items) for name, items in expected.items()
    }
    assert set(found) <= set(SLICES)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_user_is_cold_or_in_one_tenth_and_equals_share_it(seed: int) -> None:
    known = draw_histories(seed)
    count = np.diff(known.indptr)
    masks = slice_users(known)
    tenths = np.stack([masks[f"activity_{n}"] for n in range(1, 11)])
    assert (tenths.sum(0) + masks["cold_users"] == 1).all()
    assert np.array_equal(masks["warm_users"], count > 0)
    place = tenths.argmax(0)
    for a in range(1, 10):
        assert len(set(place[count == a].tolist())) <= 1
    warm = np.flatnonzero(count)
    assert (np.diff(place[warm][np.argsort(count[warm], kind="stable")]) >= 0).all()


def test_tenths_without_ties_are_of_one_size() -> None:
    known = csr_array(np.tril(np.ones((30, 30), dtype=np.float32)))
    masks = slice_users(known)
    assert [int(masks[f"activity_{n}"].sum()) for n in range(1, 11)] == [3] * 10


def test_slices_of_the_target_items_add_up_to_all_of_them() -> None:
    relevant, training = draw_histories(1), draw_histories(2)
    masks = slice_items(training)
    parts = [keep_items(relevant, masks[name]) for name in ("head", "torso", "tail", "cold_items")]
    assert np.array_equal(sum(part.toarray() for part in parts), relevant.toarray())
    items = np.tile(np.arange(30), (40, 1))
    found = recall_at_k(items, parts[0], 10)
    only = (relevant.toarray() > 0) & masks["head"]
    users = np.flatnonzero(only.any(1))
    assert found.users.tolist() == users.tolist()
    np.testing.assert_allclose(found.values, (only[:, :10].sum(1) / np.maximum(only.sum(1), 1))[users])


def test_values_are_cut_by_user_and_the_skipped_are_counted_apart() -> None:
    metric = PerUser(np.array([0.1, 0.2, 0.3]), np.array([0, 2, 3]), 2)
    mask = np.array([True, True, False, True, True])
    found = slice_values(metric, {"some": mask, "none": np.zeros(5, dtype=bool)})
    assert found["some"].values.tolist() == [0.1, 0.3]
    assert found["some"].users.tolist() == [0, 3] and found["some"].skipped == 2
    assert found["none"].values.tolist() == [] and found["none"].skipped == 0


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"each of the 30 items; got shape \(29,\)"):
        keep_items(draw_histories(0), np.ones(29, dtype=bool))
    with pytest.raises(ShapeError, match=r"each of the 3 users; got shape \(2,\) for 'a'"):
        slice_values(PerUser(np.ones(1), np.zeros(1, dtype=np.int64), 2), {"a": np.ones(2, dtype=bool)})
