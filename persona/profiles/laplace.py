"""The posterior that all linear profiles share: logistic choices under a standard normal prior.

Given pairs u_p (feature differences seen through a linear head) and the average user's log-odds o_p,
P(chosen over rejected | z) = sigmoid(o_p + u_p . z) and z ~ N(0, I). The mode is found by Newton's method and
the posterior is the Gaussian with the curvature there (Laplace's approximation). All users of a batch are
solved together.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from persona.errors import ShapeError
from persona.objectives.score_gap import moderated_gap
from persona.types import Posterior

MAX_NEWTON_STEPS = 30
STEP_SIZES = (1.0, 0.5, 0.25, 0.125, 0.03125)
TOLERANCE = 1e-4


def logistic_posterior(pairs: Tensor, offset: Tensor, mask: Tensor) -> Posterior:
    """Gaussian posterior of each user's latent, differentiable in `pairs` and `offset`.

    The search for the mode runs without gradients; one more Newton step from it carries them. At the mode
    that step has no first-order dependence on where it starts, so its gradient is the exact one of the
    implicit function. Costs O(P Z min(P, Z)) a user and step: with fewer pairs than latents the system is
    solved among the pairs.

    Args:
        pairs: What each pair says about the latent, chosen minus rejected. Shape (B, P, Z), float.
        offset: Log-odds of the choice for the average user. Shape (B, P), float.
        mask: True where a pair is real. Shape (B, P), bool.

    Returns:
        Mean (B, Z) and covariance (B, Z, Z); without pairs exactly the prior.

    Raises:
        ShapeError: `offset` or `mask` does not have the first two axes of `pairs`.

    Source: Rasmussen & Williams (2006), "Gaussian Processes for Machine Learning", section 3.4 and algorithm
    3.1.
    """
    if pairs.ndim != 3 or offset.shape != pairs.shape[:2] or mask.shape != pairs.shape[:2]:
        raise ShapeError(
            "`pairs` must have shape (B, P, Z), `offset` and `mask` (B, P); got "
            f"{tuple(pairs.shape)}, {tuple(offset.shape)} and {tuple(mask.shape)}. Pad users to one number "
            "of pairs."
        )
    real = mask.to(pairs.dtype)
    with torch.no_grad():
        mode = _find_mode(pairs.detach(), offset.detach(), real)
    mean = mode + _newton_step(pairs, offset, real, mode)
    return Posterior(mean, _covariance(_weighted(pairs, offset, real, mean)))


def predictive_probability(mean: Tensor, variance: Tensor) -> Tensor:
    """P(choice) when its log-odds are Gaussian: sigmoid(mean / sqrt(1 + pi variance / 8)), elementwise.

    Less certain about the user means closer to one half; the order of the means is kept.

    Source: MacKay (1992), "The Evidence Framework Applied to Classification Networks", Neural Computation
    4(5).
    """
    return torch.sigmoid(moderated_gap(mean, variance))


def project_posterior(posterior: Posterior, difference: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance, each (B, T), of difference . z for z from the posterior; `difference` (B, T, Z)."""
    mean = torch.einsum("btz,bz->bt", difference, posterior.mean)
    variance = torch.einsum("btz,bzy,bty->bt", difference, posterior.covariance, difference)
    return mean, variance.clamp_min(0.0)


def _find_mode(pairs: Tensor, offset: Tensor, real: Tensor) -> Tensor:
    z = pairs.new_zeros(pairs.shape[0], pairs.shape[2])
    sizes = pairs.new_tensor(STEP_SIZES)
    for _ in range(MAX_NEWTON_STEPS):
        step = _newton_step(pairs, offset, real, z)
        if not len(step) or step.abs().max() < TOLERANCE * (1.0 + z.abs().max()):
            break
        # A full step may overshoot where the curve is flat, so each user takes the best of a few sizes.
        odds = offset + torch.einsum("bpz,bz->bp", pairs, z)
        change = torch.einsum("bpz,bz->bp", pairs, step)
        fit = (logsigmoid(odds[..., None] + change[..., None] * sizes) * real[..., None]).sum(1)
        penalty = 0.5 * (z[..., None] + step[..., None] * sizes).square().sum(1)
        z = z + step * sizes[(fit - penalty).argmax(dim=1)][:, None]
    return z


def _newton_step(pairs: Tensor, offset: Tensor, real: Tensor, z: Tensor) -> Tensor:
    odds = offset + torch.einsum("bpz,bz->bp", pairs, z)
    gradient = torch.einsum("bpz,bp->bz", pairs, torch.sigmoid(-odds) * real) - z
    return _solve(_weighted(pairs, offset, real, z), gradient)


def _weighted(pairs: Tensor, offset: Tensor, real: Tensor, z: Tensor) -> Tensor:
    """Rows a with I + a^T a = the posterior's precision at z. Shape (B, P, Z)."""
    odds = offset + torch.einsum("bpz,bz->bp", pairs, z)
    # sqrt(s (1 - s)) by way of logarithms: its gradient stays finite where s reaches 0 or 1.
    root = torch.exp(0.5 * (logsigmoid(odds) + logsigmoid(-odds))) * real
    return pairs * root[..., None]


def _solve(a: Tensor, vector: Tensor) -> Tensor:
    """(I + a^T a)^-1 vector, among the pairs or among the latents, whichever are fewer."""
    if a.shape[1] < a.shape[2]:
        inner = torch.cholesky_solve(torch.einsum("bpz,bz->bp", a, vector)[..., None], _cholesky(a @ a.mT))
        return vector - torch.einsum("bpz,bp->bz", a, inner[..., 0])
    return torch.cholesky_solve(vector[..., None], _cholesky(a.mT @ a))[..., 0]


def _covariance(a: Tensor) -> Tensor:
    identity = torch.eye(a.shape[2], dtype=a.dtype, device=a.device)
    if a.shape[1] < a.shape[2]:
        return identity - a.mT @ torch.cholesky_solve(a, _cholesky(a @ a.mT))
    return torch.cholesky_solve(identity.expand(len(a), -1, -1), _cholesky(a.mT @ a))


def _cholesky(gram: Tensor) -> Tensor:
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor: Tensor = torch.linalg.cholesky(gram + identity)
    return factor
