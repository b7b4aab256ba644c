"""The nested ordinal choice against arithmetic and a slow twin."""

import math

import numpy as np
import pytest

from simulators.errors import WorldError
from simulators.world import NestedChoice

CHOICE = NestedChoice(np.array([1.0, 0.5, 0.2, 1.5]), np.array([1.2, 0.8, 1.0, 0.6]), 0.4)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slow_probabilities(choice: NestedChoice, utility: float, position: int, shift: float) -> list[float]:
    """One user at a time: walk down the steps and stop at each."""
    still, probabilities = 1.0, []
    for k, (threshold, slope) in enumerate(zip(choice.thresholds, choice.slopes, strict=True)):
        attention = -choice.position_effect * math.log(1 + position) if k == 0 else 0.0
        go_on = sigmoid(slope * utility - threshold + attention + shift)
        probabilities.append(still * (1 - go_on))
        still *= go_on
    return [*probabilities, still]


def test_probabilities_equal_the_slow_twin() -> None:
    rng = np.random.default_rng(0)
    utility, shift, position = rng.normal(0, 2, 40), rng.normal(size=40), rng.integers(0, 10, 40)
    expected = [slow_probabilities(CHOICE, *row) for row in zip(utility, position, shift, strict=True)]
    actual = CHOICE.probabilities(utility, position=position, shift=shift)
    np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_two_levels_are_a_logistic_model() -> None:
    choice = NestedChoice(np.array([0.3]), np.array([2.0]))
    np.testing.assert_allclose(
        choice.probabilities([0.7]), [[1 - sigmoid(2 * 0.7 - 0.3), sigmoid(2 * 0.7 - 0.3)]]
    )


def test_log_likelihood_is_the_log_of_the_probability() -> None:
    rng = np.random.default_rng(1)
    utility, levels, position = rng.normal(0, 2, 50), rng.integers(0, 5, 50), rng.integers(0, 10, 50)
    expected = np.log(CHOICE.probabilities(utility, position=position, shift=0.3)[np.arange(50), levels])
    actual = CHOICE.log_likelihood(utility, levels, position=position, shift=0.3)
    np.testing.assert_allclose(actual, expected, atol=1e-10)


def test_log_likelihood_is_finite_where_the_probability_underflows() -> None:
    assert CHOICE.log_likelihood([-1000.0], [4])[0] == pytest.approx(-1000 * 3.6 - 3.2)


def test_deeper_levels_are_rarer_and_better_films_reach_deeper() -> None:
    reached = CHOICE.reach_probabilities(np.linspace(-4, 4, 30))
    assert (np.diff(reached, axis=1) <= 0).all()
    assert (np.diff(reached, axis=0) > 0).all()


def test_later_positions_are_opened_less() -> None:
    opened = CHOICE.reach_probabilities(np.zeros(10), position=np.arange(10))[:, 0]
    assert (np.diff(opened) < 0).all()


def test_sampled_levels_have_their_probabilities() -> None:
    uniforms = (np.arange(20_000) + 0.5) / 20_000
    levels = CHOICE.sample(np.full(20_000, 0.4), uniforms, position=2)
    shares = np.bincount(levels, minlength=5) / 20_000
    np.testing.assert_allclose(shares, CHOICE.probabilities([0.4], position=2)[0], atol=1e-4)


def test_a_better_film_never_gets_a_lower_level_under_the_same_uniform() -> None:
    uniforms = np.random.default_rng(2).random(500)
    low = CHOICE.sample(np.full(500, -0.5), uniforms)
    assert (CHOICE.sample(np.full(500, 0.5), uniforms) >= low).all()
    assert (CHOICE.sample(np.full(500, -0.5), uniforms, shift=0.5) >= low).all()


def test_rescaled_choice_gives_the_same_probabilities() -> None:
    raw = np.random.default_rng(3).normal(2.0, 3.0, 20)
    rescaled = CHOICE.rescaled(2.0, 3.0)
    np.testing.assert_allclose(rescaled.probabilities((raw - 2) / 3), CHOICE.probabilities(raw), atol=1e-12)


def test_impressions_have_the_documented_base_rates() -> None:
    rng = np.random.default_rng(4)
    levels = NestedChoice.impressions().sample(
        rng.normal(size=200_000), rng.random(200_000), position=rng.integers(0, 10, 200_000)
    )
    shares = np.bincount(levels, minlength=5) / 200_000
    np.testing.assert_allclose(shares, [0.84, 0.094, 0.034, 0.022, 0.010], atol=0.002)


@pytest.mark.parametrize(
    ("thresholds", "slopes", "effect", "words"),
    [
        ([1.0, 2.0], [1.0], 0.0, r"shape \(K-1,\); got \(2,\) and \(1,\)"),
        ([math.inf], [1.0], 0.0, r"must be finite; got \[inf\] and \[1.0\]"),
        ([1.0], [-0.5], 0.0, r"at least 0; got \[-0.5\] and 0.0"),
        ([1.0], [0.5], -2.0, r"at least 0; got \[0.5\] and -2.0"),
    ],
)
def test_impossible_parameters_are_refused(
    thresholds: list[float], slopes: list[float], effect: float, words: str
) -> None:
    with pytest.raises(WorldError, match=words):
        NestedChoice(np.array(thresholds), np.array(slopes), effect)


def test_levels_outside_the_scale_are_refused() -> None:
    with pytest.raises(WorldError, match=r"must lie in 0\.\.4; got 1\.\.5"):
        CHOICE.log_likelihood([0.0, 0.0], [1, 5])
