import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import ive
from torch.nn.functional import cosine_similarity, normalize

from persona.checks import check_profile
from persona.data.comparisons import context_pairs
from persona.errors import DataError, ShapeError
from persona.profiles.hierarchical_bayes import HierarchicalBayes
from persona.profiles.inferred_direction import (
    DirectionBelief,
    InferredDirection,
    summarise_direction,
    whiten_within_prompts,
)
from persona.recipes.inferred_direction import InferredDirectionConfig, train_inferred_direction
from persona.rewards.multi_objective import explained_variance, fit_multi_objective, rating_to_hundred
from persona.types import Posterior, ReplyPairs
from tests.helpers.rated_world import ASPECTS, RatedWorld, make_rated_world, rate_replies, unit_vectors

STRENGTH = 2.0
"""Logits for one deviation along a user's direction: the truth then predicts about 80 % of the choices."""


def world_of(users: int, *, seed: int, comparisons: int = 50) -> tuple[RatedWorld, torch.Tensor]:
    """Users even over the sphere of whitened ratings, and their directions there."""
    ratings, prompt_of = rate_replies(seed=seed)
    directions = torch.from_numpy(unit_vectors(users, seed)).float()
    weights = STRENGTH * directions @ whiten_within_prompts(ratings, prompt_of).T
    world = make_rated_world(weights.double().numpy(), ratings, prompt_of, comparisons=comparisons, seed=seed)
    return world, directions


def profile_of(world: RatedWorld) -> InferredDirection:
    return InferredDirection.without_users(world.ratings, world.prompt_of, names=ASPECTS)


def pairs_of(profile: InferredDirection, world: RatedWorld, k: int | None = None) -> ReplyPairs:
    return context_pairs(world.table, profile.lift(world.ratings), world.table.user_ids, k)


def test_the_contract_of_profiles_holds() -> None:
    world, _ = world_of(5, seed=0, comparisons=8)
    profile = profile_of(world)
    check_profile(profile, pairs_of(profile, world))
    tastes = HierarchicalBayes(torch.tensor([0.5, -0.2, 0.1, 0.9]), torch.eye(4))
    tilted = InferredDirection(ASPECTS, profile.whitening, tastes)
    check_profile(tilted, pairs_of(tilted, world))


def test_fifty_noisy_choices_give_the_direction() -> None:
    world, truth = world_of(200, seed=1)
    assert 0.77 < (world.advantage > 0).mean() < 0.83
    profile = profile_of(world)
    belief = profile.believe(profile.encode(pairs_of(profile, world)))
    white = cosine_similarity(belief.direction, truth)
    raw = cosine_similarity(profile.as_raw(belief.direction), torch.from_numpy(world.weights).float())
    assert white.mean() > 0.95 and white.quantile(0.1) > 0.9
    assert raw.mean() > 0.95 and raw.quantile(0.1) > 0.88
    held = (white.clamp(-1, 1).arccos() <= belief.angle).float().mean()
    assert 0.85 < held < 0.99


