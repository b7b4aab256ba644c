import math

import pytest
import torch
from scipy.integrate import quad

from persona.errors import ShapeError
from persona.objectives.elbo import (
    anneal_beta,
    cyclical_beta,
    expected_log_sigmoid,
    gaussian_kl,
    negative_elbo_loss,
    standard_normal_kl,
)
from persona.types import Posterior


def normal(*scales: float, mean: float = 0.0) -> Posterior:
    return Posterior(torch.full((1, len(scales)), mean), torch.diag(torch.tensor(scales))[None])


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (2.0, 4.0), (-3.0, 9.0), (0.5, 0.0)])
def test_expected_log_sigmoid_is_the_integral(mean: float, variance: float) -> None:
    def integrand(x: float) -> float:
        value = mean + math.sqrt(variance) * x
        return -math.log1p(math.exp(-value)) * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    expected = quad(integrand, -12, 12)[0]
    got = expected_log_sigmoid(torch.tensor([mean]), torch.tensor([variance])).item()
    assert got == pytest.approx(expected, abs=1e-4)


def test_expected_log_sigmoid_has_a_finite_gradient_without_variance() -> None:
    variance = torch.zeros(1, requires_grad=True)
    expected_log_sigmoid(torch.zeros(1), variance).sum().backward()
    assert variance.grad is not None
    assert variance.grad.isfinite().all()


def test_kl_of_independent_gaussians_in_arithmetic() -> None:
    got = gaussian_kl(normal(0.5, 2.0, mean=1.0), normal(1.0, 4.0)).item()
    expected = 0.5 * (0.5 + 2 / 4 + 1.0 + 1 / 4 - 2 + math.log(1 * 4) - math.log(0.5 * 2))
    assert got == pytest.approx(expected, abs=1e-6)


def test_kl_of_full_covariances_matches_torch() -> None:
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, 3, 3, generator=rng) for _ in range(2))
    first = Posterior(torch.randn(5, 3, generator=rng), a @ a.mT + torch.eye(3))
    second = Posterior(torch.randn(5, 3, generator=rng), b @ b.mT + torch.eye(3))
    built = [torch.distributions.MultivariateNormal(p.mean, p.covariance) for p in (first, second)]
    torch.testing.assert_close(gaussian_kl(first, second), torch.distributions.kl_divergence(*built))


def test_kl_of_a_belief_with_itself_is_zero() -> None:
    assert gaussian_kl(normal(0.3, 1.7), normal(0.3, 1.7)).item() == pytest.approx(0.0, abs=1e-6)


def test_loss_averages_over_real_targets_and_forgives_free_nats() -> None:
    likelihood = torch.tensor([[-1.0, -2.0, -50.0], [-3.0, -50.0, -50.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    kl = torch.tensor([0.2, 4.0])
    loss = negative_elbo_loss(likelihood, mask, kl, beta=0.5, free_nats=1.0)
    torch.testing.assert_close(loss, torch.tensor([(1 + 2 + 0.5 * 1.0) / 2, 3 + 0.5 * 4.0]))


def test_no_gradient_flows_through_a_kl_below_the_free_nats() -> None:
    kl = torch.tensor([0.2, 4.0], requires_grad=True)
    ones = torch.ones(2, 1)
    negative_elbo_loss(-ones, ones.bool(), kl, beta=0.5, free_nats=1.0).sum().backward()
    assert kl.grad is not None
    assert kl.grad.tolist() == [0.0, 0.5]


def test_beta_rises_once_and_stays() -> None:
    rising = [anneal_beta(2.0, step=step, warmup_steps=4) for step in (0, 1, 4, 100)]
    assert rising == [0.0, 0.5, 2.0, 2.0]
    assert anneal_beta(2.0, step=0, warmup_steps=0) == 2.0


def test_shapes_must_fit() -> None:
    with pytest.raises(ShapeError, match=r"got \(2, 3\), \(2, 3\) and \(3,\)"):
        negative_elbo_loss(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool), torch.zeros(3), beta=1.0)


def test_kl_from_the_standard_normal_is_the_general_one() -> None:
    mean = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    spread = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    prior = Posterior(torch.zeros(4, 3), torch.eye(3).expand(4, 3, 3))
    general = gaussian_kl(Posterior(mean, torch.diag_embed(spread.exp())), prior)
    torch.testing.assert_close(standard_normal_kl(mean, spread), general)
    assert standard_normal_kl(torch.zeros(1, 2), torch.zeros(1, 2)).item() == 0.0


def test_the_published_weight_of_the_kl_rises_along_a_cosine_and_falls_back() -> None:
    rising = [cyclical_beta(2.0, step=step, period=4) for step in (0, 2, 4, 6)]
    middle = 2.0 * (0.1 + 0.9 / 2)
    assert rising == pytest.approx([0.2, middle, 0.2, middle])
    assert cyclical_beta(2.0, step=9_999, period=10_000) == pytest.approx(2.0, abs=1e-6)
