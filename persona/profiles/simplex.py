"""Which mixture of K kinds a user is: beliefs about points of a simplex, for all users of a batch at once.

Replies have K scores, one under each kind. A user with mixing weights w chooses by P(chosen over rejected) =
sigmoid(a . w), a the differences of the scores, and a priori w has the density exp(-c KL(w || w0)) up to a
constant, with w0 the average user and c the concentration. The log-posterior is concave in w whatever the pairs
are, so there is one mode, and Newton's method finds it. Two things follow from this prior that a Dirichlet
lacks, although both have the same curvature at w0: at the mode log w - log w0 is linear in what the pairs say,
so a swapped lone pair moves it exactly the opposite way; and logits describe w without a border.

A user's latent z are those logits, scaled so that the prior has the covariance I: w = softmax(log w0 + B z).

Axis letters: B users, P pairs, K kinds, Z = K - 1 the latent.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from persona.errors import ShapeError
from persona.types import Posterior

MAX_NEWTON_STEPS = 40
STEP_SIZES = (1.0, 0.5, 0.25, 0.0625, 0.015625)
TOLERANCE = 1e-4
PRIOR_SHARE = 1e-2
"""Part of each posterior's precision that is the prior's own: near a corner the logits of absent kinds are free."""
LEAST_LOG_WEIGHT = -30.0
USERS_PER_BLOCK = 4096
"""Users whose modes are searched together: as many as the caches of a processor hold."""


def simplex_posterior(pairs: Tensor, mask: Tensor, log_average: Tensor, concentration: Tensor) -> Posterior:
    """Gaussian posterior of each user's logits, differentiable in all but `mask`.

    The search for the mode runs without gradients; one more Newton step from it carries them, which is exact
    there. The covariance is the inverse curvature of the log-posterior over w at the mode, carried to the logits.
    Costs O(P K min(P, K)) a user and step.

    Args:
        pairs: Scores under each kind, chosen minus rejected. Shape (B, P, K), float.
        mask: True where a pair is real. Shape (B, P), bool.
        log_average: Logarithms of the average user's weights; their exponentials sum to 1. Shape (K,), float.
        concentration: How little users differ, c above 0: in units of nats of evidence. Shape (), float.

    Returns:
        Mean (B, K - 1), covariance (B, K - 1, K - 1); without pairs zero and the identity.

    Raises:
        ShapeError: The shapes do not fit one another.

    Source: the prior is the entropic one, c times a relative entropy; convexity as for any concave log-likelihood of
    linear scores: Boyd & Vandenberghe (2004), "Convex Optimization", sections 3.2.6 and 7.1.1.
    """
    if pairs.ndim != 3 or mask.shape != pairs.shape[:2] or log_average.shape != pairs.shape[2:]:
        raise ShapeError(
            "`pairs` must have shape (B, P, K), `mask` (B, P) and `log_average` (K,); got "
            f"{tuple(pairs.shape)}, {tuple(mask.shape)} and {tuple(log_average.shape)}. Pad users to one number "
            "of pairs, and score replies under each kind."
        )
    real = mask.to(pairs.dtype)
    pairs = pairs * real[..., None]
    with torch.no_grad():
        settings = log_average.detach(), concentration.detach()
        blocks = zip(pairs.detach().split(USERS_PER_BLOCK), real.split(USERS_PER_BLOCK), strict=True)
        mode = torch.cat([_find_mode(*block, *settings) for block in blocks])
    logits = mode + _newton_step(pairs, real, log_average, concentration, mode)
    root = torch.exp(0.5 * log_average)
    scale = torch.sqrt(concentration)
    mean = ((logits - log_average) * root) @ _complement(root) * scale
    return Posterior(mean, _covariance(pairs, real, log_average, concentration, mean))


def mixing_weights(z: Tensor, log_average: Tensor, concentration: Tensor) -> Tensor:
    """Weights of the K kinds, w = softmax(log w0 + B z); zero is the average user.

    Args:
        z: Logits in units of the prior's deviation. Shape (..., K - 1), float.
        log_average: Logarithms of the average user's weights. Shape (K,), float.
        concentration: As the prior has it. Shape (), float.

    Returns:
        Shape (..., K), rows sum to 1.
    """
    return torch.softmax(log_average + z @ logit_basis(log_average, concentration).T, dim=-1)


def logit_basis(log_average: Tensor, concentration: Tensor) -> Tensor:
    """B (K, K - 1) of w = softmax(log w0 + B z): w moves by a covariance of (diag w0 - w0 w0^T) / c for z ~ N(0, I)."""
    root = torch.exp(0.5 * log_average)
    return _complement(root) / root[:, None] / torch.sqrt(concentration)


def project_weights(
    z: Posterior, pairs: Tensor, log_average: Tensor, concentration: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance, each (B, T), of a . w for score differences a (B, T, K); w is linear in z near its mean."""
    weights = mixing_weights(z.mean, log_average, concentration)
    seen = pairs @ _jacobian(weights, logit_basis(log_average, concentration))
    variance = torch.einsum("btz,bzy,bty->bt", seen, z.covariance, seen)
    return torch.einsum("btk,bk->bt", pairs, weights), variance.clamp_min(0.0)


