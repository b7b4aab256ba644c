import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from app.errors import ConfigError, StoreError
from app.evaluate import evaluate
from app.evaluation_config import EvaluationConfig
from app.evaluation_retriever import read_retriever
from app.recommend import Wish, read_ids, recommend
from app.terminal import PlainConsole
from tests.helpers.contest_world import make_dataset, write_dataset


@pytest.fixture(name="folder", scope="module")
def an_evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished evaluation whose retriever is GNOLR."""
    folder = tmp_path_factory.mktemp("evaluated")
    log = write_dataset(folder / "data", make_dataset())
    config = EvaluationConfig(
        data=str(log), items=str(log.with_name("items.csv")), models=("gnolr",), device="cpu", k=(5,),
        relevant="1", test_share=0.2, validation_share=0.2,
    )  # fmt: skip
    evaluate(config, folder / "out", console=Console(file=io.StringIO()))
    return folder / "out"


def ask(folder: Path, out: Path | None = None, **wish: Any) -> pd.DataFrame:
    return recommend(folder, Wish(**wish), out=out, device="cpu", console=Console(file=io.StringIO()))


def seen_by(user: str) -> set[str]:
    log = make_dataset().log
    return {f"i{item}" for item in log.loc[log["user_id"] == int(user[1:]), "item_id"]}


def test_known_users_get_new_items_by_their_outside_ids(folder: Path) -> None:
    found = ask(folder, users=("u3", "u17"), k=6)
    assert found["user_id"].tolist() == ["u3"] * 6 + ["u17"] * 6
    assert found["rank"].tolist() == [1, 2, 3, 4, 5, 6] * 2
    for user, own in found.groupby("user_id"):
        assert not set(own["item_id"]) & seen_by(str(user))
        assert own["score"].is_monotonic_decreasing
    assert found["label"].tolist() == [f"Thing <{item[1:]}>" for item in found["item_id"]]


def test_the_retriever_knows_the_test_rows_too(folder: Path) -> None:
    everything = ask(folder, users=("u3",), k=40)
    assert set(everything["item_id"]) == {f"i{item}" for item in range(40)} - seen_by("u3")
    assert len(ask(folder, users=("u3",), k=40, exclude_seen=False)) == 40


def test_the_folder_of_the_retriever_answers_as_that_of_the_evaluation(folder: Path) -> None:
    pd.testing.assert_frame_equal(ask(folder, users=("u1",)), ask(folder / "retriever", users=("u1",)))


def test_a_stranger_is_served_by_the_items_given(folder: Path) -> None:
    found = ask(folder, items=("i1", "i2"), k=38)
    assert set(found["user_id"]) == {"stranger"}
    assert set(found["item_id"]) == {f"i{item}" for item in range(40)} - {"i1", "i2"}
    assert found["item_id"].tolist() != ask(folder, items=("i30", "i31"), k=38)["item_id"].tolist()


def test_unknown_users_are_named_or_served_without_a_history(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"got a, b, c and 1 more, which are not\. .*--strangers popular"):
        ask(folder, users=("u1", "a", "b", "c", "d"))
    found = ask(folder, users=("u1", "a", "b"), k=5, strangers="popular")
    lists = [own["item_id"].tolist() for _, own in found.groupby("user_id")]
    assert lists[0] == lists[1]
    assert (
        found[found["user_id"] == "u1"]["item_id"].tolist()
        == ask(folder, users=("u1",), k=5)["item_id"].tolist()
    )


def test_a_title_controls_no_terminal_and_stays_as_it_is_in_the_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = read_retriever(folder, device="cpu")
    hostile = served._replace(labels=[f"{label}\x1b[2J" for label in served.labels])
    monkeypatch.setattr("app.recommend.read_retriever", lambda *_, **__: hostile)
    terminal = io.StringIO()
    console = PlainConsole(file=terminal, force_terminal=True, width=100)
    found = recommend(folder, Wish(users=("u3",), k=3), device="cpu", console=console)
    assert all(str(label).endswith("\x1b[2J") for label in found["label"])
    assert "\x1b[2J" not in terminal.getvalue()
    assert terminal.getvalue().count(">[2J") == 3


def test_allowed_and_denied_items_are_kept_to(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "allow").write_text("i1\n\ni2\ni3\n")
    (tmp_path / "deny").write_text("i2\n")
    found = ask(folder, users=("u1",), exclude_seen=False, allow=tmp_path / "allow", deny=tmp_path / "deny")
    assert sorted(found["item_id"]) == ["i1", "i3"]
    assert len(ask(folder, users=("u1",), k=40, exclude_seen=False, deny=tmp_path / "deny")) == 39


def test_levels_rank_differently_and_an_unknown_one_is_refused(folder: Path) -> None:
    first, deepest = (ask(folder, users=("u1",), k=28, level=level) for level in ("1", "level 3"))
    assert set(first["item_id"]) == set(deepest["item_id"])
    # The chance of going deeper is below that of going less deep, item by item.
    scores = first.set_index("item_id")["score"] - deepest.set_index("item_id")["score"]
    assert (scores > 0).all()
    with pytest.raises(ConfigError, match=r"3 \(level 3\); got '7'"):
        ask(folder, users=("u1",), level="7")


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_files_hold_what_was_found(folder: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"lists{suffix}"
    found = ask(folder, out=path, users=("u1", "u2"), k=3)
    if suffix == ".json":
        held = pd.DataFrame(json.loads(path.read_text()))[found.columns.tolist()]
    else:
        held = pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
    assert held.drop(columns="score").to_numpy().tolist() == found.drop(columns="score").to_numpy().tolist()
    assert np.allclose(held["score"], found["score"])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({}, "Somebody must be served; got nobody"),
        ({"users": ("u1", "u1")}, "named once; got u1 again"),
        ({"users": ("u1",), "k": 0}, "--k must be at least 1; got 0"),
        ({"items": ("i1", "x", "y")}, "in the retriever's catalogue; got x, y, which are not"),
    ],
)
def test_bad_wishes_are_told(folder: Path, wish: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ask(folder, **wish)


def test_bad_files_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--out must end in one of .csv, .json, .parquet; got lists\.txt"):
        ask(folder, out=tmp_path / "lists.txt", users=("u1",))
    with pytest.raises(ConfigError, match="must be a readable text file of ids; got"):
        read_ids(tmp_path / "absent")
    (tmp_path / "marked").write_text("\ufeffi1\r\ni2\n", encoding="utf-8")
    assert read_ids(tmp_path / "marked") == ("i1", "i2")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="must hold ids, one a line; got none"):
        read_ids(tmp_path / "empty")


def test_a_folder_without_a_retriever_or_with_a_changed_one_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"must hold a retriever \(retriever\.json\); there is none"):
        ask(tmp_path, users=("u1",))
    shutil.copytree(folder / "retriever", tmp_path / "copy")
    with (tmp_path / "copy" / "users.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(StoreError, match=r"users\.parquet missing or changed"):
        ask(tmp_path / "copy", users=("u1",))
    (tmp_path / "copy" / "retriever.json").write_text('{"kind": "pickle"}')
    with pytest.raises(StoreError, match=r"of a kind among popularity, .*; got other content"):
        ask(tmp_path / "copy", users=("u1",))


@pytest.mark.parametrize(
    "change",
    [
        {"files": []},
        {"files": {}},
        {"relevant_level": "abc"},
        {"relevant_level": 99},
        {"level_names": 5},
        {"kind": ["x"]},
    ],
)
def test_a_retriever_edited_by_hand_is_refused(folder: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder / "retriever", copy)
    facts = json.loads((copy / "retriever.json").read_text())
    (copy / "retriever.json").write_text(json.dumps(facts | change))
    with pytest.raises(StoreError, match=r"retriever\.json must be as `persona evaluate` wrote it"):
        ask(copy, users=("u1",))


def test_tables_swapped_for_one_another_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder / "retriever", copy)
    shutil.copy(copy / "catalogue.parquet", copy / "users.parquet")
    facts = json.loads((copy / "retriever.json").read_text())
    facts["files"]["users.parquet"] = facts["files"]["catalogue.parquet"]
    (copy / "retriever.json").write_text(json.dumps(facts))
    with pytest.raises(StoreError, match=r"must have the columns user_id; \['user_id'\] missing"):
        ask(copy, users=("u1",))


@pytest.mark.parametrize(
    ("table", "column", "values", "says"),
    [
        ("users", "user_id", "u1", r"must name each `user_id` once; got \['u1', 'u1', 'u1'\] again"),
        ("catalogue", "item_id", 7, "must hold texts in `item_id`; got integer"),
        ("catalogue", "label", None, r"must hold texts in `label`; got (mixed|empty)"),
        ("histories", "item", "i3", "must hold whole numbers in `item`; got (object|str)"),
        ("histories", "timestamp", float("nan"), "must hold whole numbers in `timestamp`; got float64"),
        ("histories", "item", 40, r"must hold 0\.\.39 in `item`; got 40\.\.40"),
        ("histories", "user", -1, r"in `user`; got -1\.\.-1"),
        ("histories", "level", 4, r"must hold 0\.\.3 in `level`; got 4\.\.4"),
        ("histories", None, None, r"histories\.parquet must hold rows; got none"),
    ],
)
def test_tables_that_hold_something_else_are_refused_whatever_their_hash(
    folder: Path, tmp_path: Path, table: str, column: str | None, values: Any, says: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder / "retriever", copy)
    path = copy / f"{table}.parquet"
    frame = pd.read_parquet(path)
    (frame.head(0) if column is None else frame.assign(**{column: values})).to_parquet(path, index=False)
    facts = json.loads((copy / "retriever.json").read_text())
    facts["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (copy / "retriever.json").write_text(json.dumps(facts))
    with pytest.raises(StoreError, match=says):
        ask(copy, users=("u1",))


def test_more_items_than_there_are_cannot_be_asked_for(folder: Path) -> None:
    with pytest.raises(ConfigError, match="at most the 40 items of the catalogue; got 41"):
        ask(folder, users=("u1",), k=41)
