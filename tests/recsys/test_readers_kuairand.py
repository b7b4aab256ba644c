from pathlib import Path

import numpy as np
import pytest

from recsys.data.dataset import FeatureKind
from recsys.data.readers import ContradictionPolicy, read_kuairand
from recsys.errors import DataFileError, OrdinalError
from tests.helpers.log_files import feature_of, outside_rows, write_kuairand

FIRST = 1649379600


def test_rows_of_all_logs_are_joined_with_their_levels(tmp_path: Path) -> None:
    found = read_kuairand(write_kuairand(tmp_path))
    assert outside_rows(found) == [
        ("0", "10", 0, FIRST),
        ("0", "11", 1, FIRST + 1),
        ("1", "10", 2, FIRST + 2),
        ("1", "12", 3, FIRST + 3),
        ("2", "10", 3, FIRST + 4),
        ("2", "11", 0, FIRST + 5),
    ]
    assert found.log["is_random"].tolist() == [False] * 5 + [True]
    assert found.log["tab"].tolist() == [1] * 6
    assert found.level_names == ("shown", "click", "like", "follow")
    assert (
        "1 of 6 rows reached a step without a shallower one (click, like, follow); the deepest step counts."
        in (found.notes)
    )


def test_logs_may_be_chosen_and_lie_in_the_folder_itself(tmp_path: Path) -> None:
    folder = write_kuairand(tmp_path, in_data=False)
    assert len(read_kuairand(folder, logs="random").log) == 1
    assert len(read_kuairand(folder, logs="standard").log) == 5
    with pytest.raises(DataFileError, match="`logs` must be one of standard, random, both; got 'all'"):
        read_kuairand(folder, logs="all")


def test_a_dropped_row_leaves_no_user_behind_that_only_it_named(tmp_path: Path) -> None:
    folder = write_kuairand(tmp_path)
    (folder / "data" / "user_features_pure.csv").unlink()
    found = read_kuairand(folder, contradictions=ContradictionPolicy.DROP, logs="standard")
    assert found.users.ids.tolist() == ["0", "1"]
    assert len(found.log) == 4


def test_other_steps_may_be_named(tmp_path: Path) -> None:
    found = read_kuairand(write_kuairand(tmp_path), levels=("click", "long_view"))
    assert found.log["level"].tolist() == [0, 1, 1, 1, 1, 0]
    with pytest.raises(OrdinalError, match=r"got \['share'\], \['share'\] unknown"):
        read_kuairand(tmp_path, levels=("share",))


def test_features_have_the_kinds_that_the_publisher_describes(tmp_path: Path) -> None:
    found = read_kuairand(write_kuairand(tmp_path))
    assert feature_of(found, "users", "onehot_feat0") == {"0": "1", "1": "0", "2": None}
    assert feature_of(found, "users", "follow_user_num") == {"0": 5.0, "1": 70.0, "2": 0.0}
    assert feature_of(found, "items", "tag") == {"10": ("39", "12"), "11": (), "12": ()}
    assert found.items.kinds["video_duration"] is FeatureKind.DENSE
    assert np.isnan(found.items.features["video_duration"].iloc[1:]).all()
    assert any("1 items of the log are not in their table, such as ['12']" in note for note in found.notes)
    assert "Columns ['upload_dt'] of video_features_basic_pure.csv are not read." in found.notes
    assert "video_features_statistic is not read: its sums know the future." in found.notes


def test_a_folder_without_logs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataFileError, match=r"must hold log_standard_\*\.csv or log_random_\*\.csv; got none"
    ):
        read_kuairand(tmp_path)


def test_a_flag_that_is_none_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = write_kuairand(tmp_path) / "data" / "log_standard_4_22_to_5_08_pure.csv"
    path.write_text(path.read_text().replace(",1,0,1,", ",1,2,1,"))
    with pytest.raises(
        DataFileError, match=r"4_22_to_5_08_pure\.csv, line 2: `is_like` must be 0 or 1; got 2\.0"
    ):
        read_kuairand(tmp_path)