def _complement(root: Tensor) -> Tensor:
    """An orthonormal basis (K, K - 1) of what is orthogonal to the unit vector `root`, smooth in it (Householder)."""
    last = torch.zeros_like(root)
    last[-1] = 1.0
    normal = root + last
    identity = torch.eye(len(root), dtype=root.dtype, device=root.device)
    mirrored = identity - torch.outer(normal, normal) / (1.0 + root[-1])
    return mirrored[:, :-1]


def _jacobian(weights: Tensor, basis: Tensor) -> Tensor:
    """How softmax's output moves with z: (diag w - w w^T) B. Shape (B, K, K - 1)."""
    centred = basis - (weights @ basis)[:, None, :]
    return weights[..., None] * centred


def _find_mode(pairs: Tensor, real: Tensor, log_average: Tensor, concentration: Tensor) -> Tensor:
    """Logarithms of the weights at the mode. Shape (B, K)."""
    logits = log_average.expand(len(pairs), -1).clone()
    moving = torch.arange(len(pairs), device=pairs.device)
    for _ in range(MAX_NEWTON_STEPS):
        if not len(moving):
            break
        part, here = (pairs[moving], real[moving]), logits[moving]
        step = _newton_step(*part, log_average, concentration, here)
        size = _best_size(*part, log_average, concentration, here, step)
        logits[moving] = torch.log_softmax(here + size * step, dim=-1)
        # What matters is how far the weights move, not the logits of kinds that are absent.
        change = (step.abs() * here.exp()).amax(dim=-1)
        moving = moving[change > TOLERANCE]
    return logits


def _best_size(
    pairs: Tensor, real: Tensor, log_average: Tensor, concentration: Tensor, logits: Tensor, step: Tensor
) -> Tensor:
    """For each user the size of a step, of a few, that raises the log-posterior most. Shape (B, 1)."""
    sizes = pairs.new_tensor(STEP_SIZES)
    tried = torch.log_softmax(logits[:, None] + sizes[:, None] * step[:, None], dim=-1)
    weights = tried.exp()
    fit = (logsigmoid(weights @ pairs.mT) * real[:, None]).sum(-1)
    divergence = (weights * (tried - log_average)).sum(-1)
    return sizes[(fit - concentration * divergence).argmax(dim=1)][:, None]


def _newton_step(
    pairs: Tensor, real: Tensor, log_average: Tensor, concentration: Tensor, logits: Tensor
) -> Tensor:
    """Newton's step of the weights, as a change of their logarithms: the same to first order, and never negative.

    With the weights' change written as sqrt(w) e, the curvature is c I + A^T A, as round as it can be.
    """
    logits = logits.clamp_min(LEAST_LOG_WEIGHT)
    root = torch.exp(0.5 * logits)
    odds = torch.einsum("bpk,bk->bp", pairs, logits.exp())
    pull = torch.einsum("bpk,bp->bk", pairs, torch.sigmoid(-odds) * real)
    gradient = root * (pull - concentration * (logits - log_average))
    a = pairs * root[:, None] * _spread(odds)[..., None]
    solved = _solve(a, concentration, torch.stack([gradient, root], dim=-1))
    along, across = solved.unbind(-1)
    # The weights keep their sum: the part of the step along sqrt(w) is taken out, in the metric of the curvature.
    excess = (root * along).sum(-1, keepdim=True) / (root * across).sum(-1, keepdim=True)
    return (along - excess * across) / root


def _solve(a: Tensor, concentration: Tensor, columns: Tensor) -> Tensor:
    """(c I + a^T a)^-1 columns, among the pairs or among the kinds, whichever are fewer."""
    if a.shape[1] < a.shape[2]:
        inner = torch.cholesky_solve(a @ columns, _cholesky(a @ a.mT, concentration))
        return (columns - a.mT @ inner) / concentration
    return torch.cholesky_solve(columns, _cholesky(a.mT @ a, concentration))


def _covariance(pairs: Tensor, real: Tensor, log_average: Tensor, concentration: Tensor, z: Tensor) -> Tensor:
    basis = logit_basis(log_average, concentration)
    weights = torch.softmax(log_average + z @ basis.T, dim=-1)
    jacobian = _jacobian(weights, basis)
    odds = torch.einsum("bpk,bk->bp", pairs, weights)
    seen = pairs @ jacobian * (_spread(odds) * real)[..., None]
    precision = concentration * basis.T @ jacobian + seen.mT @ seen
    identity = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    precision = (1.0 - PRIOR_SHARE) * precision + PRIOR_SHARE * identity
    return torch.cholesky_inverse(torch.linalg.cholesky(precision))


def _spread(odds: Tensor) -> Tensor:
    """sqrt(s (1 - s)) for s = sigmoid(odds), by way of logarithms: its gradient stays finite where s is 0 or 1."""
    return torch.exp(0.5 * (logsigmoid(odds) + logsigmoid(-odds)))


def _cholesky(gram: Tensor, concentration: Tensor) -> Tensor:
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor: Tensor = torch.linalg.cholesky(gram + concentration * identity)
    return factor
