import numpy as np
import pytest
import torch

from recsys.errors import OrdinalError, ShapeError
from recsys.topk import check_search, mask_scores, rank_in_blocks, top_k
from recsys.types import Histories


def brute_top(scores: np.ndarray, k: int) -> list[list[int]]:
    """Sort every row by falling score, then rising item, and drop what may not be offered."""
    rows = []
    for row in scores:
        ranked = sorted((-s, i) for i, s in enumerate(row.tolist()) if s != -np.inf)
        rows.append(([i for _, i in ranked] + [-1] * k)[:k])
    return rows


def test_top_k_equals_a_full_sort_with_many_ties() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(-3, 3, size=(40, 17)).astype(np.float32) / 2
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    found = top_k(torch.from_numpy(scores), 12)
    assert found.items.tolist() == brute_top(scores, 12)
    assert (np.isneginf(found.scores) == (found.items == -1)).all()


def test_top_k_orders_tiny_huge_and_signed_zero_scores() -> None:
    scores = torch.tensor([[-0.0, 0.0, 1e-38, -1e-38, 3e38, -3e38]])
    assert top_k(scores, 6).items.tolist() == [[4, 2, 0, 1, 3, 5]]


def test_top_k_longer_than_the_catalogue_is_padded() -> None:
    found = top_k(torch.tensor([[1.0, 2.0]]), 4)
    assert found.items.tolist() == [[1, 0, -1, -1]]
    assert found.scores.tolist() == [[2.0, 1.0, -np.inf, -np.inf]]


def test_masks_remove_seen_and_forbidden_items(small_histories: Histories) -> None:
    allowed = np.arange(30) % 3 > 0
    found = mask_scores(torch.zeros(6, 30), small_histories, allowed).numpy()
    assert np.array_equal(np.isneginf(found), (small_histories.toarray() > 0) | ~allowed)


def test_blocks_give_the_same_lists_as_one_piece(
    monkeypatch: pytest.MonkeyPatch, small_histories: Histories
) -> None:
    scores = torch.randn(6, 30, generator=torch.Generator().manual_seed(0))
    allowed = np.random.default_rng(0).random((6, 30)) < 0.7
    whole = rank_in_blocks(lambda b: scores[b].clone(), 6, 5, seen=small_histories, allowed=allowed)
    monkeypatch.setattr("recsys.topk.ROWS_AT_ONCE", 4)
    parts = rank_in_blocks(lambda b: scores[b].clone(), 6, 5, seen=small_histories, allowed=allowed)
    assert np.array_equal(whole.items, parts.items)
    assert rank_in_blocks(lambda b: scores[b], 0, 5, seen=None, allowed=None).items.shape == (0, 5)


def test_a_search_that_does_not_fit_is_refused(small_histories: Histories) -> None:
    with pytest.raises(ShapeError, match="model's 31 items; got 30 columns"):
        check_search(small_histories, 31, 5, None)
    with pytest.raises(ShapeError, match="`k` must be at least 1; got 0"):
        check_search(small_histories, 30, 0, None)
    with pytest.raises(ShapeError, match=r"shape \(30,\) or \(6, 30\); got \(6,\)"):
        check_search(small_histories, 30, 5, np.ones(6, dtype=bool))


@pytest.mark.parametrize("stored", [0.0, -3.0, 1.5, np.nan, np.inf])
def test_histories_that_hold_no_levels_are_refused(stored: float, small_histories: Histories) -> None:
    broken = small_histories.copy()
    broken.data[3] = stored
    with pytest.raises(OrdinalError, match=rf"level \+ 1, whole and 1 or more; got \[{stored}\]"):
        check_search(broken, 30, 5, None)


def test_masks_of_numbers_are_refused(small_histories: Histories) -> None:
    with pytest.raises(ShapeError, match="True or False for each item; got dtype int64"):
        check_search(small_histories, 30, 5, np.ones(30, dtype=np.int64))
