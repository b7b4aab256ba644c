"""Beliefs about users and items, held to draws and to a slow optimiser."""

import numpy as np
from scipy.optimize import minimize

from simulators.mirror.beliefs import Evidence, Gaussians, Grouped, update_items, update_users, utilities
from simulators.mirror.exposure import Shown, improved_gamma, item_evidence, user_evidence
from simulators.mirror.steps import Rows, expected_pull, gaussian_nodes
from simulators.world.choice import NestedChoice

USERS, ITEMS, FEATURES, FACTORS = 6, 9, 2, 2
WIDTH = FEATURES + FACTORS + 1
CHOICE = NestedChoice(np.array([0.2, 0.5]), np.array([1.0, 0.8]), 0.3)


def covariances(rng: np.random.Generator, count: int, width: int, scale: float) -> np.ndarray:
    root = rng.normal(size=(count, width, width)) * scale
    return root @ root.transpose(0, 2, 1) + 0.05 * np.eye(width)


def setting(seed: int = 0) -> tuple[Rows, np.ndarray, Gaussians, Gaussians]:
    rng = np.random.default_rng(seed)
    n = 50
    rows = Rows(*(rng.integers(0, size, n) for size in (USERS - 1, ITEMS, 3, 4)))
    users = Gaussians(rng.normal(size=(USERS, WIDTH)), covariances(rng, USERS, WIDTH, 0.2))
    items = Gaussians(rng.normal(size=(ITEMS, FACTORS + 1)), covariances(rng, ITEMS, FACTORS + 1, 0.3))
    return rows, rng.normal(size=(ITEMS, FEATURES)), users, items


def test_groups_hold_every_row_once() -> None:
    owner = np.random.default_rng(1).zipf(1.5, 400) % 60
    seen = np.concatenate([places[real] for _, places, real in Grouped.of(owner, 3)])
    assert sorted(seen.tolist()) == list(range(400))
    for owners, places, real in Grouped.of(owner, 3):
        assert (owner[places] == owners[:, None])[real].all()


def test_utilities_have_the_moments_of_draws() -> None:
    rows, features, users, items = setting()
    found = utilities(rows, features, users, items, Grouped.of(rows.users, WIDTH))
    rng = np.random.default_rng(2)
    for row in range(3):
        u, i = rows.users[row], rows.items[row]
        w = rng.multivariate_normal(users.mean[u], users.covariance[u], 200_000)
        z = rng.multivariate_normal(items.mean[i], items.covariance[i], 200_000)
        drawn = w[:, :FEATURES] @ features[i] + (w[:, 2:4] * z[:, :2]).sum(1) + w[:, 4] + z[:, 2]
        np.testing.assert_allclose(found.mean[row], drawn.mean(), atol=0.02)
        np.testing.assert_allclose(found.variance[row], drawn.var(), rtol=0.03)
        # The loading leaves the doubt about the item out: it is the item's own update that counts it.
        mean = np.concatenate([features[i], items.mean[i, :2], [1.0]])
        np.testing.assert_allclose(found.loading[row], users.covariance[u][2:4] @ mean)


def test_newton_steps_end_where_the_bound_is_largest() -> None:
    """One user, no factors: the mean must be the optimum of E log-likelihood + log prior at its own covariance."""
    rng = np.random.default_rng(3)
    rows = Rows(np.zeros(30, int), rng.integers(0, ITEMS, 30), rng.integers(0, 3, 30), rng.integers(0, 4, 30))
    features = rng.normal(size=(ITEMS, FEATURES))
    items = Gaussians(rng.normal(size=(ITEMS, 1)), np.full((ITEMS, 1, 1), 1e-12))
    prior = Gaussians(rng.normal(size=(1, 3)), covariances(rng, 1, 3, 0.5))
    users, grouped = prior, Grouped.of(rows.users, 3)
    for _ in range(60):
        found = utilities(rows, features, users, items, grouped)
        users = update_users(
            rows,
            features,
            users,
            items,
            expected_pull(CHOICE, rows, found.mean, found.variance),
            by_user=grouped,
            prior=prior,
        )
    design = np.concatenate([features[rows.items], np.ones((30, 1))], axis=1)
    variance = np.einsum("nd,de,ne->n", design, users.covariance[0], design)

    def negative_bound(w: np.ndarray) -> float:
        mean = design @ w + items.mean[rows.items, 0]
        likelihood = sum(
            weight
            * CHOICE.log_likelihood(mean + np.sqrt(variance) * z, rows.levels, position=rows.positions).sum()
            for z, weight in zip(*gaussian_nodes(), strict=True)
        )
        away = w - prior.mean[0]
        return float(0.5 * away @ np.linalg.solve(prior.covariance[0], away) - likelihood)

    best = minimize(negative_bound, np.zeros(3), tol=1e-10)
    np.testing.assert_allclose(users.mean[0], best.x, atol=1e-4)


