"""Opening a world: the embedded one, or one whose films and tastes come from a MovieLens folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from recsys import columns
from simulators.errors import CatalogueError, WorldError
from simulators.world.catalogue import Catalogue
from simulators.world.choice import NestedChoice
from simulators.world.invention import invent_catalogue
from simulators.world.logs import simulate_log
from simulators.world.movielens import RatingData, level_of_stars, read_movielens
from simulators.world.oracle import Oracle
from simulators.world.population import Truth, check_user_count, draw_manners, draw_population
from simulators.world.taste import FittedTaste, fit_taste, item_mean_levels, log_loss_by_user

IMPRESSIONS_PER_USER = 120
EARLIER_SHARE = 0.8
MIN_RATINGS = 5


@dataclass(frozen=True, eq=False)
class World:
    """Everything a run starts from. Learners may be given the catalogue and the log, never the oracle.

    Attributes:
        catalogue: The films.
        oracle: The users' hidden truth, for reactions and for measuring.
        log: Interactions to learn from: user_id, item_id (rows), level, timestamp, and position where known.
        later: What the same real users did after that, with the columns of `log`; None in the embedded world.
        n_users: Number of users U.
        user_ids: The users' own ids, by row.
    """

    catalogue: Catalogue
    oracle: Oracle
    log: pd.DataFrame
    later: pd.DataFrame | None
    n_users: int
    user_ids: tuple[str, ...]


def build_film_world(
    n_films: int = 2400, n_users: int = 2000, *, seed: int, impressions_per_user: int = IMPRESSIONS_PER_USER
) -> World:
    """The embedded world: invented films, users with hidden truth, and a log of what they were shown.

    Args:
        n_films: Number of films I.
        n_users: Number of users U.
        seed: Seed of every draw.
        impressions_per_user: Rows of the log for each user, at most `n_films`.

    Raises:
        CatalogueError: `n_films` is less than 1.
        WorldError: `n_users` is less than 1, or more impressions than films.
    """
    catalogue = invent_catalogue(n_films, seed=seed)
    oracle = Oracle(draw_population(catalogue, n_users, seed=seed), catalogue, NestedChoice.impressions())
    log = simulate_log(oracle, catalogue, np.arange(n_users), impressions_per_user, seed=seed)
    return World(catalogue, oracle, log, None, n_users, tuple(f"user-{u:05d}" for u in range(n_users)))


def open_movielens(folder: Path | str, n_users: int | None = None, *, seed: int, epochs: int = 30) -> World:
    """A world of real films whose simulated users are fitted to real users' earlier ratings.

    Each user's ratings are cut in time: the first 80 % are the log and what tastes are fitted to, the rest is
    `later`. Levels are ratings read as depth of interest (`level_of_stars`), so base rates are those of
    ratings, not of impressions: most rated films were liked. The choice model is fitted too; positions do not
    matter in it. Style, patience and noise, which no rating tells, are drawn as in the embedded world.

    Args:
        folder: See `movielens.read_movielens`.
        n_users: How many users with at least five ratings to take at random; all of them where None or fewer
            exist.
        seed: Seed of every draw.
        epochs: Passes of the fit over the ratings.

    Raises:
        CatalogueError: The folder is missing or malformed, or no user has five ratings.
        WorldError: `n_users` is less than 1, or a level never occurs.
    """
    if n_users is not None:
        check_user_count(n_users)
    data = read_movielens(Path(folder))
    ratings, user_ids = _take_users(data, n_users, seed)
    log, later = _split_by_time(ratings)
    fitted = fit_taste(log, data.catalogue.features, n_users=len(user_ids), epochs=epochs, seed=seed)
    truth = _truth_of_taste(fitted, log, seed=seed)
    oracle = Oracle(truth, data.catalogue, fitted.choice.rescaled(*truth.utility_scale()))
    return World(data.catalogue, oracle, log, later, len(user_ids), user_ids)


def later_log_loss(world: World) -> pd.DataFrame:
    """How well the simulated users' levels predict what the real users did later, beside the item-mean rule.

    Args:
        world: A world with later interactions.

    Returns:
        Mean of -log P(level) in nats of each user with later rows: index user row, columns `simulated` (the
        oracle's level probabilities) and `item_mean` (the smoothed levels of each item in the log).

    Raises:
        WorldError: The world holds nothing later.
    """
    if world.later is None or world.later.empty:
        raise WorldError("`world` must hold later interactions; got none. Open a MovieLens folder.")
    users, items, levels = (
        world.later[c].to_numpy(np.int64) for c in (columns.USER, columns.ITEM, columns.LEVEL)
    )
    predicted = world.oracle.level_probabilities(users, items)
    rule = item_mean_levels(world.log, items, n_items=len(world.catalogue), n_levels=world.oracle.n_levels)
    return pd.DataFrame(
        {
            "simulated": log_loss_by_user(predicted, levels, users),
            "item_mean": log_loss_by_user(rule, levels, users),
        }
    )


def _take_users(data: RatingData, n_users: int | None, seed: int) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Ratings of the chosen users as a log with new user rows, in the order of user and time."""
    counts = np.bincount(data.ratings["user"], minlength=len(data.user_ids))
    eligible = np.flatnonzero(counts >= MIN_RATINGS)
    if not len(eligible):
        raise CatalogueError(
            f"A MovieLens folder must hold at least one user with {MIN_RATINGS} ratings; the most here is "
            f"{counts.max()}. Use a larger data set."
        )
    rng = np.random.default_rng((seed, 4))
    size = len(eligible) if n_users is None else min(n_users, len(eligible))
    chosen = np.sort(rng.choice(eligible, size=size, replace=False))
    row_of_user = np.full(len(data.user_ids), -1)
    row_of_user[chosen] = np.arange(size)
    kept = data.ratings[row_of_user[data.ratings["user"]] >= 0]
    log = pd.DataFrame(
        {
            columns.USER: row_of_user[kept["user"]],
            columns.ITEM: kept["item"].to_numpy(np.int64),
            columns.LEVEL: level_of_stars(kept["stars"].to_numpy(np.float64)),
            columns.TIMESTAMP: kept["timestamp"].to_numpy(np.int64),
        }
    )
    log = log.sort_values([columns.USER, columns.TIMESTAMP, columns.ITEM], kind="stable", ignore_index=True)
    return log, tuple(data.user_ids[u] for u in chosen)


def _split_by_time(log: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The earlier 80 % of each user's rows, and the rest."""
    place = log.groupby(columns.USER).cumcount().to_numpy()
    size = log.groupby(columns.USER)[columns.ITEM].transform("size").to_numpy()
    earlier = place < np.floor(EARLIER_SHARE * size)
    return log[earlier].reset_index(drop=True), log[~earlier].reset_index(drop=True)


def _truth_of_taste(fitted: FittedTaste, log: pd.DataFrame, *, seed: int) -> Truth:
    """The fitted parameters as truth; a user's effect is their taste for what all films have."""
    n_users, n_items = len(fitted.user_effect), len(fitted.item_effect)
    style, patience, noise = draw_manners(n_users, seed=seed)
    shown = np.bincount(log[columns.ITEM], minlength=n_items) + 0.5
    return Truth(
        taste=np.concatenate([fitted.taste, fitted.loadings, fitted.user_effect[:, None]], axis=1),
        item_vectors=np.concatenate(
            [fitted.features, fitted.factors, np.ones((n_items, 1), np.float32)], axis=1
        ),
        item_quality=fitted.item_effect,
        popularity=shown / shown.sum(),
        style=style,
        patience=patience,
        noise=noise,
    )
