"""Reactions of simulated users, and that nothing else shows the truth."""

import numpy as np
import pytest

from simulators.world import NestedChoice, Oracle, Truth, draw_population, invent_catalogue
from simulators.world.oracle import REPLY_SHIFT

CATALOGUE = invent_catalogue(200, seed=0)
TRUTH = draw_population(CATALOGUE, 30, seed=0)
CHOICE = NestedChoice.impressions()
ORACLE = Oracle(TRUTH, CATALOGUE, CHOICE)
USERS = np.repeat(np.arange(30), 200)
ITEMS = np.tile(np.arange(200), 30)


def many(user: int, item: int, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One pair many times over, with uniforms on an even grid."""
    return np.full(rows, user), np.full(rows, item), (np.arange(rows) + 0.5) / rows


def test_item_utilities_are_standardised_over_all_pairs() -> None:
    utility = ORACLE.item_utility(USERS, ITEMS)
    assert utility.mean() == pytest.approx(0, abs=1e-6)
    assert utility.std() == pytest.approx(1, abs=1e-6)


def test_item_utility_of_one_pair_is_taste_times_vector_plus_quality() -> None:
    raw = [float(TRUTH.taste[3] @ TRUTH.item_vectors[i] + TRUTH.item_quality[i]) for i in (9, 10)]
    gap = ORACLE.item_utility([3], [9]) - ORACLE.item_utility([3], [10])
    assert gap[0] == pytest.approx((raw[0] - raw[1]) / TRUTH.utility_scale()[1], abs=1e-5)


def test_reply_utility_is_the_sum_of_what_attributes_contribute() -> None:
    attributes = np.random.default_rng(0).normal(size=(30, 6))
    contributions = ORACLE.reply_contributions(np.arange(30), attributes)
    np.testing.assert_allclose(contributions, TRUTH.style * attributes, rtol=1e-6)
    utility = ORACLE.reply_utility(np.arange(30), attributes)
    np.testing.assert_allclose(utility, contributions.sum(axis=1))


def test_choices_follow_bradley_terry_at_each_users_noise() -> None:
    a, b = np.full((20_000, 6), 0.2), np.zeros((20_000, 6))
    users, _, uniforms = many(4, 0)
    gain = 0.2 * TRUTH.style[4].sum() / TRUTH.noise[4]
    expected = 1 / (1 + np.exp(-gain))
    assert ORACLE.choose(users, a, b, uniforms).mean() == pytest.approx(expected, abs=1e-4)
    assert ORACLE.choose(users, b, a, uniforms).mean() == pytest.approx(1 - expected, abs=1e-4)


def test_levels_have_their_probabilities() -> None:
    users, items, uniforms = many(5, 17)
    shares = np.bincount(ORACLE.levels(users, items, uniforms, position=3), minlength=5) / len(users)
    np.testing.assert_allclose(shares, ORACLE.level_probabilities([5], [17], position=3)[0], atol=1e-4)


def test_a_reply_shifts_every_step() -> None:
    utility = ORACLE.item_utility([5], [17])
    expected = CHOICE.probabilities(utility, shift=REPLY_SHIFT * 1.5)
    np.testing.assert_allclose(ORACLE.level_probabilities([5], [17], reply=[1.5]), expected)


def test_a_better_reply_never_gets_a_worse_reaction_under_the_same_uniforms() -> None:
    rng = np.random.default_rng(1)
    plain = rng.normal(size=(6000, 6))
    better = plain + 0.5 * TRUTH.style[USERS]
    uniforms = rng.random(6000)
    stars = [ORACLE.satisfaction(USERS, ITEMS, attributes, uniforms) for attributes in (plain, better)]
    levels = [
        ORACLE.levels(USERS, ITEMS, uniforms, reply=ORACLE.reply_utility(USERS, attributes))
        for attributes in (plain, better)
    ]
    assert (stars[1] >= stars[0]).all()
    assert (levels[1] >= levels[0]).all()
    assert stars[1].mean() > stars[0].mean() + 0.2


def test_satisfaction_is_in_whole_stars_and_uses_all_of_them() -> None:
    rng = np.random.default_rng(2)
    stars = ORACLE.satisfaction(USERS, ITEMS, rng.normal(size=(6000, 6)), rng.random(6000))
    assert np.unique(stars).tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_batch_gives_the_same_as_one_row_at_a_time() -> None:
    rng = np.random.default_rng(3)
    users, items, uniforms = rng.integers(0, 30, 20), rng.integers(0, 200, 20), rng.random(20)
    together = ORACLE.levels(users, items, uniforms)
    apart = [ORACLE.levels([u], [i], [x])[0] for u, i, x in zip(users, items, uniforms, strict=True)]
    assert together.tolist() == apart
    assert ORACLE.wish(users, uniforms) == [
        ORACLE.wish([u], [x])[0] for u, x in zip(users, uniforms, strict=True)
    ]


def test_wishes_follow_taste() -> None:
    users, _, uniforms = many(7, 0, 4000)
    wishes = ORACLE.wish(users, uniforms)
    names = [f"genre={genre}" for genre in CATALOGUE.genres]
    taste = dict(zip(CATALOGUE.feature_names, TRUTH.taste[7], strict=False))
    favourite = max(names, key=lambda name: taste[name])
    least = min(names, key=lambda name: taste[name])
    said = [f"genre={wish['genre']}" for wish in wishes]
    assert said.count(favourite) > 3 * said.count(least)


def test_wishes_can_be_granted() -> None:
    films = CATALOGUE.films
    pairs = zip(films["genres"], films["mood"], strict=True)
    held = {(genre, mood) for genres, mood in pairs for genre in genres}
    wishes = ORACLE.wish(np.repeat(np.arange(30), 20), np.random.default_rng(4).random(600))
    assert {(wish["genre"], wish["mood"]) for wish in wishes} <= held


def test_users_wish_for_what_they_like() -> None:
    wishes = ORACLE.wish(np.repeat(np.arange(30), 30), np.random.default_rng(5).random(900))
    wanted = np.stack([CATALOGUE.has_genre(wish["genre"]) for wish in wishes])
    utility = ORACLE.item_utility(USERS, ITEMS).reshape(30, 200).repeat(30, axis=0)
    assert utility[wanted].mean() > utility.mean() + 0.2


def test_the_truth_is_not_among_the_public_attributes() -> None:
    public = [getattr(ORACLE, name) for name in dir(ORACLE) if not name.startswith("_")]
    assert not any(isinstance(value, (Truth, np.ndarray)) for value in public)


def test_browsing_follows_fame_and_taste() -> None:
    users, items = np.repeat(np.arange(30), len(CATALOGUE)), np.tile(np.arange(len(CATALOGUE)), 30)
    logits = ORACLE.browsing_logits(np.arange(30))
    utility = ORACLE.item_utility(users, items).reshape(logits.shape)
    own = logits - logits.mean(axis=0)
    taste = utility - utility.mean(axis=0)
    assert (
        np.corrcoef(own.ravel(), taste.ravel())[0, 1] > 0.99
    )  # fame is the same for all, so only taste is left
