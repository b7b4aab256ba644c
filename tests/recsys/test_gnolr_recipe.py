from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from recsys.data.dataset import Entities
from recsys.data.shards import write_shards
from recsys.errors import InteractionError, ShapeError
from recsys.features import FeatureEncoder, FeatureTable
from recsys.models.gnolr import Gnolr
from recsys.models.known import count_levels
from recsys.models.ordinal import LevelTree, thresholds_from_counts
from recsys.recipes.gnolr import PAPER, GnolrConfig, train, update
from recsys.types import Histories, histories_from_log
from tests.helpers.ordinal_log import OrdinalWorld, make_ordinal_world
from tests.helpers.slow_gnolr import draw_table

ITEMS, USERS = 120, 80
QUICK = GnolrConfig(embedding=8, width=8, epochs=3, batch_rows=512, negatives=4.0, negative_items=50)
Rows = list[dict[str, float]]


def quick(**changes: object) -> GnolrConfig:
    return GnolrConfig.model_validate({**QUICK.model_dump(), **changes})


@pytest.fixture(scope="module")
def world() -> OrdinalWorld:
    return make_ordinal_world(USERS, ITEMS, 40, seed=0)


@pytest.fixture(scope="module")
def parts(world: OrdinalWorld) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Each user's first 32 rows, and the last 8."""
    is_late = world.log.groupby("user_id").cumcount() >= 32
    return world.log[~is_late], world.log[is_late]


def histories_of(log: pd.DataFrame, users: int = USERS, items: int = ITEMS) -> Histories:
    return histories_from_log(log, np.arange(users), items)


def logits_of_all(model: Gnolr, log: pd.DataFrame, users: int = USERS) -> NDArray[np.float32]:
    every = np.tile(np.arange(model.n_items), (users, 1))
    histories = histories_of(log, users, model.n_items)
    names = np.arange(users) if len(model.known.user_features) else None
    return model.logits(histories, every, users=names).numpy()


def below_parents(logits: NDArray[np.float32], parents: tuple[int, ...]) -> bool:
    pairs = [(place, parent - 1) for place, parent in enumerate(parents) if parent]
    return all(bool((logits[..., place] < logits[..., above]).all()) for place, above in pairs)


def same_weights(first: Gnolr, second: Gnolr) -> bool:
    weights, other = first.towers.state_dict(), second.towers.state_dict()
    same = all(torch.equal(weights[name], tensor) for name, tensor in other.items())
    return same and all(torch.equal(a, b) for a, b in zip(first.calibration, second.calibration, strict=True))


def test_the_same_seed_gives_the_same_bits(world: OrdinalWorld) -> None:
    items, users = FeatureTable.of_dense(world.features), draw_table(USERS, 4, 2, 0)
    first, second, other = (
        train(
            world.log,
            n_items=ITEMS,
            seed=seed,
            config=quick(epochs=2),
            item_features=items,
            user_features=users,
        )
        for seed in (3, 3, 4)
    )
    assert same_weights(first, second) and torch.equal(first.item_blocks, second.item_blocks)
    assert not torch.equal(first.item_blocks, other.item_blocks)


def test_the_log_is_left_as_it_was(world: OrdinalWorld) -> None:
    before = world.log.copy()
    train(world.log, n_items=ITEMS, seed=0, config=quick(epochs=1))
    pd.testing.assert_frame_equal(world.log, before)


def test_every_epoch_is_reported_and_training_lowers_the_loss(world: OrdinalWorld) -> None:
    rows: Rows = []
    model = train(world.log, n_items=ITEMS, seed=0, config=QUICK, report=rows.append)
    assert [row["epoch"] for row in rows] == list(range(len(rows))) and len(rows) <= 3
    assert all(set(row) == {"epoch", "train_loss", "validation_loss"} for row in rows)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert below_parents(logits_of_all(model, world.log), (0, 1, 2, 3))


def test_the_epoch_with_the_lowest_validation_loss_is_kept(world: OrdinalWorld) -> None:
    config = quick(epochs=40, patience=2, learning_rate=0.05)
    rows: Rows = []
    model = train(world.log, n_items=ITEMS, seed=0, config=config, report=rows.append)
    best = int(np.argmin([row["validation_loss"] for row in rows]))
    assert len(rows) == best + 3 < 40
    again = train(world.log, n_items=ITEMS, seed=0, config=quick(epochs=best + 1, learning_rate=0.05))
    assert same_weights(model, again)


def test_users_kept_for_validation_are_not_trained_on(world: OrdinalWorld) -> None:
    model = train(world.log, n_items=ITEMS, seed=0, config=quick(epochs=1, validation_users=0.25))
    assert int(model.known.item_counts.sum()) == 60 * 40


