"""Who the simulated users really are: the hidden truth that only the oracle holds.

`Truth` is for `oracle.Oracle`; nothing that learns may be handed one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from persona.rewards.attributes import ATTRIBUTES
from simulators.errors import WorldError
from simulators.world.catalogue import Catalogue

N_ARCHETYPES = 8
N_HIDDEN = 4
INDIVIDUALITY = 0.35
SHARES = {"attributes": 0.65, "hidden": 0.15, "quality": 0.2}
"""Share of the variance of utility over random user-film pairs that each cause has."""

GROUP_SCALES = {"genre": 1.0, "mood": 0.9, "era": 0.6, "pace": 0.6, "length": 0.25}
STYLE_MEAN = np.array([0.03, 0.08, 0.05, 0.08, -0.05, 0.03])
STYLE_SCALE = np.array([1.5, 0.9, 0.65, 0.8, 1.0, 1.15])
FEW_STRONG_SHARE = 0.5
MEAN_CHOICE_NOISE = 0.26


@dataclass(frozen=True, eq=False)
class Truth:
    """Hidden parameters of U users and I films. The utility of an item is taste . vector + quality.

    Attributes:
        taste: What each user likes. Shape (U, G), float32; the first F columns weigh the catalogue's
            features.
        item_vectors: What each film is. Shape (I, G), float32; the first F columns are the catalogue's
            features less their means, the others are on no card.
        item_quality: How good each film is to everyone. Shape (I,), float32.
        popularity: How much each film is shown and talked about, a noisy sign of quality; sums to 1. Shape
            (I,).
        style: Weights over `persona.rewards.attributes.ATTRIBUTES`, for attributes in standard deviations.
            Shape (U, A), float32.
        patience: Unsatisfying turns that each user puts up with, 2..5. Shape (U,), int64.
        noise: Temperature of each user's choices between replies, positive. Shape (U,), float32.
    """

    taste: NDArray[np.float32]
    item_vectors: NDArray[np.float32]
    item_quality: NDArray[np.float32]
    popularity: NDArray[np.float64]
    style: NDArray[np.float32]
    patience: NDArray[np.int64]
    noise: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Check that all parts speak of the same users and films.

        Raises:
            WorldError: Shapes that do not fit, or noise that is not positive.
        """
        users, items = len(self.taste), len(self.item_vectors)
        per_user = {len(self.style), len(self.patience), len(self.noise)}
        per_item = {len(self.item_quality), len(self.popularity)}
        widths = self.taste.shape[1], self.item_vectors.shape[1]
        if per_user != {users} or per_item != {items} or widths[0] != widths[1]:
            raise WorldError(
                f"All parts of the truth must speak of the same users and films; got {users} users with "
                f"parts of {sorted(per_user)} rows, {items} films with parts of {sorted(per_item)} rows, and "
                f"widths {widths}. Draw them together."
            )
        if self.style.shape[1:] != (len(ATTRIBUTES),) or not (self.noise > 0).all():
            raise WorldError(
                f"`style` must have {len(ATTRIBUTES)} columns and `noise` be positive; got "
                f"{self.style.shape} and a smallest noise of {self.noise.min(initial=np.inf)}."
            )

    def utility_scale(self) -> tuple[float, float]:
        """Mean and deviation of utility over all user-film pairs, in closed form from second moments."""
        taste, vectors = self.taste.astype(np.float64), self.item_vectors.astype(np.float64)
        quality = self.item_quality.astype(np.float64)
        mean_taste = taste.mean(axis=0)
        mean = float(mean_taste @ vectors.mean(axis=0) + quality.mean())
        moments = (taste.T @ taste / len(taste)) * (vectors.T @ vectors / len(vectors))
        square = moments.sum() + 2 * mean_taste @ (vectors.T @ quality) / len(quality) + (quality**2).mean()
        return mean, float(np.sqrt(max(square - mean**2, 1e-12)))


