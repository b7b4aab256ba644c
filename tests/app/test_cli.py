import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.config import RunConfig
from app.errors import StoreError
from app.evaluation_config import EvaluationConfig
from app.recommend import Wish
from app.terminal import PlainConsole
from persona import __version__
from persona.errors import ModelError
from recsys.errors import InteractionError
from simulators.errors import CatalogueError

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Calls]:
    """Puts a recording function in the place of a command's work; `error` is raised by it."""

    def plant(module: str, function: str, error: Exception | None = None) -> Calls:
        calls: Calls = []

        def record(*args: Any, **kwargs: Any) -> None:
            calls.append((args, kwargs))
            if error is not None:
                raise error

        planted = ModuleType(module)
        setattr(planted, function, record)
        monkeypatch.setitem(sys.modules, module, planted)
        return calls

    return plant


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stderr


def test_run_gets_its_configuration_and_folder(stand_in: Callable[..., Calls], tmp_path: Path) -> None:
    calls = stand_in("app.run", "run_pipeline")
    (tmp_path / "my.toml").write_text("turns = 3", encoding="utf-8")
    assert call("run", str(tmp_path / "my.toml"), "seed=4", "--out", "here", "--resume") == (0, "")
    (config,), options = calls[0]
    assert config == RunConfig(turns=3, seed=4)
    assert (options["out"], options["resume"]) == (Path("here"), True)


@pytest.mark.parametrize(
    ("setting", "folder"),
    [("seed=4", "film-world-seed4"), ("catalogue=data/ml-100k/", "ml-100k-seed0")],
)
def test_default_folder_names_catalogue_and_seed(
    stand_in: Callable[..., Calls], setting: str, folder: str
) -> None:
    calls = stand_in("app.run", "run_pipeline")
    assert call("run", setting)[0] == 0
    assert calls[0][1]["out"] == Path("runs", folder)


def test_options_reach_the_other_commands(stand_in: Callable[..., Calls]) -> None:
    trained, talked = stand_in("app.pretrain", "main"), stand_in("app.chat", "chat")
    reported, launched = stand_in("app.report", "write_report"), stand_in("app.demo.server", "launch")
    assert call("pretrain", "--dialogues", "d", "--out", "o", "--minutes", "2.5", "--seed", "3")[0] == 0
    assert (
        call("chat", "--run", "r")[0]
        == call("report", "r")[0]
        == call("demo", "--port", "0", "--agent", "t")[0]
        == 0
    )
    options = {"minutes": 2.5, "tokens": None, "seed": 3, "resume": False}
    assert trained == [((Path("d"), Path("o")), options)]
    assert talked[0][0] == (Path("r"),) and talked[0][1]["agent"] == "last"
    assert reported[0][0] == (Path("r"),)
    assert launched == [((None,), {"host": "127.0.0.1", "port": 0, "agent": "t"})]


def test_evaluate_gets_its_configuration_and_folder(stand_in: Callable[..., Calls]) -> None:
    calls = stand_in("app.evaluate", "evaluate")
    options = (
        "--models popularity,ease --split random --levels 1,3 --relevant 2 --k 5,10 --tune 4 --seeds 0,1 "
    )
    options += "--columns user_id=visitor --core 5 --allow-leaks --device cpu --out here --resume"
    assert call("evaluate", "log.csv", *options.split()) == (0, "")
    (config, folder), given = calls[0]
    assert config == EvaluationConfig(
        data="log.csv", models=("popularity", "ease"), split="random", levels=("1", "3"), relevant="2", k=(5, 10),
        tune=4, seeds=(0, 1), columns={"user_id": "visitor"}, core=5, allow_leaks=True, device="cpu",
    )  # fmt: skip
    assert (folder, given["resume"]) == (Path("here"), True)


def test_bad_options_of_an_evaluation_are_told_in_one_line() -> None:
    code, error = call("evaluate", "log.csv", "--out", "here", "--split", "sideways")
    assert code == 2
    assert "got 'sideways'" in error and error.count("\n") == 1
    assert "got 'ten'" in call("evaluate", "log.csv", "--out", "here", "--k", "ten")[1]


def test_recommend_gets_users_from_the_line_and_from_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: Calls = []
    monkeypatch.setattr("app.recommend.recommend", lambda *args, **kwargs: calls.append((args, kwargs)))
    (tmp_path / "ids").write_text("c\nd\n", encoding="utf-8")
    options = (
        f"--users a,b --users-file {tmp_path / 'ids'} --items x --k 3 --include-seen --level 2 --out o.csv"
    )
    assert call("recommend", "dir", *options.split()) == (0, "")
    assert call("recommend", "dir", "--users", "a", "--strangers", "kind")[0] == 2
    (folder, wish), given = calls[0]
    assert (folder, given["out"]) == (Path("dir"), Path("o.csv"))
    assert type(given["console"]) is PlainConsole
    assert wish == Wish(("a", "b", "c", "d"), ("x",), 3, False, "2")