def test_who_has_no_rows_keeps_the_prior() -> None:
    rows, features, users, items = setting()
    prior = Gaussians(np.ones((1, WIDTH)), np.eye(WIDTH)[None])
    found = utilities(rows, features, users, items, Grouped.of(rows.users, WIDTH))
    pull = expected_pull(CHOICE, rows, found.mean, found.variance)
    after = update_users(
        rows, features, users, items, pull, by_user=Grouped.of(rows.users, WIDTH), prior=prior
    )
    np.testing.assert_array_equal(after.mean[USERS - 1], prior.mean[0])
    np.testing.assert_array_equal(after.covariance[USERS - 1], prior.covariance[0])


def test_known_factors_are_one_regression_for_users_and_items() -> None:
    """With certain users, an item's update is that of a user whose weights are [q, b]."""
    rows, _, users, items = setting()
    certain = Gaussians(users.mean, np.zeros_like(users.covariance))
    none = np.zeros((ITEMS, FEATURES))
    by_user, by_item = Grouped.of(rows.users, WIDTH), Grouped.of(rows.items, FACTORS + 1)
    found = utilities(rows, none, certain, items, by_user)
    pull = expected_pull(CHOICE, rows, found.mean, found.variance)
    prior = Gaussians(np.zeros((ITEMS, FACTORS + 1)), np.eye(FACTORS + 1)[None])
    after = update_items(
        rows, none, certain, items, pull, loading=found.loading, by_item=by_item, prior=prior
    )
    i = int(rows.items[0])
    own = rows.items == i
    design = np.concatenate([users.mean[rows.users[own], 2:4], np.ones((own.sum(), 1))], axis=1)
    information = np.eye(3) + (design * pull.curvature[own, None]).T @ design
    target = design.T @ (pull.slope[own] + pull.curvature[own] * (design @ items.mean[i]))
    np.testing.assert_allclose(after.mean[i], np.linalg.solve(information, target))
    np.testing.assert_allclose(after.covariance[i], np.linalg.inv(information))


def test_other_evidence_adds_up() -> None:
    rows, features, users, items = setting()
    prior = Gaussians(np.zeros((1, WIDTH)), np.eye(WIDTH)[None])
    grouped = Grouped.of(rows.users, WIDTH)
    found = utilities(rows, features, users, items, grouped)
    pull = expected_pull(CHOICE, rows, found.mean, found.variance)
    other = Evidence(np.repeat(np.eye(WIDTH)[None], USERS, axis=0), np.zeros((USERS, WIDTH)))
    with_other = update_users(rows, features, users, items, pull, by_user=grouped, prior=prior, other=other)
    stronger = Gaussians(np.zeros((1, WIDTH)), 0.5 * np.eye(WIDTH)[None])
    as_prior = update_users(rows, features, users, items, pull, by_user=grouped, prior=stronger)
    np.testing.assert_allclose(with_other.mean[0], as_prior.mean[0])


def tilted(gamma: float, seed: int = 0) -> tuple[Shown, np.ndarray, Gaussians, Gaussians, Gaussians]:
    """Users who come across items by exp(gamma x taste), tastes and items known."""
    rng = np.random.default_rng(seed)
    n_users, n_items = 200, 300
    taste, factor = 0.5 * rng.normal(size=(n_users, 3)), rng.normal(size=(n_items, 3))
    weights = np.exp(gamma * taste @ factor.T)
    items = np.concatenate([rng.choice(n_items, 60, p=row / row.sum()) for row in weights])
    rows = Rows(np.repeat(np.arange(n_users), 60), items, 0 * items, 0 * items)
    users = Gaussians(np.pad(taste, ((0, 0), (0, 1))), np.zeros((n_users, 4, 4)))
    known = Gaussians(np.pad(factor[:, 2:], ((0, 0), (0, 1))), np.zeros((n_items, 2, 2)))
    population = Gaussians(np.zeros((1, 4)), np.eye(4)[None])
    shown = Shown.of(rows, n_users, n_items, browsed=np.ones(len(items)))
    return shown, factor[:, :2], users, known, population


def test_gamma_is_found_and_is_small_where_slates_are_random() -> None:
    for gamma in (0.0, 0.4, 0.8):
        shown, features, users, items, population = tilted(gamma)
        found = improved_gamma(shown, features, users, items, population)
        # Items are not quite Gaussian under a strong tilt, which makes it look weaker.
        np.testing.assert_allclose(found, gamma, atol=0.05, rtol=0.15)


def test_what_was_met_tells_tastes_and_factors() -> None:
    shown, features, users, items, population = tilted(0.8)
    evidence = user_evidence(shown, features, items, population, 0.8)
    told = np.linalg.solve(evidence.precision[:, :3, :3] + np.eye(3), evidence.target[:, :3, None])[..., 0]
    for column in range(3):
        assert np.corrcoef(told[:, column], users.mean[:, column])[0, 1] > 0.8
    evidence = item_evidence(shown, features, users, items, population, 0.8)
    told = evidence.target[:, 0] / (evidence.precision[:, 0, 0] + 1)
    assert np.corrcoef(told, items.mean[:, 0])[0, 1] > 0.6
    assert not evidence.precision[:, -1].any() and not evidence.target[:, -1].any()
