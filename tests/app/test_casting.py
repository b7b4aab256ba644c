"""Every kind of simulated user behind an endpoint, from the configuration to the audit: resumed, capped, refused."""

import json
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from rich.console import Console

from app.audit import audit
from app.audit_config import AuditConfig
from app.casting import users_of
from app.chat_config import UserKind
from app.config import load_settings
from app.errors import ConfigError
from app.rehearsing import Guests, invite_learners, invite_unseen, with_targets
from app.simulate import simulate
from app.simulate_config import SimulateConfig
from app.train import train
from app.train_config import TrainConfig
from app.trained import open_run
from persona.data.comparisons import ComparisonTable
from persona.policy.language_model import nano_folder
from recsys.columns import ITEM, LEVEL, USER
from simulators.chat.model import LocalChat
from simulators.dialogue_store import read_table
from simulators.errors import EndpointError, MissingDependency
from simulators.mirror import Manners
from simulators.types import StopReason
from simulators.users.told_personas import read_told
from tests.helpers.faulty_server import Fault, FaultyServer
from tests.helpers.rehearsed_run import acted, rehearsed_run

QUIET = Console(quiet=True)
KINDS = [kind for kind in get_args(UserKind) if kind not in {"viewers", "learned"}]
CHANCES = {Fault.DROP: 0.05, Fault.RATE_LIMIT: 0.05, Fault.ERROR: 0.05, Fault.BROKEN_JSON: 0.05}
KEY = "not-to-be-written-anywhere"


@pytest.fixture(name="finished", scope="module")
def a_finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rehearsed_run(tmp_path_factory.getbasetemp())