def test_given_validation_rows_judge_and_nobody_is_kept(parts: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    early, late = parts
    rows: Rows = []
    model = train(early, n_items=ITEMS, seed=0, config=QUICK, validation=late, report=rows.append)
    assert torch.equal(model.known.item_counts, count_levels(histories_of(early), 4))
    assert all("validation_loss" in row for row in rows)
    other: Rows = []
    train(early, n_items=ITEMS, seed=0, config=QUICK, validation=late[::2], report=other.append)
    assert rows[0]["train_loss"] == other[0]["train_loss"]
    assert rows[0]["validation_loss"] != other[0]["validation_loss"]


def test_the_order_of_validation_rows_does_not_matter(parts: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    early, late = parts
    found: list[Rows] = []
    for frame in (late, late.sample(frac=1, random_state=0)):
        rows: Rows = []
        train(early, n_items=ITEMS, seed=0, config=quick(epochs=1), validation=frame, report=rows.append)
        found.append(rows)
    assert found[0][0]["validation_loss"] == pytest.approx(found[1][0]["validation_loss"], rel=1e-5)


def test_without_validation_all_epochs_run(world: OrdinalWorld) -> None:
    rows: Rows = []
    config = quick(validation_users=0.0, patience=1)
    train(world.log, n_items=ITEMS, seed=0, config=config, report=rows.append)
    assert [set(row) for row in rows] == [{"epoch", "train_loss"}] * 3


@pytest.mark.parametrize("negatives", [0.0, 8.0])
def test_probabilities_of_impressions_have_the_base_rates(
    parts: tuple[pd.DataFrame, pd.DataFrame], negatives: float
) -> None:
    early, late = parts
    model = train(early, n_items=ITEMS, seed=0, config=quick(negatives=negatives), validation=late)
    rows, items = late["user_id"].to_numpy(), late["item_id"].to_numpy()
    mean = model.pair_logits(histories_of(early), rows, items).sigmoid().mean(0).numpy()
    rates = [(late["level"] >= level).mean() for level in (1, 2, 3, 4)]
    # However many ignored rows were mixed in by sampling.
    np.testing.assert_allclose(mean, rates, rtol=0.15, atol=0.005)
    training = thresholds_from_counts(model.known.item_counts.sum(0), extra_ignored=negatives)
    torch.testing.assert_close(model.towers.thresholds, training, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"structure": "v1"},
        {"structure": "v0", "biases": False},
        {"structure": "nolr"},
        {"structure": "nolr", "biases": False, "history": False},
        {"parents": (0, 1, 1, 2)},
        {"parents": (0, 0, 1, 2), "structure": "v1"},
        {"hidden": 6},
        {"learn_thresholds": True},
        {"gamma": 100.0},
        {"gamma": 100.0, "biases": False},
        {"gamma": 0.5, "history": False},
        PAPER,
    ],
)
def test_every_form_learns_and_orders_every_pair(world: OrdinalWorld, changes: dict[str, object]) -> None:
    rows: Rows = []
    config = quick(**changes)
    items, users = FeatureTable.of_dense(world.features), draw_table(USERS, 4, 2, 0)
    model = train(
        world.log, n_items=ITEMS, seed=0, config=config, item_features=items, user_features=users,
        report=rows.append,
    )  # fmt: skip
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    logits = logits_of_all(model, world.log)
    assert np.isfinite(logits).all() and below_parents(logits, config.tree.parents)
    found = model.search(histories_of(world.log), 5, users=np.arange(USERS))
    assert (found.items >= 0).all() and np.isfinite(found.scores).all()


def test_one_level_is_a_model_of_clicks(world: OrdinalWorld) -> None:
    log = world.log.assign(level=world.log["level"].clip(upper=1))
    rows: Rows = []
    config = quick(levels=1, retrieve_level=1)
    model = train(log, n_items=ITEMS, seed=0, config=config, report=rows.append)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert logits_of_all(model, log).shape == (USERS, ITEMS, 1)


def test_a_level_that_never_happened_is_rare_but_finite(world: OrdinalWorld) -> None:
    log = world.log.assign(level=world.log["level"].clip(upper=2))
    model = train(log, n_items=ITEMS, seed=0, config=QUICK)
    logits = logits_of_all(model, log)
    assert np.isfinite(logits).all() and below_parents(logits, (0, 1, 2, 3))


def test_thresholds_move_only_if_they_may(world: OrdinalWorld) -> None:
    for learned in (True, False):
        model = train(world.log, n_items=ITEMS, seed=0, config=quick(learn_thresholds=learned))
        start = thresholds_from_counts(model.known.item_counts.sum(0), extra_ignored=4.0)
        moved = not torch.allclose(model.towers.thresholds, start, rtol=1e-5, atol=1e-4)
        assert moved == learned
        assert bool((model.towers.thresholds.diff() > 0).all())


