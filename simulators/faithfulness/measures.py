"""The measures of behaviour, simulated and real side by side, as plain values for a report."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from recsys.columns import ITEM, LEVEL, POSITION, USER
from simulators.faithfulness import choices
from simulators.faithfulness.acceptance import acceptance_auc
from simulators.faithfulness.behaviour import (
    POLICY,
    PROBABILITY,
    WEIGHT,
    behaviour_features,
    shared_pairs,
)
from simulators.faithfulness.distributions import DistributionGap, compare_distributions, compare_mixes
from simulators.faithfulness.position import compare_position_bias
from simulators.faithfulness.ranking import PolicyTerms, ranking_agreement, terms_from_rows
from simulators.faithfulness.rates import compare_rates
from simulators.faithfulness.resampling import Values
from simulators.faithfulness.survival import Sessions, compare_survival
from simulators.faithfulness.two_sample import TwoSample, drawn_users, two_sample_auc
from simulators.faithfulness.word_measures import Part, as_measure, rate_part

MOST_USERS = 1000
"""Users of each side that a classifier of behaviour is trained on, at most."""


def distribution_part(
    simulated: pd.DataFrame, real: pd.DataFrame, column: str, *, span: float, seed: int
) -> Part:
    """Distributions of a column, their distances, and the shift of the mean as a share of the range.

    Args:
        simulated: Interactions of simulated users.
        real: Interactions of real users.
        column: Of both tables; rows without a value are left out.
        span: Largest possible value less the smallest one.
        seed: Draws users and sides.
    """
    one, other = (table[table[column].notna()] for table in (simulated, real))
    found = compare_distributions((one[USER], one[column]), (other[USER], other[column]), seed=seed)
    return _distribution(found, span)


def acceptance_rate_part(
    simulated: pd.DataFrame, real: pd.DataFrame, *, accept_level: int, seed: int
) -> Part:
    """Share of rows that reach acceptance.

    Args:
        simulated: Interactions of simulated users.
        real: Interactions of real users.
        accept_level: Level from which a row counts as accepted.
        seed: Draws users.
    """
    sides = [(table[USER], table[LEVEL] >= accept_level) for table in (simulated, real)]
    return rate_part(compare_rates(sides[0], sides[1], seed=seed))


def acceptance_part(
    simulated: pd.DataFrame, real: pd.DataFrame, *, accept_level: int, seed: int
) -> Part | None:
    """Whether simulated answers tell what real users accept; None where the tables share no user and item.

    Args:
        simulated: Interactions of simulated users.
        real: Interactions of real users.
        accept_level: Level from which a real row counts as accepted.
        seed: Draws users.
    """
    pairs = shared_pairs(simulated, real)
    if pairs.empty:
        return None
    found = acceptance_auc(pairs["answer"], pairs[LEVEL] >= accept_level, pairs[USER], seed=seed)
    return {
        "auc": as_measure(found.pooled),
        "within_user": None if found.within_user is None else as_measure(found.within_user),
        "pairs": found.pairs,
        "answers": "probabilities" if PROBABILITY in simulated else "sampled levels",
    }


def position_part(simulated: pd.DataFrame, real: pd.DataFrame, *, seed: int) -> Part:
    """Openings by position, their slopes and the difference.

    Args:
        simulated: Interactions with positions.
        real: The same of real users.
        seed: Draws users.
    """
    sides = [(table[USER], table[POSITION], table[LEVEL] >= 1) for table in (simulated, real)]
    found = compare_position_bias(sides[0], sides[1], seed=seed)
    return {
        "positions": found.positions.astype(int).tolist(),
        "simulated_rate": _finite(found.simulated_rate),
        "real_rate": _finite(found.real_rate),
        "simulated": as_measure(found.simulated),
        "real": as_measure(found.real),
        "gap": as_measure(found.gap),
    }


def survival_part(simulated: Sessions, real: Sessions, *, seed: int) -> Part:
    """Survival curves with bands, their largest distance and the log-rank test.

    Args:
        simulated: Sessions of simulated users.
        real: Sessions of real users.
        seed: Draws users and sides.
    """
    found = compare_survival(simulated, real, seed=seed)
    return {
        "times": found.times.astype(int).tolist(),
        "simulated": found.simulated.tolist(),
        "real": found.real.tolist(),
        "simulated_band": found.simulated_band.tolist(),
        "real_band": found.real_band.tolist(),
        "gap": as_measure(found.gap),
        "log_rank": found.log_rank,
        "p": found.p,
    }


def mix_part(simulated: tuple[ArrayLike, ArrayLike], real: tuple[ArrayLike, ArrayLike], *, seed: int) -> Part:
    """Shares of kinds on both sides and their Jensen-Shannon distance.

    Args:
        simulated: Users and kinds of the simulated rows.
        real: The same of the real ones.
        seed: Draws users.
    """
    kinds, one, other, distance = compare_mixes(simulated, real, seed=seed)
    return {
        "kinds": kinds.tolist(),
        "simulated": one.tolist(),
        "real": other.tolist(),
        "distance": as_measure(distance),
    }


def choice_part(scenes: choices.Scenes, *, seed: int) -> Part:
    """How well probabilities foretell what real users took out of lists.

    Args:
        scenes: Lists with probabilities and the option taken.
        seed: Draws users and slots.
    """

    def mean(by_scene: Values) -> Part:
        return as_measure(choices.mean_over_users(scenes, by_scene, seed=seed))

    curve = choices.reliability(scenes, seed=seed)
    slots = choices.slot_accuracy(scenes, seed=seed)
    even = np.log(scenes.lengths.astype(np.float64))
    return {
        "scenes": len(scenes),
        "nll": mean(choices.nll_by_scene(scenes)),
        "nll_saved": mean(even - choices.nll_by_scene(scenes)),
        "top1": mean(choices.top1_by_scene(scenes)),
        "expected": mean(choices.expected_accuracy_by_scene(scenes)),
        "chance": mean(1 / scenes.lengths),
        "ece": as_measure(curve.error),
        "reliability": {
            "probability": curve.probability.tolist(),
            "rate": curve.rate.tolist(),
            "rows": curve.rows.tolist(),
        },
        "slots": {
            "rows": slots.rows.tolist(),
            "due": slots.due.tolist(),
            "top1": _finite(slots.top1),
            "expected": _finite(slots.expected),
            "p_flat": slots.p_flat,
            "by_chance": None if np.isnan(slots.by_chance) else slots.by_chance,
            "p_even": slots.p_even,
        },
    }


def ranking_part(simulated: pd.DataFrame, real: pd.DataFrame, *, accept_level: int, seed: int) -> Part:
    """Order of policies by the share of rows that reach acceptance, in the simulator and in the log.

    Args:
        simulated: Interactions with the column policy.
        real: The same; a column weight makes its values those of SNIPS.
        accept_level: Level from which a row counts as accepted.
        seed: Draws users.

    Raises:
        FaithfulnessError: Fewer than three policies are shared, or one has no rows that count.
    """

    def terms(table: pd.DataFrame) -> PolicyTerms:
        return terms_from_rows(table[USER], table[POLICY], table[LEVEL] >= accept_level, table.get(WEIGHT))

    found = ranking_agreement(terms(simulated), terms(real), seed=seed)
    return {
        "policies": list(found.names),
        "simulated": [as_measure(value) for value in found.simulated],
        "real": [as_measure(value) for value in found.real],
        "tau": as_measure(found.tau),
        "settled": found.settled,
        "settled_alike": found.settled_alike,
        "estimator": "SNIPS" if WEIGHT in real else "mean of its own rows",
    }


def behaviour_two_sample(
    simulated: pd.DataFrame, real: pd.DataFrame, *, max_level: int, seed: int
) -> TwoSample:
    """Whether what users do tells simulated from real.

    Args:
        simulated: Interactions of simulated users.
        real: Interactions of real users.
        max_level: The deepest level.
        seed: Draws users, folds and sides.

    Raises:
        FaithfulnessError: Too few users on a side.
        MissingDependency: scikit-learn is not installed.
    """
    (one, names), (other, other_names) = (
        behaviour_features(table, max_level=max_level) for table in (simulated, real)
    )
    shared = [name for name in names if name in other_names]
    one = one._replace(values=one.values[:, [names.index(name) for name in shared]])
    other = other._replace(values=other.values[:, [other_names.index(name) for name in shared]])
    drawn = [drawn_users(side, MOST_USERS, seed=seed) for side in (one, other)]
    return two_sample_auc(drawn[0], drawn[1], seed=seed)


def two_sample_part(found: TwoSample) -> Part:
    """AUC, its chance and the number of rows."""
    return {"auc": as_measure(found.auc), "p": found.p, "rows": found.users}


def exposure_overlap(simulated: pd.DataFrame, real: pd.DataFrame) -> float:
    """Share of simulated rows whose item also occurs in the real table."""
    return float(simulated[ITEM].isin(real[ITEM].unique()).mean())


def _distribution(found: DistributionGap, span: float) -> Part:
    shift = found.mean_gap
    return {
        "support": found.support.tolist(),
        "simulated": found.simulated.tolist(),
        "real": found.real.tolist(),
        "ks": as_measure(found.ks),
        "p": found.p,
        "wasserstein": as_measure(found.wasserstein),
        "mean_gap": as_measure(found.mean_gap),
        "shift": as_measure(
            shift._replace(value=shift.value / span, low=shift.low / span, high=shift.high / span)
        ),
    }


def _finite(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