@pytest.mark.integration
def test_knowing_the_pairs_makes_the_angle_exact_and_not_another_direction() -> None:
    world, _ = world_of(30, seed=6, comparisons=20)
    profile = profile_of(world)
    pairs = pairs_of(profile, world)
    gaussian, exact = (profile.believe(profile.encode(pairs), shown) for shown in (None, pairs))
    assert cosine_similarity(gaussian.direction, exact.direction).min() > 0.98
    assert (exact.angle < gaussian.angle).float().mean() > 0.9
    # A slow twin: the posterior of the first user on a grid of angles, in the plane of two objectives.
    flat = InferredDirection(
        ASPECTS[:2], profile.whitening[:2, :2], HierarchicalBayes(torch.zeros(2), 1.5 * torch.eye(2))
    )
    shown = ReplyPairs(pairs.chosen[:1, :, :2], pairs.rejected[:1, :, :2], pairs.mask[:1])
    belief = flat.believe(flat.encode(shown), shown, level=0.9)
    radius, turn = torch.meshgrid(torch.linspace(0.01, 12, 300), torch.arange(0, 6.2831, 0.02), indexing="ij")
    place = torch.stack([radius * turn.cos(), radius * turn.sin()], -1)
    fit = torch.nn.functional.logsigmoid(place @ shown.difference[0].T).sum(-1)
    density = torch.exp(fit - radius.square() / (2 * 1.5**2)) * radius
    by_turn = density.sum(0) / density.sum()
    angles = torch.arange(0, 6.2831, 0.02)
    centre = torch.stack([by_turn @ angles.cos(), by_turn @ angles.sin()])
    torch.testing.assert_close(belief.direction[0], normalize(centre, dim=0), atol=0.02, rtol=0)
    assert belief.resultant[0].item() == pytest.approx(centre.norm().item(), abs=0.01)
    within = (angles.cos() * belief.direction[0, 0] + angles.sin() * belief.direction[0, 1]).arccos()
    assert by_turn[within <= belief.angle[0]].sum().item() == pytest.approx(0.9, abs=0.02)


@pytest.mark.statistical
def test_the_credible_angle_holds_as_often_as_it_says() -> None:
    held: dict[tuple[float, bool], list[float]] = {}
    for seed in range(20):
        ratings, prompt_of = rate_replies(seed=seed)
        matrix = whiten_within_prompts(ratings, prompt_of)
        drawn = torch.from_numpy(np.random.default_rng(seed).normal(size=(100, 4))).float()
        weights = 1.5 * drawn @ matrix.T
        world = make_rated_world(weights.double().numpy(), ratings, prompt_of, comparisons=30, seed=seed)
        profile = profile_of(world)
        pairs = pairs_of(profile, world)
        posterior = profile.encode(pairs)
        for level in (0.5, 0.9):
            for exact in (False, True):
                belief = profile.believe(posterior, pairs if exact else None, level=level)
                within = cosine_similarity(belief.direction, drawn).clamp(-1, 1).arccos() <= belief.angle
                held.setdefault((level, exact), []).append(float(within.float().mean()))
    share = {key: float(np.mean(values)) for key, values in held.items()}
    assert share[0.5, True] == pytest.approx(0.5, abs=0.04)
    assert share[0.9, True] == pytest.approx(0.9, abs=0.03)
    assert 0.5 <= share[0.5, False] < 0.65 and 0.9 <= share[0.9, False] < 0.98


@pytest.mark.parametrize("distance", [0.3, 1.0, 2.5, 8.0])
def test_in_the_plane_the_summary_is_the_closed_form(distance: float) -> None:
    # Mean of the unit vector of N((k, 0), I): sqrt(pi / 8) k exp(-k^2 / 4) (I0(k^2 / 4) + I1(k^2 / 4)).
    x = distance**2 / 4
    length = math.sqrt(math.pi / 8) * distance * (ive(0, x) + ive(1, x))
    weights = Posterior(torch.tensor([[0.0, distance]]), torch.eye(2)[None])
    belief = summarise_direction(weights)
    torch.testing.assert_close(belief.direction, torch.tensor([[0.0, 1.0]]), atol=2e-3, rtol=0)
    assert belief.resultant.item() == pytest.approx(length, abs=2e-3)
    # Kappa in two dimensions gives the resultant back, to the accuracy of the published approximation.
    kappa = belief.concentration.item()
    assert ive(1, kappa) / ive(0, kappa) == pytest.approx(length, abs=0.02)


def test_far_from_the_origin_the_angle_is_that_of_a_normal() -> None:
    weights = Posterior(torch.tensor([[20.0, 0.0]]), torch.eye(2)[None])
    angle = summarise_direction(weights, level=0.9).angle.item()
    assert angle == pytest.approx(1.645 / 20, rel=0.03)


