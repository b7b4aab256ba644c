"""The film world: a catalogue, users with hidden truth, their choices and logs; invented or real."""

from simulators.world.catalogue import Catalogue
from simulators.world.choice import NestedChoice
from simulators.world.invention import invent_catalogue
from simulators.world.logs import simulate_log
from simulators.world.movielens import RatingData, level_of_stars, read_movielens
from simulators.world.opening import World, build_film_world, later_log_loss, open_movielens
from simulators.world.oracle import Oracle
from simulators.world.population import Truth, draw_population
from simulators.world.taste import FittedTaste, fit_taste, item_mean_levels, log_loss_by_user

__all__ = [
    "Catalogue",
    "FittedTaste",
    "NestedChoice",
    "Oracle",
    "RatingData",
    "Truth",
    "World",
    "build_film_world",
    "draw_population",
    "fit_taste",
    "invent_catalogue",
    "item_mean_levels",
    "later_log_loss",
    "level_of_stars",
    "log_loss_by_user",
    "open_movielens",
    "read_movielens",
    "simulate_log",
]
