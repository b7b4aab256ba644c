"""PAL one user and one pair at a time, as the formulas have it, with a generic optimiser for a user's weights."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Values = NDArray[np.float64]


def ideal_point_odds(first: Values, second: Values, prototypes: Values, weights: Values) -> float:
    """|f2 - u|^2 - |f1 - u|^2 for the user's own point u; replies by their points f (E,)."""
    user = weights @ prototypes
    return float(((second - user) ** 2).sum() - ((first - user) ** 2).sum())


def published_cosine(embedded: Values, wanted: Values, weights: Values, scale: float) -> float:
    """PAL-B's score, scale * cos(f, sum_k w_k g_k), for f (E,) and g (K, E)."""
    user = weights @ wanted
    return float(scale * embedded @ user / np.linalg.norm(embedded) / np.linalg.norm(user))


def log_posterior(weights: Values, pairs: Values, average: Values, concentration: float) -> float:
    """sum_p log sigmoid(a_p . w) - c KL(w || w0), up to a constant."""
    fit = -np.logaddexp(0.0, -(pairs @ weights)).sum()
    return float(fit - concentration * (weights * np.log(weights / average)).sum())


def best_weights(pairs: Values, average: Values, concentration: float) -> Values:
    """The mode for one user, from pairs (P, K)."""

    def softmax(logits: Values) -> Values:
        grown = np.exp(logits - logits.max())
        weights: Values = grown / grown.sum()
        return weights

    found = minimize(
        lambda logits: -log_posterior(softmax(logits), pairs, average, concentration),
        np.log(average),
        method="BFGS",
        options={"gtol": 1e-10},
    )
    return softmax(found.x)


def log_posterior_hessian(
    weights: Values, pairs: Values, average: Values, concentration: float, step: float = 1e-4
) -> Values:
    """Second differences along w1 .. w(K-1), the last weight making up the sum. Shape (K - 1, K - 1)."""
    size = len(weights) - 1
    result = np.zeros((size, size))

    def at(i: int, j: int, si: float, sj: float) -> float:
        moved = weights.copy()
        for place, change in ((i, si), (j, sj)):
            moved[place] += change * step
            moved[-1] -= change * step
        return log_posterior(moved, pairs, average, concentration)

    for i in range(size):
        for j in range(size):
            result[i, j] = (at(i, j, 1, 1) - at(i, j, 1, -1) - at(i, j, -1, 1) + at(i, j, -1, -1)) / (
                4 * step**2
            )
    return result
