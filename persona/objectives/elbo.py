"""The evidence lower bound of a latent profile, term by term.

For a belief q(z) about a user, the bound on the log-probability of the user's targets is
E_q[log p(targets | z)] - beta KL(q || prior). Where the log-odds of a target are linear in z, they are Gaussian
under a Gaussian q, and the expectation is an integral over one dimension: it is computed, not sampled.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from persona.errors import ShapeError
from persona.types import Posterior

QUADRATURE_NODES = 20


def expected_log_sigmoid(mean: Tensor, variance: Tensor) -> Tensor:
    """E[log sigmoid(x)] for x ~ N(mean, variance), by Gauss-Hermite quadrature.

    Exact to about 1e-5 for deviations up to 3. Always at most log sigmoid(mean), by Jensen's inequality.

    Args:
        mean: Any shape, float.
        variance: At least 0, same shape.

    Returns:
        Same shape, in nats, at most 0.

    Example:
        >>> expected_log_sigmoid(torch.zeros(1), torch.zeros(1)).exp()
        tensor([0.5000])

    Source: Abramowitz & Stegun (1964), 25.4.46.
    """
    nodes, weights = np.polynomial.hermite.hermgauss(QUADRATURE_NODES)
    # The small constant keeps the gradient of the root finite where a padded target has no variance.
    deviation = torch.sqrt(2.0 * variance + 1e-12)
    points = mean[..., None] + deviation[..., None] * mean.new_tensor(nodes)
    return logsigmoid(points) @ mean.new_tensor(weights / np.sqrt(np.pi))


def gaussian_kl(posterior: Posterior, prior: Posterior) -> Tensor:
    """KL(posterior || prior) of two Gaussians with full covariance, for each row.

    With prior N(p, S) and posterior N(q, C): (tr(S^-1 C) + (q - p) S^-1 (q - p) - Z + log det S - log det C)
    / 2.

    Args:
        posterior: Mean (B, Z) and covariance (B, Z, Z).
        prior: The same shapes.

    Returns:
        Shape (B,), in nats, at least 0 up to rounding.
    """
    wide, narrow = torch.linalg.cholesky(prior.covariance), torch.linalg.cholesky(posterior.covariance)
    shift = (posterior.mean - prior.mean)[..., None]
    trace = torch.linalg.solve_triangular(wide, narrow, upper=False).square().sum((-1, -2))
    distance = torch.linalg.solve_triangular(wide, shift, upper=False).square().sum((-1, -2))
    log_ratio = _log_diagonal(wide) - _log_diagonal(narrow)
    divergence: Tensor = 0.5 * (trace + distance - shift.shape[-2]) + log_ratio
    return divergence


def standard_normal_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, diag exp(log_variance)) || N(0, I)) of each row: sum of (exp(v) + m^2 - 1 - v) / 2.

    Args:
        mean: Shape (B, Z), float.
        log_variance: Logarithms of the variances. Shape (B, Z), float.

    Returns:
        Shape (B,), in nats, at least 0.

    Source: Kingma & Welling (2014), "Auto-Encoding Variational Bayes", appendix B.
    """
    return 0.5 * (log_variance.exp() + mean.square() - 1.0 - log_variance).sum(-1)


def anneal_beta(beta: float, *, step: int, warmup_steps: int) -> float:
    """Weight of the KL at an optimiser step: rises linearly from 0 to `beta` at `warmup_steps`, then stays.

    A function of the optimiser's step, so neither evaluation nor the number of micro-batches changes it.
    """
    return beta * min(1.0, step / warmup_steps) if warmup_steps > 0 else beta


def cyclical_beta(beta: float, *, step: int, period: int, start: float = 0.1) -> float:
    """Weight of the KL at an optimiser step, from 0: half a cosine from `start` beta up to `beta`, again and again.

    Source: Poddar et al. (2024), whose released code steps it once for each call of the loss, during evaluation as
    well; here it follows the optimiser. Fu et al. (2019), "Cyclical Annealing Schedule", section 3.2.
    """
    phase = step % period / period
    return beta * (start + (1.0 - start) * 0.5 * (1.0 - math.cos(math.pi * phase)))


def negative_elbo_loss(
    log_likelihood: Tensor, mask: Tensor, kl: Tensor, *, beta: float, free_nats: float = 0.0
) -> Tensor:
    """Negative bound of each user, averaged over the user's targets.

    loss = (-sum of expected log-likelihoods + beta max(kl, free_nats)) / number of targets.

    Args:
        log_likelihood: Expected log-likelihood of each target, in nats. Shape (B, T), float.
        mask: True where a target is real; each row has at least one. Shape (B, T), bool.
        kl: Of each user's belief from its prior, in nats. Shape (B,), float.
        beta: Weight of the KL; 1 is the bound itself.
        free_nats: A belief may move this far from its prior at no cost, against collapse onto it.

    Returns:
        Shape (B,), in nats for a target.

    Raises:
        ShapeError: `mask` or `kl` does not fit `log_likelihood`.

    Source: Poddar et al. (2024), "Personalizing Reinforcement Learning from Human Feedback with Variational
    Preference Learning", section 3; free nats from Kingma et al. (2016), "Improved Variational Inference with
    Inverse Autoregressive Flow", appendix C.8.
    """
    if mask.shape != log_likelihood.shape or kl.shape != log_likelihood.shape[:1]:
        raise ShapeError(
            "`log_likelihood` and `mask` must have one shape (B, T) and `kl` (B,); got "
            f"{tuple(log_likelihood.shape)}, {tuple(mask.shape)} and {tuple(kl.shape)}. Pass one KL for each "
            "user."
        )
    total = torch.where(mask, log_likelihood, 0.0).sum(-1)
    return (beta * kl.clamp_min(free_nats) - total) / mask.sum(-1)


def _log_diagonal(factor: Tensor) -> Tensor:
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
