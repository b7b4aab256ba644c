import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from recsys.errors import InteractionError, ShapeError
from recsys.models.popularity import Popularity
from recsys.recipes.evaluate import evaluate_retrievers
from recsys.recipes.gnolr import GnolrConfig, train, update
from recsys.types import histories_from_log
from tests.helpers.ordinal_log import OrdinalWorld, make_ordinal_world

ITEMS, USERS = 120, 80
QUICK = GnolrConfig(embedding=8, width=8, epochs=3, batch_rows=512)


@pytest.fixture(scope="module")
def world() -> OrdinalWorld:
    return make_ordinal_world(USERS, ITEMS, 40, seed=0)


def test_the_same_seed_gives_the_same_bits(world: OrdinalWorld) -> None:
    first, second = (
        train(world.log, n_items=ITEMS, seed=3, config=QUICK, features=world.features) for _ in range(2)
    )
    other = train(world.log, n_items=ITEMS, seed=4, config=QUICK, features=world.features)
    weights = first.towers.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in second.towers.state_dict().items())
    assert torch.equal(first.calibration.thresholds, second.calibration.thresholds)
    assert not torch.equal(first.item_blocks, other.item_blocks)


def test_the_epoch_with_the_lowest_validation_loss_is_kept(world: OrdinalWorld) -> None:
    config = QUICK.model_copy(update={"epochs": 40, "patience": 2, "learning_rate": 0.05})
    rows: list[dict[str, float]] = []
    model = train(world.log, n_items=ITEMS, seed=0, config=config, report=rows.append)
    losses = [row["validation_loss"] for row in rows]
    best = int(np.argmin(losses))
    assert len(rows) == best + 3 < 40
    again = train(world.log, n_items=ITEMS, seed=0, config=config.model_copy(update={"epochs": best + 1}))
    assert torch.equal(model.item_blocks, again.item_blocks)


def test_training_lowers_the_loss_and_orders_every_pair(world: OrdinalWorld) -> None:
    rows: list[dict[str, float]] = []
    model = train(world.log, n_items=ITEMS, seed=0, config=QUICK, report=rows.append)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    histories = histories_from_log(world.log, np.arange(USERS), ITEMS)
    found = model.probabilities(histories, np.tile(np.arange(ITEMS), (USERS, 1)))
    assert (np.diff(found, axis=2) < 0).all()


def test_probabilities_of_impressions_have_the_logs_base_rates(world: OrdinalWorld) -> None:
    model = train(world.log, n_items=ITEMS, seed=0, config=QUICK, features=world.features)
    histories = histories_from_log(world.log, np.arange(USERS), ITEMS)
    rows, items = world.log["user_id"].to_numpy(), world.log["item_id"].to_numpy()
    mean = model.probabilities(histories[rows], items).mean(0)
    rates = [(world.log["level"] >= level).mean() for level in (1, 2, 3, 4)]
    # Trained with 16 ignored rows sampled for each impression, yet not off by that factor; 8 users fit the thresholds.
    np.testing.assert_allclose(mean, rates, rtol=0.5, atol=0.02)


def test_without_validation_users_all_epochs_run(world: OrdinalWorld) -> None:
    config = QUICK.model_copy(update={"validation_users": 0.0, "negatives": 0.0})
    rows: list[dict[str, float]] = []
    train(world.log, n_items=ITEMS, seed=0, config=config, report=rows.append)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert all("validation_loss" not in row for row in rows)


def test_an_update_goes_on_from_the_weights_and_leaves_the_old_model(world: OrdinalWorld) -> None:
    old = train(world.log, n_items=ITEMS, seed=0, config=QUICK, features=world.features)
    before = old.item_blocks.clone()
    config = QUICK.model_copy(update={"epochs": 1, "learning_rate": 1e-7})
    new = update(old, world.log, seed=1, config=config)
    assert torch.equal(old.item_blocks, before)
    torch.testing.assert_close(new.towers.item_id, old.towers.item_id, rtol=0, atol=1e-4)
    assert torch.equal(new.towers.features, torch.from_numpy(world.features))
    assert not torch.equal(update(old, world.log, seed=1).towers.item_id, old.towers.item_id)


def test_user_features_reach_the_towers(world: OrdinalWorld) -> None:
    known = np.random.default_rng(0).normal(size=(USERS, 3)).astype(np.float32)
    model = train(world.log, n_items=ITEMS, seed=0, config=QUICK, user_features=known)
    histories = histories_from_log(world.log, np.arange(USERS), ITEMS)
    assert model.search(histories, 5, user_features=known).items.shape == (USERS, 5)


def test_arguments_that_do_not_fit_are_refused(world: OrdinalWorld) -> None:
    with pytest.raises(ShapeError, match=r"each of the 120 items; got shape \(5, 2\)"):
        train(world.log, n_items=ITEMS, seed=0, features=np.zeros((5, 2), dtype=np.float32))
    with pytest.raises(ShapeError, match=r"user id up to 79; got shape \(5, 2\)"):
        train(world.log, n_items=ITEMS, seed=0, user_features=np.zeros((5, 2), dtype=np.float32))
    old = train(world.log, n_items=ITEMS, seed=0, config=QUICK)
    with pytest.raises(ShapeError, match="has 4 levels, 120 items and 0 user features; got 5, 120 and 0"):
        update(old, world.log, seed=0, config=GnolrConfig(levels=5))
    with pytest.raises(InteractionError, match=r"`level` must lie in 0\.\.2; got \["):
        train(world.log, n_items=ITEMS, seed=0, config=GnolrConfig(levels=2))


def test_a_config_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"at most `levels` \(2\); got 3"):
        GnolrConfig(levels=2, retrieve_level=3)
    with pytest.raises(ValidationError, match="batch_size"):
        GnolrConfig.model_validate({"batch_size": 3})


def test_one_user_is_trained_on_without_validation() -> None:
    log = pd.DataFrame({"user_id": [0, 0], "item_id": [0, 1], "level": [0, 1], "timestamp": [0, 1]})
    assert train(log, n_items=2, seed=0, config=QUICK).n_items == 2


@pytest.mark.integration
def test_taste_is_learned_beyond_popularity() -> None:
    world = make_ordinal_world(400, 300, 80, seed=1, pull=3.0)
    is_test = world.log.groupby("user_id").cumcount() >= 64
    histories = histories_from_log(world.log[~is_test], np.arange(400), 300)
    held_out = histories_from_log(world.log[is_test], np.arange(400), 300)
    model = train(world.log[~is_test], n_items=300, seed=0, features=world.features)
    found = evaluate_retrievers(
        {"gnolr": model, "popularity": Popularity.fit(histories)}, histories, held_out
    )
    assert found.difference("gnolr", "popularity", "ndcg@10", seed=0).low > 0
