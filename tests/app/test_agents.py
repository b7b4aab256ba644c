"""Agents by name: a run's own, and those that trainings made of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from app.agents import agent_from, hash_agent
from app.config import load_settings
from app.errors import ConfigError, StoreError
from app.files import read_json, write_json
from app.manifest import MANIFEST
from app.pipeline.context import RunContext
from app.simulate import simulate
from app.simulate_config import SimulateConfig
from app.store import RECORD
from app.train import METHODS, train
from app.train_config import TrainConfig
from app.trained import TrainedRun, open_run
from persona.policy.conditioned import ConditionedPolicy
from recsys.models.gnolr import Gnolr
from simulators.errors import DialogueStoreError
from simulators.types import Dialogue, Utterance
from tests.helpers.rehearsed_run import rehearsed_run

QUIET = Console(quiet=True)
SETTINGS = "learners=6 judging=4 watched=0 plan_steps=1 rounds=0 pairs_per_step=2".split()


@pytest.fixture(name="run", scope="module")
def a_finished_run(tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    return open_run(rehearsed_run(tmp_path_factory.getbasetemp()))


@pytest.fixture(name="training", scope="module")
def a_finished_training(run: RunContext, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learn(run, tmp_path_factory.mktemp("trainings") / "taught")


def learn(run: RunContext, out: Path, *more: str) -> Path:
    config = load_settings(TrainConfig, None, [f"run={run.folder}", *SETTINGS, *more])
    train("ecpo", config, out, resume=False, console=QUIET)
    return out


def weights(policy: ConditionedPolicy, tmp_path: Path, name: str) -> dict[str, bytes]:
    policy.save(tmp_path / name)
    return {path.name: path.read_bytes() for path in sorted((tmp_path / name).rglob("*.safetensors"))}


@pytest.mark.integration
def test_a_name_brings_the_policy_that_bears_it(run: RunContext, training: Path, tmp_path: Path) -> None:
    folders = {
        "policy": run.stage("policy"),
        "last": run.stage("learn-1"),
        str(training): training / "stages" / "train",
    }
    for name, folder in folders.items():
        kept = ConditionedPolicy.load(folder / "policy", run.language_model)
        found = weights(agent_from(run, name).policy, tmp_path, f"found-{Path(name).name}")
        assert found and found == weights(kept, tmp_path, f"kept-{Path(name).name}")
    assert (
        len({json.dumps(hash_agent(run, name), sort_keys=True) for name in ("base", "last", str(training))})
        == 2
    )


@pytest.mark.integration
def test_every_agent_finds_items_by_the_retriever_that_it_was_trained_beside(
    run: RunContext, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    load = Gnolr.load

    def spy(folder: Path, **settings: Any) -> Gnolr:
        opened.append(folder.parent.name)
        return load(folder, **settings)

    after = learn(run, tmp_path / "after", "start=last")
    monkeypatch.setattr(Gnolr, "load", spy)
    for name in ("base", "policy", "last", str(training), str(after)):
        agent_from(run, name)
    assert opened == ["retrieval", "retrieval", "learn-1", "retrieval", "learn-1"]


@pytest.mark.integration
def test_dialogues_of_an_agent_that_was_trained_anew_are_not_gone_on_with(
    run: RunContext, training: Path, tmp_path: Path
) -> None:
    agent = shutil.copytree(training, tmp_path / "agent")
    told = [f"run={run.folder}", "users=random", "dialogues=2", f"agent={agent}"]
    config = load_settings(SimulateConfig, None, told)
    simulate(config, tmp_path / "out", console=QUIET)
    shutil.rmtree(agent)
    learn(run, agent, "seed=1")
    with pytest.raises(DialogueStoreError, match="must be of this run; got agent_files"):
        simulate(config, tmp_path / "out", console=QUIET)


@pytest.mark.integration
def test_dialogues_are_held_with_a_trained_agent_and_bear_its_name(
    run: RunContext, training: Path, tmp_path: Path
) -> None:
    def policies(out: Path, *settings: str) -> set[str]:
        told = [f"run={run.folder}", "users=random", "dialogues=3", *settings]
        simulate(load_settings(SimulateConfig, None, told), out, console=QUIET)
        lines = (out / "dialogues.jsonl").read_text(encoding="utf-8").splitlines()
        named = [json.loads(line)["policy"] for line in lines]
        assert pd.read_parquet(out / "dialogues.parquet")["policy"].tolist() == named
        return set(named)

    assert policies(tmp_path / "a", f"agent={training}") == {"taught"}
    assert policies(tmp_path / "b", "personal=false") == {"last-average"}
    assert policies(tmp_path / "c", "agent=base", "name=A") == {"A"}


@pytest.mark.integration
def test_a_training_may_begin_where_another_ended(run: RunContext, training: Path, tmp_path: Path) -> None:
    second = learn(run, tmp_path / "second", f"start={training}")
    assert agent_from(run, str(second)).policy is not None
    stages = [read_json(folder / "stages" / "train" / "retriever.json") for folder in (training, second)]
    assert stages == [{"stage": "retrieval"}, {"stage": "retrieval"}]
    began = read_json(second / MANIFEST)["data_hashes"]
    assert {name for name in began if name.startswith("start/")} == {
        f"start/{name}" for name in hash_agent(run, str(training))
    }


@pytest.mark.integration
def test_the_time_that_a_run_took_makes_no_other_run_of_it(
    run: RunContext, training: Path, tmp_path: Path
) -> None:
    again = open_run(Path(shutil.copytree(run.folder, tmp_path / "again")))
    write_json(again.stage("retrieval") / RECORD, {"seconds": 9.0, "peak_rss_mb": 99.0})
    assert hash_agent(again, str(training)) == hash_agent(run, str(training))


@pytest.mark.integration
@pytest.mark.parametrize("keep", [True, False])
def test_replies_keep_their_tokens_where_whole_dialogues_are_learned(keep: bool, run: RunContext) -> None:
    agent, card = agent_from(run, "base", keep_tokens=keep), run.world.catalogue.card(0)
    said = Utterance("Something calm?", "Something calm?")
    (reply,) = agent.word([agent.prompt(Dialogue(0), said, card)], [card], None, seeds=[1])
    assert (reply.tokens is not None) == keep


@pytest.mark.integration
def test_a_training_ends_well_though_its_start_has_moved(
    run: RunContext, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Path(shutil.copytree(training, tmp_path / "start"))
    train_ecpo = METHODS["ecpo"]

    def moving(lesson: Any) -> Any:
        start.rename(tmp_path / "elsewhere")
        return train_ecpo(lesson)

    monkeypatch.setitem(METHODS, "ecpo", moving)
    out = learn(run, tmp_path / "out", f"start={start}")
    assert (out / "stages" / "train" / "retriever.json").is_file()


@pytest.mark.integration
def test_an_opened_run_answers_with_the_agent_that_is_named(run: RunContext, training: Path) -> None:
    card = run.world.catalogue.card(0)
    answers = []
    for name in ("last", str(training)):
        trained = TrainedRun.open(run.folder, name)
        said = trained.pool.openings[0]
        replies = [
            trained.reply(Dialogue(-1), said, card, trained.condition({}), seed=seed) for seed in range(8)
        ]
        answers.append([own.text for own, _ in replies])
    assert answers[0] != answers[1]


@pytest.mark.parametrize("name", ["a\nb", "\udcff", " a", "x" * 101])
def test_what_an_agent_is_called_is_one_short_line(name: str) -> None:
    with pytest.raises(ConfigError, match=r"`name` must (fit its field|be printable)"):
        load_settings(SimulateConfig, None, ["run=x", f"name={name}"])


@pytest.mark.integration
def test_names_that_are_no_agents_are_refused(run: RunContext, training: Path, tmp_path: Path) -> None:
    for name in ("newest", "", "x" * 300):
        with pytest.raises(ConfigError, match=f"or the folder of a `persona train`; got {name},"):
            agent_from(run, name)
    stopped = shutil.copytree(training, tmp_path / "stopped")
    shutil.rmtree(stopped / "stages" / "train")
    with pytest.raises(
        StoreError, match=r"must be a finished training; got .*stopped without its stage `train`"
    ):
        agent_from(run, str(stopped))
    other = shutil.copytree(training, tmp_path / "other")
    manifest = read_json(other / MANIFEST)
    name = next(name for name in manifest["data_hashes"] if name.startswith("preferences/"))
    manifest["data_hashes"][name] = "0" * 64
    write_json(other / MANIFEST, manifest | {"data_hashes": []})
    with pytest.raises(StoreError, match=r"must be trained from the run that it is used with; got .*other"):
        agent_from(run, str(other))
    write_json(other / MANIFEST, manifest)
    with pytest.raises(StoreError, match=r"must be trained from the run that it is used with; got .*other"):
        agent_from(run, str(other))
    with pytest.raises(StoreError, match="without its stage `train`"):
        agent_from(run, str(run.folder))


@pytest.mark.integration
@pytest.mark.parametrize("saved", [[], {}, {"stage": ["retrieval"]}, {"stage": "../elsewhere"}])
def test_a_training_with_a_damaged_retriever_is_refused(
    saved: Any, run: RunContext, training: Path, tmp_path: Path
) -> None:
    damaged = shutil.copytree(training, tmp_path / "damaged")
    write_json(damaged / "stages" / "train" / "retriever.json", saved)
    with pytest.raises(
        StoreError, match=r"retriever\.json must name the stage .*, one of retrieval, learn-1; got"
    ):
        agent_from(run, str(damaged))