def test_who_chose_nothing_has_no_direction_and_the_average_condition() -> None:
    world, _ = world_of(2, seed=0, comparisons=4)
    profile = profile_of(world)
    empty = pairs_of(profile, world, 0)
    belief = profile.believe(profile.encode(empty))
    assert not belief.direction.any() and not belief.resultant.any()
    assert (belief.angle == math.pi).all()
    assert not belief.condition(latent_dim=3).direction.any()
    tastes = HierarchicalBayes(torch.tensor([0.0, 3.0, 0.0, 0.0]), 0.5 * torch.eye(4))
    common = InferredDirection(ASPECTS, profile.whitening, tastes)
    liked = common.believe(common.encode(empty))
    torch.testing.assert_close(liked.direction[0], torch.eye(4)[1], atol=0.02, rtol=0)


def test_a_cautious_condition_asks_for_less_where_less_is_known() -> None:
    world, _ = world_of(20, seed=2)
    profile = profile_of(world)
    few, many = (profile.believe(profile.encode(pairs_of(profile, world, k))) for k in (3, 50))
    assert (few.angle > many.angle).float().mean() > 0.9
    for belief in (few, many):
        condition = belief.condition(latent_dim=3, cautious=True)
        torch.testing.assert_close(condition.direction.norm(dim=1), belief.resultant)
        assert condition.latent.shape == (20, 3)
    assert (few.resultant < many.resultant).float().mean() > 0.9
    torch.testing.assert_close(many.condition(latent_dim=3).direction.norm(dim=1), torch.ones(20))


def test_whitening_sees_only_what_differs_within_a_prompt() -> None:
    ratings, prompt_of = rate_replies(seed=3)
    matrix = whiten_within_prompts(ratings, prompt_of)
    difference = (ratings.view(-1, 4, 4) @ matrix).diff(dim=1).flatten(0, 1)
    covariance = difference.T @ difference / len(difference) / 2
    torch.testing.assert_close(covariance, torch.eye(4), atol=0.03, rtol=0)
    shifted = ratings + 10 * torch.arange(1000.0).repeat_interleave(4)[:, None]
    torch.testing.assert_close(whiten_within_prompts(shifted, prompt_of), matrix, atol=1e-3, rtol=1e-2)
    scaled = whiten_within_prompts(ratings * torch.tensor([1.0, 20.0, 1.0, 1.0]), prompt_of)
    torch.testing.assert_close(scaled[1] * 20, matrix[1], atol=1e-4, rtol=1e-4)


def test_raw_directions_say_what_whitened_ones_say() -> None:
    world, _ = world_of(3, seed=0, comparisons=4)
    profile = profile_of(world)
    wish = normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    raw = profile.as_raw(wish)
    torch.testing.assert_close(raw.norm(dim=1), torch.ones(3))
    by_white, by_raw = profile.lift(world.ratings) @ wish.T, world.ratings @ raw.T
    for user in range(3):
        assert torch.corrcoef(torch.stack([by_white[:, user], by_raw[:, user]]))[0, 1] > 0.9999


def test_a_belief_is_told_in_words() -> None:
    world, _ = world_of(2, seed=0, comparisons=4)
    direction = torch.tensor([[0.6, 0.0, -0.8, 0.0], [0.0, 0.0, 0.0, 0.0]])
    belief = DirectionBelief(direction, torch.tensor([0.9, 0.0]), torch.tensor([math.pi / 6, math.pi]))
    assert profile_of(world).describe(belief) == [
        "Rates a reply as 60 * instruction_following - 80 * honesty, give or take 30 degrees.",
        "Nothing is known yet about what this user wants.",
    ]


def test_a_saved_profile_comes_back(tmp_path: Path) -> None:
    world, _ = world_of(3, seed=0, comparisons=4)
    profile = profile_of(world)
    profile.save(tmp_path)
    again = InferredDirection.load(tmp_path)
    assert again.names == ASPECTS
    first, second = (p.encode(pairs_of(p, world)) for p in (profile, again))
    assert torch.equal(first.mean, second.mean)


