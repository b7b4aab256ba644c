from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from recsys.data.shards import UserShards, write_shards
from recsys.features import FeatureTable
from recsys.recipes.gnolr_rows import Examples, Source
from recsys.types import Histories, histories_from_log, levels_in
from tests.helpers.slow_gnolr import draw_histories, draw_table

USERS, ITEMS = 30, 20


def draw_log(seed: int = 0) -> pd.DataFrame:
    histories = draw_histories(USERS, ITEMS, 3, seed)
    user, item = histories.nonzero()
    log = pd.DataFrame({"user_id": user, "item_id": item, "level": histories.data.astype(np.int64) - 1})
    return log.sample(frac=1, random_state=seed).reset_index(drop=True).assign(timestamp=range(len(log)))


def make_source(log: pd.DataFrame | UserShards, kept: float = 0.0, seed: int = 0) -> Source:
    return Source(log, ITEMS, 3, FeatureTable.empty(0), kept, seed)


def triples(examples: Examples) -> list[tuple[bytes, int, int]]:
    """Rows by a history that tells the users apart, item and level."""
    rows = zip(examples.user, examples.item, examples.level, strict=True)
    return [(examples.histories.toarray()[u].tobytes(), int(i), int(v)) for u, i, v in rows]


def test_every_entry_of_a_history_is_a_row_inside_it() -> None:
    histories = draw_histories(5, ITEMS, 3, 1)
    found = Examples.of_histories(histories, FeatureTable.empty(5))
    assert len(found) == histories.nnz
    assert np.array_equal(found.level, histories.toarray()[found.user, found.item].astype(int) - 1)
    assert np.array_equal(found.own, found.level)


def test_other_rows_are_sorted_by_user_and_say_what_the_history_knows() -> None:
    histories = draw_histories(4, ITEMS, 3, 2)
    user, item = np.array([2, 0, 2, 3, 0]), np.array([1, 5, 7, 0, 6])
    level = np.arange(5) % 4
    found = Examples.of_targets(histories, FeatureTable.empty(4), user, item, level)
    assert found.user.tolist() == [0, 0, 2, 2, 3] and found.starts.tolist() == [0, 2, 2, 4, 5]
    assert found.item.tolist() == [5, 6, 1, 7, 0] and found.level.tolist() == [1, 0, 0, 2, 3]
    assert np.array_equal(found.own, levels_in(histories, found.user, found.item))


def test_selected_users_bring_their_rows_histories_and_features() -> None:
    histories, features = draw_histories(6, ITEMS, 3, 3), draw_table(6, 3, 1, 0)
    whole = Examples.of_histories(histories, features)
    users = np.array([4, 5, 0])
    found = whole.select(users)
    for place, user in enumerate(users.tolist()):
        assert found.item[found.user == place].tolist() == whole.item[whole.user == user].tolist()
        assert np.array_equal(found.histories.toarray()[place], histories.toarray()[user])
        assert np.array_equal(found.features.dense[place], features.dense[user])
    assert found.own.tolist() == found.level.tolist()
    assert len(whole.select(np.empty(0, dtype=np.int64))) == 0


@pytest.mark.parametrize("batch_rows", [1, 13, 10_000])
def test_batches_hold_every_user_with_rows_once(batch_rows: int) -> None:
    examples = Examples.of_histories(draw_histories(USERS, ITEMS, 3, 4), FeatureTable.empty(USERS))
    batches = examples.user_batches(batch_rows, np.random.default_rng(0))
    users = np.concatenate(batches)
    expected = np.flatnonzero(np.diff(examples.starts))
    assert np.array_equal(np.sort(users), expected)  # the last user has no rows
    sizes = [len(examples.select(batch)) for batch in batches]
    assert max(sizes) <= batch_rows + np.diff(examples.starts).max()
    ordered = np.concatenate(examples.user_batches(batch_rows, None))
    assert np.array_equal(ordered, expected) and not np.array_equal(users, expected)


def test_nobody_makes_no_batches() -> None:
    empty = Examples.of_histories(draw_histories(1, ITEMS, 3, 0), FeatureTable.empty(1))
    assert len(empty) == 0 and empty.user_batches(5, None) == []


