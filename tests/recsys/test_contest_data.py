from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from recsys.data import check_log, merge_repeats, split_as_given, split_at_random, split_by_time, split_users
from recsys.data.dataset import Dataset
from recsys.errors import InteractionError
from recsys.recipes.contest_data import narrow_dataset, prepare_contest, tidy_dataset
from recsys.types import levels_in
from tests.helpers.contest_world import make_contest, make_dataset


@pytest.fixture(name="dataset")
def a_dataset() -> Dataset:
    return make_dataset()


def test_a_log_without_times_is_checked_and_merged_in_the_order_given() -> None:
    log = pd.DataFrame({"user_id": [0, 0, 1], "item_id": [1, 1, 0], "level": [2, 1, 0], "shelf": [7, 8, 9]})
    merged = merge_repeats(log)
    assert merged.to_dict("list") == {"user_id": [0, 1], "item_id": [1, 0], "level": [2, 0], "shelf": [7, 9]}
    assert check_log(merged, 2).columns.tolist() == ["user_id", "item_id", "level", "shelf"]


def test_repeats_are_merged_and_counted(dataset: Dataset) -> None:
    twice = replace(dataset, log=pd.concat([dataset.log, dataset.log.iloc[:5]], ignore_index=True))
    found = tidy_dataset(twice)
    assert found.merged == 5
    assert len(found.dataset.log) == len(dataset.log)
    assert found.notes[0].startswith(f"5 of {len(dataset.log) + 5} rows repeat")


def test_repeats_across_given_parts_stay_visible(dataset: Dataset) -> None:
    log = dataset.log.assign(is_test=False)
    again = log.iloc[:3].assign(is_test=True)
    both = replace(dataset, log=pd.concat([log, again, again], ignore_index=True))
    found = tidy_dataset(both, part="is_test")
    assert found.merged == 3
    assert int(found.dataset.log["is_test"].sum()) == 3
    assert found.dataset.log.duplicated(["user_id", "item_id"]).sum() == 3


def test_the_core_shrinks_the_tables_with_the_log(dataset: Dataset) -> None:
    few = replace(dataset, log=dataset.log[(dataset.log["user_id"] != 3) & (dataset.log["item_id"] != 7)])
    found = tidy_dataset(few, core=2)
    assert "2,2-core" in found.notes[-1]
    assert "u3" not in found.dataset.users.ids and "i7" not in found.dataset.items.ids
    assert len(found.dataset.items) == found.dataset.log["item_id"].nunique()


def test_narrowed_ids_still_name_the_same_entities(dataset: Dataset) -> None:
    few = replace(dataset, log=dataset.log[dataset.log["user_id"] % 3 == 1])
    found = narrow_dataset(few)
    for side, column in (("users", "user_id"), ("items", "item_id")):
        before, after = getattr(few, side), getattr(found, side)
        assert before.ids[few.log[column]].tolist() == after.ids[found.log[column]].tolist()
        name = next(iter(before.kinds))
        old, new = (
            before.features[name].iloc[few.log[column]],
            after.features[name].iloc[found.log[column]],
        )
        assert old.tolist() == new.tolist()
    assert found.items.labels is not None
    assert found.items.labels.iloc[0] == f"Thing <{found.items.ids[0][1:]}>"


def test_rounds_share_nothing_with_what_is_known() -> None:
    contest = make_contest()
    for one in (contest.validation, contest.test):
        assert (one.known * one.target).nnz == 0
        assert one.out_of_reach == 0
        assert levels_in(one.target, one.rows, one.items).tolist() == one.levels.tolist()
        assert len(one.rows) == one.target.nnz


def test_the_test_knows_the_validation_and_the_validation_does_not_know_itself() -> None:
    contest = make_contest()
    rows = {
        name: len(part)
        for name, part in (("train", contest.split.train), ("test", contest.split.test.target))
    }
    assert contest.train.nnz == rows["train"]
    assert contest.up_to_date.nnz == len(contest.dataset.log) - rows["test"]
    assert contest.validation_is_later


def test_features_are_fitted_on_train_rows_alone(dataset: Dataset) -> None:
    early = dataset.log["timestamp"].rank() <= 0.6 * len(dataset.log)
    late_only = sorted(set(dataset.log.loc[~early, "item_id"]) - set(dataset.log.loc[early, "item_id"]))
    item = late_only[0] if late_only else 0
    log = dataset.log[~(early & (dataset.log["item_id"] == item))].reset_index(drop=True)
    features = dataset.items.features.copy()
    features.loc[item, "group"] = "a group of its own"
    changed = replace(dataset, log=log, items=replace(dataset.items, features=features))
    contest = make_contest(changed)
    assert item not in set(contest.split.train["item_id"])
    groups = contest.dataset.items.features["group"]
    known = sorted(set(groups.iloc[np.unique(contest.split.train["item_id"])]))
    # One column a group that train knows, and the first for all others.
    assert contest.item_features.sparse[[item], :][:, [0]].toarray().item() == 1.0
    assert contest.item_features.sparse[:, : len(known) + 1].sum() == len(groups)


def test_users_held_out_are_not_in_train_but_known_at_the_test(dataset: Dataset) -> None:
    split = split_users(dataset.log, seed=0)
    contest = prepare_contest(dataset, split, relevant_level=1)
    assert contest.train[contest.test.users].nnz == 0
    assert contest.test.known.nnz == contest.up_to_date[contest.test.users].nnz > 0
    assert not contest.validation_is_later


def test_pairs_known_before_are_left_out_and_counted(dataset: Dataset) -> None:
    log = pd.concat([dataset.log, dataset.log.iloc[:30]], ignore_index=True)
    flags = np.arange(len(log)) >= 0.8 * len(dataset.log)
    contest = prepare_contest(replace(dataset, log=log), split_as_given(log, flags, seed=0), relevant_level=1)
    assert contest.test.out_of_reach == 30
    assert len(contest.test.rows) == flags.sum() - 30


def test_a_log_in_which_all_rows_are_alike_foretells_nothing(dataset: Dataset) -> None:
    assert make_contest().can_foretell
    met = replace(dataset, log=dataset.log.assign(level=1), level_names=("not met", "met"))
    split = split_at_random(met.log, seed=0)
    assert not prepare_contest(met, split, relevant_level=1).can_foretell


@pytest.mark.parametrize("level", [0, 4])
def test_a_level_that_does_not_exist_is_refused(dataset: Dataset, level: int) -> None:
    with pytest.raises(InteractionError, match=rf"must lie in 1\.\.3.*got {level}\. Level 3 is 'buy'"):
        prepare_contest(dataset, split_by_time(dataset.log), relevant_level=level)


def test_a_part_without_anything_to_find_is_refused(dataset: Dataset) -> None:
    log = dataset.log.sort_values("timestamp", ignore_index=True)
    log.loc[log.index >= 0.9 * len(log), "level"] = 0
    with pytest.raises(
        InteractionError, match=r"test part must hold rows at level 2 .* got none among 72, and 0 rows that"
    ):
        prepare_contest(replace(dataset, log=log), split_by_time(log), relevant_level=2)
