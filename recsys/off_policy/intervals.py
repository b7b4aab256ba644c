"""How sure an estimate is: percentile bootstrap over rows or clusters, and a bound that holds at any number of rows."""

import math
from collections.abc import Sequence

import numpy as np

from recsys.data.bandit import Values
from recsys.off_policy.estimators import Terms
from recsys.types import Ints

DRAWS_AT_ONCE = 4_000_000
MOST_UNITS = 20_000
"""Beyond this, units are drawn in random bundles of equal size, which leaves the spread of sums as it is."""


def bootstrap_terms(
    terms: Sequence[Terms], clusters: Ints | None, *, seed: int, n_boot: int, level: float
) -> Values:
    """Percentile intervals of several estimates from one set of resamples.

    Args:
        terms: E estimates over the same N rows.
        clusters: Rows of one cluster are drawn together; None draws rows. Shape (N,).
        seed: Draws them.
        n_boot: Number of resamples.
        level: Coverage asked for, above 0 and below 1.

    Returns:
        Low and high end of each; NaN where an estimate is undefined in every resample, and otherwise from those
        resamples that define it. Shape (E, 2).

    Source: Efron and Tibshirani (1993), "An Introduction to the Bootstrap"; clusters as in Field and Welsh (2007).
    """
    rng = np.random.default_rng(seed)
    sums = _unit_sums(terms, clusters, rng)
    units = len(sums)
    at_once = max(1, DRAWS_AT_ONCE // units)
    found = []
    for start in range(0, n_boot, at_once):
        draws = min(at_once, n_boot - start)
        drawn = rng.integers(units, size=(draws, units)) + units * np.arange(draws)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=draws * units).reshape(draws, units)
        found.append(counts.astype(np.float64) @ sums)
    size, totals = np.split(np.concatenate(found), [1], axis=1)
    base, numerator, denominator = np.split(totals.reshape(len(totals), len(terms), 3), 3, axis=2)
    is_mean = np.array([term.denominator is None for term in terms])
    below = np.where(is_mean, size, denominator[..., 0])
    ratio = np.divide(numerator[..., 0], below, out=np.full_like(below, np.nan), where=below > 0)
    values = base[..., 0] / size + ratio
    ends = [(1 - level) / 2, (1 + level) / 2]
    intervals = np.full((len(terms), 2), np.nan)
    for place, column in enumerate(values.T):
        known = column[np.isfinite(column)]
        if len(known):
            intervals[place] = np.quantile(known, ends)
    return intervals


def bernstein_half_width(values: Values, span: float, *, level: float) -> float:
    """Half the width of the empirical Bernstein interval of a mean.

    Args:
        values: Independent draws. Shape (N,).
        span: Largest possible value minus smallest.
        level: Coverage, above 0 and below 1.

    Returns:
        sqrt(2 V log(4 / d) / N) + 7 span log(4 / d) / (3 (N - 1)), with d = 1 - level; infinite for fewer than two.

    Source: Maurer and Pontil (2009), "Empirical Bernstein Bounds and Sample Variance Penalization", theorem 4, once for
        each side.
    """
    if len(values) < 2:
        return math.inf
    doubt = math.log(4 / (1 - level))
    spread = math.sqrt(2 * float(values.var(ddof=1)) * doubt / len(values))
    return spread + 7 * span * doubt / (3 * (len(values) - 1))


def bernstein_interval(terms: Terms, clusters: Ints | None, *, level: float) -> tuple[float, float] | None:
    """The empirical Bernstein interval of an estimate that is a plain mean.

    With clusters, the values are sums over clusters times U / N, and their span is that of a row times the largest
    cluster. The span comes from the largest weight met in the log, so the bound is as good as that is.

    Returns:
        Low and high end; None for an estimate that divides by weights, or whose span is unknown.
    """
    if terms.span is None or terms.denominator is not None:
        return None
    values, span = terms.base + terms.numerator, terms.span
    if clusters is not None:
        _, unit = np.unique(clusters, return_inverse=True)
        sizes = np.bincount(unit)
        values = np.bincount(unit, weights=values).astype(np.float64) * (len(sizes) / len(unit))
        span *= float(sizes.max()) * len(sizes) / len(unit)
    half = bernstein_half_width(values, span, level=level)
    return float(values.mean()) - half, float(values.mean()) + half


def _unit_sums(terms: Sequence[Terms], clusters: Ints | None, rng: np.random.Generator) -> Values:
    """Rows, then base, numerator and denominator of each estimate, summed over units. Shape (U, 1 + 3 E)."""
    rows = len(terms[0].base)
    columns = [np.ones(rows)]
    for term in terms:
        columns += [
            term.base,
            term.numerator,
            np.ones(rows) if term.denominator is None else term.denominator,
        ]
    unit = np.arange(rows) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    units = int(unit.max()) + 1
    if units > MOST_UNITS:
        unit = (rng.permutation(units) % MOST_UNITS)[unit]
        units = MOST_UNITS
    if units == rows:
        return np.stack(columns, axis=1)
    return np.stack([np.bincount(unit, weights=column, minlength=units) for column in columns], axis=1)
