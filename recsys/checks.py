"""What every retriever promises, as a check that anyone can run on one of their own."""

import numpy as np
from scipy.sparse import csr_array, vstack

from recsys.errors import ContractError
from recsys.types import Bools, Histories, Ints, Retriever, TopK, levels_in

# How far scores of one user may differ between a search alone and in a batch: matrix products round differently.
TOLERANCE = 1e-4


def check_retriever(retriever: Retriever, histories: Histories, n_items: int, *, k: int = 10) -> None:
    """Run a retriever through the contract of `recsys.types.Retriever`.

    Checked: shapes and types; scores that fall; no item twice; nothing seen, or it may be seen where asked for;
    `allowed` kept to, for all users and by user; padding where too little is allowed; the same answer twice; the
    same answer alone as in a batch; and full lists for users without a history.

    Args:
        retriever: What to check.
        histories: Some users, one or more, none of whom has seen nearly everything. Shape (B, I).
        n_items: Size I of the catalogue.
        k: Length of the lists.

    Raises:
        ContractError: A promise is broken; the message says which, and where.
    """
    # A cold user rides along in every check.
    users = csr_array(vstack([histories, csr_array((1, n_items), dtype=np.float32)], format="csr"))
    found = retriever.search(users, k)
    check_lists(found, users.shape[0], k, n_items)
    _demand(not _any_seen(users, found), "must offer nothing from the user's own history", "a seen item")
    again = retriever.search(users, k)
    same = np.array_equal(found.items, again.items) and np.array_equal(found.scores, again.scores)
    _demand(same, "must give the same answer to the same question", "two different ones")
    full = min(k, n_items)
    cold = int((found.items[-1] >= 0).sum())
    _demand(cold == full, f"must offer {full} items to a user without a history", f"{cold}")
    every = retriever.search(users, n_items, exclude_seen=False)
    _demand(bool((every.items >= 0).all()), "must rank every item when seen ones may come", "a padded list")
    _check_batch(retriever, users, found, k)
    _check_allowed(retriever, users, n_items, k)


def check_lists(found: TopK, rows: int, k: int, n_items: int) -> None:
    """Check that ranked lists are well formed.

    Args:
        found: What a search returned.
        rows: Number of users B asked for.
        k: Length asked for.
        n_items: Size I of the catalogue.

    Raises:
        ContractError: Shape, type, range, order or padding is wrong, or an item comes twice in a list.
    """
    items, scores = found
    _demand(
        items.shape == (rows, k) and scores.shape == (rows, k),
        f"must return lists of shape ({rows}, {k})",
        f"{items.shape} and {scores.shape}",
    )
    _demand(
        items.dtype == np.int64 and scores.dtype == np.float32,
        "must return int64 items and float32 scores",
        f"{items.dtype} and {scores.dtype}",
    )
    inside = bool(((items >= -1) & (items < n_items)).all())
    _demand(
        inside, f"must return items in 0..{n_items - 1}, or -1 as padding", f"{items.min()}..{items.max()}"
    )
    _demand(not np.isnan(scores).any(), "must not score NaN", "NaN")
    padded = items == -1
    _demand(
        bool((padded == np.isneginf(scores)).all()),
        "must pad with item -1 and score -inf together",
        "one alone",
    )
    # Comparing neighbours rather than subtracting them, as -inf less -inf is NaN.
    _demand(bool((scores[:, 1:] <= scores[:, :-1]).all()), "must return falling scores", "a rising one")
    ordered = np.sort(np.where(padded, n_items + np.arange(k), items), axis=1)
    _demand(bool((ordered[:, 1:] != ordered[:, :-1]).all()), "must name an item once a list", "one twice")


def _check_batch(retriever: Retriever, users: Histories, found: TopK, k: int) -> None:
    """Each of the first three users and the cold one alone, against their rows of the batch."""
    rows = sorted({*range(min(3, users.shape[0])), users.shape[0] - 1})
    for row in rows:
        alone = retriever.search(users[[row]], k)
        check_lists(alone, 1, k, users.shape[1])
        near = np.allclose(alone.scores[0], found.scores[row], rtol=TOLERANCE, atol=TOLERANCE)
        _demand(near, "must score a user alone as in a batch", f"other scores for row {row}")
        # Items may trade places only where their scores are as good as equal.
        moved = alone.items[0] != found.items[row]
        scores = np.maximum(found.scores[row], np.finfo(np.float32).min / 2)  # padding ties with padding
        gaps = np.abs(np.diff(scores)) <= TOLERANCE * (1 + np.abs(scores[1:]))
        tied = np.concatenate([gaps, [True]]) | np.concatenate([[False], gaps])
        _demand(
            bool((tied | ~moved).all()),
            "must rank for a user alone as in a batch",
            f"another list for row {row}",
        )


def _check_allowed(retriever: Retriever, users: Histories, n_items: int, k: int) -> None:
    rows = users.shape[0]
    half = np.arange(n_items) % 2 == 0
    by_user = (np.arange(n_items)[None, :] + np.arange(rows)[:, None]) % 2 == 0
    few = np.zeros(n_items, dtype=bool)
    few[: max(1, k // 2)] = True
    for allowed in (half, by_user, few, np.zeros(n_items, dtype=bool)):
        found = retriever.search(users, k, allowed=allowed)
        check_lists(found, rows, k, n_items)
        _demand(_all_allowed(found, allowed), "must keep to `allowed`", "an item outside it")
        _demand(not _any_seen(users, found), "must offer nothing seen under `allowed` either", "a seen item")
        free = np.minimum((np.broadcast_to(allowed, (rows, n_items)) & (users.toarray() == 0)).sum(1), k)
        offered = (found.items >= 0).sum(1)
        _demand(
            bool((offered == free).all()),
            "must offer every allowed item before padding",
            f"{offered[offered != free][:3].tolist()} items where {free[offered != free][:3].tolist()} were free",
        )


def _flat(found: TopK) -> tuple[Ints, Ints]:
    """User row and item of every place that is not padded."""
    rows, places = np.nonzero(found.items >= 0)
    return rows, found.items[rows, places]


def _any_seen(users: Histories, found: TopK) -> bool:
    rows, items = _flat(found)
    return bool((levels_in(users, rows, items) >= 0).any())


def _all_allowed(found: TopK, allowed: Bools) -> bool:
    rows, items = _flat(found)
    return bool(np.broadcast_to(allowed, (len(found.items), allowed.shape[-1]))[rows, items].all())


def _demand(is_kept: bool, promise: str, got: str) -> None:
    if not is_kept:
        raise ContractError(f"A retriever {promise}; got {got}. Compare it with `recsys.index.ExactIndex`.")
