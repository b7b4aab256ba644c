"""Users learned from a log in sessions and slate environments: the fitted chances, at the fitted places."""

from dataclasses import replace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.stats import chi2

from simulators.env import FilmSlateEnv, FilmSlateVectorEnv
from simulators.errors import MirrorError, RolloutError
from simulators.mirror import LearnedChoices, LevelModel, Wording, fit_levels
from simulators.mirror.steps import Rows, improved_choice
from simulators.sessions import STOPS, Sessions
from simulators.types import Dialogue, StopReason, Utterance
from simulators.users.mirror import MirrorUsers
from simulators.world import NestedChoice, build_film_world
from tests.helpers.talking import talking_world

USERS, FILMS, PLACES = 40, 80, 8
WORLD = build_film_world(FILMS, USERS, seed=1, impressions_per_user=30)
FITTED = fit_levels(WORLD.log, WORLD.catalogue.features, n_users=USERS, n_factors=2, iterations=6, seed=0)
EVERYONE = np.arange(USERS)
EFFECT = 0.7


def with_effect(effect: float) -> LevelModel:
    """The fitted model with an effect of position that is known."""
    return replace(
        FITTED, choice=NestedChoice(FITTED.choice.thresholds, FITTED.choice.slopes, position_effect=effect)
    )


MODEL = with_effect(EFFECT)


def slate_of(seed: int) -> np.ndarray:
    """A slate of different films for each user. Shape (U, PLACES)."""
    return np.random.default_rng(seed).permuted(np.tile(np.arange(FILMS), (USERS, 1)), axis=1)[:, :PLACES]


@pytest.mark.parametrize("place", [0, PLACES - 1])
def test_over_persons_levels_follow_the_models_own_probabilities(place: int) -> None:
    slate, rounds = slate_of(0), 150
    expected = MODEL.probabilities(EVERYONE, slate[:, place], position=place)
    counts = np.zeros((USERS, 5))
    for seed in range(rounds):
        choice = LearnedChoices(MODEL, seed=seed)
        levels = Sessions(choice, EVERYONE, seeds=seed).step(slate).levels[:, place]
        counts[EVERYONE, levels] += 1
    # A sum over unequal rows varies less than one multinomial, so both statistics are at most chi-square.
    pooled, by_chance = counts.sum(axis=0), rounds * expected.sum(axis=0)
    assert ((pooled - by_chance) ** 2 / by_chance).sum() < chi2.ppf(0.999, 4)
    opened, chance = counts[:, 1:].sum(axis=1), 1 - expected[:, 0]
    away = (opened - rounds * chance) ** 2 / (rounds * chance * (1 - chance))
    assert away.sum() < chi2.ppf(0.999, USERS)


def test_the_place_in_a_slate_counts_as_fitted() -> None:
    choice = LearnedChoices(MODEL, seed=3)
    steps = [(slate_of(seed), seed) for seed in range(60)]
    items = np.stack([slate for slate, _ in steps])
    levels = np.stack(
        [Sessions(choice, EVERYONE, seeds=100 + seed).step(slate).levels for slate, seed in steps]
    )
    users, places = (np.broadcast_to(a, items.shape).ravel() for a in (EVERYONE[:, None], np.arange(PLACES)))
    rows = Rows(users, items.ravel(), levels.ravel(), places)
    utility = choice.utility(users, rows.items)
    blind = replace(MODEL.choice, position_effect=0.0)
    found = improved_choice(blind, rows, utility, np.zeros(len(users)), has_positions=True, steps=30)
    # About 19,000 rows, of which a fifth go past the first step: a standard error near 0.03.
    assert found.position_effect == pytest.approx(EFFECT, abs=0.1)
    assert found.thresholds[0] == pytest.approx(MODEL.choice.thresholds[0], abs=0.1)


def test_without_an_effect_of_position_the_place_does_not_matter() -> None:
    items, luck = slate_of(1)[:, 0], np.random.default_rng(0).random(USERS)
    even = LearnedChoices(with_effect(0.0), seed=0)
    np.testing.assert_array_equal(
        even.levels(EVERYONE, items, luck), even.levels(EVERYONE, items, luck, position=7)
    )
    steep = LearnedChoices(MODEL, seed=0)
    first, last = (steep.levels(EVERYONE, items, 0.3 * luck, position=place) for place in (0, 7))
    assert (last <= first).all() and (last < first).any()


def test_a_seed_gives_the_same_persons_whoever_else_is_there() -> None:
    slate = slate_of(2)
    one, again, other = (
        Sessions(LearnedChoices(MODEL, seed=seed), EVERYONE, seeds=5).step(slate) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.levels, again.levels)
    np.testing.assert_array_equal(one.satisfaction, again.satisfaction)
    assert (one.levels != other.levels).any()
    some = Sessions(LearnedChoices(MODEL, seed=0), [30, 4], seeds=5).step(slate[[30, 4]])
    np.testing.assert_array_equal(some.levels, one.levels[[30, 4]])


