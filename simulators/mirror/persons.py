"""One person drawn from what is believed about each user: certain of its taste, where the belief is not.

Over seeds persons are as different as the belief is unsure, so what they do on average is what the fitted model
expects; within a seed each is the same person all along.
"""

import numpy as np
from scipy.special import ndtri

from simulators.mirror.beliefs import Gaussians
from simulators.mirror.level_model import LevelModel
from simulators.mirror.steps import Ints, Values
from simulators.randomness import keyed_uniforms

_PERSON, _ITEM = 204, 205


def draw_beliefs(held: Gaussians, which: Ints, seed: int, purpose: int) -> Values:
    """One draw from the belief of each row, the same whenever the seed, the row and the purpose are.

    Args:
        held: Beliefs, of D dimensions.
        which: Their rows. Shape (B,).
        seed: Seed of the simulation.
        purpose: Tells draws of one seed apart.

    Returns:
        Shape (B, D).
    """
    distinct, back = np.unique(which, return_inverse=True)
    uniforms = keyed_uniforms(seed, distinct[:, None], np.arange(held.mean.shape[1]), purpose)
    normal = ndtri(np.clip(uniforms, 1e-12, 1 - 1e-12))
    root = np.linalg.cholesky(held.covariance[distinct])
    drawn: Values = held.mean[distinct] + (root @ normal[..., None])[..., 0]
    return drawn[back]


def draw_tastes(model: LevelModel, users: Ints, seed: int) -> Values:
    """Weights over [attributes, factors, 1] of the person that the seed draws for each user. Shape (B, D)."""
    return draw_beliefs(model.users, users, seed, _PERSON)


def draw_items(model: LevelModel, items: Ints, seed: int) -> tuple[Values, Values]:
    """What the seed draws for each item: [attributes, factors, 1], shape (B, D), and effects, shape (B,)."""
    drawn = draw_beliefs(model.items, items, seed, _ITEM)
    ones = np.ones((len(items), 1))
    return np.concatenate([model.features[items], drawn[:, :-1], ones], axis=1), drawn[:, -1]
