"""Whole worlds: the embedded one, MovieLens ones, and that neither shows its truth to a learner."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simulators.errors import CatalogueError, WorldError
from simulators.world import World, build_film_world, later_log_loss, open_movielens
from tests.helpers.rating_folders import FILMS, draw_ratings, write_atomic, write_dat

SHARED = Path(os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
real_data = pytest.mark.skipif(
    not (SHARED / "ml-100k" / "ml-100k.inter").exists(), reason=f"needs MovieLens 100K in {SHARED}/ml-100k"
)


@pytest.fixture(scope="module")
def film_world() -> World:
    return build_film_world(400, 150, seed=0, impressions_per_user=60)


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_atomic(folder, draw_ratings(40))
    return folder


@pytest.fixture(scope="module")
def toy_world(toy_folder: Path) -> World:
    return open_movielens(toy_folder, seed=0, epochs=5)


def test_film_world_has_its_users_films_and_log(film_world: World) -> None:
    assert (film_world.n_users, len(film_world.user_ids), film_world.oracle.n_users) == (150, 150, 150)
    assert len(film_world.catalogue) == 400
    assert len(film_world.log) == 150 * 60
    assert film_world.later is None


def test_film_worlds_of_one_seed_are_equal(film_world: World) -> None:
    again = build_film_world(400, 150, seed=0, impressions_per_user=60)
    pd.testing.assert_frame_equal(film_world.log, again.log)
    pd.testing.assert_frame_equal(film_world.catalogue.films, again.catalogue.films)


def test_each_real_users_earlier_ratings_are_the_log(toy_world: World) -> None:
    assert toy_world.later is not None
    assert (toy_world.log.groupby("user_id").size() == 5).all()  # floor(.8 * 7)
    assert (toy_world.later.groupby("user_id").size() == 2).all()
    last = toy_world.log.groupby("user_id")["timestamp"].max()
    assert (toy_world.later.groupby("user_id")["timestamp"].min() > last).all()


def test_levels_of_real_logs_are_stars_less_one(toy_world: World) -> None:
    films = {film[0]: i for i, film in enumerate(FILMS)}
    expected = {(str(u), films[i], int(stars) - 1) for u, i, stars, _ in draw_ratings(40)}
    both = pd.concat([toy_world.log, toy_world.later])
    users = [toy_world.user_ids[u] for u in both["user_id"]]
    assert set(zip(users, both["item_id"], both["level"], strict=True)) == expected


def test_simulated_users_predict_with_the_fitted_choice(toy_world: World) -> None:
    users, items = np.repeat(np.arange(40), 8), np.tile(np.arange(8), 40)
    utility = toy_world.oracle.item_utility(users, items)
    assert (utility.mean(), utility.std()) == pytest.approx((0, 1), abs=1e-4)
    simulated = toy_world.oracle.level_probabilities(toy_world.log["user_id"], toy_world.log["item_id"])
    shares = np.bincount(toy_world.log["level"], minlength=5) / len(toy_world.log)
    np.testing.assert_allclose(simulated.mean(axis=0), shares, atol=0.05)
    assert toy_world.oracle.wish([0], [0.3])[0].keys() == {"genre"}


def test_some_users_can_be_taken(toy_folder: Path, toy_world: World) -> None:
    world = open_movielens(toy_folder, 10, seed=1, epochs=1)
    assert (world.n_users, len(set(world.user_ids))) == (10, 10)
    assert set(world.user_ids) < set(toy_world.user_ids)
    assert sorted(world.log["user_id"].unique()) == list(range(10))
    assert open_movielens(toy_folder, 99, seed=1, epochs=1).n_users == 40


def test_users_with_few_ratings_are_left_out(tmp_path: Path) -> None:
    extra = [(77, 1, 3.0, 10), (77, 2, 3.0, 11), (77, 5, 3.0, 12), (77, 9, 3.0, 13)]
    write_dat(tmp_path, [*draw_ratings(), *extra])
    assert "77" not in open_movielens(tmp_path, seed=0, epochs=1).user_ids


def test_later_log_loss_compares_both_on_the_same_users(toy_world: World) -> None:
    loss = later_log_loss(toy_world)
    assert list(loss.columns) == ["simulated", "item_mean"]
    assert loss.index.tolist() == list(range(40))
    assert (loss > 0).all(axis=None)


def test_impossible_worlds_are_refused(tmp_path: Path, toy_folder: Path, film_world: World) -> None:
    write_dat(tmp_path, draw_ratings(1)[:4])
    with pytest.raises(CatalogueError, match=r"one user with 5 ratings; the most here is 4"):
        open_movielens(tmp_path, seed=0)
    with pytest.raises(WorldError, match=r"`n_users` must be at least 1; got 0"):
        open_movielens(toy_folder, 0, seed=0)
    with pytest.raises(WorldError, match=r"must hold later interactions; got none"):
        later_log_loss(film_world)


@pytest.mark.parametrize("name", ["film_world", "toy_world"])
def test_no_input_of_a_learner_holds_the_truth(name: str, request: pytest.FixtureRequest) -> None:
    """No column of the catalogue's features or of the log is, or nearly is, a hidden quantity."""
    world: World = request.getfixturevalue(name)
    truth = world.oracle._truth
    n_features = world.catalogue.features.shape[1]
    by_item = [truth.item_quality, truth.popularity, *truth.item_vectors[:, n_features:].T]
    by_user = [*truth.taste.T, *truth.style.T, truth.patience, truth.noise]
    log = world.log.drop(columns=["user_id", "item_id"]).to_numpy(float)
    utility = world.oracle.item_utility(world.log["user_id"], world.log["item_id"])
    rows = [
        *(hidden[world.log["item_id"]] for hidden in by_item),
        *(hidden[world.log["user_id"]] for hidden in by_user),
        utility,
    ]
    assert largest_correlation(world.catalogue.features.T, by_item) < 0.98
    assert largest_correlation(log.T, rows) < 0.98


def largest_correlation(shown: np.ndarray, hidden: list[np.ndarray]) -> float:
    """The largest absolute correlation between a shown and a hidden column; constant ones have none."""

    def standardise(columns: np.ndarray | list[np.ndarray]) -> np.ndarray:
        table = np.asarray([np.asarray(column, float) for column in columns])
        table = table[table.std(axis=1) > 1e-12]
        return np.asarray((table - table.mean(axis=1, keepdims=True)) / table.std(axis=1, keepdims=True))

    left, right = standardise(shown), standardise(hidden)
    return float(np.abs(left @ right.T / left.shape[1]).max())


def test_the_leak_check_finds_a_planted_leak() -> None:
    rng = np.random.default_rng(0)
    quality = rng.normal(size=100)
    assert largest_correlation(np.stack([rng.normal(size=100), -2 * quality + 0.01]), [quality]) > 0.98


@real_data
@pytest.mark.integration
def test_simulated_users_beat_the_item_mean_on_real_later_ratings() -> None:
    world = open_movielens(SHARED / "ml-100k", seed=0)
    assert (world.n_users, len(world.catalogue)) == (943, 1682)
    loss = later_log_loss(world)
    gain = (loss["item_mean"] - loss["simulated"]).to_numpy()
    draws = np.random.default_rng(0).integers(0, len(gain), (1000, len(gain)))
    low, high = np.quantile(gain[draws].mean(axis=1), [0.025, 0.975])
    assert low > 0.03, f"gain {gain.mean():.3f} nats, 95 % interval {low:.3f} to {high:.3f}"
