"""Which slates were browsed, and what evenly drawn ones tell of popularity."""

import numpy as np
import pytest
from scipy.special import expit, logit

from simulators.mirror import Effect, fit_levels
from simulators.mirror.beliefs import Gaussians, Utilities
from simulators.mirror.exposure import Shown, browsed_chances
from simulators.mirror.popularity import item_popularity, popularity_effect
from simulators.mirror.steps import Rows
from simulators.world import NestedChoice, build_film_world

GAMMA = 0.8


def rows_of(users: np.ndarray, items: np.ndarray, positions: np.ndarray) -> Rows:
    return Rows(users, items, np.zeros_like(items), positions)


def test_the_chance_of_browsing_is_that_of_the_two_sources() -> None:
    rng = np.random.default_rng(0)
    taste, attributes, share = rng.normal(size=2), rng.normal(size=(5, 2)), rng.dirichlet(np.ones(5))
    rows = rows_of(np.zeros(3, int), np.array([0, 3, 1]), np.array([0, 1, 0]))
    shown = Shown.of(rows, 1, 5, browsed=np.ones(3), share=share)
    users = Gaussians(np.append(taste, 0.0)[None], np.zeros((1, 3, 3)))
    items, population = (
        Gaussians(np.zeros((5, 1)), np.zeros((5, 1, 1))),
        Gaussians(np.zeros((1, 3)), np.eye(3)[None]),
    )
    about = attributes, users, items, population
    found = browsed_chances(rows, np.array([0, 0, 1]), shown, *about, gamma=GAMMA, share=0.3)
    liking = GAMMA * (attributes - share @ attributes) @ taste
    # The normaliser of a Gaussian: half the variance of what is in the exponent.
    ratio = np.log(5 * share) + liking - 0.5 * share @ liking**2
    first, second = expit(ratio[0] + ratio[3] + logit(0.3)), expit(ratio[1] + logit(0.3))
    np.testing.assert_allclose(found, [first, first, second])


@pytest.mark.integration
def test_browsed_slates_and_the_pull_of_taste_are_found_in_a_world() -> None:
    world = build_film_world(200, 300, seed=1, impressions_per_user=60)
    model = fit_levels(world.log, world.catalogue.features, n_users=300, n_factors=0, iterations=12, seed=0)
    assert 0.35 < model.browsed < 0.65
    assert 0.15 < model.gamma < 0.8
    even = world.log[["item_id", "user_id", "level", "position"]].copy()
    even["item_id"] = (
        np.random.default_rng(0).permuted(np.tile(np.arange(200), (300, 1)), axis=1)[:, :60].ravel()
    )
    drawn = fit_levels(even, world.catalogue.features, n_users=300, n_factors=0, iterations=12, seed=0)
    assert drawn.gamma * drawn.browsed < 0.1 * model.gamma * model.browsed + 0.02


class Reactions:
    """Films of one liking for all users, which rises with popularity to a point; little-known ones have few rows."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        n_items, n_rows = 200, 12_000
        self.choice = NestedChoice(np.array([1.0]), np.array([1.0]))
        self.popularity = np.sort(rng.normal(size=n_items))
        self.popularity -= self.popularity.mean()
        self.features = rng.normal(size=(n_items, 2)) + 0.5 * self.popularity[:, None]
        self.features -= self.features.mean(axis=0)
        self.effects = np.minimum(1.2 * self.popularity, 0.3) + self.features @ np.array([0.4, -0.6])
        self.effects += 0.4 * rng.normal(size=n_items)
        shown = np.exp(self.popularity)
        self.items = rng.choice(n_items, n_rows, p=shown / shown.sum())
        self.levels = self.choice.sample(self.effects[self.items], rng.random(n_rows))

    def measure(self) -> Effect:
        zero = np.zeros(len(self.items))
        rows = Rows(np.zeros(len(self.items), int), self.items, self.levels, np.zeros(len(self.items), int))
        return popularity_effect(
            rows,
            Utilities(zero, zero, np.zeros((len(zero), 0))),
            self.choice,
            effects=np.zeros(len(self.popularity)),
            doubt=np.zeros(len(self.popularity)),
            features=self.features,
            popularity=self.popularity,
        )

    def best_line(self) -> float:
        """The slope of the true effects, all films counting alike."""
        design = np.column_stack([self.popularity, self.features, np.ones(len(self.effects))])
        return float(np.linalg.lstsq(design, self.effects, rcond=None)[0][0])


def test_the_effect_of_popularity_is_the_slope_over_all_films_alike() -> None:
    missed = []
    for seed in range(8):
        world = Reactions(seed)
        found = world.measure()
        assert 0.02 < found.error < 0.1
        missed.append((found.value - world.best_line()) / found.error)
    # A straight line alone misses by five errors on average here.
    assert np.abs(missed).max() < 3.5
    assert abs(np.mean(missed)) < 1


def test_popularity_is_standardised_and_zero_where_all_are_alike() -> None:
    zero = np.zeros(4, int)
    found = item_popularity(Rows(zero, np.array([0, 0, 0, 1]), zero, zero), 3)
    raw = np.log1p([3, 1, 0])
    np.testing.assert_allclose(found, (raw - raw.mean()) / raw.std())
    assert not item_popularity(Rows(zero, np.arange(4), zero, zero), 4).any()
