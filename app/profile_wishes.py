"""What a belief about a user means in named attributes: which they want more or less of, and how sure that is.

Works for every profile. The log-odds of many pairs of replies, less those of the average user, are regressed on the
pairs' differences in the named attributes, and the doubt about the log-odds is carried through the regression. For a
reward that is linear in the latent all of this is exact.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.profiles import Profile
from persona.types import Posterior, ReplyPairs

DRAWS = 256
_SURE = 1e-6
_USERS_AT_ONCE = 64
# Deviations of the belief over which a slope is taken: beyond rounding, and still local.
_STEP = 0.05
Values = NDArray[np.float64]


class Lens(NamedTuple):
    """Pairs of replies through which beliefs are read.

    first: Lifted features of one reply of each pair. Shape (T, L).
    second: Of the other. Shape (T, L).
    solve: From the T log-odds to their least-squares coefficients on the attributes' differences. Shape (A, T).
    """

    first: Tensor
    second: Tensor
    solve: Tensor


class Odds(NamedTuple):
    """Log-odds of T pairs under a belief.

    mean: Shape (T,).
    deviations: Independent parts of the doubt, one a row: the variance of any linear function of the log-odds is the
        sum of its squares over the rows. Shape (J, T).
    """

    mean: Tensor
    deviations: Tensor

    @property
    def variance(self) -> Tensor:
        """Shape (T,)."""
        return self.deviations.square().sum(0)


class Wishes(NamedTuple):
    """How much more than the average user each user wants of each attribute, in logits a deviation.

    mean: Shape (B, A).
    std: Shape (B, A); zero where the belief is certain.
    """

    mean: Values
    std: Values

    def probability_of_more(self) -> Values:
        """Probability that each user wants more of each attribute than the average user does. Shape (B, A)."""
        ratio = self.mean / np.maximum(self.std, 1e-12) / math.sqrt(2.0)
        return 0.5 * (1.0 + torch.erf(torch.from_numpy(ratio)).numpy())


def build_lens(profile: Profile, features: Tensor, attributes: Values, pairs: NDArray[np.int64]) -> Lens:
    """Pairs ready to be asked about.

    Args:
        profile: Whose beliefs are to be read.
        features: Plain features of every reply. Shape (N, D).
        attributes: Named attributes of the same replies, standardised. Shape (N, A).
        pairs: Rows of the two replies of each pair, to one prompt. Shape (T, 2).
    """
    lifted = profile.lift(features)
    first, second = (lifted[torch.from_numpy(pairs[:, side])] for side in (0, 1))
    difference = attributes[pairs[:, 0]] - attributes[pairs[:, 1]]
    return Lens(first, second, torch.from_numpy(np.linalg.pinv(difference)))


@torch.no_grad()
def read_wishes(profile: Profile, posterior: Posterior, lens: Lens, *, seed: int) -> Wishes:
    """What beliefs about B users mean.

    Args:
        profile: That they belong to.
        posterior: Of B users.
        lens: Pairs to read them through.
        seed: Draws users from beliefs over kinds.
    """
    average = _coefficients(profile, average_user(profile, lens.first), lens)[0]
    mean, std = [np.zeros((0, len(average)))], [np.zeros((0, len(average)))]
    for row in range(len(posterior.mean)):
        odds = belief_odds(profile, posterior, row, lens.first, lens.second, seed=seed)
        mean.append(((lens.solve @ odds.mean).numpy() - average)[None])
        std.append((odds.deviations @ lens.solve.T).square().sum(0).sqrt().numpy()[None])
    return Wishes(np.concatenate(mean), np.concatenate(std))


@torch.no_grad()
def belief_odds(
    profile: Profile, posterior: Posterior, row: int, first: Tensor, second: Tensor, *, seed: int
) -> Odds:
    """The log-odds of T pairs under the belief about one user, with their doubt.

    A Gaussian belief is carried through the log-odds as if they were linear around its mean, which is exact where they
    are, and where they are not keeps to the range that the belief was fitted in. A belief over kinds is drawn from.

    Args:
        profile: That the belief belongs to.
        posterior: Beliefs.
        row: Which of them.
        first: Lifted features of one reply of each pair. Shape (T, L).
        second: Of the other. Shape (T, L).
        seed: Draws users from a belief over kinds.

    Source: Immer, Korzepa & Bauer (2021), "Improving predictions of Bayesian neural nets via local linearization",
    AISTATS, on why not to draw from a Laplace approximation.
    """
    if posterior.weights is not None:
        drawn = log_odds(profile, draw_users(posterior, row, seed=seed, draws=DRAWS), first, second)
        mean = drawn.mean(0)
        return Odds(mean, (drawn - mean) / DRAWS**0.5)
    values, vectors = torch.linalg.eigh(posterior.covariance[row].double().cpu())
    steps = (vectors * values.clamp_min(0).sqrt()).T
    centre = posterior.mean[row].double().cpu()
    users = torch.cat([centre[None], centre + _STEP * steps, centre - _STEP * steps])
    found = torch.cat(
        [
            log_odds(profile, _known_at(posterior, part), first, second)
            for part in users.to(posterior.mean).split(_USERS_AT_ONCE)
        ]
    )
    forth, back = found[1:].chunk(2)
    return Odds(found[0], (forth - back) / (2 * _STEP))


@torch.no_grad()
def central_wishes(profile: Profile, posterior: Posterior, lens: Lens) -> Values:
    """What the centre of each belief means: the mean of `read_wishes` for linear rewards, at a draw a user. (B, A)."""
    average = _coefficients(profile, average_user(profile, lens.first), lens)
    parts = [
        _coefficients(profile, _known(_rows(posterior, slice(start, start + _USERS_AT_ONCE))), lens)
        for start in range(0, len(posterior.mean), _USERS_AT_ONCE)
    ]
    return np.concatenate([*parts, np.zeros((0, len(lens.solve)))]) - average


@torch.no_grad()
def reward_scales(profile: Profile, posterior: Posterior, lens: Lens) -> Values:
    """How loud each user is: the deviation of their log-odds over the lens's pairs. Shape (B,)."""
    parts = [
        log_odds(profile, _rows(posterior, slice(start, start + _USERS_AT_ONCE)), lens.first, lens.second)
        for start in range(0, len(posterior.mean), _USERS_AT_ONCE)
    ]
    return np.concatenate([*(part.std(1).cpu().numpy() for part in parts), np.zeros(0)])