def asked(finished: Path, server: FaultyServer, *more: str) -> SimulateConfig:
    chat = f"chat=actor@{server.url}"
    return load_settings(SimulateConfig, None, [f"run={finished}", chat, "dialogues=6", "block=4", *more])


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
def test_users_of_every_kind_talk_over_an_endpoint_and_go_on_at_another_address(
    kind: str, finished: Path, tmp_path: Path
) -> None:
    with FaultyServer(acted, seed=1, chances=CHANCES, key=KEY) as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SOME_KEY", KEY)
            config = asked(finished, server, f"users={kind}", "key_variable=SOME_KEY")
            path = simulate(config, tmp_path / "whole", console=QUIET)
        simulated = read_table(tmp_path / "whole" / "dialogues.parquet")
    written = b"".join(p.read_bytes() for p in (tmp_path / "whole").rglob("*") if p.is_file())
    assert KEY.encode() not in written and server.url.encode() not in written
    summary = json.loads(path.read_text())
    assert summary["dialogues"] == len(simulated) == 6 == sum(summary["stops"].values())
    assert StopReason.MODEL_FAILED not in summary["stops"] and np.isfinite(summary["utility"]["value"])

    (tmp_path / "cut").mkdir()
    for name in ("dialogues.jsonl", "run.json"):
        (tmp_path / "cut" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    lines = (tmp_path / "cut" / "dialogues.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "cut" / "dialogues.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:30])
    with FaultyServer(acted) as server:
        simulate(asked(finished, server, f"users={kind}"), tmp_path / "cut", console=QUIET)
        assert server.url not in (tmp_path / "cut" / "run.json").read_text()
    assert read_table(tmp_path / "cut" / "dialogues.parquet") == simulated
    for name in ("summary.json", "personas.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    told = read_told(tmp_path / "whole" / "personas.jsonl")
    assert list(told) == [dialogue.user for dialogue in simulated]
    for persona in told.values():
        assert len(persona.targets) == (kind == "target-holding")
        assert bool(persona.likes) == (kind != "target-holding")
        assert not persona.dislikes or kind not in {"target-holding", "random", "over-agreeable"}


@pytest.mark.integration
def test_an_audit_takes_the_dialogues_of_prompted_users_in_both_forms(finished: Path, tmp_path: Path) -> None:
    with FaultyServer(acted, hopeless=0.1) as server:
        for kind in ("ailo", "persona-prompt"):
            config = asked(finished, server, f"users={kind}", "dialogues=12", "tries=1")
            simulate(config, tmp_path / kind, console=QUIET)
    ailo, other = tmp_path / "ailo" / "dialogues.jsonl", tmp_path / "persona-prompt" / "dialogues.parquet"
    report = audit(AuditConfig(simulated=(str(ailo),), log=(str(other),)), tmp_path / "audit", console=QUIET)
    assert {"levels", "sessions", "errors", "satisfaction"} <= report.keys() and report["verdicts"]
    assert report["counts"]["simulated"]["dialogues"] == report["counts"]["real"]["dialogues"] == 12


@pytest.mark.integration
def test_learned_users_hear_of_unseen_users_choices_where_these_are_invited(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked_of = open_run(finished), []
    fit = Manners.fit

    def spy(table: ComparisonTable, *args: Any, **settings: Any) -> Manners:
        asked_of.append(set(table.users.tolist()))
        return fit(table, *args, **settings)

    monkeypatch.setattr(Manners, "fit", spy)
    learners, unseen = set(run.groups.learners.tolist()), set(run.groups.unseen.tolist())
    for invite in (invite_learners, invite_unseen):
        users_of(run, "learned", invite(run, 6, seed=0), LocalChat(run.language_model))
    assert asked_of[0] <= learners and asked_of[1] == asked_of[0] | unseen


@pytest.mark.integration
def test_a_spent_budget_ends_the_simulation_and_a_larger_one_pays_for_the_rest_alone(
    finished: Path, tmp_path: Path
) -> None:
    with FaultyServer(acted) as server:
        simulate(asked(finished, server, "users=ailo"), tmp_path / "whole", console=QUIET)
        paid = server.counts()["requests"]
    with FaultyServer(acted) as server:
        with pytest.raises(EndpointError, match=r"the budget of 9 requests is spent; raise `max_requests`"):
            simulate(
                asked(finished, server, "users=ailo", "max_requests=9"), tmp_path / "capped", console=QUIET
            )
        assert not (tmp_path / "capped" / "summary.json").exists() and server.counts()["requests"] == 9
        simulate(asked(finished, server, "users=ailo", "max_requests=99"), tmp_path / "capped", console=QUIET)
        assert server.counts()["requests"] == paid > 9
    assert read_table(tmp_path / "capped" / "dialogues.parquet") == read_table(
        tmp_path / "whole" / "dialogues.parquet"
    )


@pytest.mark.integration
def test_an_endpoint_that_never_answers_is_told_and_lone_failures_are_marked(
    finished: Path, tmp_path: Path
) -> None:
    with FaultyServer(acted) as server:
        config = asked(finished, server, "users=persona-prompt", "tries=1")
    with pytest.raises(EndpointError, match=r"its last 4 answers failed, .* the connection failed"):
        simulate(config, tmp_path / "dead", console=QUIET)
    with FaultyServer(acted, hopeless=0.3, seed=4) as server:
        config = asked(finished, server, "users=persona-prompt", "tries=1", "dialogues=12")
        summary = json.loads(simulate(config, tmp_path / "marked", console=QUIET).read_text())
    failed = summary["stops"]["model_failed"]
    assert 0 < failed < 12 and summary["failures"] == {
        "the one attempt failed because it answered 500 (this one never works)": failed
    }


@pytest.mark.integration
def test_a_key_that_is_not_there_and_a_missing_package_are_told(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyServer(acted, key=KEY) as server:
        with pytest.raises(EndpointError, match=r"variable `NO_KEY_HERE` must hold the key"):
            config = asked(finished, server, "users=ailo", "key_variable=NO_KEY_HERE")
            simulate(config, tmp_path / "unset", console=QUIET)
        monkeypatch.setitem(sys.modules, "openai", None)
        with pytest.raises(MissingDependency, match=r"pip install 'persona\[llm\]'"):
            simulate(asked(finished, server), tmp_path / "lacking", console=QUIET)


@pytest.mark.integration
def test_a_folder_of_a_language_model_speaks_and_a_small_one_fails_as_a_persona(
    finished: Path, tmp_path: Path
) -> None:
    given = [f"run={finished}", f"chat={nano_folder()}", "dialogues=3"]
    by_rule = load_settings(SimulateConfig, None, [*given, "users=over-agreeable"])
    summary = json.loads(simulate(by_rule, tmp_path / "rule", console=QUIET).read_text())
    assert "model_failed" not in summary["stops"] and summary["satisfaction"]["value"] >= 4
    assert any("model.safetensors" in name for name in json.loads(
        (tmp_path / "rule" / "run.json").read_text())["chat_files"])  # fmt: skip
    acting = load_settings(SimulateConfig, None, [*given, "users=ailo", "chat=local"])
    summary = json.loads(simulate(acting, tmp_path / "acting", console=QUIET).read_text())
    assert summary["stops"] == {"model_failed": 3} and "JSON" in next(iter(summary["failures"]))


@pytest.mark.integration
@pytest.mark.parametrize("gate", ["judge", "both"])
def test_ecpo_takes_prompted_users_a_language_model_as_judge_and_one_as_rewriter(
    gate: str, finished: Path, tmp_path: Path
) -> None:
    with FaultyServer(acted) as server:
        model = f"actor@{server.url}"
        config = load_settings(
            TrainConfig,
            None,
            f"run={finished} users=ailo chat={model} judges=persona-prompt judges_chat={model} gate={gate} "
            f"gate_chat=critic@{server.url} gate_votes=2 gate_own_answer=1 "
            f"rewriter={model} learners=6 judging=4 plan_steps=1 epochs=0.01 pairs_per_step=2 "
            "threshold=5 candidates=1 replay=4".split(),
        )
        own = config.model_copy(update={"gate_chat": model})
        with pytest.raises(ConfigError, match="`gate_chat` must be another model than rewrites"):
            train("ecpo", own, tmp_path / "own", resume=False, console=QUIET)
        capped = config.model_copy(update={"max_requests": 5})
        with pytest.raises(EndpointError, match="the budget of 5 requests is spent"):
            train("ecpo", capped, tmp_path / "out", resume=False, console=QUIET)
        path = train("ecpo", config, tmp_path / "out", resume=True, console=QUIET)
        assert server.counts()["answered_again"] == 0
        report, paid = json.loads(path.read_text()), server.counts()["requests"]
        train("ecpo", config, tmp_path / "out", resume=True, console=QUIET)
        assert server.counts()["requests"] == paid
    figures = report["rounds"][0]
    assert 0 <= figures["accepted"] <= figures["short"] and (gate == "both" or figures["accepted"] > 0)
    assert all(np.isfinite(row["gain"]["value"]) for row in report["judges"].values())
    assert report["gate_bias"] is None or 0 <= report["gate_bias"]["first_share"] <= 1
    assert gate == "both" or report["gate_bias"]["pairs"] > 1
    assert server.url not in (tmp_path / "out" / "manifest.json").read_text()


@pytest.mark.integration
def test_targets_are_the_deepest_items_and_the_agent_does_not_know_them(finished: Path) -> None:
    run = open_run(finished, "choices", "policy")
    guests = invite_learners(run, 8, seed=0)
    held = with_targets(run, guests, seed=1)
    assert held.targets is not None
    log = run.world.log
    for row, (user, item) in enumerate(zip(held.users.tolist(), held.targets, strict=True)):
        own = log[log[USER] == user]
        assert own.loc[own[ITEM] == item, LEVEL].max() == own[LEVEL].max()
        assert held.histories[[row]].toarray()[0, item] == 0 < guests.histories[[row]].toarray()[0, item]
    assert held.histories.nnz == guests.histories.nnz - 8
    assert (
        with_targets(run, guests, seed=1).targets == held.targets != with_targets(run, guests, seed=2).targets
    )


@pytest.mark.integration
def test_ailo_users_may_be_satisfied_by_expression_alone(finished: Path) -> None:
    run = open_run(finished, "choices", "policy")
    guests = invite_learners(run, 4, seed=0)
    for told, scores in (
        ("mean", ("recommendation", "action", "expression")),
        ("expression", ("expression",)),
    ):
        cast: Any = users_of(run, "ailo-five-calls", guests, run.chat, ailo_satisfaction=told)
        assert cast._config.satisfaction_from == scores


@pytest.mark.integration
def test_true_personas_are_those_of_the_film_world_alone(finished: Path) -> None:
    run = open_run(finished, "choices", "policy")
    guests = invite_learners(run, 8, seed=0)
    people: list[Any] = [users_of(run, "ailo", guests, run.chat, personas=p) for p in ("true", "observed")]
    true, observed = (person._persona_of for person in people)
    assert true.keys() == observed.keys() == set(guests.users.tolist()) and true != observed
    oracle: Any = run.world.oracle
    assert [true[u].patience for u in guests.users.tolist()] == oracle.patience(guests.users).tolist()
    run.config = run.config.model_copy(update={"catalogue": "ml-100k"})
    with pytest.raises(ConfigError, match=r"must meet the film world, .* got a run of ml-100k"):
        users_of(run, "ailo", Guests(*guests), run.chat, personas="true")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("chat=http://127.0.0.1/v1", r"`chat` must fit .* MODEL@URL, such as .*; got something else on"),
        ("chat=m@http://me:secret@host/v1", r"must hold no user and password"),
        ("key_variable=sk-secret", r"`key_variable` must fit its field .*pattern.*; got something else on"),
        (
            "judges_chat=n@http://two.example/v1",
            r"several servers are named; got one for one\.example:80, two",
        ),
        ("users=robots", r"`users` must fit its field .*'over-agreeable'.*; got 'robots'"),
        ("tries=0", r"`tries` must fit its field .*greater than or equal to 1.*; got '0'"),
    ],
)
def test_bad_fields_are_told_without_secrets(setting: str, says: str) -> None:
    given = ["run=x", setting]
    if setting.startswith("judges_chat"):
        given += ["chat=m@http://one.example/v1", "key_variable=K"]
    with pytest.raises(ConfigError, match=says) as told:
        load_settings(TrainConfig, None, given)
    assert "secret" not in str(told.value)


def test_each_host_is_sent_its_own_key() -> None:
    chats = "chat=m@http://One.example/v1 judges_chat=n@https://two.example:8443/v1".split()
    for keys, found in (
        ("one.example=A,two.example=B", ["A", "B"]),
        ("TWO.example.=B", [None, "B"]),
        ("two.example:8443=B,one.example:80=A", ["A", "B"]),
        ("one.example=A,one.example:80=C", ["C", None]),
    ):
        config = load_settings(TrainConfig, None, ["run=x", *chats, f"key_variable={keys}"])
        urls = ("http://One.example/v1", "https://two.example:8443/v1")
        assert [config.key_variable_of(url) for url in urls] == found
    alone = load_settings(TrainConfig, None, ["run=x", chats[0], "key_variable=A"])
    assert alone.key_variable_of("http://one.example/v1") == "A"
    local = "chat=m@http://[::1]:8000/v1 gate_chat=n@http://[::1]:8001/v1 key_variable=[::1]:8001=K".split()
    config = load_settings(TrainConfig, None, ["run=x", *local])
    assert config.key_variable_of("http://[::1]:8001/v1") == "K"
    assert config.key_variable_of("http://[::1]:8000/v1") is None


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (
            "three.example=K",
            r"must name servers that are asked; got three\.example, and one\.example:80 are asked",
        ),
        ("one.example:81=K", "Correct the host, or the port"),
        ("one.example=K,ONE.example=L", "must name each server once; got ONE.example twice"),
    ],
)
def test_keys_of_servers_that_are_not_asked_are_refused(keys: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_settings(TrainConfig, None, ["run=x", "chat=m@http://one.example/v1", f"key_variable={keys}"])


def test_what_changes_no_answer_is_not_written_down() -> None:
    settings = "run=x chat=m@http://127.0.0.1:1/v1 key_variable=K concurrency=3 timeout_s=9 tries=2".split()
    more = "max_requests=5 max_tokens=7 answers=kept.sqlite".split()
    one = load_settings(SimulateConfig, None, [*settings, *more])
    other = load_settings(SimulateConfig, None, ["run=x", "chat=m@http://another/v1"])
    assert one != other and one.model_dump(mode="json") == other.model_dump(mode="json")
    assert one.model_dump()["chat"] == "m@endpoint" and one.max_requests == 5
