"""Fitting the ordinal choice model to a log by variational expectation-maximisation.

Users' weights are Gaussian with a free covariance over attributes, factors and a constant; an item's factors are
standard normal and its effect is normal about `popularity effect x popularity`. Beliefs about users and items are
updated in turn; then thresholds, slopes and the position effect by Newton steps on the expected log-likelihood, and
the Gaussians of users and items by their moments. So all strengths of shrinkage are learned; only the number of
factors is chosen by the caller.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import logit

from simulators.errors import MirrorError
from simulators.mirror.beliefs import Gaussians, Grouped, update_items, update_users, utilities
from simulators.mirror.effects import Effect
from simulators.mirror.exposure import (
    Shown,
    browsed_chances,
    improved_gamma,
    item_evidence,
    user_evidence,
)
from simulators.mirror.level_model import LevelModel, rows_of_log
from simulators.mirror.popularity import item_popularity, popularity_effect
from simulators.mirror.slates import known_slates
from simulators.mirror.steps import (
    Ints,
    Rows,
    Values,
    expected_probabilities,
    expected_pull,
    expected_sigmoid,
    improved_choice,
    position_term,
)
from simulators.world.choice import NestedChoice

FIRST_VARIANCE = 0.1
FLOOR = 1e-5
LEAST_SHARE = 1e-3


class _Data(NamedTuple):
    rows: Rows
    features: Values
    popularity: Values
    by_user: Grouped
    by_item: Grouped
    has_positions: bool
    slates: Ints | None


class _State(NamedTuple):
    choice: NestedChoice
    users: Gaussians
    items: Gaussians
    population: Gaussians
    popularity_effect: float
    effect_variance: float
    gamma: float
    browsed: float
    shown: Shown | None


def fit_levels(
    log: pd.DataFrame,
    features: ArrayLike,
    *,
    n_users: int,
    n_levels: int = 5,
    n_factors: int = 4,
    use_exposure: bool = True,
    iterations: int = 40,
    seed: int,
    report: Callable[[dict[str, float]], None] | None = None,
) -> LevelModel:
    """Fit users, items and choices to the rows of a log. Cost of an iteration: rows x (F + R)^2.

    Args:
        log: Columns user_id, item_id (rows), level and, where known, position and timestamp; nothing later than what
            the model may know. With times rows may stand in any order; with positions alone a user's rows must stand in
            the order in which they were shown, as this tells its slates apart.
        features: Attributes of the items. Shape (I, F).
        n_users: Number of users U.
        n_levels: Number of levels K.
        n_factors: Number R of what is learned of an item beyond attributes and effect.
        use_exposure: Whether what a user came across counts as a sign of taste (see `exposure`).
        iterations: Rounds.
        seed: Of the first factors.
        report: Gets `iteration` and `loss`, the mean of -log P(level) in nats over the rows at the beliefs that they
            themselves led to.

    Raises:
        MirrorError: The log lacks a level, or speaks of what does not exist.
    """
    known = np.asarray(features, np.float64)
    rows = rows_of_log(log, n_users=n_users, n_items=len(known), n_levels=n_levels)
    counts = np.bincount(rows.levels, minlength=n_levels)
    if not counts.all():
        raise MirrorError(
            f"A log must hold every level 0..{n_levels - 1} to fit a choice model; got counts {counts.tolist()}. "
            "Use more rows, or merge levels."
        )
    known = known - known.mean(axis=0)
    data = _Data(
        rows,
        known,
        item_popularity(rows, len(known)),
        Grouped.of(rows.users, known.shape[1] + n_factors + 1),
        Grouped.of(rows.items, n_factors + 1),
        bool(rows.positions.any()),
        known_slates(log) if use_exposure else None,
    )
    state = _start(counts, n_users, known, n_factors, np.random.default_rng(seed))
    if use_exposure:
        shown = Shown.of(rows, n_users, len(known), browsed=np.ones(len(rows.users)))
        state = state._replace(shown=shown, browsed=1.0 if data.slates is None else 0.5)
    for iteration in range(iterations):
        state, loss = _round(state, data)
        if report is not None:
            report({"iteration": iteration + 1, "loss": loss})
    position_error = _position_error(state, data) if data.has_positions else np.nan
    effects = {
        "position": Effect(state.choice.position_effect, position_error),
        "popularity": _popularity_effect(state, data),
    }
    share = np.full(len(known), 1 / len(known)) if state.shown is None else state.shown.share
    return LevelModel(
        known,
        data.popularity,
        share,
        state.gamma,
        state.browsed,
        state.choice,
        state.users,
        state.items,
        state.population,
        effects,
    )


def _start(
    counts: np.ndarray, n_users: int, features: Values, n_factors: int, rng: np.random.Generator
) -> _State:
    """Thresholds at the base rates, all alike but for small random factors and loadings."""
    reached = counts[::-1].cumsum()[::-1]
    n_items, width = len(features), features.shape[1] + n_factors + 1
    users = np.zeros((n_users, width))
    users[:, features.shape[1] : width - 1] = 0.2 * rng.normal(size=(n_users, n_factors))
    items = np.zeros((n_items, n_factors + 1))
    items[:, :-1] = 0.5 * rng.normal(size=(n_items, n_factors))
    spread = FIRST_VARIANCE * np.eye(width)
    return _State(
        NestedChoice(-logit(reached[1:] / reached[:-1]), np.ones(len(counts) - 1)),
        Gaussians(users, np.repeat(spread[None], n_users, axis=0)),
        Gaussians(items, np.repeat(FIRST_VARIANCE * np.eye(n_factors + 1)[None], n_items, axis=0)),
        Gaussians(np.zeros((1, width)), spread[None]),
        0.0,
        FIRST_VARIANCE,
        0.0,
        1.0,
        None,
    )


def _round(state: _State, data: _Data) -> tuple[_State, float]:
    """Users, items, choices and populations once over, and the loss after it."""
    rows, features, shown = data.rows, data.features, state.shown
    found = utilities(rows, features, state.users, state.items, data.by_user)
    pull = expected_pull(state.choice, rows, found.mean, found.variance)
    met = user_evidence(shown, features, state.items, state.population, state.gamma) if shown else None
    users = update_users(
        rows,
        features,
        state.users,
        state.items,
        pull,
        by_user=data.by_user,
        prior=state.population,
        other=met,
    )
    found = utilities(rows, features, users, state.items, data.by_user)
    pull = expected_pull(state.choice, rows, found.mean, found.variance)
    prior = _item_prior(state, data.popularity)
    met = item_evidence(shown, features, users, state.items, state.population, state.gamma) if shown else None
    items = update_items(
        rows,
        features,
        users,
        state.items,
        pull,
        loading=found.loading,
        by_item=data.by_item,
        prior=prior,
        other=met,
    )
    found = utilities(rows, features, users, items, data.by_user)
    choice = improved_choice(state.choice, rows, found.mean, found.variance, has_positions=data.has_positions)
    predicted = expected_probabilities(choice, found.mean, found.variance, position=rows.positions)
    loss = -np.log(np.take_along_axis(predicted, rows.levels[:, None], axis=1)).mean()
    users, items, effect = _explain_items(users, items, features, data.popularity)
    left = (items.mean[:, -1] - effect * data.popularity) ** 2 + items.covariance[:, -1, -1]
    population = _population(users, features.shape[1])
    spread = float(left.mean() + FLOOR)
    state = _State(choice, users, items, population, effect, spread, 0.0, state.browsed, shown)
    return _improved_exposure(state, data), float(loss)


def _improved_exposure(state: _State, data: _Data) -> _State:
    """How strongly taste decides what is met, and which slates it decided."""
    shown = state.shown
    if shown is None:
        return state
    state = state._replace(
        gamma=improved_gamma(shown, data.features, state.users, state.items, state.population)
    )
    if data.slates is None:
        return state
    chance = browsed_chances(
        data.rows,
        data.slates,
        shown,
        data.features,
        state.users,
        state.items,
        state.population,
        gamma=state.gamma,
        share=state.browsed,
    )
    shown = Shown.of(data.rows, *shown.counts.shape, browsed=chance)
    return state._replace(browsed=float(np.clip(chance.mean(), LEAST_SHARE, 1 - LEAST_SHARE)), shown=shown)


def _popularity_effect(state: _State, data: _Data) -> Effect:
    return popularity_effect(
        data.rows,
        utilities(data.rows, data.features, state.users, state.items, data.by_user),
        state.choice,
        effects=state.items.mean[:, -1],
        doubt=state.items.covariance[:, -1, -1],
        features=data.features,
        popularity=data.popularity,
    )


def _explain_items(
    users: Gaussians, items: Gaussians, features: Values, popularity: Values
) -> tuple[Gaussians, Gaussians, float]:
    """Regress items' effects on popularity and attributes, and hand what attributes explain to all users alike.

    Utilities stay as they are, and the items' prior fits better. Rounds end at the same place without this step, which
    saves about half of them (parameter expansion: Liu, Rubin and Wu 1998, "Parameter expansion to accelerate EM").

    Returns:
        Users and items after the exchange, and the effect of popularity with attributes held fixed.
    """
    design = np.column_stack([popularity, features])
    found = np.linalg.lstsq(design, items.mean[:, -1], rcond=None)[0]
    liked, of_item = users.mean.copy(), items.mean.copy()
    liked[:, : features.shape[1]] += found[1:]
    of_item[:, -1] -= features @ found[1:]
    return users._replace(mean=liked), items._replace(mean=of_item), float(found[0])


def _item_prior(state: _State, popularity: Values) -> Gaussians:
    mean = np.zeros_like(state.items.mean)
    mean[:, -1] = state.popularity_effect * popularity
    covariance = np.eye(mean.shape[1])
    covariance[-1, -1] = state.effect_variance
    return Gaussians(mean, covariance[None])


def _population(users: Gaussians, n_features: int) -> Gaussians:
    """Moments of users' weights. Only attributes have a mean: thresholds and item effects hold the rest."""
    mean = users.mean.mean(axis=0)
    mean[n_features:] = 0.0
    away = users.mean - mean
    covariance = users.covariance.mean(axis=0) + away.T @ away / len(away)
    return Gaussians(mean[None], (covariance + FLOOR * np.eye(len(mean)))[None])


