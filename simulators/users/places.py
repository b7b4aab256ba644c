"""Where in a simulation something random happens: the user and the turn, which with the seed decide all luck."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulators.randomness import keyed_seeds, keyed_uniforms
from simulators.types import Dialogue


class Place(NamedTuple):
    """A turn of a user.

    user: Row of the user in the population.
    turn: Number of the turn to come, from 0.
    """

    user: int
    turn: int


def places_of(dialogues: Sequence[Dialogue]) -> list[Place]:
    """The turn to come of each dialogue."""
    return [Place(dialogue.user, len(dialogue.turns)) for dialogue in dialogues]


def place_arrays(places: Sequence[Place]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Users and turns as keys of random numbers. Shapes (N,)."""
    rows = np.asarray(places, np.int64).reshape(len(places), 2)
    return rows[:, 0], rows[:, 1]


def place_seeds(seed: int, places: Sequence[Place], purpose: int) -> list[int]:
    """One seed a place, for one purpose."""
    return keyed_seeds(seed, *place_arrays(places), purpose) if places else []


def place_draws(seed: int, places: Sequence[Place], count: int, purpose: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) for each place, for one purpose. Shape (N, count)."""
    users, turns = place_arrays(places)
    return keyed_uniforms(seed, users[:, None], turns[:, None], np.arange(count), purpose)