def test_persons_are_those_who_talk() -> None:
    world, _, _ = talking_world(40)
    model = fit_levels(world.log, world.catalogue.features, n_users=40, n_factors=1, iterations=3, seed=0)
    talking = MirrorUsers(model, world.catalogue, None)  # type: ignore[arg-type]
    users, items = [3, 7, 7, 39], [5, 6, 250, 0]
    said = Utterance("hello", "hello")
    decided = talking.decide(
        [Dialogue(user) for user in users],
        [world.catalogue.card(item) for item in items],
        [said] * len(users),
        seed=11,
    )
    silent = LearnedChoices(model, seed=11).utility(users, items)
    np.testing.assert_allclose(silent, [made.utility for made in decided])


def test_stars_follow_utility_by_the_wording_at_average_words() -> None:
    wording = Wording(stars=3.0, stars_item=0.8, stars_reply=2.0, noise=0.3)
    choice = LearnedChoices(MODEL, wording=wording, seed=0)
    items, luck = slate_of(3)[:, 0], np.random.default_rng(1).random(USERS)
    found = choice.satisfaction(EVERYONE, items, np.zeros((USERS, 6)), luck)
    felt = 3.0 + 0.8 * choice.utility(EVERYONE, items) + 0.3 * np.log(luck / (1 - luck))
    np.testing.assert_array_equal(found, np.clip(np.rint(felt), 1, 5))
    assert len(set(found.tolist())) > 2


def test_being_in_a_dialogue_counts_where_it_was_measured() -> None:
    items, luck = slate_of(4)[:, 0], np.random.default_rng(2).random(USERS)
    ready = LearnedChoices(MODEL, wording=Wording(readiness=1.5), seed=0)
    expected = MODEL.choice.sample(ready.utility(EVERYONE, items), luck, shift=1.5)
    np.testing.assert_array_equal(ready.levels(EVERYONE, items, luck), expected)
    assert (expected > LearnedChoices(MODEL, seed=0).levels(EVERYONE, items, luck)).any()


def test_patience_is_given_for_all_or_for_each() -> None:
    assert LearnedChoices(MODEL, seed=0).patience([0, 39]).tolist() == [4, 4]
    each = LearnedChoices(MODEL, patience=1 + EVERYONE, seed=0)
    assert each.patience([2, 7]).tolist() == [3, 8]
    # Who hates everything leaves at the last turn that it puts up with.
    gloomy = LearnedChoices(MODEL, wording=Wording(stars=-9.0), patience=1 + EVERYONE % 4, seed=0)
    sessions = Sessions(gloomy, EVERYONE, seeds=0, max_turns=9)
    for turn in range(4):
        sessions.step(slate_of(turn)[:, 0])
    left = sessions.stops == STOPS.index(StopReason.OUT_OF_PATIENCE)
    assert left.sum() > 20
    np.testing.assert_array_equal(sessions.turns[left], 1 + EVERYONE[left] % 4)


@pytest.mark.parametrize("slate", [1, 3])
def test_slate_environments_take_them(slate: int) -> None:
    choice = LearnedChoices(FITTED, seed=0)
    check_env(FilmSlateEnv(WORLD, choice=choice, slate=slate), skip_render_check=True)
    many = FilmSlateVectorEnv(16, WORLD, choice=choice, slate=slate)
    singles = [FilmSlateEnv(WORLD, choice=choice, slate=slate) for _ in range(16)]
    many.reset(seed=3)
    for i, single in enumerate(singles):
        single.reset(seed=3 + i)
    shown = np.random.default_rng(0).integers(0, FILMS, (16, slate))
    observation, rewards, *_ = many.step(shown[:, 0] if slate == 1 else shown)
    for i, single in enumerate(singles):
        seen, reward, *_ = single.step(shown[i, 0] if slate == 1 else shown[i])
        assert reward == rewards[i]
        np.testing.assert_array_equal(seen["levels"], observation["levels"][i])
    truth = FilmSlateVectorEnv(16, WORLD, slate=slate)
    truth.reset(seed=3)
    assert (truth.step(shown[:, 0] if slate == 1 else shown)[0]["levels"] != observation["levels"]).any()


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(MirrorError, match=r"5 levels .* got 3"):
        LearnedChoices(replace(MODEL, choice=NestedChoice(np.zeros(2), np.ones(2))), seed=0)
    with pytest.raises(MirrorError, match=r"40 users, and at least 1; got shape \(\) with 0"):
        LearnedChoices(MODEL, patience=0, seed=0)
    with pytest.raises(MirrorError, match=r"got shape \(3,\)"):
        LearnedChoices(MODEL, patience=[1, 2, 3], seed=0)
    choice = LearnedChoices(MODEL, seed=0)
    with pytest.raises(MirrorError, match=r"`users` must lie in 0\.\.39; got \[-1\]"):
        choice.levels([-1], [0], [0.5])
    with pytest.raises(MirrorError, match=r"`items` must lie in 0\.\.79; got \[80\]"):
        choice.satisfaction([0], [80], np.zeros((1, 6)), [0.5])
    with pytest.raises(MirrorError, match=r"0\.\.39; got \[40\]"):
        choice.patience([40])
    with pytest.raises(MirrorError, match=r"each of 2 rows; got shape \(1,\)"):
        choice.levels([0, 1], [0, 1], [0.5])
    with pytest.raises(RolloutError, match=r"the world's 41 users.* got 40"):
        FilmSlateEnv(build_film_world(FILMS, 41, seed=1, impressions_per_user=5), choice=choice)
