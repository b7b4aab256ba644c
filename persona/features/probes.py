"""What can be read from features: the ceiling of everything that is learned over them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from persona.errors import ShapeError
from persona.rewards.attributes import ATTRIBUTES


def probe_attributes(
    features: Tensor,
    attributes: NDArray[np.float64],
    *,
    seed: int,
    names: Sequence[str] = ATTRIBUTES,
    ridge: float = 1.0,
    test_share: float = 0.3,
) -> dict[str, float]:
    """How much of each attribute's variance a ridge regression reads from the features, on replies left out.

    Args:
        features: Shape (N, D), float.
        attributes: Measured attributes of the same replies. Shape (N, A).
        seed: Draws which replies are left out.
        names: Names of the A attributes.
        ridge: Penalty on standardised weights, in units of one reply.
        test_share: Share of replies left out.

    Returns:
        R2 by name: 1 is perfect, 0 is no better than the mean; NaN for an attribute that does not vary.

    Raises:
        ShapeError: Rows of `features` and `attributes`, or columns and `names`, do not match.
    """
    x, y = features.double().cpu().numpy(), np.asarray(attributes, dtype=np.float64)
    if y.shape != (len(x), len(names)):
        raise ShapeError(
            f"`attributes` must have shape {(len(x), len(names))}, a row for each row of `features` and a "
            f"column for each name; got {y.shape}. Measure the same replies that the features describe."
        )
    order = np.random.default_rng(seed).permutation(len(x))
    test, train = np.split(order, [round(test_share * len(x))])
    centre, target = x[train].mean(0), y[train].mean(0)
    deviation = x[train].std(0)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    z = (x[train] - centre) * scale
    weights = np.linalg.solve(z.T @ z + ridge * np.eye(z.shape[1]), z.T @ (y[train] - target))
    residual = y[test] - target - ((x[test] - centre) * scale) @ weights
    total = ((y[test] - y[test].mean(0)) ** 2).sum(0)
    unexplained = np.divide((residual**2).sum(0), total, out=np.full_like(total, np.nan), where=total > 0)
    return {name: float(1.0 - share) for name, share in zip(names, unexplained, strict=True)}
