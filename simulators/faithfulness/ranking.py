"""Whether a simulator orders recommenders as reality does: Kendall's tau-b against logs or importance weights.

A policy's value is a ratio of sums over users: of rewards over rows for a log of its own, of weighted rewards over
weights (SNIPS, Swaminathan and Joachims 2015) for a log of another policy.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from recsys.significance import Interval
from simulators.errors import FaithfulnessError
from simulators.faithfulness.resampling import (
    RESAMPLES,
    Values,
    bootstrap_gap,
    bootstrap_statistic,
    sums_by_user,
)


class PolicyTerms(NamedTuple):
    """What the values of P policies are made of, user by user.

    names: The policies. Length P.
    sums: Rewards of each policy, then what they are divided by. Shape (U, 2 P).
    """

    names: tuple[str, ...]
    sums: Values


class RankingAgreement(NamedTuple):
    """How alike two orders of the same policies are.

    names: The policies, the really best first. Length P.
    simulated: Value of each in the simulator.
    real: Value of each in the log.
    tau: Kendall's tau-b; NaN where one side gives all policies the same value.
    settled: Pairs of policies whose order the log settles: the interval of their difference is clear of 0.
    settled_alike: How many of them the simulator orders alike.
    """

    names: tuple[str, ...]
    simulated: tuple[Interval, ...]
    real: tuple[Interval, ...]
    tau: Interval
    settled: int
    settled_alike: int


def terms_from_rows(
    users: ArrayLike, policies: ArrayLike, rewards: ArrayLike, weights: ArrayLike | None = None
) -> PolicyTerms:
    """Terms from rows that each belong to one policy.

    Args:
        users: Shape (N,).
        policies: Name of the policy of each row. Shape (N,).
        rewards: What the row earned. Shape (N,).
        weights: Importance weight of each row, for values by SNIPS; None for plain means.
    """
    names, which = np.unique(np.asarray(policies).astype(np.str_), return_inverse=True)
    share = np.ones(len(which)) if weights is None else np.asarray(weights, dtype=np.float64)
    own = (which[:, None] == np.arange(len(names))) * share[:, None]
    earned = own * np.asarray(rewards, dtype=np.float64)[:, None]
    _, sums = sums_by_user(users, np.concatenate([earned, own], axis=1))
    return PolicyTerms(tuple(names.tolist()), sums)


def ranking_agreement(
    simulated: PolicyTerms, real: PolicyTerms, *, seed: int, n_boot: int = RESAMPLES
) -> RankingAgreement:
    """Compare the order of policies in the simulator with that in reality.

    Args:
        simulated: Terms of the simulator.
        real: Terms of the log; policies that the other side lacks are left out.
        seed: Draws users.
        n_boot: Number of resamples.

    Raises:
        FaithfulnessError: The sides share fewer than three policies, or a shared one has no rows.

    Source: Kendall (1945), "The Treatment of Ties in Ranking Problems", tau-b, as `scipy.stats.kendalltau`.
    """
    shared = [name for name in real.names if name in simulated.names]
    if len(shared) < 3:
        raise FaithfulnessError(
            f"Both sides must have three policies or more in common, for an order to be one; got {len(shared)} "
            f"({', '.join(shared) or 'none'}). Name policies alike on both sides."
        )
    one, other = _select(simulated, shared), _select(real, shared)
    empty = [
        shared[p]
        for p in range(len(shared))
        if min(one[:, len(shared) + p].sum(), other[:, len(shared) + p].sum()) <= 0
    ]
    if empty:
        raise FaithfulnessError(
            f"Every policy must have rows that count on both sides; got none for {', '.join(empty[:3])}. Leave it out."
        )

    def agreement(first: Values, second: Values) -> Values:
        return kendall_tau_b(policy_values(first), policy_values(second))

    tau = bootstrap_gap(one, other, agreement, seed=seed, n_boot=n_boot)
    order = np.argsort(-policy_values(other.sum(0)[None])[0], kind="stable")
    settled, alike = _settled(one, other, seed=seed, n_boot=n_boot)
    values = [[_value_of(side, int(p), seed=seed, n_boot=n_boot) for p in order] for side in (one, other)]
    return RankingAgreement(
        tuple(shared[p] for p in order), tuple(values[0]), tuple(values[1]), tau, settled, alike
    )


def policy_values(sums: Values) -> Values:
    """Value of each policy: rewards over what they are divided by. From (R, 2 P) to (R, P); NaN without rows."""
    earned, divisor = np.split(sums, 2, axis=-1)
    values: Values = np.divide(earned, divisor, out=np.full(earned.shape, np.nan), where=divisor > 0)
    return values


def kendall_tau_b(first: Values, second: Values) -> Values:
    """Tau-b of each row: (pairs alike - pairs apart) / sqrt(pairs untied in one * pairs untied in the other).

    Args:
        first: Shape (R, P).
        second: Shape (R, P).

    Returns:
        In -1..1, shape (R,); NaN where a side ties all pairs or lacks a value.

    Example:
        >>> float(kendall_tau_b(np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 3.0, 2.0]]))[0].round(4))  # (2 - 1) / 3
        0.3333
    """
    left, right = np.triu_indices(first.shape[1], 1)
    one, other = np.sign(first[:, left] - first[:, right]), np.sign(second[:, left] - second[:, right])
    untied = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    alike = (one * other).sum(1)
    tau: Values = np.divide(alike, untied, out=np.full(len(untied), np.nan), where=untied > 0)
    return tau


def _select(terms: PolicyTerms, names: Sequence[str]) -> Values:
    columns = [terms.names.index(name) for name in names]
    return terms.sums[:, [*columns, *(len(terms.names) + column for column in columns)]]


def _value_of(sums: Values, policy: int, *, seed: int, n_boot: int) -> Interval:
    def value(counts: Values) -> Values:
        return policy_values(counts)[:, 0]

    own = sums[:, [policy, sums.shape[1] // 2 + policy]]
    return bootstrap_statistic(own, value, seed=seed, n_boot=n_boot)


def _settled(one: Values, other: Values, *, seed: int, n_boot: int) -> tuple[int, int]:
    """Pairs whose order the real side settles, and those of them that the simulated side orders alike."""
    simulated = policy_values(one.sum(0)[None])[0]
    settled = alike = 0
    for left, right in zip(*np.triu_indices(other.shape[1] // 2, 1), strict=True):

        def difference(counts: Values, left: int = int(left), right: int = int(right)) -> Values:
            values = policy_values(counts)
            return values[:, left] - values[:, right]

        found = bootstrap_statistic(other, difference, seed=seed, n_boot=n_boot)
        if found.low > 0 or found.high < 0:
            settled += 1
            alike += bool(np.sign(found.value) == np.sign(simulated[left] - simulated[right]))
    return settled, alike
