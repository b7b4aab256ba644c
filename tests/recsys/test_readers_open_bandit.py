from pathlib import Path

import numpy as np
import pytest

from recsys.data.readers import read_bandit_log, read_open_bandit
from recsys.errors import DataFileError, OrdinalError
from tests.helpers.log_files import bandit_lines, feature_of, write_lines, write_open_bandit

MIDNIGHT = 1574553600


def test_the_log_for_off_policy_work_has_the_agreed_columns(tmp_path: Path) -> None:
    log = read_bandit_log(write_open_bandit(tmp_path))
    assert log.columns[:5].tolist() == ["action", "reward", "propensity", "position", "timestamp"]
    assert log.columns[5:9].tolist() == [f"user_feature_{place}" for place in range(4)]
    assert log["action"].tolist() == [0, 1, 2, 0, 1, 2]
    assert log["reward"].tolist() == [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    assert np.allclose(log["propensity"], 0.25 + np.arange(6) / 100)
    assert log["position"].tolist() == [1, 2, 3, 1, 2, 3]
    assert log["timestamp"].tolist() == [MIDNIGHT + 60 * row + 13 for row in range(6)]
    assert log["user-item_affinity_2"].tolist() == list(range(6))
    assert log["user_feature_2"].tolist() == [""] * 6


def test_users_are_one_for_each_combination_of_features(tmp_path: Path) -> None:
    folder = write_open_bandit(tmp_path / "random")
    log = read_bandit_log(folder)
    found = read_open_bandit(folder)
    kinds = log["user_feature_0"].tolist()
    assert len(found.users) == len(set(kinds)) == 2
    who = found.users.features["user_feature_0"].to_numpy()[found.log["user_id"]]
    assert who.tolist() == kinds
    assert feature_of(found, "users", "user_feature_2") == dict.fromkeys(found.users.ids)
    assert found.name == "random-men"
    assert "The source names no users: those with equal user_feature_* are one, 2 in all." in found.notes


def test_clicks_are_the_only_level_and_positions_and_chances_stay(tmp_path: Path) -> None:
    found = read_open_bandit(write_open_bandit(tmp_path) / "men.csv")
    assert found.log["level"].tolist() == [0, 0, 1, 0, 0, 0]
    assert found.level_names == ("shown", "click")
    assert found.log["position"].tolist() == [1, 2, 3, 1, 2, 3]
    assert np.allclose(found.log["propensity"], 0.25 + np.arange(6) / 100)
    assert feature_of(found, "items", "item_feature_0") == {"0": 0.0, "1": 0.25, "2": 0.5}
    assert feature_of(found, "items", "item_feature_1") == {"0": "c0", "1": "c1", "2": "c2"}
    with pytest.raises(OrdinalError, match=r"\['buy'\] unknown"):
        read_open_bandit(tmp_path, levels=("buy",))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",0.27,", ",0.0,", r"line 4: `propensity_score` must lie in \(0, 1\]; got 0\.0"),
        (",0.27,", ",1.5,", r"line 4: `propensity_score` must lie in \(0, 1\]; got 1\.5"),
        (",2,3,1,0.27", ",shoe,3,1,0.27", r"line 4: `item_id` must be a whole number; got 'shoe'"),
        (",2,3,1,0.27", ",2,2.5,1,0.27", r"line 4: `position` must be a whole number; got 2\.5"),
        (",2,3,1,0.27", ",2,3,3,0.27", r"line 4: `click` must be 0 or 1; got 3\.0"),
        (
            "2019-11-24 00:02:13.442536+00:00",
            "noon",
            r"line 4: `timestamp` must be a number or an ISO 8601 date",
        ),
        ("user_feature_", "who_", r"must have columns user_feature_0 and so on; got"),
    ],
)
def test_a_fault_of_the_log_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write_lines(tmp_path / "men.csv", [line.replace(old, new) for line in bandit_lines()])
    with pytest.raises(DataFileError, match=message):
        read_bandit_log(path)


def test_a_folder_must_hold_one_campaign(tmp_path: Path) -> None:
    write_open_bandit(tmp_path)
    write_lines(tmp_path / "women.csv", bandit_lines())
    with pytest.raises(
        DataFileError, match=r"beside item_context\.csv; got \['men\.csv', 'women\.csv'\]\. Name"
    ):
        read_bandit_log(tmp_path)
