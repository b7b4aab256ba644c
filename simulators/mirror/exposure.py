"""What a user came across says something of taste: people search, click and are shown more of what they like.

A slate is either browsed or drawn evenly from all items; which of both is not logged, but its items tell. In a browsed
one an item comes before user u's eyes with probability proportional to pi_i exp(gamma v_ui), where pi_i is the item's
share of browsed rows and v_ui = d_u . [x_i, q_i] is the part of its utility in which u differs from the average user.
With items taken as Gaussian under pi the normaliser is exp(gamma^2 d' V d / 2), so the evidence is quadratic: it is
added to that of the levels in closed form. `gamma` is learned, and so is how many slates are browsed. The average
user's taste stays biased towards none: what few like is met by those few, of whom not enough is known. Where a log has
no positions, every row counts as browsed.

That slates are browsed or drawn evenly is an assumption about logs, and the film world's own way of writing them
(`simulators.world.logs.simulate_log`). In another service's log "browsed" stands for whatever taste decides: search,
clicks, and a recommender that knew the user already; "drawn evenly" stands for exploration that looks neither at the
user nor at fame. Slates picked by fame alone count as browsed, and make `gamma` small. What a service picks by
anything else in which users differ, such as what their region may see, passes for taste: then fit with
`use_exposure=False`.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit, logit

from simulators.mirror.beliefs import Evidence, Gaussians
from simulators.mirror.steps import Ints, Rows, Values

LEAST_ROWS = 0.5  # browsed rows that even an item without any counts for
ROWS_AT_ONCE = 100_000


class Shown(NamedTuple):
    """How often each user met each item by browsing, as far as the slates tell.

    counts: Expected browsed rows. Shape (U, I).
    per_user: Shape (U,).
    share: What part of browsed rows each item has, in the log that the model was fitted to. Shape (I,).
    """

    counts: csr_array
    per_user: Values
    share: Values

    @classmethod
    def of(
        cls, rows: Rows, n_users: int, n_items: int, *, browsed: Values, share: Values | None = None
    ) -> "Shown":
        """Count the rows of a log.

        Args:
            rows: The log.
            n_users: Number of users U.
            n_items: Number of items I.
            browsed: Chance that each row was browsed. Shape (N,).
            share: As in the class; that of `rows` where None.
        """
        counts = csr_array((browsed, (rows.users, rows.items)), shape=(n_users, n_items))
        own = np.bincount(rows.items, weights=browsed, minlength=n_items) + LEAST_ROWS
        per_user = np.bincount(rows.users, weights=browsed, minlength=n_users).astype(np.float64)
        return cls(counts, per_user, own / own.sum() if share is None else share)


def browsed_chances(
    rows: Rows,
    slates: Ints,
    shown: Shown,
    features: Values,
    users: Gaussians,
    items: Gaussians,
    population: Gaussians,
    *,
    gamma: float,
    share: float,
) -> Values:
    """Chance that each row's slate was browsed rather than drawn evenly from all items. Shape (N,).

    Args:
        rows: The log.
        slates: Number of each row's slate, see `simulators.mirror.slates`. Shape (N,).
        shown: What is browsed, `share` of it at least.
        features: Known attributes. Shape (I, F).
        users: Beliefs about users.
        items: Beliefs about items.
        population: The average user.
        gamma: How strongly taste decides what is met.
        share: What part of all slates is browsed.
    """
    found = _items(shown, features, items)
    away = (users.mean - population.mean)[:, :-1]
    doubt = np.einsum("udk,kd->u", users.covariance[:, :-1, :-1], found.spread)
    norm = 0.5 * gamma**2 * (((away @ found.spread) * away).sum(axis=1) + doubt)
    liking = np.concatenate(
        [
            np.einsum("nd,nd->n", away[rows.users[part]], found.centred[rows.items[part]])
            for part in _parts(len(rows.users))
        ]
    )
    ratio = np.log(shown.share * len(shown.share))[rows.items] + gamma * liking - norm[rows.users]
    return np.asarray(expit(np.bincount(slates, weights=ratio) + logit(share))[slates])


def _parts(n_rows: int) -> list[slice]:
    return [slice(start, start + ROWS_AT_ONCE) for start in range(0, n_rows, ROWS_AT_ONCE)]


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
