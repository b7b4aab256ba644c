"""The hidden truth: its scale, its styles, and its checks."""

import dataclasses

import numpy as np
import pytest

from simulators.errors import WorldError
from simulators.world import NestedChoice, Oracle, Truth, draw_population, invent_catalogue
from simulators.world.population import draw_manners

CATALOGUE = invent_catalogue(120, seed=0)


def test_utility_scale_equals_that_of_all_pairs() -> None:
    truth = draw_population(CATALOGUE, 40, seed=1)
    pairs = truth.taste.astype(float) @ truth.item_vectors.astype(float).T + truth.item_quality
    assert truth.utility_scale() == pytest.approx((pairs.mean(), pairs.std()), abs=1e-6)


def test_the_causes_of_utility_have_their_shares() -> None:
    truth = draw_population(invent_catalogue(1500, seed=2), 800, seed=2)
    n_features = CATALOGUE.features.shape[1]
    visible = (truth.taste[:, :n_features] @ truth.item_vectors[:, :n_features].T).var()
    hidden = (truth.taste[:, n_features:] @ truth.item_vectors[:, n_features:].T).var()
    np.testing.assert_allclose([visible, hidden, truth.item_quality.var()], [0.65, 0.15, 0.2], atol=0.03)


def test_the_same_seed_draws_the_same_people() -> None:
    first, second = (draw_population(CATALOGUE, 20, seed=5) for _ in range(2))
    for field in dataclasses.fields(Truth):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))
    assert (first.style != draw_population(CATALOGUE, 20, seed=6).style).any()


def test_styles_vary_in_about_five_directions_and_cancel_out() -> None:
    style, _, _ = draw_manners(4000, seed=0)
    spectrum = np.linalg.eigvalsh(np.cov(style.T))
    assert 4.5 < spectrum.sum() ** 2 / (spectrum**2).sum() < 6
    assert np.linalg.norm(style.mean(axis=0)) < 0.2
    assert (style**2).sum(axis=1).mean() == pytest.approx(1.0, abs=1e-5)


def test_half_of_the_users_care_about_few_attributes() -> None:
    style, _, _ = draw_manners(4000, seed=1)
    top_two = np.sort(np.abs(style), axis=1)[:, -2:]
    concentrated = (top_two**2).sum(axis=1) / (style**2).sum(axis=1) > 0.9
    assert 0.3 < concentrated.mean() < 0.7


def test_the_average_user_predicts_little_and_the_oracle_much() -> None:
    truth = draw_population(CATALOGUE, 500, seed=3)
    oracle = Oracle(truth, CATALOGUE, NestedChoice.impressions())
    rng = np.random.default_rng(0)
    users, replies = rng.integers(0, 500, 40_000), rng.normal(size=(2, 40_000, 6))
    chose_a = oracle.choose(users, replies[0], replies[1], rng.random(40_000))
    gain = oracle.reply_utility(users, replies[0]) - oracle.reply_utility(users, replies[1])
    pooled = (replies[0] - replies[1]) @ truth.style.mean(axis=0)
    assert 0.85 < ((gain > 0) == chose_a).mean() < 0.91
    assert 0.51 < ((pooled > 0) == chose_a).mean() < 0.57


def test_patience_lies_between_two_and_five() -> None:
    _, patience, noise = draw_manners(1000, seed=2)
    assert (patience.min(), patience.max()) == (2, 5)
    assert (noise > 0).all()


def test_a_population_needs_a_user() -> None:
    with pytest.raises(WorldError, match=r"at least 1; got 0"):
        draw_population(CATALOGUE, 0, seed=0)


def test_parts_of_a_truth_must_fit() -> None:
    truth = draw_population(CATALOGUE, 4, seed=0)
    with pytest.raises(WorldError, match=r"4 users with parts of \[3, 4\] rows, 120 films"):
        dataclasses.replace(truth, patience=truth.patience[:3])
    with pytest.raises(WorldError, match=r"6 columns and `noise` be positive; got \(4, 5\)"):
        dataclasses.replace(truth, style=truth.style[:, :5])
    with pytest.raises(WorldError, match=r"a smallest noise of 0.0"):
        dataclasses.replace(truth, noise=truth.noise * 0)
