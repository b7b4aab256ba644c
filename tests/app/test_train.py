"""Training and simulation on top of a finished run: every recipe by its name, resumed, refused."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from app.config import load_config, load_settings
from app.errors import ConfigError, StoreError
from app.files import write_json
from app.manifest import MANIFEST, build_manifest
from app.simulate import simulate
from app.simulate_config import SimulateConfig
from app.train import METHODS, train
from app.train_config import TrainConfig
from simulators.dialogue_store import read_table
from tests.helpers.rehearsed_run import SMALL, rehearsed_run

TINY = (
    "learners=6 judging=4 plan_steps=1 epochs=0.01 pairs_per_step=2 attempts=2 threshold=5 replay=4".split()
)
QUIET = Console(quiet=True)


@pytest.fixture(name="finished", scope="module")
def a_finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rehearsed_run(tmp_path_factory.getbasetemp())


@pytest.mark.integration
@pytest.mark.parametrize("method", list(METHODS))
def test_every_recipe_trains_and_is_judged_by_all_who_were_invited(
    method: str, finished: Path, tmp_path: Path
) -> None:
    config = load_settings(TrainConfig, None, [f"run={finished}", *TINY])
    path = train(method, config, tmp_path / "out", resume=False, console=QUIET)
    report = json.loads(path.read_text())
    assert report["method"] == method and len(report["rounds"]) == 1
    assert {row["gain"]["n"] for row in report["judges"].values()} == {4}
    panels = [
        f"{panel}_{name}"
        for panel in ("judges", "trained_with")
        for name in ("gap", "satisfaction", "utility")
    ]
    assert all(np.isfinite(report["rounds"][0][name]) for name in panels)
    lines = (tmp_path / "out" / "stages" / "train" / "metrics.jsonl").read_text().splitlines()
    assert "judges_gap" in json.loads(lines[-1])
    # So few whole dialogues may all end alike, and then nothing is learned from them.
    assert method != "ecpo" or any("step" in json.loads(line) for line in lines)
    assert (tmp_path / "out" / "stages" / "train" / "policy").is_dir()
    before = path.read_bytes()
    train(method, config, tmp_path / "out", resume=True, console=QUIET)
    assert path.read_bytes() == before
    with pytest.raises(StoreError, match="must meet the same"):
        train(method, config.model_copy(update={"seed": 1}), tmp_path / "out", resume=True, console=QUIET)


@pytest.mark.integration
@pytest.mark.parametrize("users", ["viewers", "learned"])
def test_a_simulation_goes_on_where_it_stopped(users: str, finished: Path, tmp_path: Path) -> None:
    config = load_settings(
        SimulateConfig, None, [f"run={finished}", f"users={users}", "dialogues=6", "block=4"]
    )
    path = simulate(config, tmp_path / "whole", console=QUIET)
    summary = json.loads(path.read_text())
    dialogues = read_table(tmp_path / "whole" / "dialogues.parquet")
    assert summary["dialogues"] == len(dialogues) == 6 == sum(summary["stops"].values())
    simulate(config, tmp_path / "cut", console=QUIET)
    lines = (tmp_path / "cut" / "dialogues.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "cut" / "dialogues.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:30])
    simulate(config, tmp_path / "cut", console=QUIET)
    assert read_table(tmp_path / "cut" / "dialogues.parquet") == dialogues
    assert (tmp_path / "cut" / "summary.json").read_bytes() == path.read_bytes()


@pytest.mark.integration
def test_a_single_dialogue_has_no_interval(finished: Path, tmp_path: Path) -> None:
    config = load_settings(SimulateConfig, None, [f"run={finished}", "users=random", "dialogues=1"])
    terminal = io.StringIO()
    summary = json.loads(simulate(config, tmp_path / "out", console=Console(file=terminal)).read_text())
    assert summary["utility"]["ci95"] is None and summary["utility"]["n"] == 1
    assert "too few dialogues for an interval" in terminal.getvalue()


@pytest.mark.integration
def test_too_many_guests_are_refused(finished: Path, tmp_path: Path) -> None:
    config = SimulateConfig(run=str(finished), dialogues=13)
    with pytest.raises(ConfigError, match="at most the 12 unseen users of the run; got 13"):
        simulate(config, tmp_path / "out", console=QUIET)


def test_an_unfinished_run_and_none_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"must hold manifest\.json"):
        train("ecpo", TrainConfig(run=str(tmp_path)), tmp_path / "out", resume=False, console=QUIET)
    write_json(tmp_path / MANIFEST, build_manifest(load_config(None, SMALL), {}, "cpu"))
    with pytest.raises(StoreError, match="must have finished its training"):
        train("ecpo", TrainConfig(run=str(tmp_path)), tmp_path / "out", resume=False, console=QUIET)


def test_a_simulation_goes_to_no_folder_of_other_work(tmp_path: Path) -> None:
    write_json(tmp_path / MANIFEST, build_manifest(load_config(None, SMALL), {}, "cpu"))
    with pytest.raises(StoreError, match=r"hold a simulation; got .* with manifest\.json in it"):
        simulate(SimulateConfig(run=str(tmp_path)), tmp_path, console=QUIET)


def test_the_run_must_be_named() -> None:
    with pytest.raises(
        ConfigError, match=r"`run` must be given; got nothing\. Set it in the file or as run=VALUE\."
    ):
        load_settings(TrainConfig, None, ["seed=1"])


def test_users_of_the_other_kind_judge_unless_told_otherwise() -> None:
    asked: list[list[str]] = [[], ["users=viewers"], ["users=viewers", "judges=viewers"]]
    kinds = [load_settings(TrainConfig, None, ["run=x", *more]).judges for more in asked]
    assert kinds == ["viewers", "learned", "viewers"]


@pytest.mark.parametrize(
    "told",
    [
        "users=viewers judges=viewers judges_chat=another-model",
        "users=ailo judges=ailo-five-calls chat=m@http://host judges_chat=m@http://host",
    ],
)
def test_nobody_is_judged_by_those_who_trained(tmp_path: Path, told: str) -> None:
    config = load_settings(TrainConfig, None, [f"run={tmp_path}", *told.split()])
    with pytest.raises(
        ConfigError, match=f"another kind than `users`; got {config.judges} and {config.users}"
    ):
        train("ecpo", config, tmp_path / "out", resume=False, console=QUIET)


def test_personas_may_judge_personas_that_another_model_plays(tmp_path: Path) -> None:
    config = load_settings(
        TrainConfig, None, [f"run={tmp_path}", "users=ailo", "judges=ailo", "judges_chat=another-model"]
    )
    with pytest.raises(StoreError, match="manifest"):
        train("ecpo", config, tmp_path / "out", resume=False, console=QUIET)


def test_one_pair_a_step_is_refused_before_anybody_talks() -> None:
    with pytest.raises(ConfigError, match=r"`pairs_per_step` must fit its field .*equal to 2.*; got '1'"):
        load_settings(TrainConfig, None, ["run=x", "pairs_per_step=1"])
