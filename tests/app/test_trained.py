import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.config import RunConfig
from app.errors import StoreError
from app.files import write_json
from app.manifest import MANIFEST, build_manifest
from app.pipeline.rounds import needed_stages
from app.store import RECORD
from app.trained import TrainedRun, newest_run
from persona.errors import DataError
from simulators.types import Dialogue, Utterance
from tests.helpers.scripted_run import ScriptedPolicy, ScriptedRun, tiny_run


def begin_run(folder: Path, stages: tuple[str, ...], config: RunConfig | None = None) -> Path:
    """A run's folder with a manifest and finished stages that hold nothing."""
    for name in stages:
        (folder / "stages" / name).mkdir(parents=True)
        write_json(folder / "stages" / name / RECORD, {})
    folder.mkdir(exist_ok=True)
    write_json(folder / MANIFEST, build_manifest(config or RunConfig(), {"u.data": "0"}, "cpu"))
    return folder


def test_needed_stages_end_with_the_last_round() -> None:
    assert needed_stages(RunConfig(rounds=3)) == ("retrieval", "replies", "preferences", "learn-3")


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"must hold manifest\.json; got .*, without one"):
        TrainedRun.open(tmp_path)


def test_unfinished_run_is_refused_by_its_first_missing_stage(tmp_path: Path) -> None:
    begin_run(tmp_path / "run", ("retrieval", "learn-1"))
    with pytest.raises(
        StoreError, match=r"without its stage `replies`\. .* `persona run --resume --out .*run`"
    ):
        TrainedRun.open(tmp_path / "run")


def test_run_of_another_version_is_refused(tmp_path: Path) -> None:
    manifest = build_manifest(RunConfig(), {}, "cpu")
    write_json(tmp_path / MANIFEST, {**manifest, "config": {"shoe_size": 44}})
    with pytest.raises(StoreError, match="whose `shoe_size` is not one"):
        TrainedRun.open(tmp_path)


def test_changed_data_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "u.data").write_text("changed", encoding="utf-8")
    config = RunConfig(catalogue=str(data))
    folder = begin_run(tmp_path / "run", needed_stages(config), config)
    with pytest.raises(StoreError, match=r"got another content of .*data"):
        TrainedRun.open(folder)


def test_newest_run_is_the_one_whose_training_finished_last(tmp_path: Path) -> None:
    stages = needed_stages(RunConfig())
    for age, name in enumerate(("new", "old", "older")):
        record = begin_run(tmp_path / name, stages) / "stages" / stages[-1] / RECORD
        os.utime(record, (1e9 - age, 1e9 - age))
    begin_run(tmp_path / "unfinished", stages[:-1])
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / MANIFEST).write_text("{", encoding="utf-8")
    assert newest_run(tmp_path) == tmp_path / "new"


def test_no_finished_run_is_told(tmp_path: Path) -> None:
    begin_run(tmp_path / "unfinished", ("replies",))
    with pytest.raises(StoreError, match=r"got none\. Make one with `persona run`"):
        newest_run(tmp_path)


def test_condition_without_sliders_is_the_average_user() -> None:
    condition = ScriptedRun().condition({})
    assert len(condition) == 1
    assert not condition.latent.any() and not condition.direction.any()


def test_slider_out_of_range_is_refused() -> None:
    with pytest.raises(DataError, match=r"Slider `warmth` must lie between -1 and 1; got 1\.5"):
        ScriptedRun().condition({"warmth": 1.5})


def test_two_people_never_generate_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, busy, met = ScriptedRun(), [0], []
    alone = ScriptedPolicy.generate

    def generate(*args: Any, **kwargs: Any) -> list[str]:
        busy[0] += 1
        met.append(busy[0])
        time.sleep(0.01)
        busy[0] -= 1
        return alone(*args, **kwargs)

    monkeypatch.setattr(ScriptedPolicy, "generate", generate)
    said, card = Utterance("Hi", "Hi"), trained.films.card(0)

    def answer(seed: int) -> tuple[Utterance, Utterance]:
        return trained.reply(Dialogue(-1), said, card, trained.condition({}), seed=seed)

    with ThreadPoolExecutor(4) as people:
        list(people.map(answer, range(8)))
    assert met == [1] * 8


@pytest.mark.integration
def test_opened_run_answers_in_slots_filled_from_its_card(tmp_path_factory: pytest.TempPathFactory) -> None:
    trained = TrainedRun.open(tiny_run(tmp_path_factory.getbasetemp()))
    said = trained.pool.openings[0]
    card = trained.run.world.catalogue.card(0)
    answers = [
        trained.reply(Dialogue(-1), said, card, trained.condition({"brevity": value}), seed=1)
        for value in (0.0, 1.0, 1.0)
    ]
    assert answers[0][0] == answers[0][1] == answers[1][1]
    assert answers[1] == answers[2] and answers[1][0] != answers[1][1]
    assert "<" not in answers[1][0].text
