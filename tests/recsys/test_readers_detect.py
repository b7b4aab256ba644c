from collections.abc import Callable
from pathlib import Path

import pytest

from recsys.data.readers import DETECTORS, read_adjacency, read_dataset, read_split
from recsys.errors import DataFileError, OrdinalError
from tests.helpers.log_files import (
    bandit_lines,
    outside_rows,
    write_ali_ccp,
    write_aliexpress,
    write_kuairand,
    write_lines,
    write_open_bandit,
    write_retailrocket,
)
from tests.helpers.rating_folders import WRITERS, draw_ratings


def write_neighbours(folder: Path) -> Path:
    write_lines(folder / "train.txt", ["3 10 2", "", "1 2"])
    write_lines(folder / "test.txt", ["3 7"])
    return folder


def write_ratings(layout: str) -> Callable[[Path], object]:
    return lambda folder: WRITERS[layout](folder, draw_ratings())


FOLDERS: dict[str, tuple[Callable[[Path], object], int]] = {
    "MovieLens 100K": (write_ratings("original"), 84),
    "MovieLens 1M or 10M": (write_ratings("dat"), 84),
    "MovieLens 20M or later": (write_ratings("csv"), 84),
    "RecBole atomic files": (write_ratings("atomic"), 84),
    "KuaiRand": (write_kuairand, 6),
    "RetailRocket": (write_retailrocket, 5),
    "Ali-CCP": (write_ali_ccp, 4),
    "Open Bandit": (write_open_bandit, 6),
    "AliExpress Search": (write_aliexpress, 4),
    "lists of neighbours": (write_neighbours, 4),
}


def test_every_detector_has_a_folder_to_be_tried_on() -> None:
    assert {detector.name for detector in DETECTORS} == set(FOLDERS)


@pytest.mark.parametrize("name", list(FOLDERS))
def test_each_format_is_found_out_by_its_files(tmp_path: Path, name: str) -> None:
    write, rows = FOLDERS[name]
    write(tmp_path)
    matching = [detector.name for detector in DETECTORS if detector.fits(tmp_path)]
    assert matching == [name]
    found = read_dataset(tmp_path)
    assert len(found.log) == rows
    assert found.log["level"].between(0, found.levels).all()
    assert found.log["user_id"].between(0, len(found.users) - 1).all()
    assert found.log["item_id"].between(0, len(found.items) - 1).all()
    for entities in (found.users, found.items):
        assert entities.ids.is_unique and list(entities.kinds) == list(entities.features.columns)
        assert len(entities.features) == len(entities)


def test_files_are_told_apart_by_name_and_header(tmp_path: Path) -> None:
    campaign = write_lines(tmp_path / "all.csv", bandit_lines())
    assert read_dataset(campaign).level_names == ("shown", "click")
    table = write_lines(tmp_path / "log.csv", ["user_id,item_id", "1,2"])
    assert outside_rows(read_dataset(table)) == [("1", "2", 1)]
    WRITERS["atomic"](tmp_path, draw_ratings())
    assert read_dataset(tmp_path / "toy.inter").name == "toy"
    neighbours = write_neighbours(tmp_path) / "train.txt"
    assert len(read_dataset(neighbours).log) == 3


def test_an_unknown_folder_says_what_was_looked_for_and_found(tmp_path: Path) -> None:
    write_lines(tmp_path / "notes.md", ["nothing"])
    expected = (
        r"looked for u\.data \(MovieLens 100K\); .*train\.txt \(lists of neighbours\); got \['notes\.md'\]"
    )
    with pytest.raises(DataFileError, match=expected):
        read_dataset(tmp_path)
    with pytest.raises(DataFileError, match="none must be a file or a folder; there is none"):
        read_dataset(tmp_path / "none")


def test_a_folder_with_a_known_name_but_another_header_is_not_mistaken(tmp_path: Path) -> None:
    for name in ("events.csv", "train.csv", "test.csv", "ratings.csv", "movies.csv"):
        write_lines(tmp_path / name, ["user_id,item_id", "1,2"])
    with pytest.raises(
        DataFileError, match=r"must hold the files of a known format; .* Name a table \(\.csv"
    ):
        read_dataset(tmp_path)


def test_arguments_for_tables_do_not_go_with_folders(tmp_path: Path) -> None:
    write_retailrocket(tmp_path)
    with pytest.raises(DataFileError, match="`items`, `columns` must go with a table in one file; got"):
        read_dataset(tmp_path, items=tmp_path / "events.csv", columns={"user_id": "visitorid"})


def test_neighbours_of_both_parts_share_ids(tmp_path: Path) -> None:
    folder = write_neighbours(tmp_path)
    found = read_split(folder / "train.txt", folder / "test.txt")
    assert outside_rows(found) == [("3", "10", 1), ("3", "2", 1), ("1", "2", 1), ("3", "7", 1)]
    assert found.log["is_test"].tolist() == [False, False, False, True]
    assert found.items.ids.tolist() == ["2", "7", "10"]
    assert not found.has_times and found.name == tmp_path.name
    with pytest.raises(
        OrdinalError, match=r"`levels` must be left out for lists of neighbours, .*; got \['met'\] for"
    ):
        read_split(folder / "train.txt", folder / "test.txt", levels=("met",))


def test_a_user_without_neighbours_is_left_out_and_counted(tmp_path: Path) -> None:
    found = read_adjacency(write_lines(tmp_path / "train.txt", ["1 2", "5", "7 2 9"]))
    assert found.users.ids.tolist() == ["1", "7"]
    assert "1 users of train.txt have no items and are left out." in found.notes


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1 2", "", "2 3 x 4"], r"train\.txt, line 3 must hold whole numbers only; got 'x'"),
        (["1 2", "user 3"], r"line 2 must hold whole numbers only; got 'user'"),
        (
            ["1 2", "2 3", "1 4"],
            r"line 3 must start with a user of its own; got '1' again, after line 1\. Join",
        ),
        (["1", ""], r"must hold lines `user item item \.\.\.`; got no item"),
        ([], r"got no item"),
    ],
)
def test_a_fault_of_a_list_is_named_by_its_line(tmp_path: Path, lines: list[str], message: str) -> None:
    path = write_lines(tmp_path / "train.txt", lines)
    with pytest.raises(DataFileError, match=message):
        read_adjacency(path)


def test_undecodable_bytes_and_missing_lists_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"1 2\n2 \xff\n")
    with pytest.raises(DataFileError, match=r"line 2 must hold whole numbers only; got '\\\\xff'"):
        read_adjacency(tmp_path / "train.txt")
    with pytest.raises(DataFileError, match=r"none\.txt must be a file; there is none"):
        read_adjacency(tmp_path / "none.txt")
