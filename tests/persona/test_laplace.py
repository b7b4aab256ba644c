import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from persona.errors import ShapeError
from persona.profiles import logistic_posterior, predictive_probability


def problem(
    rows: int, pairs: int, latent: int, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    u = scale * torch.randn(rows, pairs, latent, generator=rng)
    offset = torch.randn(rows, pairs, generator=rng)
    mask = torch.rand(rows, pairs, generator=rng) > 0.3
    return u, offset, mask


@pytest.mark.parametrize(("pairs", "latent"), [(5, 3), (3, 5), (1, 1), (30, 4)])
@pytest.mark.parametrize("scale", [0.3, 2.0, 20.0])
def test_mode_and_curvature_match_a_generic_optimiser(pairs: int, latent: int, scale: float) -> None:
    u, offset, mask = (t.double() if t.is_floating_point() else t for t in problem(4, pairs, latent, scale))
    posterior = logistic_posterior(u, offset, mask)
    for row in range(4):
        rows, shift = u[row][mask[row]].numpy(), offset[row][mask[row]].numpy()

        def loss(z: np.ndarray, rows: np.ndarray = rows, shift: np.ndarray = shift) -> float:
            return float(np.logaddexp(0.0, -(shift + rows @ z)).sum() + 0.5 * z @ z)

        best = minimize(loss, np.zeros(latent), method="BFGS", options={"gtol": 1e-9}).x
        np.testing.assert_allclose(posterior.mean[row].numpy(), best, atol=2e-5)
        chance = 1.0 / (1.0 + np.exp(-(shift + rows @ best)))
        precision = np.eye(latent) + rows.T @ (rows * (chance * (1.0 - chance))[:, None])
        np.testing.assert_allclose(posterior.covariance[row].numpy(), np.linalg.inv(precision), atol=1e-4)


def test_without_pairs_the_posterior_is_the_prior() -> None:
    empty = logistic_posterior(torch.zeros(2, 0, 3), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool))
    u, offset, mask = problem(2, 4, 3)
    masked = logistic_posterior(u, offset, torch.zeros_like(mask))
    for posterior in (empty, masked):
        assert torch.equal(posterior.mean, torch.zeros(2, 3))
        assert torch.equal(posterior.covariance, torch.eye(3).expand(2, 3, 3))


def test_no_users_give_no_rows() -> None:
    none = logistic_posterior(torch.zeros(0, 2, 3), torch.zeros(0, 2), torch.zeros(0, 2, dtype=torch.bool))
    assert none.mean.shape == (0, 3)


def test_padding_has_no_influence_and_no_gradient() -> None:
    u, offset, mask = problem(3, 6, 2)
    u.requires_grad_()
    posterior = logistic_posterior(u, offset, mask)
    changed = torch.where(mask[..., None], u.detach(), torch.tensor(1000.0))
    torch.testing.assert_close(logistic_posterior(changed, offset, mask).mean, posterior.mean.detach())
    (posterior.mean.sum() + posterior.covariance.sum()).backward()
    assert u.grad is not None
    assert (u.grad[~mask] == 0).all()
    assert (u.grad[mask] != 0).any()


@pytest.mark.parametrize(("pairs", "latent"), [(4, 2), (2, 4)])
def test_gradient_is_that_of_the_whole_solution(pairs: int, latent: int) -> None:
    u, offset, mask = (t.double() if t.is_floating_point() else t for t in problem(2, pairs, latent))
    u.requires_grad_()
    offset.requires_grad_()

    def solve(u: torch.Tensor, offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        posterior = logistic_posterior(u, offset, mask)
        return posterior.mean, posterior.covariance

    assert torch.autograd.gradcheck(solve, (u, offset), eps=1e-5, atol=1e-4)


def test_extreme_pairs_stay_finite() -> None:
    u = torch.tensor([[[1e4, 0.0], [-1e4, 0.0], [1e4, 1e4]]], requires_grad=True)
    posterior = logistic_posterior(u, torch.full((1, 3), 50.0), torch.ones(1, 3, dtype=torch.bool))
    posterior.mean.sum().backward()
    assert posterior.mean.isfinite().all()
    assert posterior.covariance.isfinite().all()
    assert u.grad is not None
    assert u.grad.isfinite().all()


def test_shapes_must_fit() -> None:
    with pytest.raises(ShapeError, match=r"got \(2, 3, 4\), \(2, 2\) and \(2, 3\)"):
        logistic_posterior(torch.zeros(2, 3, 4), torch.zeros(2, 2), torch.ones(2, 3, dtype=torch.bool))


def test_predictive_probability_is_close_to_the_integral() -> None:
    mean, variance = torch.tensor([0.0, 1.0, -2.0]), torch.tensor([4.0, 1.0, 0.0])
    draws = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0)) * variance.sqrt() + mean
    torch.testing.assert_close(
        predictive_probability(mean, variance), torch.sigmoid(draws).mean(0), atol=0.01, rtol=0.0
    )
    assert predictive_probability(mean, variance)[1].item() == pytest.approx(
        1 / (1 + math.exp(-1 / math.sqrt(1 + math.pi / 8))), abs=1e-6
    )
