"""One call from a log and a target policy to a table of estimates with everything needed to judge them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from recsys.data.bandit import BanditLog, Values
from recsys.errors import PolicyError
from recsys.off_policy.diagnostics import Overlap, effective_sample_size, measure_overlap
from recsys.off_policy.estimators import (
    ESTIMATORS,
    Estimator,
    Rounds,
    Terms,
    Weighing,
    estimator_terms,
    shrinkage_bias_bound,
)
from recsys.off_policy.intervals import bernstein_interval, bootstrap_terms
from recsys.off_policy.reward_model import (
    RewardConfig,
    RewardEstimates,
    cross_fit_rewards,
    rewards_from_table,
)
from recsys.off_policy.tuning import Rule, choose_level
from recsys.off_policy.weights import at_positions, check_level, importance_weights
from recsys.significance import Interval


class OffPolicyEstimate(NamedTuple):
    """What one estimator says of the target policy's mean reward.

    name: The estimator.
    value: NaN where the log holds nothing that it can use.
    low: Lower end of the bootstrap interval.
    high: Upper end.
    bernstein: Empirical Bernstein interval, wider and safe at any number of rows given the largest weight; None where
        the estimate is not a plain mean.
    ess: Effective sample size of the weights that it came down to; 0 for one that weighs nothing.
    level: Where its shrinkage stands; None for an estimator without.
    share_shrunk: Share of rows whose weight was changed.
    bias_bound: How much bias the shrinking can have brought at most, estimated from the log; 0 where nothing shrank.
    """

    name: str
    value: float
    low: float
    high: float
    bernstein: tuple[float, float] | None
    ess: float
    level: float | None
    share_shrunk: float
    bias_bound: float

    def to_report(self) -> dict[str, object]:
        """As JSON holds it; None for what is not a finite number."""
        bounds = None if self.bernstein is None else [_finite(end) for end in self.bernstein]
        return {
            "name": self.name,
            "value": _finite(self.value),
            "ci95": [_finite(self.low), _finite(self.high)],
            "bernstein95": bounds,
            "effective_sample_size": self.ess,
            "level": None if self.level is None else _finite(self.level),
            "share_shrunk": self.share_shrunk,
            "bias_bound": self.bias_bound,
        }


@dataclass(frozen=True, slots=True, eq=False)
class PolicyEvaluation:
    """All estimates of one target policy on one log.

    Attributes:
        estimates: In the order asked for.
        overlap: What the log can say of the policy.
        logged: Mean reward of the logging policy itself on these rows.
        notes: What a reader must know before using an estimate, a sentence each.
    """

    estimates: tuple[OffPolicyEstimate, ...]
    overlap: Overlap
    logged: Interval
    notes: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """One row an estimator, indexed by its name."""
        return pd.DataFrame(list(self.estimates), columns=list(OffPolicyEstimate._fields)).set_index("name")


def evaluate_policy(
    log: BanditLog,
    action_dist: Values,
    *,
    reward_model: RewardConfig | Values | None = None,
    estimators: Sequence[str] = tuple(ESTIMATORS),
    seed: int,
    levels: Mapping[str, float] | None = None,
    rule: Rule = "bound",
    n_boot: int = 2000,
    coverage: float = 0.95,
) -> PolicyEvaluation:
    """Estimate what a target policy would have earned on the traffic of a log.

    The value is the mean reward of a row: with several slots, of one slot of a page.

    Args:
        log: N rows of another policy.
        action_dist: The target policy: probability of each action. Shape (N, A), or (N, A, K) by slot. It must not
            have been learned from these rows.
        reward_model: Settings of a regression that is fitted in parts here, or predictions of every action in every
            row from elsewhere, shape (N, A). None takes the settings as they come.
        estimators: Names out of `ESTIMATORS`.
        seed: Deals rows to parts, and draws them for the intervals.
        levels: Where the shrinkage of an estimator stands, by its name; the others' is chosen from the log.
        rule: How it is chosen, see `recsys.off_policy.tuning.choose_level`.
        n_boot: Number of resamples.
        coverage: Of all intervals.

    Returns:
        Estimates, overlap, and notes.

    Raises:
        PolicyError: An estimator is unknown, or a level has no meaning for it.
        ShapeError: `action_dist` or `reward_model` does not fit the log.
        InteractionError: `action_dist` holds no distributions.
    """
    chosen = _named(estimators)
    given = _checked_levels(levels or {}, chosen)
    target = at_positions(action_dist, log)
    weights = importance_weights(target, log)
    needs_model = any(estimator.uses_model for estimator in chosen.values())
    model = _predict(log, target, reward_model, seed) if needs_model else None
    rounds = Rounds(weights, target[np.arange(len(log)), log.actions], log.rewards, model)
    used: dict[str, float | None] = {
        name: None if one.shrinkage is None else given.get(name, choose_level(one, rounds, rule))
        for name, one in chosen.items()
    }
    terms = [estimator_terms(one, rounds, used[name]) for name, one in chosen.items()]
    plain = Terms(np.zeros(len(log)), log.rewards, None, np.ones(len(log)), None)
    ends = bootstrap_terms([plain, *terms], log.clusters, seed=seed, n_boot=n_boot, level=coverage)
    overlap = measure_overlap(log, target, seed=seed, n_boot=n_boot, level=coverage)
    found = tuple(
        OffPolicyEstimate(
            name,
            term.value(),
            float(low),
            float(high),
            bernstein_interval(term, log.clusters, level=coverage),
            effective_sample_size(term.used),
            used[name],
            float((term.used != weights).mean()) if one.shrinkage else 0.0,
            shrinkage_bias_bound(one, rounds, term.used),
        )
        for (name, one), term, (low, high) in zip(chosen.items(), terms, ends[1:], strict=True)
    )
    low, high = ends[0].tolist()
    logged = Interval(float(log.rewards.mean()), low, high, overlap.mean_weight.n)
    return PolicyEvaluation(found, overlap, logged, tuple(_notes(log, chosen, overlap)))


def _named(names: Sequence[str]) -> dict[str, Estimator]:
    unknown = [name for name in names if name not in ESTIMATORS]
    if unknown or not names:
        raise PolicyError(
            f"`estimators` must be one or more of {', '.join(ESTIMATORS)}; got {unknown or 'none'}. "
            "Correct the names."
        )
    return {name: ESTIMATORS[name] for name in names}


def _checked_levels(levels: Mapping[str, float], chosen: Mapping[str, Estimator]) -> dict[str, float]:
    found = {}
    for name, level in levels.items():
        shrinkage = chosen[name].shrinkage if name in chosen else None
        if shrinkage is None:
            able = [other for other, one in chosen.items() if one.shrinkage is not None]
            raise PolicyError(
                f"`levels` must name estimators that shrink weights ({able}); got {name!r}. Leave it out."
            )
        found[name] = check_level(name, level, shrinkage)
    return found


def _predict(
    log: BanditLog, target: Values, reward_model: RewardConfig | Values | None, seed: int
) -> RewardEstimates:
    if isinstance(reward_model, np.ndarray):
        return rewards_from_table(log, target, reward_model)
    return cross_fit_rewards(log, target, reward_model or RewardConfig(), seed=seed)


def _notes(log: BanditLog, chosen: Mapping[str, Estimator], overlap: Overlap) -> list[str]:
    found = []
    mean = overlap.mean_weight
    if not mean.low <= 1 <= mean.high:
        found.append(
            f"The mean weight is {mean.value:.3f} with an interval of {mean.low:.3f} to {mean.high:.3f} that leaves "
            "out 1: the propensities do not fit the log, or the policy shows what was never logged."
        )
    if overlap.mass_never_logged > 0:
        found.append(
            f"The policy gives {100 * overlap.mass_never_logged:.2g} % of its choices to actions that were never "
            "logged in that slot; only the reward model says anything of them."
        )
    if overlap.ess < 100:
        found.append(
            f"The log is worth {overlap.ess:.0f} rows of the policy's own: intervals are not to be trusted."
        )
    uneven = float(np.ptp(log.propensities)) > 1e-9
    if uneven and any(one.weighing is Weighing.MATCH for one in chosen.values()):
        found.append(
            "The logging policy did not show all actions equally often, so replay is biased on this log."
        )
    return found


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
