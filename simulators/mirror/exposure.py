"""What a user came across says something of taste: people search, click and are shown more of what they like.

An item comes before user u's eyes with probability proportional to pi_i exp(gamma v_ui), where pi_i is the item's share
of all rows and v_ui = d_u . [x_i, q_i] is the part of its utility in which u differs from the average user. With items
taken as Gaussian under pi the normaliser is exp(gamma^2 d' V d / 2), so the evidence is quadratic: it is added to that
of the levels in closed form. `gamma` is learned and is near zero in a log whose slates were drawn at random.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from simulators.mirror.beliefs import Evidence, Gaussians
from simulators.mirror.steps import Rows, Values


class Shown(NamedTuple):
    """How often each user met each item.

    counts: Shape (U, I).
    per_user: Shape (U,).
    share: What part of all rows each item has, in the log that the model was fitted to. Shape (I,).
    """

    counts: csr_array
    per_user: Values
    share: Values

    @classmethod
    def of(cls, rows: Rows, n_users: int, n_items: int, share: Values | None = None) -> "Shown":
        """Count the rows of a log; `share` is its own where None."""
        ones = np.ones(len(rows.users))
        counts = csr_array((ones, (rows.users, rows.items)), shape=(n_users, n_items))
        own = np.bincount(rows.items, minlength=n_items) / max(len(rows.items), 1)
        return cls(
            counts,
            np.bincount(rows.users, minlength=n_users).astype(np.float64),
            own if share is None else share,
        )


class _Items(NamedTuple):
    """Items about their mean under pi: their means (I, F + R) and second moments (F + R, F + R)."""

    centred: Values
    spread: Values


def _items(shown: Shown, features: Values, items: Gaussians) -> _Items:
    share = shown.share
    vectors = np.concatenate([features, items.mean[:, :-1]], axis=1)
    centred = vectors - share @ vectors
    spread = centred.T @ (centred * share[:, None])
    start = features.shape[1]
    spread[start:, start:] += np.tensordot(share, items.covariance[:, :-1, :-1], axes=1)
    return _Items(centred, spread)


def user_evidence(
    shown: Shown, features: Values, items: Gaussians, population: Gaussians, gamma: float
) -> Evidence:
    """What came before each user's eyes, as evidence about the weights over [x, q, 1].

    Args:
        shown: Counts of the log.
        features: Known attributes. Shape (I, F).
        items: Beliefs about items.
        population: The average user.
        gamma: How strongly taste decides what is met.

    Returns:
        Precision (U, D, D) and target (U, D).
    """
    found = _items(shown, features, items)
    width = population.mean.shape[1]
    spread = np.zeros((width, width))
    spread[:-1, :-1] = found.spread
    precision = gamma**2 * shown.per_user[:, None, None] * spread
    target = precision @ population.mean[0]
    target[:, :-1] += gamma * (shown.counts @ found.centred)
    return Evidence(precision, target)


def item_evidence(
    shown: Shown, features: Values, users: Gaussians, items: Gaussians, population: Gaussians, gamma: float
) -> Evidence:
    """Whose eyes each item came before, as evidence about its factors; arguments as in `user_evidence`.

    Counts are taken as Poisson with rate n_u pi_i exp(gamma v), to second order in v.

    Returns:
        Precision (I, R + 1, R + 1) and target (I, R + 1).
    """
    start, n_factors = features.shape[1], items.mean.shape[1] - 1
    away = users.mean - population.mean
    factor, known = away[:, start:-1], away[:, :start]
    weight = shown.per_user / shown.per_user.sum()
    both = factor.T @ (factor * weight[:, None])
    both += np.tensordot(weight, users.covariance[:, start:-1, start:-1], axes=1)
    cross = factor.T @ (known * weight[:, None])
    cross += np.tensordot(weight, users.covariance[:, start:-1, :start], axes=1)
    centred = _items(shown, features, items).centred[:, :start]
    per_item = shown.per_user.sum() * shown.share[:, None]
    precision = np.zeros((len(features), n_factors + 1, n_factors + 1))
    precision[:, :-1, :-1] = gamma**2 * per_item[:, None] * both
    target = np.zeros((len(features), n_factors + 1))
    surplus = shown.counts.T @ factor - per_item * (weight @ factor)
    target[:, :-1] = gamma * surplus - gamma**2 * per_item * (centred @ cross.T)
    return Evidence(precision, target)


def improved_gamma(
    shown: Shown, features: Values, users: Gaussians, items: Gaussians, population: Gaussians
) -> float:
    """The `gamma` of the largest expected likelihood, at least 0; arguments as in `user_evidence`."""
    found = _items(shown, features, items)
    away = (users.mean - population.mean)[:, :-1]
    pull = float(((shown.counts @ found.centred) * away).sum())
    second = away.T @ (away * shown.per_user[:, None])
    second += np.tensordot(shown.per_user, users.covariance[:, :-1, :-1], axes=1)
    return max(pull / max(float((second * found.spread).sum()), 1e-12), 0.0)
