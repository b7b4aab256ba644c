"""Off-policy estimates for whole pages: several slots filled at once, a reward in each.

What may be assumed decides the estimator. `sips` assumes nothing and weighs a page by its joint probability; `iips`
takes slots to be independent; `rips` takes a slot to depend only on those above it (a cascade). Fewer assumptions cost
variance: weights multiply over slots.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recsys.data.bandit import Values, refuse_rows
from recsys.errors import PolicyError, ShapeError
from recsys.off_policy.diagnostics import effective_sample_size
from recsys.off_policy.estimators import Terms
from recsys.off_policy.evaluate import OffPolicyEstimate
from recsys.off_policy.intervals import bernstein_interval, bootstrap_terms
from recsys.types import Ints


@dataclass(frozen=True, slots=True, eq=False)
class SlateLog:
    """Pages of a logging policy, with three kinds of probability under it and under the target policy.

    Attributes:
        rewards: Of each slot. Shape (S, L), float64.
        logging_cascade: Probability that the logging policy fills slots 1..l as logged; the last column is that of
            the whole page. Above 0, at most 1. Shape (S, L), float64.
        logging_marginal: Probability that it puts the logged item into slot l, whatever the others hold. Shape (S, L).
        target_cascade: As `logging_cascade` under the target policy, 0 allowed. Shape (S, L).
        target_marginal: As `logging_marginal` under the target policy, 0 allowed. Shape (S, L).
        clusters: Whose page it is; None where each stands for itself. Shape (S,), int64.

    Raises:
        ShapeError: Shapes differ, or there is no page.
        InteractionError: A reward is not finite, or a probability is out of its range.
    """

    rewards: Values
    logging_cascade: Values
    logging_marginal: Values
    target_cascade: Values
    target_marginal: Values
    clusters: Ints | None = None

    def __post_init__(self) -> None:
        """Check everything once."""
        chances = {
            name: getattr(self, name)
            for name in ("logging_cascade", "logging_marginal", "target_cascade", "target_marginal")
        }
        shapes = {"rewards": self.rewards.shape} | {name: part.shape for name, part in chances.items()}
        if len(set(shapes.values())) > 1 or self.rewards.ndim != 2 or self.rewards.size == 0:
            raise ShapeError(
                f"A slate log must have one row a page and one column a slot everywhere; got {shapes}. "
                "Fill all arrays from one table."
            )
        refuse_rows(
            np.any(~np.isfinite(self.rewards), axis=1),
            self.rewards,
            "`rewards` must be finite",
            "Drop the pages",
        )
        for name, chance in chances.items():
            least = chance > 0 if name.startswith("logging") else chance >= 0
            edge = "above 0" if name.startswith("logging") else "0 or more"
            refuse_rows(
                np.any(~(least & (chance <= 1 + 1e-9)), axis=1),
                chance,
                f"`{name}` must be {edge} and at most 1",
                "Log the probability of the page as it was shown",
            )


def _page_weights(log: SlateLog) -> Values:
    joint = log.target_cascade[:, -1] / log.logging_cascade[:, -1]
    return np.broadcast_to(joint[:, None], log.rewards.shape)


def _slot_weights(log: SlateLog) -> Values:
    return log.target_marginal / log.logging_marginal


def _cascade_weights(log: SlateLog) -> Values:
    return log.target_cascade / log.logging_cascade


SLATE_ESTIMATORS: Mapping[str, tuple[Callable[[SlateLog], Values], bool]] = {
    "sips": (_page_weights, False),
    "iips": (_slot_weights, False),
    "rips": (_cascade_weights, False),
    "snsips": (_page_weights, True),
    "sniips": (_slot_weights, True),
    "snrips": (_cascade_weights, True),
}
"""Weights (S, L) of every slot, and whether each slot's are divided by their sum. Sources: Li et al. (2018), "Offline
Evaluation of Ranking Policies with Click Models", for iips; McInerney et al. (2020), "Counterfactual Evaluation of
Slate Recommendations with Sequential Reward Interactions", for rips."""


