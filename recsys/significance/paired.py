"""How likely a difference between two models is by chance alone: paired tests, and Holm's correction for many."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from recsys.errors import RecsysError, ShapeError
from recsys.significance.bootstrap import DRAWS_AT_ONCE, Values


def permutation_test(differences: NDArray[np.floating], *, seed: int, n_permutations: int = 10_000) -> Values:
    """Two-sided sign-flip test of a mean difference of 0, for one or more columns under the same flips.

    If two models are alike, each user's difference might as well have the other sign. p is the share of random flips
    whose mean is at least as far from 0, the observed one counted among them, so it is never 0 and never too small.

    Args:
        differences: Per-user difference of a pair of models in each column. Finite. Shape (U,) or (U, P).
        seed: Draws the signs.
        n_permutations: Number of flips; p is at least 1 / (n_permutations + 1).

    Returns:
        p of each column. Shape (P,), P = 1 for one dimension.

    Raises:
        ShapeError: There is no user, or a difference is not finite.
        RecsysError: `n_permutations` is below 1.

    Source: Fisher (1935), "The Design of Experiments"; counting the observed one as in Phipson and Smyth
    (2010), "Permutation P-values Should Never Be Zero".
    """
    table = _columns(differences)
    if n_permutations < 1:
        raise RecsysError(f"`n_permutations` must be at least 1; got {n_permutations}. 10000 is usual.")
    users = len(table)
    observed = np.abs(table.sum(0))
    # Sums of the same numbers in another order may differ in the last bits; such flips are as far, not nearer.
    reach = observed - 1e-12 * np.abs(table).sum(0)
    rng = np.random.default_rng(seed)
    at_once = max(1, DRAWS_AT_ONCE // users)
    as_far = np.zeros(table.shape[1], dtype=np.int64)
    for start in range(0, n_permutations, at_once):
        size = min(at_once, n_permutations - start)
        bits = np.frombuffer(rng.bytes(-(-size * users // 8)), dtype=np.uint8)
        is_kept = np.unpackbits(bits, count=size * users).reshape(size, users)
        # With b of 0 or 1 the sign is 2 b - 1.
        flipped = 2 * (is_kept.astype(np.float64) @ table) - table.sum(0)
        as_far += (np.abs(flipped) >= reach).sum(0)
    return (1 + as_far) / (1.0 + n_permutations)


def wilcoxon_test(differences: NDArray[np.floating]) -> Values:
    """Two-sided signed-rank test, users without a difference left out, for one or more columns.

    Args:
        differences: Per-user difference of a pair of models in each column. Finite. Shape (U,) or (U, P).

    Returns:
        p of each column, 1 where nobody differs. Shape (P,).

    Raises:
        ShapeError: There is no user, or a difference is not finite.

    Source: Wilcoxon (1945), "Individual Comparisons by Ranking Methods".
    """
    found = [
        wilcoxon(column[column != 0]).pvalue if column.any() else 1.0 for column in _columns(differences).T
    ]
    return np.array(found, dtype=np.float64)


def holm(p: NDArray[np.floating]) -> Values:
    """p-values such that calling all below a level leaves that chance of even one false call among them.

    The i-th smallest of m (from 1) becomes the largest of (m - j + 1) p_j over j up to i, at most 1.

    Args:
        p: In 0..1. Shape (m,).

    Returns:
        In the order of `p`. Shape (m,).

    Raises:
        ShapeError: Something is no p-value.

    Source: Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure".

    Example:
        >>> holm(np.array([0.04, 0.01, 0.03])).round(4).tolist()  # 3 * .01; 2 * .03; .04, held up to .06
        [0.06, 0.03, 0.06]
    """
    given = np.asarray(p, dtype=np.float64)
    if given.ndim != 1 or not ((given >= 0) & (given <= 1)).all():
        raise ShapeError(
            f"`p` must be p-values in 0..1; got {given.ravel()[:3].tolist()}. Pass one a comparison."
        )
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def _columns(differences: NDArray[np.floating]) -> Values:
    table = np.asarray(differences, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or len(table) == 0 or not np.isfinite(table).all():
        raise ShapeError(
            f"`differences` must be finite, one row a user; got shape {np.shape(differences)} with "
            f"{int(np.isfinite(table).sum())} finite. Leave out users without a value."
        )
    return table