def _position_error(state: _State, data: _Data) -> float:
    """Standard error of the position effect from the outer products of users' scores.

    A user's score is the expectation of the complete-data score under what is believed (Fisher's identity; Louis
    1982), so what the hidden utilities cost is counted; users are the independent units.
    """
    rows, choice = data.rows, state.choice
    found = utilities(rows, data.features, state.users, state.items, data.by_user)
    inputs = []
    for k, (threshold, slope) in enumerate(zip(choice.thresholds, choice.slopes, strict=True)):
        at_risk = rows.levels >= k
        place = position_term(rows.positions)
        shift = choice.position_effect * place if k == 0 else 0.0
        variance = slope**2 * found.variance
        chance, spread = expected_sigmoid(slope * found.mean - threshold + shift, variance)
        left = at_risk * ((rows.levels > k) - chance)
        inputs.append(-left)
        # Stein: E[u (y - sigmoid)] = E u E(y - sigmoid) - slope Var u E sigmoid'.
        inputs.append(
            left * place if k == 0 else left * found.mean - at_risk * slope * found.variance * spread
        )
    n_users = len(state.users.mean)
    scores = np.stack([np.bincount(rows.users, weights=w, minlength=n_users) for w in inputs])
    covariance = np.linalg.pinv(scores @ scores.T)
    return float(np.sqrt(covariance[1, 1]))
