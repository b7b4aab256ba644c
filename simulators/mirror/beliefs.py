"""Gaussian beliefs about what users like and what items are, from what was observed between them.

The utility of an item for a user is w_u . [x_i, q_i, 1] + b_i: known attributes x_i, factors q_i that only the log
tells of, and an effect b_i. A user's weights w_u and an item's [q_i, b_i] are Gaussian; each is brought up to date
given the other's belief by one Newton step of the variational bound (Opper and Archambeau 2009, "The Variational
Gaussian Approximation Revisited"), for all users, then all items, at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulators.mirror.steps import Ints, Pull, Rows, Values

CELLS = 6_000_000  # numbers held at once in a padded block


class Gaussians(NamedTuple):
    """One Gaussian a row: mean (N, D) and covariance (N, D, D), float64."""

    mean: Values
    covariance: Values


class Evidence(NamedTuple):
    """What else is known of each of N Gaussians: precision (N, D, D), and precision times mean (N, D)."""

    precision: Values
    target: Values


class Utilities(NamedTuple):
    """Beliefs about the utilities of rows.

    mean: Shape (N,).
    variance: Shape (N,).
    loading: Covariance of the user's loadings on the factors with the utility. Shape (N, R).
    """

    mean: Values
    variance: Values
    loading: Values


@dataclass(frozen=True, eq=False)
class Grouped:
    """Rows grouped by their owner, owners of like size together, so that padding wastes little.

    Attributes:
        owners: Distinct owners by block.
        places: Indices of the owner's rows, -1 where padded, by block. Shape (B, T) each.
    """

    owners: list[Ints]
    places: list[Ints]

    @classmethod
    def of(cls, owner: Ints, width: int) -> "Grouped":
        """Group rows by `owner`, in blocks of at most `CELLS` numbers for `width` numbers a row."""
        order = np.argsort(owner, kind="stable")
        ids, starts, counts = np.unique(owner[order], return_index=True, return_counts=True)
        by_size = np.argsort(counts, kind="stable")
        owners, places = [], []
        for chosen in _even_blocks(counts[by_size], width):
            block = by_size[chosen]
            longest = int(counts[block].max())
            grid = starts[block, None] + np.arange(longest)
            inside = np.arange(longest) < counts[block, None]
            places.append(np.where(inside, order[np.minimum(grid, len(order) - 1)], -1))
            owners.append(ids[block])
        return cls(owners, places)

    def __iter__(self) -> Iterator[tuple[Ints, Ints, NDArray[np.bool_]]]:
        """Owners, indices of their rows (0 where padded) and which of them are real."""
        for owners, places in zip(self.owners, self.places, strict=True):
            yield owners, np.maximum(places, 0), places >= 0


def _even_blocks(counts: Ints, width: int) -> Iterator[slice]:
    """Slices of rising counts whose padded size stays below `CELLS`, and whose padding below half."""
    start = 0
    while start < len(counts):
        end = start + 1
        while end < len(counts) and counts[end] <= 2 * counts[start] + 8:
            if (end - start + 1) * counts[end] * width > CELLS:
                break
            end += 1
        yield slice(start, end)
        start = end


def utilities(
    rows: Rows, features: Values, users: Gaussians, items: Gaussians, by_user: Grouped
) -> Utilities:
    """What is believed about the utility of every row.

    Args:
        rows: Which pairs.
        features: Known attributes of the items. Shape (I, F).
        users: Weights over [x, q, 1]. D = F + R + 1.
        items: Factors and effect [q, b].
        by_user: The rows grouped by user.
    """
    n_factors = items.mean.shape[1] - 1
    start = features.shape[1]
    mean, variance = np.zeros(len(rows.users)), np.zeros(len(rows.users))
    loading = np.zeros((len(rows.users), n_factors))
    for owners, places, real in by_user:
        design = user_design(features, items, rows.items[places])
        spread = design @ users.covariance[owners]
        at = places[real]
        mean[at] = (design @ users.mean[owners, :, None])[..., 0][real]
        variance[at] = (spread * design).sum(axis=2)[real]
        loading[at] = spread[..., start : start + n_factors][real]
    mean += items.mean[rows.items, -1]
    variance += _item_variance(rows, users, items, start)
    return Utilities(mean, np.maximum(variance, 0.0), loading)


def user_design(features: Values, items: Gaussians, which: Ints) -> Values:
    """[x_i, E q_i, 1] of items of any shape; one more axis of D."""
    ones = np.ones((*which.shape, 1))
    return np.concatenate([features[which], items.mean[which, :-1], ones], axis=-1)


def _item_variance(rows: Rows, users: Gaussians, items: Gaussians, start: int) -> Values:
    """Variance that doubt about the items adds: of [E p_u, 1] . [q_i, b_i], and that of both factors together."""
    n_factors = items.mean.shape[1] - 1
    stop = start + n_factors
    held = items.covariance[rows.items]
    own: Values = held[:, -1, -1].copy()
    if n_factors:
        p = users.mean[rows.users, start:stop]
        own += np.einsum("nr,nrs,ns->n", p, held[:, :-1, :-1], p) + 2 * (p * held[:, :-1, -1]).sum(axis=1)
        own += (users.covariance[rows.users, start:stop, start:stop] * held[:, :-1, :-1]).sum(axis=(1, 2))
    return own


def update_users(
    rows: Rows,
    features: Values,
    users: Gaussians,
    items: Gaussians,
    pull: Pull,
    *,
    by_user: Grouped,
    prior: Gaussians,
    other: Evidence | None = None,
) -> Gaussians:
    """Beliefs about the users after one Newton step; a user without rows gets the prior.

    Args:
        rows: What was observed.
        features: Known attributes of the items. Shape (I, F).
        users: Present beliefs.
        items: Beliefs about items.
        pull: What the levels say at the present beliefs.
        by_user: The rows grouped by user.
        prior: One Gaussian, shapes (1, D) and (1, D, D).
        other: What else is known, such as what the users came across; for users with rows.
    """
    start, n_factors = features.shape[1], items.mean.shape[1] - 1
    factor = slice(start, start + n_factors)
    precision = np.linalg.inv(prior.covariance[0])
    mean = np.repeat(prior.mean, len(users.mean), axis=0)
    covariance = np.repeat(prior.covariance, len(users.mean), axis=0)
    for owners, places, real in by_user:
        which = rows.items[places]
        design = user_design(features, items, which)
        curvature = np.where(real, pull.curvature[places], 0.0)
        slope = np.where(real, pull.slope[places], 0.0)
        fitted = (design @ users.mean[owners, :, None])[..., 0]
        information = precision + np.swapaxes(design * curvature[..., None], 1, 2) @ design
        target = precision @ prior.mean[0] + ((slope + curvature * fitted)[:, None] @ design)[:, 0]
        if n_factors:
            held = items.covariance[which]
            information[:, factor, factor] += np.einsum("bt,btrs->brs", curvature, held[..., :-1, :-1])
            target[:, factor] -= np.einsum("bt,btr->br", curvature, held[..., :-1, -1])
        if other is not None:
            information += other.precision[owners]
            target += other.target[owners]
        covariance[owners] = np.linalg.inv(information)
        mean[owners] = (covariance[owners] @ target[..., None])[..., 0]
    return Gaussians(mean, covariance)


def update_items(
    rows: Rows,
    features: Values,
    users: Gaussians,
    items: Gaussians,
    pull: Pull,
    *,
    loading: Values,
    by_item: Grouped,
    prior: Gaussians,
    other: Evidence | None = None,
) -> Gaussians:
    """Beliefs about the items after one Newton step; an item without rows gets its prior.

    Args:
        rows: What was observed.
        features: Known attributes of the items. Shape (I, F).
        users: Beliefs about users.
        items: Present beliefs.
        pull: What the levels say at the present beliefs.
        loading: As in `Utilities`. Shape (N, R).
        by_item: The rows grouped by item.
        prior: Means (I, R + 1), and one covariance (1, R + 1, R + 1).
        other: What else is known; for items with rows.
    """
    start, n_factors = features.shape[1], items.mean.shape[1] - 1
    factor = slice(start, start + n_factors)
    precision = np.linalg.inv(prior.covariance[0])
    mean = prior.mean.copy()
    covariance = np.repeat(prior.covariance, len(mean), axis=0)
    for owners, places, real in by_item:
        who = rows.users[places]
        design = np.concatenate([users.mean[who, factor], np.ones((*who.shape, 1))], axis=-1)
        curvature = np.where(real, pull.curvature[places], 0.0)
        slope = np.where(real, pull.slope[places], 0.0)
        fitted = (design @ items.mean[owners, :, None])[..., 0]
        information = precision + np.swapaxes(design * curvature[..., None], 1, 2) @ design
        target = prior.mean[owners] @ precision + ((slope + curvature * fitted)[:, None] @ design)[:, 0]
        if n_factors:
            held = users.covariance[who, factor, factor]
            weighted = curvature[..., None] * loading[places]
            information[:, :-1, :-1] += np.einsum("bt,btrs->brs", curvature, held)
            own = np.einsum("bt,btrs,bs->br", curvature, held, items.mean[owners, :-1])
            target[:, :-1] += own - weighted.sum(axis=1)
        if other is not None:
            information += other.precision[owners]
            target += other.target[owners]
        covariance[owners] = np.linalg.inv(information)
        mean[owners] = (covariance[owners] @ target[..., None])[..., 0]
    return Gaussians(mean, covariance)
