"""What may be wrong with a profile although its accuracy looks right: blind labels, loud users, empty latents.

Figures are by user, for intervals over users. The gap under shuffled contexts and the least variance of an active unit
stand in `persona.evaluation`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.errors import DataError, ShapeError
from persona.profiles import Profile
from persona.types import ReplyPairs

Values = NDArray[np.float64]
_LEAST_NORM = 1e-6


@torch.no_grad()
def flip_cosines(profile: Profile, pairs: ReplyPairs) -> Values:
    """Cosine between each user's latent and that of someone who chose the opposite every time.

    An encoder that reads who won gives values near -1; one that only reads what was asked about gives +1.

    Args:
        profile: What is judged.
        pairs: What B users chose, with lifted features. Shape (B, P, L).

    Returns:
        Shape (B,), -1..1; NaN for a user whose latent stays zero.
    """
    own, flipped = profile.encode(pairs).mean.double(), profile.encode(pairs.swapped).mean.double()
    moved = torch.minimum(own.norm(dim=1), flipped.norm(dim=1)) > _LEAST_NORM
    cosine = torch.nn.functional.cosine_similarity(own, flipped, dim=1)
    values: Values = torch.where(moved, cosine, torch.nan).cpu().numpy()
    return values


def scale_ratio(scales: Values) -> float:
    """The 90 % quantile of users' reward scales over the 10 % one; infinite where the latter is 0.

    A policy trained on all users' rewards follows the loud ones; see `persona.rewards.win_probability` for a scale that
    is the same for all.

    Args:
        scales: Deviation of each user's log-odds over the same pairs. Shape (U,), at least one user.

    Example:
        >>> scale_ratio(np.array([2.0, 2.0, 2.0]))
        1.0
    """
    low, high = np.quantile(scales, [0.1, 0.9])
    return float(high / low) if low > 0 else float("inf")


class Probe(NamedTuple):
    """Linear classifiers over frozen states, one for each dimension, with centres for confidence at use.

    mean, scale: Standardise the states. Shape (H,).
    weights: Shape (H + 1, A, C), the last row being the constant.
    centres: Mean of standardised states of each class of each dimension. Shape (A, C, H).
    """

    mean: Tensor
    scale: Tensor
    weights: Tensor
    centres: Tensor

    def classify(self, states: Tensor) -> Tensor:
        """The class of each dimension. Shape (N, A), int64."""
        z = self._standardise(states)
        return torch.einsum("nh,hac->nac", torch.cat([z, torch.ones_like(z[:, :1])], 1), self.weights).argmax(
            -1
        )

    def confidence(self, states: Tensor) -> Tensor:
        """How clearly each state belongs to one class of each dimension, 0..1. Shape (N, A).

        That is 1 - d1 / d2, with d1 and d2 the distances to the nearest and second nearest centre: 0 on the border.
        """
        z = self._standardise(states)
        distance = torch.cdist(z, self.centres.flatten(0, 1)).unflatten(1, self.centres.shape[:2])
        nearest = distance.sort(-1).values
        clear: Tensor = 1.0 - nearest[..., 0] / nearest[..., 1].clamp_min(_LEAST_NORM)
        return clear

    def _standardise(self, states: Tensor) -> Tensor:
        return (states.double() - self.mean) * self.scale


def fit_probe(states: Tensor, classes: NDArray[np.int64], *, ridge: float = 1.0) -> Probe:
    """Least-squares classifiers of every dimension at once.

    Args:
        states: Frozen states of N replies, or latents of N users. Shape (N, H).
        classes: Class of each dimension, from 0. Shape (N, A), int64.
        ridge: Penalty on weights of standardised states, in units of one row.

    Raises:
        ShapeError: Rows do not match.
        DataError: A dimension with one class only.

    Source: MRMBench, Wang et al. (2025), arXiv 2511.12464: linear heads on a frozen reward model, and the distance to
    classes' centres as confidence at inference.
    """
    if states.ndim != 2 or classes.ndim != 2 or len(states) != len(classes):
        raise ShapeError(
            f"`states` must have shape (N, H) and `classes` (N, A); got {tuple(states.shape)} and {classes.shape}. "
            "Pass one row a reply in both."
        )
    single = [column for column in range(classes.shape[1]) if len(np.unique(classes[:, column])) < 2]
    if single:
        raise DataError(
            f"Each dimension must have at least 2 classes; got one in columns {single[:3]}. Leave them out."
        )
    x = states.double()
    mean, deviation = x.mean(0), x.std(0)
    scale = torch.where(deviation > 0, 1.0 / deviation.clamp_min(1e-12), 0.0)
    z = (x - mean) * scale
    held = torch.nn.functional.one_hot(torch.from_numpy(classes)).double()
    inputs = torch.cat([z, torch.ones_like(z[:, :1])], dim=1)
    penalty = ridge * torch.eye(inputs.shape[1], dtype=torch.float64)
    penalty[-1, -1] = 0.0
    weights = torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ held.flatten(1)).unflatten(
        1, held.shape[1:]
    )
    count = held.sum(0).clamp_min(1.0)
    centres = torch.einsum("nac,nh->ach", held, z) / count[..., None]
    return Probe(mean, scale, weights, centres)


def probe_dimensions(
    states: Tensor,
    values: NDArray[np.float64],
    *,
    names: Sequence[str],
    seed: int,
    classes: int = 3,
    test_share: float = 0.3,
) -> dict[str, dict[str, float]]:
    """How well each dimension is read linearly from frozen states, on rows left out.

    Dimensions are cut into `classes` equal parts, so chance is 1 / classes.

    Args:
        states: Shape (N, H).
        values: Measured dimensions of the same rows. Shape (N, A).
        names: Names of the A dimensions.
        seed: Draws the rows that are left out.
        classes: 2 for the easy form, 3 for the hard one.
        test_share: Share of rows left out.

    Returns:
        By name, `accuracy`, and `accuracy_confident`, that of the 80 % of rows with the highest confidence.
    """
    if values.shape != (len(states), len(names)):
        raise ShapeError(
            f"`values` must have shape {(len(states), len(names))}; got {values.shape}. Measure the rows of `states`."
        )
    order = np.random.default_rng(seed).permutation(len(states))
    test, train = np.split(order, [round(test_share * len(states))])
    edges = np.quantile(values[train], np.arange(1, classes) / classes, axis=0)
    parts = (values[:, None] > edges).sum(1)
    probe = fit_probe(states[torch.from_numpy(train)], parts[train])
    held = states[torch.from_numpy(test)]
    right = probe.classify(held).numpy() == parts[test]
    confidence = probe.confidence(held).numpy()
    sure = confidence >= np.quantile(confidence, 0.2, axis=0)
    return {
        name: {
            "accuracy": float(right[:, a].mean()),
            "accuracy_confident": float(right[sure[:, a], a].mean()),
        }
        for a, name in enumerate(names)
    }