@torch.no_grad()
def average_user(profile: Profile, lifted: Tensor) -> Posterior:
    """The average user, as certain as one can be: one row.

    Args:
        profile: That the belief is to belong to.
        lifted: Any lifted features, for their width and device. Shape (N, L).
    """
    return _known(profile.encode(no_pairs(lifted)))


def no_pairs(lifted: Tensor) -> ReplyPairs:
    """The context of one user who has shown nothing, on the device of some lifted features (N, L)."""
    nothing = lifted.new_zeros(1, 0, lifted.shape[1])
    return ReplyPairs(nothing, nothing, torch.zeros(1, 0, dtype=torch.bool, device=lifted.device))


def draw_users(posterior: Posterior, row: int, *, seed: int, draws: int) -> Posterior:
    """Users drawn from the belief about one, each known for certain.

    The draws come in opposite pairs and, where they are many enough, are stretched so that their mean and covariance
    are those of the belief. Of a mixture, each drawn user is of one kind.

    Args:
        posterior: Beliefs.
        row: Which of them.
        seed: Draws the users.
        draws: How many, even.

    Returns:
        `draws` rows.
    """
    rng = np.random.default_rng(seed)
    mean, covariance = posterior.mean[row].double().cpu(), posterior.covariance[row].double().cpu()
    size = len(mean)
    half = torch.from_numpy(rng.normal(size=(draws // 2, size)))
    normal = torch.cat([half, -half])
    if 2 * size <= draws // 2 and size:
        second = normal.T @ normal / len(normal)
        normal = torch.linalg.solve_triangular(torch.linalg.cholesky(second), normal.T, upper=False).T
    values, vectors = torch.linalg.eigh(covariance)
    users = mean + normal @ (vectors * values.clamp_min(0).sqrt()).T
    weights = None
    if posterior.weights is not None:
        # Kinds in proportion to their weights, in an order that has nothing to do with the latents.
        share = posterior.weights[row].double().cpu().cumsum(0).clamp_max(1.0)
        places = torch.from_numpy(rng.permutation((np.arange(draws) + 0.5) / draws))
        kind = torch.searchsorted(share, places).clamp_max(len(share) - 1)
        weights = torch.nn.functional.one_hot(kind, len(share)).to(posterior.weights)
    return _known(
        Posterior(users.to(posterior.mean), posterior.covariance[:1].expand(draws, -1, -1), weights)
    )


def log_odds(profile: Profile, posterior: Posterior, first: Tensor, second: Tensor) -> Tensor:
    """Log-odds (B, T) that each of B users prefers the first of T pairs of lifted replies (T, L)."""
    return torch.logit(predict_pairs(profile, posterior, first, second).double().clamp(_SURE, 1.0 - _SURE))


def predict_pairs(profile: Profile, posterior: Posterior, first: Tensor, second: Tensor) -> Tensor:
    """Probability (B, T) that each of B users prefers the first of T pairs of lifted replies (T, L)."""
    rows, count = len(posterior.mean), len(first)
    everything = torch.ones(rows, count, dtype=torch.bool, device=first.device)
    asked = ReplyPairs(first.expand(rows, -1, -1), second.expand(rows, -1, -1), everything)
    return profile.predict(posterior, asked)


def _coefficients(profile: Profile, users: Posterior, lens: Lens) -> Values:
    return (log_odds(profile, users, lens.first, lens.second) @ lens.solve.T).numpy()


def _rows(posterior: Posterior, rows: slice) -> Posterior:
    weights = None if posterior.weights is None else posterior.weights[rows]
    return Posterior(posterior.mean[rows], posterior.covariance[rows], weights)


def _known_at(posterior: Posterior, users: Tensor) -> Posterior:
    """Users at given latents (B, Z), without doubt."""
    return _known(Posterior(users, posterior.covariance[:1]))


def _known(posterior: Posterior) -> Posterior:
    """The same users without doubt about their latent."""
    size = posterior.mean.shape[1]
    certain = 1e-9 * torch.eye(size).to(posterior.covariance)
    return posterior._replace(covariance=certain.expand(len(posterior.mean), -1, -1))
