"""Personas read off what users did: their interaction log, and the replies that they preferred.

Only what a service would have observed comes in; a persona of the hidden truth is `simulators.world.true_personas`.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from persona.data.comparisons import ComparisonTable
from persona.rewards.attributes import ATTRIBUTES
from recsys import columns
from simulators.errors import PersonaError
from simulators.randomness import keyed_bits
from simulators.users.personas import (
    Activity,
    Interest,
    Language,
    Orientations,
    Persona,
    ReplyWish,
    Strictness,
    Target,
)
from simulators.world.catalogue import Catalogue

LIKED, DISLIKED = 3, 2
"""Most interests of either kind."""

_ENGAGED, _WATCHED = 1, 3
_SHRINKAGE = 8.0
_NOTABLE, _STRONG = 0.5, 1.5
_CLEAR, _LEANING = 2.0, 1.0
_PATIENCE = 17

Floats = NDArray[np.float64]
_Word = TypeVar("_Word", bound=str)


class ObservedChoices(NamedTuple):
    """Which of two replies users preferred, as what their wording differed in.

    users: Row of the user in the population. Shape (M,), int.
    difference: Standardised attributes of the chosen reply less those of the other, columns as in `ATTRIBUTES`. Shape
        (M, A).
    """

    users: ArrayLike
    difference: ArrayLike


def observe_choices(table: ComparisonTable, attributes: ArrayLike) -> ObservedChoices:
    """What a table of comparisons shows of its users' preferences; ties show nothing and are left out.

    Args:
        table: Who chose which reply over which.
        attributes: Standardised attributes of the replies, columns as in `ATTRIBUTES`. Shape (N, A).
    """
    strict = table.without_ties()
    measured = np.asarray(attributes, np.float64)
    return ObservedChoices(strict.users, measured[strict.chosen] - measured[strict.rejected])


class Manner(NamedTuple):
    """How one user is beside taste.

    activity, strictness, patience: As in `Persona`.
    lean: How clearly the user prefers more of each attribute in replies, in standard errors; negative for less. (A,).
    """

    activity: Activity
    strictness: Strictness
    patience: int
    lean: Floats


def personas_from_log(
    log: pd.DataFrame,
    catalogue: Catalogue,
    users: Sequence[int],
    *,
    choices: ObservedChoices | None = None,
    targets: Sequence[int | None] | None = None,
    seed: int,
) -> list[Persona]:
    """One persona a user.

    An interest is a fact whose items reached levels above what the user and the item reach on average, shrunk where
    few were met. A user is exploration-oriented where the genres met with interest are more various than two thirds
    of all users', else efficiency-seeking where more of what was opened was watched than with two thirds of users,
    else detail-oriented; the bar is high or low by thirds of the mean level too. Users are taken to speak as they like
    to be spoken to, which is an assumption. Patience leaves no trace in a log and is drawn.

    Args:
        log: Interactions of the whole population: user_id, item_id (rows of the catalogue), level.
        catalogue: The items.
        users: Users to describe, each with a row in the log.
        choices: Their preferred replies; None where none were observed: nobody then wishes for anything in replies.
        targets: Item that each user has in mind, None for none; one a user. Keep such items out of what the agent is
            told of the user.
        seed: Seed of what is drawn.

    Raises:
        PersonaError: A user without a row in the log, targets of another number, or choices of another shape.
    """
    who = np.asarray(users, np.int64)
    known = log[columns.USER].to_numpy(np.int64)
    absent = np.setdiff1d(who, known)
    if len(absent):
        raise PersonaError(
            f"`users` must each have a row in the log; got {absent[:3].tolist()} without one. Leave them out."
        )
    if targets is not None and len(targets) != len(who):
        raise PersonaError(
            f"`targets` must hold one entry a user, {len(who)}; got {len(targets)}. Use None for a user without."
        )
    items = log[columns.ITEM].to_numpy(np.int64)
    levels = log[columns.LEVEL].to_numpy(np.float64)
    n_users = int(max(known.max(), who.max())) + 1
    scores = _liking(known, items, levels, catalogue, n_users)[who]
    activity, strictness = _habits(known, items, levels, catalogue, n_users)
    lean = np.zeros((n_users, len(ATTRIBUTES))) if choices is None else _lean(choices, n_users)
    patience = 2 + np.bitwise_count(keyed_bits(seed, who, _PATIENCE) >> np.uint64(61)).astype(int)
    manners = [
        Manner(_ACTIVITIES[activity[u]], _BARS[strictness[u]], int(p), lean[u])
        for u, p in zip(who.tolist(), patience, strict=True)
    ]
    hidden = targets_of(catalogue, targets if targets is not None else [None] * len(who))
    return [
        describe(user, score, catalogue.feature_names, manner, target)
        for user, score, manner, target in zip(who.tolist(), scores, manners, hidden, strict=True)
    ]


_ACTIVITIES: tuple[Activity, ...] = ("exploration-oriented", "efficiency-seeking", "detail-oriented")
_BARS: tuple[Strictness, ...] = ("strict", "even", "lenient")


def describe(
    user: int, scores: Floats, feature_names: Sequence[str], manner: Manner, target: Target | None = None
) -> Persona:
    """The persona of one user from measured likings.

    Args:
        user: Row of the user in the population.
        scores: How much each feature is liked, in standard deviations over users and features. Shape (F,).
        feature_names: Their names, "kind=value"; those of another form are no interests.
        manner: What else is known.
        target: What the user has in mind.
    """
    named = [(score, name) for score, name in zip(scores.tolist(), feature_names, strict=True) if "=" in name]
    ranked = sorted(named, key=lambda pair: -pair[0])
    chosen = [pair for pair in ranked[:LIKED] if pair[0] > _NOTABLE]
    chosen += [pair for pair in reversed(ranked[-DISLIKED:]) if pair[0] < -_NOTABLE]
    interests = tuple(
        _interest(score, name) for score, name in sorted(chosen, key=lambda pair: -abs(pair[0]))
    )
    lean = dict(zip(ATTRIBUTES, manner.lean.tolist(), strict=True))
    strongest = sorted(lean, key=lambda name: -abs(lean[name]))
    wishes = tuple(
        ReplyWish.model_validate({"attribute": name, "sign": 1 if lean[name] > 0 else -1})
        for name in strongest
        if abs(lean[name]) >= _CLEAR
    )
    language = Language(
        density=_by_sign(lean["brevity"], "wordy", "even", "terse"),
        style="elaborate" if lean["plainness"] <= -_LEANING else "plain",
        tone=_by_sign(lean["warmth"], "cool", "even", "warm"),
    )
    orientations = Orientations(strictness=manner.strictness, wishes=wishes)
    return Persona(
        user=user,
        activity=manner.activity,
        interests=interests,
        language=language,
        orientations=orientations,
        patience=manner.patience,
        target=target,
    )


def targets_of(catalogue: Catalogue, items: Sequence[int | None]) -> list[Target | None]:
    """What users have in mind: the cards of items of the catalogue, None for None."""
    cards = [None if item is None else catalogue.card(item) for item in items]
    return [None if card is None else Target(title=card.title, facts=dict(card.facts)) for card in cards]


def _interest(score: float, name: str) -> Interest:
    kind, _, value = name.partition("=")
    strength = 2 if abs(score) >= _STRONG else 1
    return Interest.model_validate(
        {"kind": kind, "value": value, "liking": strength if score > 0 else -strength}
    )


def _by_sign(lean: float, low: _Word, middle: _Word, high: _Word) -> _Word:
    return high if lean >= _LEANING else low if lean <= -_LEANING else middle


def _liking(
    users: NDArray[np.int64], items: NDArray[np.int64], levels: Floats, catalogue: Catalogue, n_users: int
) -> Floats:
    """How much each user likes each feature, in standard deviations over users and features. Shape (U, F)."""
    item_mean = _mean(items, levels, len(catalogue), _SHRINKAGE)[items]
    surplus = levels - item_mean
    surplus = surplus - _mean(users, surplus, n_users, 0.0)[users]
    shape = (n_users, len(catalogue))
    features = catalogue.features.astype(np.float64)
    total = csr_array((surplus, (users, items)), shape=shape) @ features
    count = csr_array((np.ones(len(users)), (users, items)), shape=shape) @ np.abs(features)
    score: Floats = np.asarray(total) / (np.asarray(count) + _SHRINKAGE)
    binary = np.asarray(["=" in name for name in catalogue.feature_names], bool)
    spread = float(score[:, binary].std()) if binary.any() else 0.0
    return score / spread if spread else score


def _habits(
    users: NDArray[np.int64], items: NDArray[np.int64], levels: Floats, catalogue: Catalogue, n_users: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index of each user's activity and bar, by thirds of the population. Shapes (U,)."""
    seen = np.bincount(users, minlength=n_users) > 0
    engaged = levels >= _ENGAGED
    genre = np.asarray([name.startswith("genre=") for name in catalogue.feature_names], bool)
    met = csr_array((engaged.astype(float), (users, items)), shape=(n_users, len(catalogue)))
    share = np.asarray(met @ catalogue.features[:, genre].astype(np.float64))
    share = share / np.maximum(share.sum(axis=1, keepdims=True), 1.0)
    variety = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    follow = _mean(users[engaged], (levels[engaged] >= _WATCHED).astype(float), n_users, _SHRINKAGE)
    height = _mean(users, levels, n_users, 0.0)
    explores, decides = (value > np.quantile(value[seen], 2 / 3) for value in (variety, follow))
    low, high = np.quantile(height[seen], [1 / 3, 2 / 3])
    return np.where(explores, 0, np.where(decides, 1, 2)), (height > low).astype(int) + (height > high)