def evaluate_slates(
    log: SlateLog,
    *,
    estimators: Sequence[str] = tuple(SLATE_ESTIMATORS),
    slot_weights: Values | None = None,
    seed: int,
    n_boot: int = 2000,
    coverage: float = 0.95,
) -> tuple[OffPolicyEstimate, ...]:
    """What a page of the target policy would have earned: the sum over slots, each times its slot weight.

    Args:
        log: S pages of L slots.
        estimators: Names out of `SLATE_ESTIMATORS`.
        slot_weights: What a reward counts for in each slot; None counts all as 1. Shape (L,).
        seed: Draws pages or clusters for the intervals.
        n_boot: Number of resamples.
        coverage: Of all intervals.

    Returns:
        One estimate an estimator. `ess` is the least over the slots. Intervals of normalised ones take the slots'
        sums of weights as they are expanded to first order around the estimate.

    Raises:
        PolicyError: An estimator is unknown.
        ShapeError: `slot_weights` does not fit the slots.
    """
    unknown = [name for name in estimators if name not in SLATE_ESTIMATORS]
    if unknown or not estimators:
        raise PolicyError(
            f"`estimators` must be one or more of {', '.join(SLATE_ESTIMATORS)}; got {unknown or 'none'}. "
            "Correct the names."
        )
    slots = log.rewards.shape[1]
    counted = np.ones(slots) if slot_weights is None else slot_weights
    if counted.shape != (slots,):
        raise ShapeError(
            f"`slot_weights` must have shape ({slots},); got {counted.shape}. Give one number a slot."
        )
    weights = {name: SLATE_ESTIMATORS[name][0](log) for name in estimators}
    terms = [
        _slate_terms(log.rewards * counted, weights[name], SLATE_ESTIMATORS[name][1]) for name in estimators
    ]
    ends = bootstrap_terms(terms, log.clusters, seed=seed, n_boot=n_boot, level=coverage)
    return tuple(
        OffPolicyEstimate(
            name,
            term.value(),
            float(low),
            float(high),
            bernstein_interval(term, log.clusters, level=coverage),
            min(effective_sample_size(weights[name][:, slot]) for slot in range(slots)),
            None,
            0.0,
            0.0,
        )
        for name, term, (low, high) in zip(estimators, terms, ends, strict=True)
    )


def cascade_dr_terms(log: SlateLog, predicted: Values, expected: Values) -> Terms:
    """The cascade doubly robust estimate: `rips` with a baseline for what each slot and those below will still earn.

    Args:
        log: S pages of L slots.
        predicted: Expected sum of rewards from slot l down under the target policy, given slots 1..l as logged, made
            without that page's own rewards. Shape (S, L).
        expected: The same before slot l is filled: the mean of `predicted` over the target policy's choice there.
            Shape (S, L).

    Returns:
        Terms whose `value()` is the estimate and which `bootstrap_terms` takes.

    Raises:
        ShapeError: A shape does not fit the log.

    Source: Kiyohara et al. (2022), "Doubly Robust Off-Policy Evaluation for Ranking Policies under the Cascade
        Behavior Model", equation 6.
    """
    if predicted.shape != log.rewards.shape or expected.shape != log.rewards.shape:
        raise ShapeError(
            f"`predicted` and `expected` must have shape {log.rewards.shape}; got {predicted.shape} and "
            f"{expected.shape}. Predict every slot of every page."
        )
    here = _cascade_weights(log)
    above = np.concatenate([np.ones((len(here), 1)), here[:, :-1]], axis=1)
    base = (above * expected).sum(axis=1)
    numerator = (here * (log.rewards - predicted)).sum(axis=1)
    return Terms(base, numerator, None, here[:, -1], None)


def _slate_terms(rewards: Values, weights: Values, normalised: bool) -> Terms:
    """Sum over slots of weighted rewards; normalised, each slot's by its own sum, linearised for the intervals."""
    if not normalised:
        highest, span = weights.max(axis=0), np.ptp(np.append(rewards, np.zeros((1, rewards.shape[1])), 0), 0)
        sums = (weights * rewards).sum(axis=1)
        return Terms(np.zeros(len(sums)), sums, None, weights[:, -1], float((highest * span).sum()))
    mean = weights.mean(axis=0)
    if (mean == 0).any():
        undefined = np.zeros(len(rewards))
        return Terms(undefined, undefined, undefined, weights[:, -1], None)
    ratio = (weights * rewards).mean(axis=0) / mean
    around = (weights / mean * (rewards - ratio)).sum(axis=1) + ratio.sum()
    return Terms(np.zeros(len(around)), around, None, weights[:, -1], None)
