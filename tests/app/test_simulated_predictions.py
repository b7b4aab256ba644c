"""Users are held to what they were not fitted to, in files that `persona audit` reads."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from app import simulated_predictions
from app.audit import audit
from app.audit_config import AuditConfig
from app.config import load_settings
from app.pipeline.context import RunContext
from app.pipeline.rounds import viewers_of
from app.simulate import simulate
from app.simulate_config import SimulateConfig
from app.simulated_predictions import (
    HELD_OUT,
    PREDICTIONS,
    REACTIONS,
    HeldOut,
    held_out_of,
    write_predictions,
)
from app.trained import open_run
from recsys.columns import ITEM, LEVEL, POSITION, TIMESTAMP, USER
from simulators.mirror import fit_levels
from simulators.mirror.selection import split_by_user
from simulators.users.mirror import MirrorUsers
from tests.helpers.rehearsed_run import rehearsed_run

QUIET = Console(quiet=True)


@pytest.fixture(name="finished", scope="module")
def a_finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rehearsed_run(tmp_path_factory.getbasetemp())


def learned(run: RunContext, log: pd.DataFrame) -> MirrorUsers:
    world = run.world
    model = fit_levels(log, world.catalogue.features, n_users=world.n_users, seed=0)
    return MirrorUsers(model, world.catalogue, run.chat)


@pytest.mark.integration
def test_an_audit_reads_how_learned_users_foretell_the_rest_of_the_log(
    finished: Path, tmp_path: Path
) -> None:
    told = [f"run={finished}", "users=learned", "dialogues=3", "block=4", "predictions=true"]
    config = load_settings(SimulateConfig, None, told)
    out = tmp_path / "out"
    summary = json.loads(simulate(config, out, console=QUIET).read_text())
    made = summary["held_out"]
    assert made["scenes"] >= made["users"] >= 2 and made["options"] == 5
    assert made["fitted_to"].startswith("the first 80% of each user's rows")
    files = [str(out / name) for name in ("dialogues.jsonl", PREDICTIONS, REACTIONS)]
    report = audit(
        AuditConfig(simulated=tuple(files), log=(str(out / HELD_OUT),)), tmp_path / "audit", console=QUIET
    )
    assert report["choices"]["scenes"] == made["scenes"]
    assert {"ece", "nll", "slots"} <= report["choices"].keys()
    assert report["acceptance"]["answers"] == "probabilities"
    assert report["acceptance"]["pairs"] == made["rows"] == len(pd.read_parquet(out / HELD_OUT))

    without = load_settings(SimulateConfig, None, [*told, "predictions=false"])
    assert without.model_dump() == config.model_dump()
    assert "held_out" not in json.loads(simulate(without, out, console=QUIET).read_text())


@pytest.mark.integration
def test_users_of_the_film_world_are_learned_again_without_what_they_are_held_to(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, fitted = open_run(finished, "choices", "policy"), []

    def fit(run: RunContext, log: pd.DataFrame) -> Any:
        fitted.append(log)
        return fit_levels(log, run.world.catalogue.features, n_users=run.world.n_users, seed=0)

    monkeypatch.setattr(simulated_predictions, "learned_levels", fit)
    people = learned(run, run.world.log)
    found = held_out_of(run, people)
    assert isinstance(found, HeldOut) and found.users is not people
    (known,) = fitted
    both = known.merge(found.met, on=[USER, ITEM])
    assert both.empty and len(known) + len(found.met) == len(run.world.log)
    last, first = known.groupby(USER)[TIMESTAMP].max(), found.met.groupby(USER)[TIMESTAMP].min()
    assert (last <= first).all() and POSITION in found.met


@pytest.mark.integration
def test_what_cannot_be_held_to_anything_is_said(finished: Path, tmp_path: Path) -> None:
    run = open_run(finished, "choices", "policy")
    prompted: Any = object()
    for users, why in (
        (viewers_of(run), "made its log with these very"),
        (prompted, "do not say how likely"),
    ):
        found = write_predictions(run, users, tmp_path, seed=0)
        assert found["scenes"] == 0 and why in found["why"]
    assert not list(tmp_path.iterdir())


@pytest.mark.integration
def test_in_a_world_of_ratings_the_later_ones_are_foretold(finished: Path, tmp_path: Path) -> None:
    run = open_run(finished, "choices", "policy")
    earlier, later = split_by_user(run.world.log, 0.5)
    later = later.drop(columns=POSITION)
    run.world = replace(run.world, log=earlier, later=later)
    for users in (viewers_of(run), learned(run, earlier)):
        found = held_out_of(run, users)
        assert isinstance(found, HeldOut) and found.met is later and found.users is users
        made = write_predictions(run, users, tmp_path, seed=0)
        table = pd.read_parquet(tmp_path / PREDICTIONS)
        assert made["scenes"] == table["scene_id"].nunique() > 10
        taken = table[table["chosen"] == 1].merge(later, on=[USER, ITEM])
        refused = table[table["chosen"] == 0].merge(later, on=[USER, ITEM])
        assert len(taken) + len(refused) == len(table)
        assert taken[LEVEL].min() >= 3 > refused[LEVEL].max()
        assert POSITION not in pd.read_parquet(tmp_path / HELD_OUT)
    too_few = later[later[LEVEL] < 3]
    run.world = replace(run.world, later=too_few)
    (tmp_path / "none").mkdir()
    made = write_predictions(run, viewers_of(run), tmp_path / "none", seed=0)
    assert made["scenes"] == 0 and "met 4 others without taking" in made["why"]
    assert not (tmp_path / "none" / PREDICTIONS).exists() and made["rows"] == len(too_few)
    assert np.isin(pd.read_parquet(tmp_path / "none" / REACTIONS)[LEVEL], range(5)).all()
