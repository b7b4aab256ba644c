"""Which models are better than which, said only where both a corrected test and an interval say so."""

from collections.abc import Mapping
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.errors import RecsysError, ShapeError
from recsys.significance.bootstrap import Values, check_table, resampled_means
from recsys.significance.paired import holm, permutation_test, wilcoxon_test

Test = Literal["permutation", "wilcoxon"]


class Comparison(NamedTuple):
    """One row of the table of comparisons.

    first: Name of a model.
    second: Name of the model that it is compared with.
    difference: Mean of first less mean of second, over users and seeds.
    low: Lower end of the bootstrap interval of the difference.
    high: Upper end.
    p: Of the paired test over users.
    p_holm: The same, corrected for the whole table.
    is_better: Whether `first` may be called better than `second`.
    is_worse: Whether `first` may be called worse than `second`.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    is_better: bool
    is_worse: bool


def compare_models(
    values: Mapping[str, NDArray[np.floating]],
    *,
    seed: int,
    baseline: str | None = None,
    test: Test = "permutation",
    alpha: float = 0.05,
    n_boot: int = 2000,
    n_permutations: int = 10_000,
    level: float = 0.95,
) -> list[Comparison]:
    """Compare one metric of several models over the same users.

    The test is over users, on each user's mean over seeds, for these trained models; the interval draws users and
    training seeds again (`combine_seeds`), each model's seeds on their own, so that a lucky seed is not called better.

    Args:
        values: By model, one value a user, or a row of them for each training seed. Shape (U,) or (S, U), the same
            users everywhere, S as each model has it.
        seed: Draws resamples and signs.
        baseline: Compare every other model with this one; None compares all pairs, the better mean first.
        test: "permutation" (sign flips, about the mean) or "wilcoxon" (signed ranks).
        alpha: Level of the corrected test.
        n_boot: Number of resamples for the intervals.
        n_permutations: Number of sign flips.
        level: Coverage of the intervals.

    Returns:
        A row for each comparison: in the order of `values` against a baseline, else by falling mean.

    Raises:
        RecsysError: There are fewer than two models, or `baseline` is none of them.
        ShapeError: The models do not describe the same users, or a value is not finite.
    """
    tables = {name: check_table(name, given) for name, given in values.items()}
    if len(tables) < 2:
        raise RecsysError(
            f"`values` must hold two models or more; got {list(tables)}. Add one to compare with."
        )
    if baseline is not None and baseline not in tables:
        raise RecsysError(
            f"`baseline` must be one of {', '.join(tables)}; got {baseline!r}. Name a measured model."
        )
    if len({table.shape[1] for table in tables.values()}) > 1:
        users = {name: table.shape[1] for name, table in tables.items()}
        raise ShapeError(
            f"`values` must describe the same users; got {users}. Measure all models on one set of users."
        )
    place = {name: index for index, name in enumerate(tables)}
    pairs = [(place[a], place[b]) for a, b in _pairs(tables, baseline)]
    first, second = np.array(pairs).T
    per_user = np.stack([table.mean(0) for table in tables.values()], axis=1)
    apart = per_user[:, first] - per_user[:, second]
    if test == "permutation":
        p = permutation_test(apart, seed=seed, n_permutations=n_permutations)
    else:
        p = wilcoxon_test(apart)
    means = resampled_means(list(tables.values()), seed=seed, n_boot=n_boot)
    low, high = np.quantile(means[:, first] - means[:, second], [(1 - level) / 2, (1 + level) / 2], axis=0)
    names = list(tables)
    corrected = holm(p)
    return [
        Comparison(
            first=names[a],
            second=names[b],
            difference=float(apart[:, row].mean()),
            low=float(low[row]),
            high=float(high[row]),
            p=float(p[row]),
            p_holm=float(corrected[row]),
            is_better=bool(corrected[row] < alpha and low[row] > 0),
            is_worse=bool(corrected[row] < alpha and high[row] < 0),
        )
        for row, (a, b) in enumerate(pairs)
    ]


def definition_of_better(
    comparisons: int, *, test: Test = "permutation", alpha: float = 0.05, level: float = 0.95
) -> str:
    """What `compare_models` means by better, in one sentence, for a report to print below its table.

    Args:
        comparisons: Number of rows of the table.
        test: As given to `compare_models`.
        alpha: As given to `compare_models`.
        level: As given to `compare_models`.
    """
    return (
        f"Better: over the same users, the paired {test} test has p < {alpha:g} after Holm's correction for all "
        f"{comparisons} comparisons, and the {level:.0%} bootstrap interval of the difference, over users and the "
        "training seeds where there are several, is clear of 0."
    )


def _pairs(tables: Mapping[str, Values], baseline: str | None) -> list[tuple[str, str]]:
    if baseline is not None:
        return [(name, baseline) for name in tables if name != baseline]
    # Sorting keeps the order of models whose means are equal.
    return list(combinations(sorted(tables, key=lambda name: -float(tables[name].mean())), 2))