def _lean(choices: ObservedChoices, n_users: int) -> Floats:
    """Mean preferred difference of each attribute in standard errors, (U, A); 0 for users without choices."""
    users, difference = np.asarray(choices.users, np.int64), np.asarray(choices.difference, np.float64)
    if difference.shape != (len(users), len(ATTRIBUTES)):
        raise PersonaError(
            f"`choices.difference` must have one row a choice and a column for each of {', '.join(ATTRIBUTES)}, "
            f"{(len(users), len(ATTRIBUTES))}; got {difference.shape}."
        )
    of_users = users < n_users
    who, value = users[of_users], difference[of_users]
    total, square = np.zeros((n_users, len(ATTRIBUTES))), np.zeros((n_users, len(ATTRIBUTES)))
    np.add.at(total, who, value)
    np.add.at(square, who, value**2)
    # One pseudo-choice of average size keeps a user with a single choice from being sure of everything.
    return np.asarray(total / np.sqrt(square + (value**2).mean(axis=0) + 1e-12)) if len(who) else total


def _mean(rows: NDArray[np.int64], values: Floats, size: int, shrinkage: float) -> Floats:
    """Mean of the values of each row, drawn towards the mean of all by `shrinkage` values. Shape (size,)."""
    count = np.bincount(rows, minlength=size)
    total = np.bincount(rows, weights=values, minlength=size)
    overall = float(values.mean()) if len(values) else 0.0
    return np.asarray((total + shrinkage * overall) / np.maximum(count + shrinkage, 1e-12))