def test_a_fixed_gamma_stays_and_is_cut_where_it_breaks_the_order(world: OrdinalWorld) -> None:
    kept = train(world.log, n_items=ITEMS, seed=0, config=quick(gamma=0.2, biases=False))
    torch.testing.assert_close(kept.towers.gamma(), torch.full((4,), 0.2))
    cut = train(world.log, n_items=ITEMS, seed=0, config=quick(gamma=9.0, biases=False))
    expected = torch.minimum(torch.tensor(9.0), cut.towers.ceilings())
    torch.testing.assert_close(cut.towers.gamma(), expected)
    assert float(expected.min()) < 9.0


def test_items_that_training_never_met_are_what_their_features_say(world: OrdinalWorld) -> None:
    log = world.log[~world.log["item_id"].isin([5, 6])]
    table = draw_table(ITEMS, 4, 2, 0)
    rows = np.arange(ITEMS)
    rows[6] = 5
    model = train(log, n_items=ITEMS, seed=0, config=QUICK, item_features=table.take(rows))
    assert bool((model.towers.item_id[[5, 6]] == 0).all()) and bool((model.towers.item_bias[5] == 0).all())
    assert torch.equal(model.item_blocks[5], model.item_blocks[6])
    assert bool((model.towers.item_id[7] != 0).any())


def test_user_names_as_features_serve_users_without_histories(world: OrdinalWorld) -> None:
    people = Entities(pd.Index([str(n) for n in range(USERS)]), pd.DataFrame(index=range(USERS)), {})
    table = FeatureEncoder.fit(people, np.arange(USERS - 1), with_ids=True).transform(people)
    config = quick(**PAPER)
    model = train(world.log, n_items=ITEMS, seed=0, config=config, user_features=table)
    nobody = histories_of(world.log.iloc[:0])
    found = model.search(nobody, 10, users=np.arange(USERS))
    assert len({tuple(row) for row in found.items.tolist()}) > USERS / 2
    # The last user's name was not known to the encoder, so that user shares the vector of all such.
    described = model.search(nobody[[0]], 10, user_features=table.take(np.array([USERS - 1])))
    assert np.array_equal(described.items[0], found.items[-1])


def test_one_file_of_users_trains_to_the_same_bits(world: OrdinalWorld, tmp_path: Path) -> None:
    shards = write_shards(iter([world.log]), tmp_path, 1)
    first, second = (train(log, n_items=ITEMS, seed=0, config=QUICK) for log in (world.log, shards))
    assert same_weights(first, second)


@pytest.mark.integration
def test_several_files_train_as_well_as_one_log(
    parts: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    early, late = parts
    shards = write_shards(iter([early]), tmp_path, 3)
    last: list[float] = []
    for log in (early, shards):
        rows: Rows = []
        model = train(log, n_items=ITEMS, seed=0, config=QUICK, validation=late, report=rows.append)
        assert torch.equal(model.known.item_counts, count_levels(histories_of(early), 4))
        last.append(rows[-1]["validation_loss"])
    assert last[0] == pytest.approx(last[1], rel=0.05)
    rows = []
    train(shards, n_items=ITEMS, seed=0, config=QUICK, report=rows.append)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] and "validation_loss" in rows[0]


