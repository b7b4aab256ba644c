"""Users whose reactions hang together, drawn from populations a known distance apart."""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def draw_levels(users: int, rows: int, shift: float, rng: np.random.Generator) -> Values:
    """Counts of five levels of each of the users, whose rows hang together. Shape (users, 5)."""
    latent = 0.7 * rng.normal(size=(users, 1)) + shift + rng.normal(size=(users, rows))
    levels = np.digitize(latent, [-1.2, -0.3, 0.5, 1.3])
    return np.asarray((levels[..., None] == np.arange(5)).sum(1), np.float64)
