"""The listwise choice model: brute-force optimum, recovery within intervals, constants of users."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from simulators.errors import MirrorError
from simulators.mirror import ConditionalLogit, fit_choices, fit_levels, option_covariates, slate_scenes
from simulators.world import build_film_world

THETA = np.array([0.9, 0.4, -0.5])


def planted(
    scenes: int = 3000, options: int = 4, users: int = 60, *, spread: float = 0.6, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    covariates = rng.normal(size=(scenes, options, 3))
    available = np.ones((scenes, options), bool)
    available[: scenes // 4, -1] = False
    who = rng.integers(0, users, scenes)
    own = spread * rng.normal(size=users)
    utility = np.where(available, covariates @ THETA, -np.inf)
    nothing = (0.8 + own[who])[:, None]
    noisy = np.concatenate([utility, nothing], axis=1) + rng.gumbel(size=(scenes, options + 1))
    chosen = noisy.argmax(axis=1)
    return covariates, available, np.where(chosen == options, -1, chosen), who, own


def test_weights_and_constants_come_back_within_their_intervals() -> None:
    covariates, available, chosen, who, own = planted()
    found = fit_choices(covariates, available, chosen, who, n_users=60)
    for column, truth in enumerate(THETA):
        effect = found.effect(column)
        assert 0.01 < effect.error < 0.1 and abs(effect.value - truth) < 3 * effect.error
    assert found.constant == pytest.approx(0.8, abs=0.3)
    assert np.sqrt(found.variance) == pytest.approx(0.6, abs=0.2)
    assert np.corrcoef(found.own, own)[0, 1] > 0.8


def test_without_refusals_the_fit_is_the_plain_conditional_logit() -> None:
    rng = np.random.default_rng(1)
    covariates = rng.normal(size=(300, 3, 2))
    chosen = (covariates @ [1.0, -0.5] + rng.gumbel(size=(300, 3))).argmax(axis=1)
    who, available = np.arange(300) % 7, np.ones((300, 3), bool)
    found = fit_choices(covariates, available, chosen, who, n_users=7, penalty=0.5)

    def penalised(theta: np.ndarray) -> float:
        utility = covariates @ theta
        own = utility[np.arange(300), chosen]
        return float((np.log(np.exp(utility).sum(axis=1)) - own).sum() + 0.25 * theta @ theta)

    np.testing.assert_allclose(found.theta, minimize(penalised, np.zeros(2), tol=1e-10).x, atol=1e-5)
    assert found.constant is None and not found.own.any()
    probabilities = found.probabilities(covariates, available, who)
    assert not probabilities[:, -1].any()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_probabilities_are_those_of_the_formula() -> None:
    model = ConditionalLogit(np.array([1.0]), np.eye(2), 0.5, np.array([0.0, 1.0]), 1.0)
    covariates = np.array([[[0.0], [2.0]], [[1.0], [0.0]]])
    available = np.array([[True, True], [True, False]])
    found = model.probabilities(covariates, available, np.array([0, 1]))
    first = np.exp([0.0, 2.0, 0.5])
    np.testing.assert_allclose(found[0], first / first.sum())
    second = np.exp([1.0, 1.5])
    np.testing.assert_allclose(found[1], [second[0] / second.sum(), 0, second[1] / second.sum()])


def test_users_without_scenes_are_average() -> None:
    covariates, available, chosen, who, _ = planted(400, users=20)
    assert fit_choices(covariates, available, chosen, who, n_users=25).own[20:].tolist() == [0.0] * 5


def test_a_model_is_saved_and_loaded(tmp_path: Path) -> None:
    covariates, available, chosen, who, _ = planted(300, users=20)
    model = fit_choices(covariates, available, chosen, who, n_users=20)
    model.save(tmp_path)
    again = ConditionalLogit.load(tmp_path)
    np.testing.assert_array_equal(
        again.probabilities(covariates, available, who), model.probabilities(covariates, available, who)
    )
    assert again.effect(1) == model.effect(1)


def test_options_are_described_by_what_the_level_model_believes() -> None:
    world = build_film_world(60, 20, seed=0, impressions_per_user=40)
    model = fit_levels(world.log, world.catalogue.features, n_users=20, n_factors=1, iterations=2, seed=0)
    scenes, _ = slate_scenes(world.log, n_items=60)
    covariates, available = option_covariates(model, scenes)
    assert covariates.shape == (*scenes.options.shape, 4) and available.all()
    mean, variance = model.utility(scenes.users, scenes.options[:, 3])
    np.testing.assert_allclose(covariates[:, 3, 0], mean)
    np.testing.assert_allclose(covariates[:, 3, 1], variance)
    np.testing.assert_allclose(covariates[:, 3, 2], -np.log(4))
    np.testing.assert_allclose(covariates[:, 3, 3], model.popularity[scenes.options[:, 3]])


def test_shapes_that_do_not_fit_are_refused() -> None:
    covariates, available, chosen, who, _ = planted(50, users=10)
    model = fit_choices(covariates, available, chosen, who, n_users=10)
    with pytest.raises(MirrorError, match=r"shape \(S, O, 3\) .* got \(50, 4, 2\)"):
        model.probabilities(covariates[..., :2], available, who)
    with pytest.raises(MirrorError, match="1 scenes without an option"):
        fit_choices(covariates, available & (np.arange(50) > 0)[:, None], chosen, who, n_users=10)
    with pytest.raises(MirrorError, match=r"at least one scene, users below 3; got shapes \(50,\)"):
        fit_choices(covariates, available, chosen, who, n_users=3)


@pytest.mark.statistical
def test_intervals_cover() -> None:
    covered = np.zeros(3, int)
    for seed in range(40):
        covariates, available, chosen, who, _ = planted(800, seed=seed)
        found = fit_choices(covariates, available, chosen, who, n_users=60)
        for column, truth in enumerate(THETA):
            low, high = found.effect(column).interval
            covered[column] += low <= truth <= high
    # 38 of 40 are expected; 33 or fewer has a chance below 1 in 100.
    assert covered.min() >= 34, covered