def test_an_update_goes_on_from_the_weights_and_leaves_the_old_model(world: OrdinalWorld) -> None:
    items, users = FeatureTable.of_dense(world.features), draw_table(USERS, 4, 2, 0)
    old = train(world.log[::2], n_items=ITEMS, seed=0, config=QUICK, item_features=items, user_features=users)
    before = old.item_blocks.clone()
    new = update(old, world.log, seed=1, config=quick(epochs=1, learning_rate=1e-7, validation_users=0.0))
    assert torch.equal(old.item_blocks, before)
    torch.testing.assert_close(new.towers.item_id, old.towers.item_id, rtol=0, atol=1e-4)
    # Statistics, rates and thresholds are the new log's.
    assert torch.equal(new.known.item_counts, count_levels(histories_of(world.log), 4))
    expected = thresholds_from_counts(new.known.item_counts.sum(0), extra_ignored=4.0)
    torch.testing.assert_close(new.towers.thresholds, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(new.towers.rates, torch.sigmoid(-expected))
    assert new.known.user_features is users and new.known.item_features is items
    further: Rows = []
    trained = update(old, world.log, seed=1, report=further.append)
    assert not torch.equal(trained.towers.item_id, old.towers.item_id) and len(further) <= 3


def test_an_update_reads_files_and_may_bring_user_features(world: OrdinalWorld, tmp_path: Path) -> None:
    users = draw_table(USERS, 4, 2, 0)
    old = train(world.log, n_items=ITEMS, seed=0, config=quick(epochs=1), user_features=users)
    changed = draw_table(USERS, 4, 2, 1)
    shards = write_shards(iter([world.log]), tmp_path, 2)
    new = update(old, shards, seed=0, config=quick(epochs=1), user_features=changed)
    assert new.known.user_features is changed


@pytest.mark.parametrize("parents", [(0, 1, 1, 2), None])
def test_an_update_keeps_levels_aim_and_sampling(
    world: OrdinalWorld, parents: tuple[int, ...] | None
) -> None:
    config = quick(epochs=1, parents=parents, retrieve_level=3, negatives=0.0)
    new = update(train(world.log, n_items=ITEMS, seed=0, config=config), world.log, seed=0)
    assert new.towers.sizes.parents == config.tree.parents
    assert new.retrieve_level == 3 and new.known.extra_ignored == 0.0


def test_an_update_keeps_the_loss_of_the_model(world: OrdinalWorld) -> None:
    model = train(world.log, n_items=ITEMS, seed=0, config=quick(epochs=1, structure="v1"))
    found: list[Rows] = []
    config = GnolrConfig(structure="v1", negatives=4.0, epochs=3)
    for settings in (None, config):
        rows: Rows = []
        update(model, world.log, seed=0, config=settings, report=rows.append)
        found.append(rows)
    assert found[0][0]["train_loss"] == pytest.approx(found[1][0]["train_loss"], rel=1e-3)


def test_an_update_keeps_a_fixed_gamma(world: OrdinalWorld) -> None:
    model = train(world.log, n_items=ITEMS, seed=0, config=quick(epochs=1, gamma=0.5))
    new = update(model, world.log, seed=0)
    torch.testing.assert_close(new.towers.gamma(), torch.full((4,), 0.5))


def test_arguments_that_do_not_fit_are_refused(world: OrdinalWorld) -> None:
    with pytest.raises(ShapeError, match=r"one row for each of the 120 items; got 5 rows"):
        train(world.log, n_items=ITEMS, seed=0, item_features=draw_table(5, 2, 0, 0))
    old = train(world.log, n_items=ITEMS, seed=0, config=quick(epochs=1))
    message = r"has 4 levels, 120 items and 0 \+ 0 user features; got 5, 120 and 0 \+ 0"
    with pytest.raises(ShapeError, match=message):
        update(old, world.log, seed=0, config=GnolrConfig(levels=5))
    with pytest.raises(ShapeError, match=r"got 4, 120 and 3 \+ 1"):
        update(old, world.log, seed=0, user_features=draw_table(USERS, 3, 1, 0))
    with pytest.raises(InteractionError, match=r"`level` must lie in 0\.\.2; got \["):
        train(world.log, n_items=ITEMS, seed=0, config=GnolrConfig(levels=2))
    with pytest.raises(InteractionError, match=r"`item_id` must lie in 0\.\.99; got \["):
        train(world.log, n_items=100, seed=0, config=QUICK)
    late = world.log.iloc[:2].assign(level=7)
    with pytest.raises(InteractionError, match=r"`level` must lie in 0\.\.4; got \[7, 7\]"):
        train(world.log, n_items=ITEMS, seed=0, config=QUICK, validation=late)


def test_too_few_rows_of_user_features_are_refused(world: OrdinalWorld) -> None:
    with pytest.raises(ShapeError, match="79"):
        train(world.log, n_items=ITEMS, seed=0, config=QUICK, user_features=draw_table(5, 2, 0, 0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": 2, "retrieve_level": 3}, r"at most `levels` \(2\); got 3"),
        ({"structure": "v0", "biases": True}, "`biases` must be false for structure 'v0'"),
        ({"levels": 3, "parents": (0, 1)}, r"one parent for each of the 3 levels; got \(0, 1\)"),
        ({"levels": 2, "parents": (0, 2)}, r"earlier level for each level 1\.\.C; got \[0, 2\]"),
        ({"batch_size": 3}, "batch_size"),
        ({"gamma": 0.0}, "gamma"),
        ({"structure": "v2"}, "structure"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GnolrConfig.model_validate(settings)


def test_a_config_says_its_tree_and_whether_the_loss_is_nested() -> None:
    assert GnolrConfig(levels=3).tree.parents == (0, 1, 2)
    assert GnolrConfig(levels=3, parents=(0, 1, 1)).tree.parents == LevelTree((0, 1, 1)).parents
    assert quick().nested and not quick(structure="v1").nested and not quick(structure="nolr").nested


@pytest.mark.parametrize("negatives", [0.0, 4.0])
def test_a_log_of_one_user_is_trained_on(negatives: float) -> None:
    log = pd.DataFrame({"user_id": [0, 0], "item_id": [0, 1], "level": [0, 1], "timestamp": [0, 1]})
    assert train(log, n_items=2, seed=0, config=quick(negatives=negatives)).n_items == 2
