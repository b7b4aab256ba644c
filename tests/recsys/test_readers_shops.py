"""RetailRocket, Ali-CCP and AliExpress: shops that each leave something out."""

from pathlib import Path

import numpy as np
import pytest

from recsys.data.dataset import FeatureKind
from recsys.data.readers import ContradictionPolicy, ali_ccp, read_ali_ccp, read_aliexpress, read_retailrocket
from recsys.errors import DataFileError, InteractionError, OrdinalError
from tests.helpers.log_files import (
    ALIEXPRESS_HEADER,
    aliexpress_row,
    feature_of,
    outside_rows,
    write_ali_ccp,
    write_aliexpress,
    write_lines,
    write_retailrocket,
)


def test_retailrocket_views_are_level_zero_below_carts_and_purchases(tmp_path: Path) -> None:
    found = read_retailrocket(write_retailrocket(tmp_path))
    assert outside_rows(found) == [
        ("257597", "20", 0, 1433221332),
        ("257597", "20", 1, 1433221999),
        ("257597", "20", 2, 1433222000),
        ("9", "30", 0, 1433223000),
        ("9", "100", 0, 1433224000),
    ]
    assert found.level_names == ("view", "addtocart", "transaction")


def test_retailrocket_steps_may_be_named_in_plain_words(tmp_path: Path) -> None:
    found = read_retailrocket(write_retailrocket(tmp_path), levels=("view", "cart", "buy"))
    assert found.log["level"].tolist() == [1, 2, 3, 1, 1]
    assert found.level_names == ("not met", "view", "addtocart", "transaction")
    with pytest.raises(OrdinalError, match=r"\['sold'\] unknown"):
        read_retailrocket(tmp_path, levels=("sold",))


def test_retailrocket_items_have_their_earliest_category_and_its_parent(tmp_path: Path) -> None:
    found = read_retailrocket(write_retailrocket(tmp_path))
    assert feature_of(found, "items", "category") == {"20": "1000", "30": None, "100": "1338"}
    assert feature_of(found, "items", "parent_category") == {"20": None, "30": None, "100": "1000"}
    assert any("1 of 2 items changed it afterwards" in note for note in found.notes)


def test_retailrocket_needs_its_events_alone(tmp_path: Path) -> None:
    write_retailrocket(tmp_path)
    for extra in ("item_properties_part1.csv", "item_properties_part2.csv"):
        (tmp_path / extra).unlink()
    assert "No item_properties*.csv, so nothing is known of items." in read_retailrocket(tmp_path).notes
    write_lines(
        tmp_path / "events.csv", ["timestamp,visitorid,event,itemid,transactionid", "1433221332117,1,look,2,"]
    )
    with pytest.raises(
        DataFileError, match="line 2: `event` must be one of view, addtocart, transaction; got 'look'"
    ):
        read_retailrocket(tmp_path)


@pytest.mark.parametrize("block_bytes", [1 << 26, 300])
def test_ali_ccp_rows_find_their_users_through_common_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(ali_ccp, "BLOCK_BYTES", block_bytes)
    found = read_ali_ccp(write_ali_ccp(tmp_path))
    assert outside_rows(found) == [("77", "900", 0), ("5", "1001", 2), ("77", "900", 2), ("5", "900", 1)]
    assert found.log["is_test"].tolist() == [False, False, False, True]
    assert not found.has_times
    assert found.level_names == ("shown", "click", "buy")


def test_ali_ccp_features_are_those_of_the_first_row(tmp_path: Path) -> None:
    found = read_ali_ccp(write_ali_ccp(tmp_path, with_test=False))
    assert feature_of(found, "users", "field_121") == {"5": "4", "77": "3"}
    assert feature_of(found, "items", "field_210") == {"900": ("31", "32"), "1001": ("33",)}
    assert feature_of(found, "items", "field_216") == {"900": "8", "1001": None}
    assert found.items.kinds["field_210"] is FeatureKind.MULTI_HOT
    assert "is_test" not in found.log


def test_ali_ccp_contradictions_follow_the_policy(tmp_path: Path) -> None:
    found = read_ali_ccp(write_ali_ccp(tmp_path), contradictions=ContradictionPolicy.SHALLOW)
    assert found.log["level"].tolist() == [0, 2, 0, 1]
    with pytest.raises(OrdinalError, match=r"\['pay'\] unknown"):
        read_ali_ccp(tmp_path, levels=("pay",))