def test_ope_gets_its_options(stand_in: Callable[..., Calls]) -> None:
    calls = stand_in("app.ope", "evaluate_log")
    options = (
        "--policy uniform --out o --seed 3 --estimator dr --estimator ips --level dros=10 --cluster user"
    )
    assert call("ope", "log.csv", *options.split(), "--actions", "9", "--fit-share", "0.4") == (0, "")
    args, given = calls[0]
    given.pop("console")
    assert args == (Path("log.csv"),)
    assert given == {
        "policy": "uniform", "out": Path("o"), "seed": 3, "estimators": ["dr", "ips"], "levels": {"dros": 10.0},
        "cluster": "user", "n_actions": 9, "fit_share": 0.4,
    }  # fmt: skip
    code, error = call("ope", "log.csv", "--policy", "uniform", "--level", "dros")
    assert (code, "must read NAME=NUMBER; got dros" in error) == (2, True)


@pytest.mark.parametrize(
    "error",
    [StoreError("a\nb"), ModelError("a b"), InteractionError("a  b"), CatalogueError("a b")],
    ids=lambda error: type(error).__name__,
)
def test_error_raised_on_purpose_is_one_line_and_exit_code_2(
    stand_in: Callable[..., Calls], error: Exception
) -> None:
    stand_in("app.report", "write_report", error)
    assert call("report", "r") == (2, "persona: a b\n")


def test_an_error_that_quotes_the_data_controls_no_terminal(stand_in: Callable[..., Calls]) -> None:
    stand_in("app.report", "write_report", StoreError("got \x1b[2Jid\x9b"))
    assert call("report", "r") == (2, "persona: got [2Jid\n")


@pytest.mark.parametrize(
    ("module", "function", "arguments"),
    [
        ("app.run", "run_pipeline", "run"),
        ("app.chat", "chat", "chat --run r"),
        ("app.report", "write_report", "report r"),
        ("app.evaluate", "evaluate", "evaluate log.csv --out o"),
        ("app.ope", "evaluate_log", "ope log.csv --policy uniform"),
        ("app.fit", "fit", "fit data.csv --out o"),
        ("app.whois", "tell_user", "whois d --comparisons c.csv"),
    ],
)
def test_what_prints_words_of_the_data_gets_a_console_that_keeps_them_plain(
    stand_in: Callable[..., Calls],
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    function: str,
    arguments: str,
) -> None:
    calls = stand_in(module, function)
    monkeypatch.setattr(sys.modules[module], "Ask", lambda *told: told, raising=False)
    assert call(*arguments.split()) == (0, "")
    assert type(calls[0][1]["console"]) is PlainConsole


def test_a_warning_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: Any, **__: Any) -> None:
        warnings.warn("the endpoint refuses\na schema", stacklevel=1)

    planted = ModuleType("app.run")
    planted.run_pipeline = work  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "app.run", planted)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert CliRunner().invoke(app, ["run"]).stderr == "persona: the endpoint refuses a schema\n"
    with pytest.warns(UserWarning, match="refuses"):
        CliRunner().invoke(app, ["--debug", "run"])


def test_debug_lets_the_error_through(stand_in: Callable[..., Calls]) -> None:
    stand_in("app.report", "write_report", StoreError("a b"))
    result = CliRunner().invoke(app, ["--debug", "report", "r"])
    assert isinstance(result.exception, StoreError)


def test_a_fault_of_the_program_is_not_hidden(stand_in: Callable[..., Calls]) -> None:
    stand_in("app.report", "write_report", RuntimeError("a bug"))
    assert isinstance(CliRunner().invoke(app, ["report", "r"]).exception, RuntimeError)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a.toml", "b.toml"], "at most one CONFIG.toml, and key=value; got a.toml, b.toml."),
        (["users"], "at most one CONFIG.toml, and key=value; got users."),
        (["usrs=3"], "got `usrs` on the command line. Did you mean `users`?"),
        (["absent.toml"], "readable TOML file; got absent.toml"),
    ],
)
def test_bad_settings_are_told_in_one_line(arguments: list[str], says: str) -> None:
    code, error = call("run", *arguments)
    assert code == 2
    assert says in error and error.count("\n") == 1


def test_version_is_that_of_the_package() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == __version__
