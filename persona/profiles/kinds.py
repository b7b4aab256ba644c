"""Beliefs over finitely many kinds of user, which need no approximation of the posterior.

Each kind says how likely it makes each choice, so Bayes' rule over kinds is one softmax of summed
log-probabilities. A latent is a kind's place: the belief's mean and covariance are those of the places. With
places whose prior mean is zero, a lone pair and its swap move the mean in opposite directions, whatever the
likelihood: q p(choice) and q (1 - p(choice)) add up to the prior q, so their means lie on two sides of zero.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from persona.errors import ShapeError
from persona.types import Posterior, ReplyPairs

VARIANCE_FLOOR = 1e-4
"""Added to each latent's variance, since a belief that settled on one kind has none."""

_CELLS = 1 << 18
"""Numbers of a block of users: few enough for a processor's cache, which is three times as fast as more."""


def log_evidence(log_likelihood: Tensor, mask: Tensor) -> Tensor:
    """Log-probability of each user's choices under each kind.

    Args:
        log_likelihood: Of each choice under each of S kinds, in nats. Shape (B, P, S).
        mask: True where a pair is real. Shape (B, P), bool.

    Returns:
        Shape (B, S); zero without pairs.

    Raises:
        ShapeError: The two do not fit.
    """
    if log_likelihood.ndim != 3 or mask.shape != log_likelihood.shape[:2]:
        raise ShapeError(
            "`log_likelihood` must have shape (B, P, S) and `mask` (B, P); got "
            f"{tuple(log_likelihood.shape)} and {tuple(mask.shape)}. Score each pair under each kind."
        )
    return torch.where(mask[..., None], log_likelihood, 0.0).sum(1)


def marginal_surprise(log_likelihood: Tensor, mask: Tensor) -> Tensor:
    """Nats a pair of users' choices, each user's joint probability averaged over equally likely kinds.

    -log(1/S sum_s prod_p likelihood_ps), summed over users and divided by the number of pairs: what kinds and
    their spread are trained by, as it rewards kinds that explain all of a user's choices at once.

    Args:
        log_likelihood: Of each choice under each of S kinds, in nats. Shape (B, P, S).
        mask: True where a pair is real, at least once. Shape (B, P), bool.

    Returns:
        Shape ().

    Raises:
        ShapeError: The two do not fit.
    """
    evidence = log_evidence(log_likelihood, mask)
    joint = torch.logsumexp(evidence, dim=-1) - math.log(evidence.shape[1])
    return -joint.sum() / mask.sum()


def belief_over_kinds(
    log_likelihood: Callable[[ReplyPairs], Tensor], log_prior: Tensor, pairs: ReplyPairs
) -> Tensor:
    """How likely each kind is, for each user, given what the user chose.

    Users are taken in blocks, so that memory does not grow with their number. Costs O(P S) a user and whatever
    `log_likelihood` does.

    Args:
        log_likelihood: From pairs (B, P, L) to log-probabilities (B, P, S) of the choices under S kinds.
        log_prior: Shape (S,), in nats, exponentials summing to 1.
        pairs: Contexts of B users.

    Returns:
        Shape (B, S), rows sum to 1; the prior itself without pairs.
    """
    users, width = pairs.mask.shape
    block = max(1, _CELLS // max(1, width * len(log_prior)))
    parts = [
        torch.softmax(log_prior + log_evidence(log_likelihood(part), part.mask), dim=-1)
        for part in (
            ReplyPairs(*(array[start : start + block] for array in pairs)) for start in range(0, users, block)
        )
    ]
    return torch.cat(parts) if parts else log_prior.new_zeros(0, len(log_prior))


def moments_of_kinds(belief: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the kinds' places under a belief, with `VARIANCE_FLOOR` on the diagonal.

    Args:
        belief: Shape (B, S), rows sum to 1.
        places: Where each kind is. Shape (S, Z).

    Returns:
        Shapes (B, Z) and (B, Z, Z).
    """
    size = places.shape[1]
    mean = belief @ places
    second = (belief @ (places[:, :, None] * places[:, None]).flatten(1)).unflatten(1, (size, size))
    identity = torch.eye(size, dtype=places.dtype, device=places.device)
    return mean, second - mean[:, :, None] * mean[:, None] + VARIANCE_FLOOR * identity


def log_weight_points(size: int, count: int, *, seed: int) -> Tensor:
    """Points that stand for users' log-weights over `size` things, drawn from a normal distribution.

    Only ratios of weights matter, so each point sums to zero. Points come in opposite pairs and are whitened:
    their mean is zero and each coordinate's variance one, exactly. They are quasi-random (Sobol), which covers
    the space more evenly than chance.

    Args:
        size: Number K of things weighted, at least 2.
        count: Number S of points, even, at least 4 K.
        seed: Scrambles the sequence.

    Returns:
        Shape (S, K), float32.

    Raises:
        ShapeError: A size out of range.

    Source: Owen (1998), "Scrambling Sobol' and Niederreiter-Xing Points", Journal of Complexity 14(4).
    """
    if size < 2 or count < 4 * size or count % 2:
        raise ShapeError(
            "`size` must be at least 2 and `count` even and at least 4 times `size`; got "
            f"{size} and {count}. Use 1024 points for up to a dozen weights."
        )
    engine = torch.quasirandom.SobolEngine(size - 1, scramble=True, seed=seed)
    drawn = engine.draw(count // 2, dtype=torch.float64)
    # Middles of strata: a point that chance puts far into a tail would shrink all others in the whitening.
    uniform = ((drawn * (count // 2)).floor() + 0.5) / (count // 2)
    half = math.sqrt(2.0) * torch.erfinv(2.0 * uniform - 1.0)
    normal = torch.cat([half, -half])
    factor = torch.linalg.cholesky(normal.T @ normal / count)
    white = torch.linalg.solve_triangular(factor, normal.T, upper=False).T
    points: Tensor = white @ _zero_sum_axes(size).T * math.sqrt(size / (size - 1))
    return points.float()


def _zero_sum_axes(size: int) -> Tensor:
    """Orthonormal axes (K, K - 1) of the vectors that sum to zero (Helmert's)."""
    row, column = torch.arange(size)[:, None], torch.arange(1, size)[None]
    axes = (row < column).double() - column * (row == column).double()
    return axes / (column * (column + 1)).double().sqrt()


def gaussian_belief(belief: Tensor, places: Tensor, weights: Tensor | None = None) -> Posterior:
    """The posterior with the moments of `moments_of_kinds` and, where given, weights (B, K)."""
    return Posterior(*moments_of_kinds(belief, places), weights)
