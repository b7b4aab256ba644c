"""Whether probabilities mean what they say: log loss, Brier score, calibration error and the reliability curve.

All take the probability of one event, such as "reached level 2 or more", and whether it happened, a row each.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ShapeError
from recsys.metrics.hits import Values
from recsys.types import Bools, Ints

BINS = 15
SMALLEST = 1e-15
"""Probabilities are held this far from 0 and 1 in logarithms, so that one sure miss costs 34.5 nats, not infinity."""

Binning = Literal["width", "mass"]


class ReliabilityCurve(NamedTuple):
    """Bins of rows with like probability, those that hold a row, by rising probability.

    mean: Mean probability. Shape (b,), float64.
    rate: Share of rows where the event happened. Shape (b,), float64.
    rows: Number of rows. Shape (b,), int64.
    """

    mean: Values
    rate: Values
    rows: Ints

    @property
    def error(self) -> float:
        """Expected calibration error: mean |rate - mean| over the rows."""
        return float(np.abs(self.rate - self.mean) @ self.rows / self.rows.sum())


def reliability_curve(
    probability: NDArray[np.floating], happened: Bools, *, bins: int = BINS, binning: Binning = "width"
) -> ReliabilityCurve:
    """Observed rate against mean probability, bin by bin.

    Args:
        probability: In 0..1. Shape (N,), N at least 1.
        happened: Shape (N,).
        bins: Number of bins.
        binning: "width" cuts 0..1 evenly, a bin holding its lower edge and the last one 1 as well; "mass" cuts the
            rows, sorted by probability, into equal numbers, equal probabilities always sharing a bin.

    Returns:
        The bins that hold a row.

    Raises:
        ShapeError: `bins` is below 1, the arrays differ in shape, hold nothing or something outside 0..1.

    Source: Naeini et al. (AAAI 2015), "Obtaining Well Calibrated Probabilities Using Bayesian Binning"; bins of
    equal width and their default number as in Guo et al. (ICML 2017), "On Calibration of Modern Neural Networks".
    """
    numbers = check_probabilities(probability, happened)
    if bins < 1:
        raise ShapeError(f"`bins` must be at least 1; got {bins}. 15 is usual.")
    if binning == "mass":
        place = np.searchsorted(np.sort(numbers), numbers) * bins // len(numbers)
    else:
        place = np.minimum((numbers * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    kept = count > 0
    mean = np.bincount(place, weights=numbers, minlength=bins)[kept] / count[kept]
    rate = np.bincount(place, weights=happened, minlength=bins)[kept] / count[kept]
    return ReliabilityCurve(mean, rate, count[kept])


def calibration_error(
    probability: NDArray[np.floating], happened: Bools, *, bins: int = BINS, binning: Binning = "width"
) -> float:
    """Expected calibration error (ECE): |rate - mean probability| of each bin, weighted by its rows.

    Arguments and errors as for `reliability_curve`.

    Example:
        Bin 0..0.5 holds .2 and .4 (rate 0), bin 0.5..1 holds .9 (rate 1): (2 * .3 + .1) / 3.

        >>> round(calibration_error(np.array([0.2, 0.4, 0.9]), np.array([False, False, True]), bins=2), 4)
        0.2333
    """
    return reliability_curve(probability, happened, bins=bins, binning=binning).error


def log_loss(probability: NDArray[np.floating], happened: Bools) -> float:
    """Mean of -log(probability of what happened), in nats; probabilities held in 1e-15..1 - 1e-15.

    Args:
        probability: In 0..1. Shape (N,), N at least 1.
        happened: Shape (N,).

    Raises:
        ShapeError: The arrays differ in shape, hold nothing or something outside 0..1.

    Example:
        >>> round(log_loss(np.array([0.5, 0.25]), np.array([True, False])), 4)  # (log 2 + log 4/3) / 2
        0.4904
    """
    inside = np.clip(check_probabilities(probability, happened), SMALLEST, 1 - SMALLEST)
    return float(-np.where(happened, np.log(inside), np.log1p(-inside)).mean())


def brier_score(probability: NDArray[np.floating], happened: Bools) -> float:
    """Mean squared distance of the probability from 1 where the event happened, from 0 where not.

    Args:
        probability: In 0..1. Shape (N,), N at least 1.
        happened: Shape (N,).

    Raises:
        ShapeError: The arrays differ in shape, hold nothing or something outside 0..1.

    Source: Brier (1950), "Verification of Forecasts Expressed in Terms of Probability".

    Example:
        >>> brier_score(np.array([0.5, 1.0]), np.array([True, False]))  # (1/4 + 1) / 2
        0.625
    """
    return float(((check_probabilities(probability, happened) - happened) ** 2).mean())


def check_probabilities(probability: NDArray[np.floating], happened: NDArray[np.bool_]) -> Values:
    """The probabilities as float64, once they are known to be some.

    Raises:
        ShapeError: The arrays differ in shape, hold nothing or something outside 0..1.
    """
    numbers = np.asarray(probability, dtype=np.float64)
    if numbers.ndim != 1 or numbers.shape != happened.shape or len(numbers) == 0:
        raise ShapeError(
            f"`probability` and `happened` must have one value a row, at least one; got shapes {numbers.shape} and "
            f"{happened.shape}. Take both from the same rows."
        )
    wrong = numbers[~((numbers >= 0) & (numbers <= 1))]
    if len(wrong):
        raise ShapeError(
            f"`probability` must lie in 0..1; got {wrong[:3].tolist()}. Pass probabilities, not logits."
        )
    return numbers