def draw_population(catalogue: Catalogue, n_users: int, *, seed: int) -> Truth:
    """Users of a film world: archetypes of taste with individual deviations, and manners of their own.

    Args:
        catalogue: The films.
        n_users: Number of users U, at least 1.
        seed: Seed of every draw.

    Raises:
        WorldError: `n_users` is less than 1.
    """
    check_user_count(n_users)
    rng = np.random.default_rng((seed, 1))
    centred = (catalogue.features - catalogue.features.mean(axis=0)).astype(np.float64)
    visible = _draw_tastes(catalogue.feature_names, n_users, rng)
    visible *= np.sqrt(SHARES["attributes"]) / _pair_deviation(visible, centred)
    hidden_vectors = rng.normal(size=(len(catalogue), N_HIDDEN))
    hidden = rng.normal(size=(n_users, N_HIDDEN))
    hidden *= np.sqrt(SHARES["hidden"]) / _pair_deviation(hidden, hidden_vectors)
    quality = rng.normal(size=len(catalogue))
    fame = 0.6 * quality + 0.7 * rng.normal(size=len(catalogue))
    style, patience, noise = draw_manners(n_users, seed=seed)
    return Truth(
        taste=np.concatenate([visible, hidden], axis=1).astype(np.float32),
        item_vectors=np.concatenate([centred, hidden_vectors], axis=1).astype(np.float32),
        item_quality=(np.sqrt(SHARES["quality"]) * quality).astype(np.float32),
        popularity=np.exp(fame) / np.exp(fame).sum(),
        style=style,
        patience=patience,
        noise=noise,
    )


def draw_manners(
    n_users: int, *, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """How users like to be spoken to, and how patient and consistent they are.

    Styles vary in all directions about a small common mean, so that the average user predicts little. Half of
    the users care strongly about one to three attributes and little about the rest, half about all of them.
    Weights are scaled so that the mean square of their norms is 1.

    Args:
        n_users: Number of users U, at least 1.
        seed: Seed of every draw.

    Returns:
        Style (U, A) float32, patience (U,) int64 in 2..5, choice noise (U,) float32.
    """
    rng = np.random.default_rng((seed, 2))
    shape = (n_users, len(ATTRIBUTES))
    weights = rng.normal(size=shape)
    n_strong = rng.integers(1, 4, size=(n_users, 1))
    rank = np.argsort(np.argsort(rng.random(shape), axis=1), axis=1)
    few = np.where(rank < n_strong, np.sign(weights) * rng.uniform(0.7, 1.3, size=shape), 0.15 * weights)
    weights = np.where(rng.random((n_users, 1)) < FEW_STRONG_SHARE, few, weights) * STYLE_SCALE
    norms = np.linalg.norm(weights, axis=1, keepdims=True)
    style = weights / norms * rng.lognormal(0.0, 0.15, size=(n_users, 1)) + STYLE_MEAN
    style /= np.sqrt((style**2).sum(axis=1).mean())
    patience = 2 + rng.binomial(3, 0.5, size=n_users)
    noise = MEAN_CHOICE_NOISE * rng.lognormal(0.0, 0.25, size=n_users)
    return style.astype(np.float32), patience.astype(np.int64), noise.astype(np.float32)


def check_user_count(n_users: int) -> None:
    """Raise `WorldError` unless there is at least one user."""
    if n_users < 1:
        raise WorldError(f"`n_users` must be at least 1; got {n_users}.")


def _draw_tastes(
    feature_names: tuple[str, ...], n_users: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Weights over features, shape (U, F): users near one or two archetypes, no two the same."""
    groups = [name.partition("=")[0] for name in feature_names]
    scales = np.array([GROUP_SCALES[group] for group in groups])
    archetypes = rng.normal(size=(N_ARCHETYPES, len(scales)))
    mixture = rng.dirichlet(np.full(N_ARCHETYPES, 0.15), size=n_users)
    tastes: NDArray[np.float64] = (
        mixture @ archetypes + INDIVIDUALITY * rng.normal(size=(n_users, len(scales)))
    ) * scales
    return tastes


def _pair_deviation(left: ArrayLike, right: ArrayLike) -> float:
    """Root mean square of left[u] . right[i] over all pairs."""
    a, b = np.asarray(left, np.float64), np.asarray(right, np.float64)
    return float(np.sqrt(((a.T @ a / len(a)) * (b.T @ b / len(b))).sum()))
