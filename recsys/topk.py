"""Choosing the k best of many scores the same way everywhere: masks first, then score, then the smaller item id."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from recsys.errors import OrdinalError, ShapeError
from recsys.types import Bools, Histories, TopK

ROWS_AT_ONCE = 512


def check_search(histories: Histories, n_items: int, k: int, allowed: Bools | None) -> None:
    """Check the arguments of a search.

    Raises:
        ShapeError: `histories` or `allowed` does not fit the catalogue, or `k` is below 1.
        OrdinalError: A history holds something else than levels.
    """
    check_histories(histories, n_items)
    if k < 1:
        raise ShapeError(f"`k` must be at least 1; got {k}. Ask for one item or more.")
    if allowed is None:
        return
    if allowed.shape not in {(n_items,), histories.shape}:
        raise ShapeError(
            f"`allowed` must have shape ({n_items},) or {histories.shape}; got {allowed.shape}. "
            "Give one flag an item, for all users or for each."
        )
    check_flags(allowed)


def check_histories(histories: Histories, n_items: int) -> None:
    """Check histories against a catalogue.

    Raises:
        ShapeError: There is not one column an item.
        OrdinalError: A stored value is no level + 1.
    """
    if histories.shape[1] != n_items:
        raise ShapeError(
            f"`histories` must have one column for each of the model's {n_items} items; got {histories.shape[1]} "
            "columns. Build it with `histories_from_log` and the same `n_items`."
        )
    stored = histories.data
    # Negated, so that NaN fails too.
    wrong = ~((stored >= 1) & (stored < np.inf) & (stored == np.floor(stored)))
    if wrong.any():
        raise OrdinalError(
            f"Stored values of `histories` must be level + 1, whole and 1 or more; got "
            f"{stored[wrong][:3].tolist()}. Build it with `histories_from_log`."
        )


def check_flags(allowed: Bools) -> None:
    """Refuse masks that are not flags, such as lists of item numbers.

    Raises:
        ShapeError: `allowed` is not boolean.
    """
    if allowed.dtype != np.bool_:
        raise ShapeError(
            f"`allowed` must hold True or False for each item; got dtype {allowed.dtype}. Use `.astype(bool)`, or mark "
            "the allowed items in an array of False."
        )


def mask_scores(scores: Tensor, seen: Histories | None, allowed: Bools | None) -> Tensor:
    """`scores` with -inf where an item is in `seen` or not `allowed`; written in place.

    Args:
        scores: Shape (B, I), float32.
        seen: Items to leave out, by row. Shape (B, I).
        allowed: Shape (I,) or (B, I).

    Returns:
        `scores` itself.
    """
    if seen is not None:
        owner = np.repeat(np.arange(seen.shape[0], dtype=np.int64), np.diff(seen.indptr))
        rows = torch.from_numpy(owner).to(scores.device)
        items = torch.from_numpy(seen.indices.astype(np.int64)).to(scores.device)
        scores[rows, items] = -torch.inf
    if allowed is not None:
        scores.masked_fill_(~torch.from_numpy(np.ascontiguousarray(allowed)).to(scores.device), -torch.inf)
    return scores


def top_k(scores: Tensor, k: int) -> TopK:
    """The k highest scores of each row, equal ones by ascending item; -inf means "not to be offered".

    One place more than asked for shows whether the cut falls between equal scores; only then, which is rare, is the
    row sorted by score and item together.

    Args:
        scores: Without NaN. Shape (B, I), float32.
        k: Length of the lists; longer than I is padded.

    Returns:
        Lists of shape (B, k).
    """
    if k + 1 >= scores.shape[1]:
        return _sort_with_ties(scores, k)
    best, found = torch.topk(scores, k + 1, dim=1)
    values, items = best.cpu().numpy(), found.cpu().numpy()
    is_tied = (values[:, k - 1] == values[:, k]) & ~np.isneginf(values[:, k])
    order = np.lexsort((items[:, :k], -values[:, :k]), axis=1)
    items = np.take_along_axis(items, order, 1)
    values = np.take_along_axis(values, order, 1)
    if is_tied.any():
        again = _sort_with_ties(scores[torch.from_numpy(np.flatnonzero(is_tied)).to(scores.device)], k)
        items[is_tied], values[is_tied] = again.items, again.scores
    items[np.isneginf(values)] = -1
    return TopK(items, values)


def _sort_with_ties(scores: Tensor, k: int) -> TopK:
    """As `top_k`, by packing score and item into one 64-bit key."""
    rows, n_items = scores.shape
    width = min(k, n_items)
    bits = (scores + 0.0).view(torch.int32)  # adding zero turns -0.0 into 0.0, which must tie with it
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
    place = torch.arange(n_items - 1, -1, -1, device=scores.device)
    keys = torch.topk((ordered << 32) | place, width, dim=1).values
    found = n_items - 1 - (keys & 0xFFFFFFFF)
    best = scores.gather(1, found)
    items = np.full((rows, k), -1, dtype=np.int64)
    values = np.full((rows, k), -np.inf, dtype=np.float32)
    items[:, :width] = torch.where(torch.isneginf(best), -1, found).cpu().numpy()
    values[:, :width] = best.cpu().numpy()
    return TopK(items, values)


def rank_in_blocks(
    score_rows: Callable[[slice], Tensor],
    rows: int,
    k: int,
    *,
    seen: Histories | None,
    allowed: Bools | None,
) -> TopK:
    """Score, mask and cut a block of users at a time, so that memory stays at 512 rows of the catalogue.

    Args:
        score_rows: Fresh scores of a slice of the users. Returns shape (b, I), float32.
        rows: Number of users B.
        k: Length of the lists.
        seen: Items to leave out, by user. Shape (B, I).
        allowed: Shape (I,) or (B, I).

    Returns:
        Lists of shape (B, k).
    """
    parts = []
    for start in range(0, rows, ROWS_AT_ONCE):
        block = slice(start, min(start + ROWS_AT_ONCE, rows))
        mine = allowed[block] if allowed is not None and allowed.ndim == 2 else allowed
        scores = mask_scores(score_rows(block), None if seen is None else seen[block], mine)
        parts.append(top_k(scores, k))
    if not parts:
        return TopK(np.empty((0, k), dtype=np.int64), np.empty((0, k), dtype=np.float32))
    return TopK(np.concatenate([p.items for p in parts]), np.concatenate([p.scores for p in parts]))
