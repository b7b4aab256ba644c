import numpy as np
import pytest
import torch
from torch import Tensor

from persona.errors import ShapeError
from persona.profiles.simplex import (
    PRIOR_SHARE,
    logit_basis,
    mixing_weights,
    project_weights,
    simplex_posterior,
)
from tests.helpers.slow_pal import best_weights, log_posterior, log_posterior_hessian

AVERAGE = torch.tensor([0.4, 0.3, 0.2, 0.1])
LOG_AVERAGE = AVERAGE.log()
CONCENTRATION = torch.tensor(4.0)


def problem(rows: int = 5, pairs: int = 8, kinds: int = 4, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return scale * torch.randn(rows, pairs, kinds, generator=rng), torch.rand(
        rows, pairs, generator=rng
    ) > 0.3


def double(*tensors: Tensor) -> list[Tensor]:
    return [t.double() if t.is_floating_point() else t for t in tensors]


@pytest.mark.parametrize("pairs", [1, 3, 30])
@pytest.mark.parametrize("scale", [0.3, 3.0, 15.0])
def test_mode_matches_a_generic_optimiser(pairs: int, scale: float) -> None:
    scores, mask = problem(pairs=pairs, scale=scale)
    scores, log_average, concentration = double(scores, LOG_AVERAGE, CONCENTRATION)
    z = simplex_posterior(scores, mask, log_average, concentration).mean
    got = mixing_weights(z, log_average, concentration)
    average = log_average.exp().numpy()
    for row in range(len(mask)):
        own = scores[row][mask[row]].numpy()
        slow = best_weights(own, average, 4.0)
        np.testing.assert_allclose(got[row].numpy(), slow, atol=2e-5)
        assert (
            log_posterior(got[row].numpy(), own, average, 4.0)
            >= log_posterior(slow, own, average, 4.0) - 1e-9
        )


def test_curvature_matches_second_differences() -> None:
    scores, mask = problem(rows=3)
    scores, log_average, concentration = double(scores, LOG_AVERAGE, CONCENTRATION)
    posterior = simplex_posterior(scores, mask, log_average, concentration)
    weights = mixing_weights(posterior.mean, log_average, concentration)
    for row in range(3):
        hessian = log_posterior_hessian(
            weights[row].numpy(), scores[row][mask[row]].numpy(), log_average.exp().numpy(), 4.0
        )
        basis = logit_basis(log_average, concentration).numpy()
        own = weights[row].numpy()
        jacobian = ((np.diag(own) - np.outer(own, own)) @ basis)[:-1]
        precision = -(1.0 - PRIOR_SHARE) * jacobian.T @ hessian @ jacobian + PRIOR_SHARE * np.eye(3)
        np.testing.assert_allclose(posterior.covariance[row].numpy(), np.linalg.inv(precision), rtol=1e-3)


def test_two_kinds_and_one_pair_is_a_problem_of_one_number() -> None:
    # With w0 = 1/2 and s = a1 - a2, log(w1 / w2) = s sigmoid(-a . w) / c at the mode.
    scores = torch.tensor([[[3.0, -1.0]]])
    half = torch.tensor([0.5, 0.5]).log()
    z = simplex_posterior(scores, torch.ones(1, 1, dtype=torch.bool), half, torch.tensor(2.0)).mean
    first = float(mixing_weights(z, half, torch.tensor(2.0))[0, 0])
    odds = 3.0 * first - (1.0 - first)
    assert np.log(first / (1.0 - first)) == pytest.approx(4.0 / (1.0 + np.exp(odds)) / 2.0, abs=1e-4)


def test_without_pairs_the_posterior_is_the_prior() -> None:
    scores, mask = problem()
    for pairs, seen in ((scores[:, :0], mask[:, :0]), (scores, torch.zeros_like(mask))):
        posterior = simplex_posterior(pairs, seen, LOG_AVERAGE, CONCENTRATION)
        assert torch.equal(posterior.mean, torch.zeros(5, 3))
        torch.testing.assert_close(posterior.covariance, torch.eye(3).expand(5, 3, 3))
    torch.testing.assert_close(mixing_weights(posterior.mean, LOG_AVERAGE, CONCENTRATION)[0], AVERAGE)


def test_near_the_average_weights_move_as_a_multinomial_would() -> None:
    basis = logit_basis(LOG_AVERAGE, CONCENTRATION)
    jacobian = (torch.diag(AVERAGE) - torch.outer(AVERAGE, AVERAGE)) @ basis
    wanted = (torch.diag(AVERAGE) - torch.outer(AVERAGE, AVERAGE)) / CONCENTRATION
    torch.testing.assert_close(jacobian @ jacobian.T, wanted)


def test_a_swapped_lone_pair_moves_the_mean_exactly_the_opposite_way() -> None:
    scores, _ = problem(pairs=1, scale=8.0)
    seen = torch.ones(5, 1, dtype=torch.bool)
    ahead = simplex_posterior(scores, seen, LOG_AVERAGE, CONCENTRATION).mean
    behind = simplex_posterior(-scores, seen, LOG_AVERAGE, CONCENTRATION).mean
    cosine = torch.nn.functional.cosine_similarity(ahead, behind)
    torch.testing.assert_close(cosine, -torch.ones(5), atol=1e-5, rtol=0.0)


def test_more_concentration_keeps_users_nearer_to_the_average() -> None:
    scores, mask = problem()
    shift = [
        (mixing_weights(simplex_posterior(scores, mask, LOG_AVERAGE, c).mean, LOG_AVERAGE, c) - AVERAGE)
        .abs()
        .sum()
        for c in torch.tensor([0.5, 5.0, 500.0])
    ]
    assert shift[0] > shift[1] > shift[2]
    assert shift[2] < 0.1


def test_gradient_is_that_of_differences() -> None:
    scores, mask = problem(rows=2, pairs=3)
    inputs = [t.requires_grad_() for t in double(scores, LOG_AVERAGE, CONCENTRATION)]

    def weights(scores: Tensor, log_average: Tensor, concentration: Tensor) -> Tensor:
        log_average = torch.log_softmax(log_average, 0)
        z = simplex_posterior(scores, mask[:2, :3], log_average, concentration).mean
        return mixing_weights(z, log_average, concentration)

    value = weights(*inputs)
    direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = torch.autograd.grad((value * direction).sum(), inputs)
    for place, gradient in enumerate(gradients):
        nudge = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        sides = []
        for sign in (1.0, -1.0):
            moved = [t.detach() + (sign * 1e-3 * nudge if i == place else 0.0) for i, t in enumerate(inputs)]
            sides.append((weights(*moved) * direction).sum())
        slope = float((sides[0] - sides[1]) / 2e-3)
        assert float((gradient * nudge).sum()) == pytest.approx(slope, rel=5e-3, abs=1e-5)


def test_padding_has_no_influence_and_no_gradient() -> None:
    scores, mask = problem()
    scores.requires_grad_()
    posterior = simplex_posterior(scores, mask, LOG_AVERAGE, CONCENTRATION)
    changed = torch.where(mask[..., None], scores.detach(), torch.tensor(1000.0))
    torch.testing.assert_close(
        simplex_posterior(changed, mask, LOG_AVERAGE, CONCENTRATION).mean, posterior.mean
    )
    (posterior.mean.sum() + posterior.covariance.sum()).backward()
    assert scores.grad is not None
    assert torch.equal(scores.grad[~mask], torch.zeros_like(scores.grad[~mask]))


def test_extreme_scores_stay_finite() -> None:
    scores, _ = problem(rows=4, pairs=40, scale=300.0)
    posterior = simplex_posterior(scores, torch.ones(4, 40, dtype=torch.bool), LOG_AVERAGE, CONCENTRATION)
    assert posterior.mean.isfinite().all()
    assert (torch.linalg.eigvalsh(posterior.covariance) > 0).all()


def test_projection_is_linear_in_the_scores_and_widens_with_doubt() -> None:
    scores, mask = problem()
    prior = simplex_posterior(scores, torch.zeros_like(mask), LOG_AVERAGE, CONCENTRATION)
    mean, variance = project_weights(prior, scores, LOG_AVERAGE, CONCENTRATION)
    torch.testing.assert_close(mean, scores @ AVERAGE)
    spread = (scores.square() @ AVERAGE - (scores @ AVERAGE).square()) / CONCENTRATION
    torch.testing.assert_close(variance, spread, atol=1e-4, rtol=1e-3)
    seen = simplex_posterior(scores, mask, LOG_AVERAGE, CONCENTRATION)
    assert project_weights(seen, scores, LOG_AVERAGE, CONCENTRATION)[1].mean() < variance.mean()


def test_no_users_give_no_rows() -> None:
    nobody = torch.zeros(0, 2, 4), torch.zeros(0, 2, dtype=torch.bool)
    assert simplex_posterior(*nobody, LOG_AVERAGE, CONCENTRATION).mean.shape == (0, 3)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ShapeError, match=r"got \(5, 8, 4\), \(5, 8\) and \(3,\)"):
        simplex_posterior(*problem(), LOG_AVERAGE[:3], CONCENTRATION)