@pytest.mark.integration
def test_training_users_teach_where_users_are() -> None:
    ratings, prompt_of = rate_replies(seed=4)
    weights = np.abs(unit_vectors(160, 4)) * 2.0  # everybody wants more of every aspect
    world = make_rated_world(weights, ratings, prompt_of, comparisons=30, seed=4)
    rows: list[dict[str, float]] = []
    config = InferredDirectionConfig(names=ASPECTS)
    seen = world.table.select(world.table.users < 120)
    profile = train_inferred_direction(seen, ratings, config, seed=0, report=rows.append)
    assert [row["spread"] for row in rows] == [0.0, *config.spreads]
    assert min(rows, key=lambda row: row["held_out_log_loss"])["spread"] == 0.0
    new = np.arange(120, 160)
    truth = torch.from_numpy(weights[new]).float()

    def recovered(which: InferredDirection) -> float:
        pairs = context_pairs(world.table, which.lift(ratings), new, 10)
        direction = which.as_raw(which.believe(which.encode(pairs)).direction)
        return cosine_similarity(direction, truth).mean().item()

    assert recovered(profile) > recovered(profile_of(world)) + 0.1
    again = train_inferred_direction(seen, ratings, config, seed=0)
    assert torch.equal(profile.population.factor, again.population.factor)


@pytest.mark.integration
def test_directions_are_found_through_predicted_objectives() -> None:
    world, _ = world_of(100, seed=7)
    generator = torch.Generator().manual_seed(0)
    mixed = world.ratings @ torch.randn(4, 24, generator=generator)
    features = mixed + 2.5 * torch.randn(len(mixed), 24, generator=generator)
    labels = rating_to_hundred(world.ratings, lowest=1, highest=5)
    rated = world.prompt_of < 300
    heads = fit_multi_objective(features[rated], labels[rated], world.prompt_of[rated], names=ASPECTS, seed=0)
    scores = heads.rate(features) / 20
    r2 = explained_variance(heads.rate(features[~rated]), labels[~rated], ASPECTS)
    assert 0.75 < min(r2.values()) < 0.95
    profile = InferredDirection.without_users(scores, world.prompt_of, names=ASPECTS)
    pairs = context_pairs(world.table, profile.lift(scores), world.table.user_ids)
    raw = profile.as_raw(profile.believe(profile.encode(pairs)).direction)
    assert cosine_similarity(raw, torch.from_numpy(world.weights).float()).mean() > 0.9


def test_without_a_common_taste_held_out_users_choose_a_spread() -> None:
    world, _ = world_of(12, seed=5, comparisons=12)
    profile = train_inferred_direction(
        world.table, world.ratings, InferredDirectionConfig(em_iterations=2), seed=0
    )
    assert profile.names == ("objective_1", "objective_2", "objective_3", "objective_4")


def test_faults_are_named() -> None:
    world, _ = world_of(2, seed=0, comparisons=4)
    profile = profile_of(world)
    with pytest.raises(ShapeError, match=r"the 4 scores instruction_following.*got shape \(7, 3\)"):
        profile.lift(torch.zeros(7, 3))
    with pytest.raises(ShapeError, match=r"shape \(2, 2\) and `population` 2 weights.*got \(4, 4\) and 4"):
        InferredDirection(("a", "b"), profile.whitening, profile.population)
    with pytest.raises(DataError, match=r"between 0 and 1; got 1\.0"):
        profile.believe(profile.encode(pairs_of(profile, world)), level=1.0)
    with pytest.raises(ShapeError, match=r"got \(6, 4\) and \(5,\)"):
        whiten_within_prompts(torch.zeros(6, 4), torch.zeros(5, dtype=torch.long))
    still = torch.cat([torch.arange(6.0)[:, None], torch.ones(6, 1)], 1)
    with pytest.raises(DataError, match=r"got none in columns \[1\] over 2 prompts"):
        whiten_within_prompts(still, torch.arange(6) // 3)
