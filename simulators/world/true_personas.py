"""Personas that say what users really are: for judges, tests of simulators, and to see what better ones would bring.

Who trains with them has been told the truth of users, so a report of such a training must say so.
"""

from collections.abc import Sequence

import numpy as np

from simulators.randomness import keyed_bits
from simulators.users.persona_building import Manner, describe, targets_of
from simulators.users.personas import Activity, Persona
from simulators.world.catalogue import Catalogue
from simulators.world.population import Truth

_ACTIVITY = 19
_ACTIVITIES: tuple[Activity, ...] = ("efficiency-seeking", "detail-oriented", "exploration-oriented")
_STYLE_UNIT = 0.2
"""Hidden weight of an attribute that counts as one standard error of an observed preference."""


def personas_from_truth(
    truth: Truth,
    catalogue: Catalogue,
    users: Sequence[int],
    *,
    targets: Sequence[int | None] | None = None,
    seed: int,
) -> list[Persona]:
    """One persona a user, its interests, manners and patience taken from the hidden parameters.

    Args:
        truth: The hidden parameters of a population of this catalogue.
        catalogue: The items.
        users: Rows of the users to describe.
        targets: Item that each user has in mind, None for none.
        seed: Seed of the activity, of which the truth knows nothing.
    """
    who = np.asarray(users, np.int64)
    liking = truth.taste[:, : catalogue.features.shape[1]].astype(np.float64)
    liking = liking / (float(liking.std()) or 1.0)
    activity = keyed_bits(seed, who, _ACTIVITY) % np.uint64(len(_ACTIVITIES))
    manners = [
        Manner(
            _ACTIVITIES[int(a)],
            "even",
            int(truth.patience[u]),
            truth.style[u].astype(np.float64) / _STYLE_UNIT,
        )
        for u, a in zip(who.tolist(), activity, strict=True)
    ]
    hidden = targets_of(catalogue, targets if targets is not None else [None] * len(who))
    return [
        describe(user, liking[user], catalogue.feature_names, manner, target)
        for user, manner, target in zip(who.tolist(), manners, hidden, strict=True)
    ]
