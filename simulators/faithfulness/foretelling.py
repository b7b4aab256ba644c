"""How users who give probabilities foretell what real users did with items that nobody fitted them to.

Items are those that real users met after what the users were fitted to, with the level that each reached. A scene is
one that was taken among some that the same user met and did not take, all drawn at random, with slots dealt evenly.
Given that exactly one of a scene's items was taken, the chance that it was item j is

    P(j) = E[ p_j prod_{k != j} (1 - p_k) ] / sum over i of E[ p_i prod_{k != i} (1 - p_k) ],

p being the users' own probabilities of taking, and E the mean over the persons that simulations may draw for one user.
How scenes were drawn cancels: it depends on how many of a user's items were taken, never on which (the conditional
likelihood of matched sets: Breslow et al. 1978, "Estimation of multiple relative risk functions in matched case-control
studies"). So nothing but the users themselves is held to the data: no weight is fitted to scenes.
"""

from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.columns import ITEM, LEVEL, POSITION, USER
from simulators.faithfulness.behaviour import PROBABILITY
from simulators.faithfulness.resampling import Values
from simulators.mirror.scenes import place_uniformly
from simulators.randomness import keyed_seeds, keyed_uniforms

N_OPTIONS = 5
DRAWS = 64
"""Persons a user that probabilities are averaged over; that there are no more adds about 0.004 nats of log loss."""
_LEAST = 1e-9
_PERSONS, _LEVELS = 471, 472

Ints = NDArray[np.int64]


class ForetellingUser(Protocol):
    """Simulated users who say how likely each level is."""

    def level_probabilities(self, users: Ints, items: Ints, *, position: Ints, seed: int) -> Values:
        """P(level = k) of the persons that a simulation of this seed draws for these users.

        Args:
            users: Rows of the users. Shape (B,).
            items: Rows of the items. Shape (B,).
            position: 0-based place at which each was shown. Shape (B,).
            seed: Seed of the simulation.

        Returns:
            Shape (B, K), rows sum to 1.
        """


class TakenScenes(NamedTuple):
    """Scenes of one item that was taken among others that were met and not taken.

    rows: Row of the table for each slot. Shape (S, O).
    slots: Slot of the item that was taken. Shape (S,).
    """

    rows: Ints
    slots: Ints


class Foretold(NamedTuple):
    """What users say about N rows and S scenes.

    acceptance: Probability that each row's item is taken. Shape (N,).
    levels: A level of each row, drawn as one simulation would. Shape (N,).
    choices: P(slot) of each scene, rows sum to 1. Shape (S, O).
    """

    acceptance: Values
    levels: Ints
    choices: Values


def scenes_of_taken(
    met: pd.DataFrame, *, accept_level: int, n_options: int = N_OPTIONS, seed: int
) -> TakenScenes:
    """As many scenes as each user's rows allow, no row in two of them.

    Args:
        met: Columns user_id and level; a user meets an item once.
        accept_level: Level from which an item counts as taken.
        n_options: Options O of a scene, at least 2.
        seed: Of all draws.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(met))
    table = pd.DataFrame({USER: met[USER].to_numpy()[order], "row": order})
    table["taken"] = met[LEVEL].to_numpy()[order] >= accept_level
    table["place"] = table.groupby([USER, "taken"]).cumcount()
    others = table[~table["taken"]]
    others = others.assign(place=others["place"] // (n_options - 1), column=others["place"] % (n_options - 1))
    grouped = others.pivot(index=[USER, "place"], columns="column", values="row")
    grouped = grouped.reindex(columns=range(n_options - 1)).dropna()
    taken = table[table["taken"]].set_index([USER, "place"])["row"]
    both = grouped.join(taken, how="inner").sort_index().to_numpy(np.int64)
    return TakenScenes(*place_uniformly(both[:, -1], both[:, :-1], rng))


def chances_of_being_the_one(taking: Values) -> Values:
    """P(this option is taken and no other is). Shape (S, O).

    Args:
        taking: Probability that each option is taken, each for itself. Shape (S, O).

    Example:
        >>> chances_of_being_the_one(np.array([[0.5, 0.2]])).round(2).tolist()
        [[0.4, 0.1]]
    """
    inside = np.clip(taking, _LEAST, 1 - _LEAST)
    found: Values = inside / (1 - inside) * np.prod(1 - inside, axis=1, keepdims=True)
    return found


def foretell(
    users: ForetellingUser,
    met: pd.DataFrame,
    scenes: TakenScenes,
    *,
    accept_level: int,
    draws: int = DRAWS,
    seed: int,
) -> Foretold:
    """What users say about items that real users met, averaged over the persons that simulations draw.

    Args:
        users: Simulated users who were not fitted to `met`.
        met: Columns user_id and item_id (rows of population and catalogue), and position where known. N rows.
        scenes: Of these rows.
        accept_level: Level from which an item counts as taken.
        draws: Persons a user; 1 for users whose persons are all the same.
        seed: Of the simulation, whose persons also give the levels.
    """
    who, what = (met[name].to_numpy(np.int64) for name in (USER, ITEM))
    place = met[POSITION].to_numpy(np.int64) if POSITION in met else np.zeros_like(who)
    acceptance, choices = np.zeros(len(met)), np.zeros(scenes.rows.shape)
    levels = np.zeros(len(met), np.int64)
    for number, person in enumerate([seed, *keyed_seeds(seed, np.arange(draws - 1), _PERSONS)]):
        told = users.level_probabilities(who, what, position=place, seed=person)
        taking = told[:, accept_level:].sum(axis=1)
        if number == 0:
            luck = keyed_uniforms(seed, who, what, _LEVELS)
            levels = (luck[:, None] >= told[:, :-1].cumsum(axis=1)).sum(axis=1)
        acceptance += taking / draws
        choices += chances_of_being_the_one(taking[scenes.rows]) / draws
    return Foretold(acceptance, levels, choices / choices.sum(axis=1, keepdims=True))


def predictions_frame(met: pd.DataFrame, scenes: TakenScenes, choices: Values) -> pd.DataFrame:
    """Scenes as `scenes_from_frame` reads them, one option a row.

    Columns: scene_id, user_id, item_id, slot, probability and chosen.

    Args:
        met: The table that the scenes are of.
        scenes: S of them.
        choices: P(slot). Shape (S, O).
    """
    count, width = scenes.rows.shape
    flat = scenes.rows.ravel()
    slot = np.tile(np.arange(width), count)
    return pd.DataFrame(
        {
            "scene_id": np.repeat(np.arange(count), width),
            USER: met[USER].to_numpy()[flat],
            ITEM: met[ITEM].to_numpy()[flat],
            "slot": slot,
            PROBABILITY: choices.ravel(),
            "chosen": (slot == np.repeat(scenes.slots, width)).astype(np.int64),
        }
    )


def reactions_frame(met: pd.DataFrame, foretold: Foretold) -> pd.DataFrame:
    """The same items as the users take them, as `checked_interactions` reads it.

    Times are left out: they are those of real users, and nobody foretold them.
    """
    known = [name for name in (USER, ITEM, POSITION) if name in met]
    return met[known].assign(**{LEVEL: foretold.levels, PROBABILITY: foretold.acceptance})