def test_sampled_items_weigh_one_row_for_each_of_the_users() -> None:
    histories = draw_histories(5, ITEMS, 3, 5)
    examples = Examples.of_histories(histories, FeatureTable.empty(5))
    drawn = np.array([3, 0, 7, 12])
    weights = examples.unseen_weights(drawn)
    seen = histories.toarray()[:, drawn] > 0
    assert weights.shape == (5, 4) and (weights[seen] == 0).all()
    rows, some = np.diff(histories.indptr), ~seen.all(1)
    np.testing.assert_allclose(weights.sum(1)[some], rows[some], rtol=1e-6)
    met_all = Examples.of_histories(draw_histories(1, 2, 1, 0)[[0]] + 0, FeatureTable.empty(1))
    assert np.isfinite(met_all.unseen_weights(np.array([0, 1]))).all()


def test_a_source_parts_users_between_training_and_judges() -> None:
    log = draw_log()
    source = make_source(log, kept=0.3)
    (training,), judges = list(source.blocks(np.random.default_rng(0))), source.judges
    everything = Examples.of_histories(
        histories_from_log(log, np.unique(log["user_id"]), ITEMS), FeatureTable.empty(0).take(np.arange(29))
    )
    assert sorted(triples(training) + triples(judges[0])) == sorted(triples(everything))
    assert judges[0].histories.shape[0] == int(log["user_id"].nunique() * 0.3)
    assert not {row[0] for row in triples(training)} & {row[0] for row in triples(judges[0])}
    expected = histories_counts(training.histories)
    assert torch.equal(source.count_levels(), expected)
    assert make_source(log).judges == []


def histories_counts(histories: Histories) -> torch.Tensor:
    dense = histories.toarray()
    return torch.tensor(
        [[(dense[:, item] == level + 1).sum() for level in range(4)] for item in range(ITEMS)]
    )


def test_the_seed_draws_the_judges() -> None:
    first, again, other = (make_source(draw_log(), 0.3, seed).judges[0] for seed in (1, 1, 2))
    assert triples(first) == triples(again) != triples(other)


def test_several_files_hold_the_same_rows_as_one_log(tmp_path: Path) -> None:
    log, users = draw_log(), np.array([3, 0, 11])
    whole = make_source(log)
    shards = make_source(write_shards(iter([log]), tmp_path, 3))
    blocks = list(shards.blocks(np.random.default_rng(0)))
    assert len(blocks) == 3
    (one,) = whole.blocks(np.random.default_rng(0))
    assert sorted(row for block in blocks for row in triples(block)) == sorted(triples(one))
    assert torch.equal(shards.count_levels(), whole.count_levels())
    found, expected = shards.histories_of(users), whole.histories_of(users)
    assert np.array_equal(found.toarray(), expected.toarray())


def test_files_are_met_in_random_order(tmp_path: Path) -> None:
    source = make_source(write_shards(iter([draw_log()]), tmp_path, 4))
    sizes = {tuple(len(block) for block in source.blocks(np.random.default_rng(seed))) for seed in range(6)}
    assert len(sizes) > 1


def test_users_features_go_with_them(tmp_path: Path) -> None:
    log, features = draw_log(), draw_table(USERS, 2, 2, 0)
    for kept in (log, write_shards(iter([log]), tmp_path, 3)):
        source = Source(kept, ITEMS, 3, features, 0.0, 0)
        for block in source.blocks(np.random.default_rng(0)):
            histories = histories_from_log(log, np.arange(USERS), ITEMS).toarray()
            for row in range(block.histories.shape[0]):
                same = (histories == block.histories.toarray()[row]).all(1)
                assert (features.dense[same] == block.features.dense[row]).all(1).any()


def test_repeats_inside_files_are_merged(tmp_path: Path) -> None:
    log = pd.DataFrame(
        {"user_id": [0, 0, 0], "item_id": [1, 1, 2], "level": [3, 0, 1], "timestamp": [5, 6, 7]}
    )
    (block,) = make_source(write_shards(iter([log]), tmp_path, 1)).blocks(np.random.default_rng(0))
    assert block.item.tolist() == [1, 2] and block.level.tolist() == [3, 1]


def test_more_files_than_users_are_no_fault(tmp_path: Path) -> None:
    log = draw_log().query("user_id < 2")
    source = make_source(write_shards(iter([log]), tmp_path, 8))
    assert int(source.count_levels().sum()) == len(log)
