"""How far two raters agree beyond chance: Cohen's kappa, plain and weighted."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from simulators.errors import JudgeError


def cohen_kappa(one: ArrayLike, other: ArrayLike, *, weights: Literal["none", "quadratic"] = "none") -> float:
    """1 - (observed disagreement) / (disagreement expected of independent raters with the same shares).

    Plain, two ratings disagree or do not; weighted, they disagree by the square of their distance, so that neighbours
    on a scale count little.

    Args:
        one: Ratings of the first rater: category numbers, or points on a scale where weighted. Shape (N,).
        other: Ratings of the second, of the same things. Shape (N,).
        weights: "quadratic" for scales.

    Returns:
        1 for full agreement, 0 for what chance gives, below 0 for less. NaN where both raters say one and the same
        thing of everything, so that chance would agree too.

    Raises:
        JudgeError: The ratings differ in shape or there are none.

    Example:
        >>> round(cohen_kappa([0, 0, 1, 1], [0, 0, 1, 0]), 3)
        0.5

    Source: Cohen (1960), "A Coefficient of Agreement for Nominal Scales", Educ. Psychol. Meas. 20(1); Cohen (1968),
    "Weighted kappa", Psychol. Bull. 70(4).
    """
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise JudgeError(
            f"`one` and `other` must have one shape (N,), N at least 1; got {a.shape} and {b.shape}."
        )
    if weights == "none":
        _, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
        first, second = codes[: len(a)], codes[len(a) :]
        shares = [np.bincount(x, minlength=codes.max() + 1) / len(a) for x in (first, second)]
        observed, expected = float((first != second).mean()), 1.0 - float(shares[0] @ shares[1])
    else:
        observed = float(((a - b) ** 2).mean())
        expected = float(a.var() + b.var() + (a.mean() - b.mean()) ** 2)
    return 1.0 - observed / expected if expected > 0 else float("nan")
