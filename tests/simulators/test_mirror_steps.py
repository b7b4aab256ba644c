"""Expectations under uncertain utilities, held to brute force."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from simulators.mirror.steps import (
    Rows,
    expected_probabilities,
    expected_pull,
    expected_sigmoid,
    gaussian_nodes,
    improved_choice,
    position_term,
)
from simulators.world.choice import NestedChoice

CHOICE = NestedChoice(np.array([0.5, -0.3, 0.8]), np.array([1.0, 0.7, 1.3]), 0.4)


def expected_log_likelihood(mean: float, variance: float, level: int, position: int) -> float:
    def inside(u: float) -> float:
        found = CHOICE.log_likelihood([u], [level], position=[position])[0]
        return float(found * norm.pdf(u, mean, np.sqrt(variance)))

    return float(quad(inside, mean - 12, mean + 12, epsabs=1e-11)[0])


def test_nodes_have_the_moments_of_the_normal() -> None:
    z, weight = gaussian_nodes()
    moments = [float((weight * z**power).sum()) for power in (0, 1, 2, 4, 6)]
    np.testing.assert_allclose(moments, [1, 0, 1, 3, 15], atol=1e-10)


def test_the_pull_is_the_derivative_of_the_expected_log_likelihood() -> None:
    levels, positions, variance, step = [0, 1, 2, 3], [0, 3, 1, 9], 0.8, 1e-3
    rows = Rows(np.zeros(4, int), np.zeros(4, int), np.array(levels), np.array(positions))
    pull = expected_pull(CHOICE, rows, np.full(4, 0.2), np.full(4, variance))
    for row, (level, position) in enumerate(zip(levels, positions, strict=True)):
        low, here, high = (
            expected_log_likelihood(0.2 + d, variance, level, position) for d in (-step, 0.0, step)
        )
        assert pull.slope[row] == pytest.approx((high - low) / (2 * step), abs=1e-4)
        assert -pull.curvature[row] == pytest.approx((high - 2 * here + low) / step**2, abs=1e-3)


def test_probabilities_are_averaged_over_the_belief() -> None:
    found = expected_probabilities(CHOICE, np.array([0.3]), np.array([1.5]), position=2)[0]
    for level in range(4):
        whole = quad(
            lambda u, k=level: CHOICE.probabilities([u], position=2)[0, k] * norm.pdf(u, 0.3, np.sqrt(1.5)),
            -15,
            15,
        )[0]
        assert found[level] == pytest.approx(whole, abs=1e-4)
    assert found.sum() == pytest.approx(1)


def test_without_doubt_nothing_is_averaged() -> None:
    mean = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(
        expected_probabilities(CHOICE, mean, np.zeros(3)), CHOICE.probabilities(mean), atol=1e-12
    )
    chance, spread = expected_sigmoid(mean, np.zeros(3))
    np.testing.assert_allclose(spread, chance * (1 - chance))


def test_the_first_place_has_no_effect() -> None:
    np.testing.assert_allclose(position_term([0, 1, 9]), [0, -np.log(2), -np.log(10)])


def test_the_choice_is_found_again_where_utilities_are_known() -> None:
    rng = np.random.default_rng(0)
    n = 40_000
    mean, positions = rng.normal(size=n), rng.integers(0, 10, n)
    levels = CHOICE.sample(mean, rng.random(n), position=positions)
    rows = Rows(np.zeros(n, int), np.zeros(n, int), levels, positions)
    start = NestedChoice(np.zeros(3), np.ones(3), 0.0)
    found = improved_choice(start, rows, mean, np.zeros(n), has_positions=True, steps=10)
    assert found.slopes[0] == 1.0
    np.testing.assert_allclose(found.thresholds, CHOICE.thresholds, atol=0.08)
    np.testing.assert_allclose(found.slopes[1:], CHOICE.slopes[1:], atol=0.08)
    assert found.position_effect == pytest.approx(0.4, abs=0.05)
    still = improved_choice(start, rows, mean, np.zeros(n), has_positions=False, steps=10)
    assert still.position_effect == 0.0