def test_a_log_of_contradictions_alone_cannot_drop_them_all(tmp_path: Path) -> None:
    write_ali_ccp(tmp_path, with_test=False)
    path = tmp_path / "sample_skeleton_train.csv"
    write_lines(path, [path.read_text().splitlines()[2]])
    with pytest.raises(InteractionError, match="must keep at least one row; got 1 rows, all left out"):
        read_ali_ccp(tmp_path, contradictions=ContradictionPolicy.DROP)


def test_ali_ccp_faults_are_named_by_file_and_line(tmp_path: Path) -> None:
    write_ali_ccp(tmp_path, with_test=False)
    skeleton = tmp_path / "sample_skeleton_train.csv"
    good = skeleton.read_text().splitlines()
    write_lines(skeleton, [good[0], good[1].replace("\x01205\x02", "\x01206\x02")])
    with pytest.raises(
        DataFileError, match=r"skeleton_train\.csv, line 2: the features must have field 205; got '1205"
    ):
        read_ali_ccp(tmp_path)
    write_lines(skeleton, [good[0], good[1].replace(",a2,", ",a9,")])
    with pytest.raises(
        DataFileError, match=r"line 2: the index must stand in common_features_train\.csv; got 'a9'"
    ):
        read_ali_ccp(tmp_path)
    write_lines(skeleton, [good[0], good[1].replace("1,1", "1,x")])
    with pytest.raises(DataFileError, match=r"line 2: `buy` must be a number; got 'x'"):
        read_ali_ccp(tmp_path)
    common = (tmp_path / "common_features_train.csv").read_text().splitlines()
    write_lines(tmp_path / "common_features_train.csv", [*common, common[1]])
    with pytest.raises(
        DataFileError, match=r"common_features_train\.csv, line 4: the index must stand once; got 'a2'"
    ):
        read_ali_ccp(tmp_path)
    write_lines(tmp_path / "common_features_train.csv", ["a1,1,121\x023\x031.0"])
    with pytest.raises(
        DataFileError, match=r"common_features_train\.csv, line 1: the features must have field 101"
    ):
        read_ali_ccp(tmp_path)


def test_aliexpress_pages_are_users_and_combinations_are_items(tmp_path: Path) -> None:
    found = read_aliexpress(write_aliexpress(tmp_path))
    assert found.users.ids.tolist() == ["5", "7", "12"]
    assert found.log["user_id"].tolist() == [1, 1, 0, 2]
    first, second, third, fourth = found.log["item_id"].tolist()
    assert first == third != second == fourth and len(found.items) == 2
    assert found.log["level"].tolist() == [0, 2, 1, 0]
    assert found.log["is_test"].tolist() == [False, False, False, True]
    assert any(
        "a user is one of 3 result pages, an item one of 2 combinations" in note for note in found.notes
    )


def test_aliexpress_features_stay_with_their_side(tmp_path: Path) -> None:
    found = read_aliexpress(write_aliexpress(tmp_path))
    assert feature_of(found, "users", "categorical_1") == {"5": "2", "7": "1", "12": "0"}
    assert feature_of(found, "users", "numerical_23") == {"5": 0.5, "7": 0.7, "12": 1.2}
    item = found.items.features.iloc[int(found.log["item_id"].iloc[1])]
    assert (item["categorical_16"], item["numerical_24"]) == ("2", 0.02)
    assert len(found.users.kinds) == 9 + 23 and len(found.items.kinds) == 7 + 40


def test_aliexpress_items_are_named_alike_whatever_the_order_of_rows(tmp_path: Path) -> None:
    rows = [aliexpress_row(7, 1, "0,0"), aliexpress_row(8, 2, "1,1")]
    for name, chosen in (("a", rows), ("b", rows[::-1])):
        write_lines(tmp_path / name / "train.csv", [",".join(ALIEXPRESS_HEADER), *chosen])
    first, second = (read_aliexpress(tmp_path / name) for name in "ab")
    assert sorted(outside_rows(first)) == sorted(outside_rows(second))
    assert np.array_equal(first.items.ids, second.items.ids)


def test_aliexpress_says_which_columns_it_misses(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.csv", ["search_id,click,conversion", "1,0,0"])
    with pytest.raises(
        DataFileError, match=r"train\.csv must have the columns .*; categorical_1, .* missing among"
    ):
        read_aliexpress(tmp_path)
    with pytest.raises(OrdinalError, match=r"\['buy'\] unknown"):
        read_aliexpress(tmp_path, levels=("buy",))
