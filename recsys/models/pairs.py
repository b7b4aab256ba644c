"""Users against items, row by row: every row's own item is left out of the history that shall foretell it.

A history enters the towers as a sum over items, level by level, and the first layer is linear. So the first layer of
a history without one of its items is that of the whole, with one projected item taken away: no row needs a matrix
product of its own, however wide the towers are.

Axis letters as in `recsys.models.towers`; n items of a step, N rows, B users.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, one_hot

from recsys.errors import ShapeError
from recsys.features import FeatureTable
from recsys.models.towers import Items, Rows, Towers
from recsys.types import Histories, Ints


class UserSide(NamedTuple):
    """Users halfway up their tower.

    said: First layer of their features. Shape (B, W).
    history: First layer of their whole history. Shape (B, W).
    projected: The part of it that each level gives, before it is divided by its size. Shape (B, C + 1, W).
    counts: Rows of each level in the history. Shape (B, C + 1).
    bias: What their features say of their biases. Shape (B, K).
    """

    said: Tensor
    history: Tensor
    projected: Tensor
    counts: Tensor
    bias: Tensor


class Targets(NamedTuple):
    """Rows to be foretold.

    user: Row of the user side. Shape (N,), int64.
    item: Row of the items at hand. Shape (N,), int64.
    own: Level that this item reached in that history, -1 if it is not in it. Shape (N,), int64.
    """

    user: Tensor
    item: Tensor
    own: Tensor


def rows_of(table: FeatureTable, device: torch.device) -> Rows:
    """A table of features as tensors."""
    sparse = table.sparse
    owners = np.repeat(np.arange(len(table), dtype=np.int64), np.diff(sparse.indptr))
    return Rows(
        torch.from_numpy(sparse.indices.astype(np.int64)).to(device),
        torch.from_numpy(owners).to(device),
        torch.from_numpy(sparse.data.astype(np.float32)).to(device),
        torch.from_numpy(table.dense).to(device),
    )


def encode_users(
    towers: Towers, histories: Histories, columns: Ints, items: Items, features: Rows
) -> UserSide:
    """The user side of B histories.

    Args:
        towers: The towers.
        histories: Shape (B, I).
        columns: Row of `items` that each stored entry of `histories` is about. Shape (nnz,).
        items: The items at hand, at least those of the histories.
        features: Of the users.
    """
    said = features.times(towers.user_sparse, towers.user_dense)
    bias = features.times(towers.user_sparse_bias, towers.user_dense_bias)
    depth, device = towers.sizes.levels + 1, items.embedded.device
    users = histories.shape[0]
    owner = np.repeat(np.arange(users, dtype=np.int64), np.diff(histories.indptr))
    slot = owner * depth + histories.data.astype(np.int64) - 1
    sizes = np.bincount(slot, minlength=users * depth)
    counts = torch.from_numpy(sizes.astype(np.float32)).to(device).view(users, depth)
    if not towers.sizes.history:
        blank = said.new_zeros(users, depth, said.shape[1])
        return UserSide(said, torch.zeros_like(said), blank, counts, bias)
    order = torch.from_numpy(columns[np.argsort(slot, kind="stable")]).to(device)
    starts = torch.from_numpy(np.cumsum(sizes) - sizes).to(device)
    sums = embedding_bag(order, items.embedded, starts, mode="sum").view(
        users, depth, items.embedded.shape[1]
    )
    projected = torch.einsum("ble,lew->blw", sums, towers.user_history)
    # A sum of n independent vectors grows like the root of n; one more keeps an empty bag at zero.
    history = (projected / (counts + 1.0).sqrt()[:, :, None]).sum(1)
    return UserSide(said, history, projected, counts, bias)


def user_blocks(
    towers: Towers, side: UserSide, *, extra_ignored: float, scales: Tensor | None = None
) -> Tensor:
    """Blocks of users with their whole histories.

    Args:
        towers: The towers.
        side: B users.
        extra_ignored: Sampled level-0 rows for each row of a history, as in training.
        scales: Trust in cosine, item and user part. Shape (3,); None is one each.

    Returns:
        Shape (B, K, D + 2).
    """
    trust = side.said.new_ones(3) if scales is None else scales
    unit = towers.user_units(side.said + side.history) * (towers.gamma()[:, None] * trust[0])
    bias = towers.user_biases(with_ignored(side.counts, extra_ignored), side.bias) * trust[2]
    return torch.cat([unit, trust[1].expand_as(bias)[:, :, None], bias[:, :, None]], dim=2)


def pair_parts(
    towers: Towers,
    side: UserSide,
    items: Items,
    item_biases: Tensor,
    targets: Targets,
    *,
    extra_ignored: float,
    kept: Tensor | None = None,
) -> Tensor:
    """Cosine, item and user part of each target's steps, its own item left out of the history.

    Args:
        towers: The towers.
        side: The users.
        items: The items at hand.
        item_biases: b of each target. Shape (N, K).
        targets: Who and what, N rows.
        extra_ignored: Sampled level-0 rows for each row of a history.
        kept: False where the user shall be met without any history. Shape (N,), bool.

    Returns:
        Shape (N, 3, K).
    """
    counts = side.counts.index_select(0, targets.user)
    if towers.sizes.history:
        first, counts = _first_layer(towers, side, items, targets, counts, kept)
    else:
        first = side.said.index_select(0, targets.user)
    unit = items.unit.index_select(0, targets.item)
    cosine = towers.user_cosines(first, unit) * towers.gamma()
    user = towers.user_biases(with_ignored(counts, extra_ignored), side.bias.index_select(0, targets.user))
    return torch.stack([cosine, item_biases, user], dim=1)


def _first_layer(
    towers: Towers, side: UserSide, items: Items, targets: Targets, counts: Tensor, kept: Tensor | None
) -> tuple[Tensor, Tensor]:
    """First layer and history counts of each target's user without the target.

    One weighted sum of four rows a target, of one table: the user's features, the whole history, the history's part
    of the target's level (whose divisor changes), and the target's own projection.
    """
    users, depth = side.counts.shape
    inside = (targets.own >= 0).to(counts.dtype)
    trust = torch.ones_like(inside) if kept is None else kept.to(counts.dtype)
    level = targets.own.clamp(min=0)
    size = counts.gather(1, level[:, None])[:, 0].clamp(min=1.0)
    table = torch.cat([side.said, side.history, side.projected.flatten(0, 1), _project(towers, items)])
    places = torch.stack(
        [
            targets.user,
            users + targets.user,
            2 * users + targets.user * depth + level,
            (2 + depth) * users + targets.item * depth + level,
        ],
        dim=1,
    )
    rescaled = size.rsqrt() - (size + 1.0).rsqrt()
    weights = [torch.ones_like(trust), trust, trust * inside * rescaled, -trust * inside * size.rsqrt()]
    first = embedding_bag(places, table, per_sample_weights=torch.stack(weights, dim=1), mode="sum")
    return first, (counts - one_hot(level, depth) * inside[:, None]) * trust[:, None]


def with_ignored(counts: Tensor, extra_ignored: float) -> Tensor:
    """Counts with so many level-0 rows more for each row. Shape (N, C + 1)."""
    if extra_ignored == 0.0:
        return counts
    more = extra_ignored * counts.sum(1, keepdim=True)
    return torch.cat([counts[:, :1] + more, counts[:, 1:]], dim=1)


def _project(towers: Towers, items: Items) -> Tensor:
    """First layer of each item at hand at each level. Shape (n * (C + 1), W)."""
    depth, emb, width = towers.user_history.shape
    every = items.embedded @ towers.user_history.permute(1, 0, 2).reshape(emb, depth * width)
    return every.view(-1, width)


def check_users(users: Ints, rows: int, most: int) -> None:
    """Check ids in the table of users.

    Args:
        users: -1 stands for a stranger. Shape (rows,).
        rows: Number of histories.
        most: Users in the table; where it is empty, any id will do.

    Raises:
        ShapeError: There is not one id a history, or one lies outside the table.
    """
    low, high = (int(users.min()), int(users.max())) if users.size else (-1, -1)
    if users.shape != (rows,) or low < -1 or (most and high >= most):
        raise ShapeError(
            f"`users` must have shape ({rows},) with ids below {most}, or -1 for a stranger; got shape "
            f"{users.shape} with ids in {low}..{high}. Give strangers' `user_features` instead."
        )


def check_targets(histories: Histories, items: Ints, n_items: int) -> None:
    """Check the items asked for.

    Args:
        histories: B rows.
        items: Shape (B,) or (B, N).
        n_items: Size I of the catalogue.

    Raises:
        ShapeError: `items` does not have one row a history, or an item lies outside the catalogue.
    """
    rows = histories.shape[0]
    if items.ndim not in {1, 2} or len(items) != rows:
        raise ShapeError(
            f"`items` must have shape ({rows},) or ({rows}, N), one row a history; got {items.shape}. "
            "Repeat a user's history to ask about more items."
        )
    if items.size and (items.min() < 0 or items.max() >= n_items):
        raise ShapeError(
            f"`items` must lie in 0..{n_items - 1}; got {int(items.min())}..{int(items.max())}. "
            "Drop the padding of ranked lists first."
        )
