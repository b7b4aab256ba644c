"""What uncertain utilities say of levels: expectations under a Gaussian, by Gauss-Hermite quadrature.

A user's utility for an item is known up to a Gaussian belief N(mean, variance). Levels follow
`world.choice.NestedChoice`, one logistic step after another. Learning needs the expected slope and curvature of the
log-likelihood in the utility; prediction needs expected probabilities. Putting the mean in place of the belief would
make every probability too sure and every effect beside the utility, such as that of position, too small.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from simulators.world.choice import NestedChoice

Values = NDArray[np.float64]
Ints = NDArray[np.int64]

N_NODES = 9


def gaussian_nodes(n_nodes: int = N_NODES) -> tuple[Values, Values]:
    """Points z and weights that integrate polynomials to degree 2 n_nodes - 1 under N(0, 1) exactly."""
    points, weights = np.polynomial.hermite_e.hermegauss(n_nodes)
    return points, weights / weights.sum()


class Rows(NamedTuple):
    """Observed reactions, one a row; all shape (N,).

    users: Row of the user.
    items: Row of the item.
    levels: Level reached, 0..K-1.
    positions: 0-based place in the slate; zero where the log does not say.
    """

    users: Ints
    items: Ints
    levels: Ints
    positions: Ints

    def take(self, chosen: NDArray[np.bool_] | Ints) -> "Rows":
        """Some of the rows."""
        return Rows(*(column[chosen] for column in self))


class Pull(NamedTuple):
    """How observed levels pull at believed utilities; shape (N,).

    slope: Expected derivative of the log-likelihood in the utility.
    curvature: Expected negative second derivative, at least 0.
    """

    slope: Values
    curvature: Values


def expected_pull(choice: NestedChoice, rows: Rows, mean: Values, variance: Values) -> Pull:
    """Expected slope and curvature of each row's log-likelihood under its belief.

    Args:
        choice: How utilities become levels.
        rows: What was observed.
        mean: Of each row's utility. Shape (N,).
        variance: Of each row's utility. Shape (N,).
    """
    slope, curvature = np.zeros(len(mean)), np.zeros(len(mean))
    offset = position_term(rows.positions) * choice.position_effect
    for k, (threshold, weight) in enumerate(zip(choice.thresholds, choice.slopes, strict=True)):
        at_risk = np.flatnonzero(rows.levels >= k)
        logit = weight * mean[at_risk] - threshold + (offset[at_risk] if k == 0 else 0.0)
        chance, spread = expected_sigmoid(logit, weight**2 * variance[at_risk])
        slope[at_risk] += weight * ((rows.levels[at_risk] > k) - chance)
        curvature[at_risk] += weight**2 * spread
    return Pull(slope, curvature)


def expected_sigmoid(mean: Values, variance: Values) -> tuple[Values, Values]:
    """E sigmoid(x) and E sigmoid'(x) for x ~ N(mean, variance), each shape (N,)."""
    chance, spread = np.zeros(len(mean)), np.zeros(len(mean))
    deviation = np.sqrt(variance)
    for z, weight in zip(*gaussian_nodes(), strict=True):
        probability = expit(mean + deviation * z)
        chance += weight * probability
        spread += weight * probability * (1 - probability)
    return chance, spread


def expected_probabilities(
    choice: NestedChoice, mean: Values, variance: Values, *, position: ArrayLike = 0
) -> Values:
    """P(level = k) averaged over the belief, shape (B, K), rows sum to 1.

    Args:
        choice: How utilities become levels.
        mean: Of each utility. Shape (B,).
        variance: Of each utility. Shape (B,).
        position: 0-based place in the slate, one for all or shape (B,).
    """
    total = np.zeros((len(mean), len(choice.thresholds) + 1))
    deviation = np.sqrt(variance)
    for z, weight in zip(*gaussian_nodes(), strict=True):
        total += weight * choice.probabilities(mean + deviation * z, position=position)
    return total


def position_term(positions: ArrayLike) -> Values:
    """-log(1 + position): zero at the first place."""
    term: Values = -np.log1p(np.asarray(positions, np.float64))
    return term


def improved_choice(
    choice: NestedChoice, rows: Rows, mean: Values, variance: Values, *, has_positions: bool, steps: int = 2
) -> NestedChoice:
    """The choice model after Newton steps on the expected log-likelihood, utilities' beliefs held fixed.

    The first slope stays as it is, as it sets the unit of utility. Slopes and position effect stay at least 0. Every
    step from one level to the next is a logistic regression of its own, so none needs more than two unknowns.

    Args:
        choice: Where to start.
        rows: What was observed.
        mean: Of each row's utility. Shape (N,).
        variance: Of each row's utility. Shape (N,).
        has_positions: Whether to learn the effect of position.
        steps: Newton steps.
    """
    thresholds, slopes, effect = choice.thresholds.copy(), choice.slopes.copy(), choice.position_effect
    deviation = np.sqrt(variance)
    for k in range(len(thresholds)):
        at_risk = np.flatnonzero(rows.levels >= k)
        went_on = (rows.levels[at_risk] > k).astype(np.float64)
        m, d, place = mean[at_risk], deviation[at_risk], position_term(rows.positions[at_risk])
        for _ in range(steps):
            gradient, information = np.zeros(2), np.zeros((2, 2))
            for z, weight in zip(*gaussian_nodes(), strict=True):
                u = m + d * z
                chance = expit(slopes[k] * u - thresholds[k] + (effect * place if k == 0 else 0.0))
                inputs = np.stack([-np.ones_like(u), place if k == 0 else u])
                gradient += weight * (inputs @ (went_on - chance))
                information += weight * ((inputs * (chance * (1 - chance))) @ inputs.T)
            if k == 0 and not has_positions:
                thresholds[0] += gradient[0] / information[0, 0]
                continue
            change = np.linalg.solve(information, gradient)
            thresholds[k] += change[0]
            if k == 0:
                effect = max(effect + change[1], 0.0)
            else:
                slopes[k] = max(slopes[k] + change[1], 0.0)
    return NestedChoice(thresholds, slopes, effect)
