import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.fit_config import FitConfig
from app.whois import Ask
from tests.helpers.choices_file import choices, write_choices

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stderr


def test_fit_gets_its_configuration_and_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Calls = []
    monkeypatch.setattr("app.fit.fit", lambda *args, **kwargs: calls.append((args, kwargs)))
    options = "--methods vpl,pooled --features surface,relation --seeds 4 --context 0,8 --test-users 0.3 --device cpu"
    options += " --steps 9 --model m --group-near-duplicates"
    assert call("fit", "c.jsonl", "--out", "here", "--resume", *options.split()) == (0, "")
    (config, out), given = calls[0]
    assert config == FitConfig(
        data="c.jsonl", methods=("vpl", "pooled"), features=("surface", "relation"), seeds=(4,), context=(0, 8),
        test_users=0.3, device="cpu", steps=9, model="m",
        group_near_duplicates=True,
    )  # fmt: skip
    assert (out, given["resume"]) == (Path("here"), True)


def test_whois_gets_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Calls = []
    monkeypatch.setattr("app.whois.tell_user", lambda *args, **kwargs: calls.append((args, kwargs)))
    options = "--comparisons c.jsonl --user u --method vpl --questions q.jsonl --json"
    assert call("whois", "dir", *options.split()) == (0, "")
    assert calls[0][0] == (Path("dir"), Ask(Path("c.jsonl"), "u", "vpl", Path("q.jsonl"), True))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "at least one row; got none"),
        ([{"prompt": "p", "chosen": "a", "rejected": "b"}], "lacks user_id"),
        (choices(users=1, comparisons=5), "at least 8 users"),
    ],
)
def test_bad_data_end_with_one_line_and_code_2(rows: list[dict[str, Any]], says: str, tmp_path: Path) -> None:
    data = write_choices(tmp_path / "c.jsonl", rows)
    if not rows:
        data.write_text("")
    code, error = call("fit", str(data), "--out", str(tmp_path / "out"))
    assert (code, error.count("\n")) == (2, 1) and says in error
    assert not (tmp_path / "out").exists()


def test_bad_options_are_told_before_any_work() -> None:
    code, error = call("fit", "c.jsonl", "--out", "o", "--context", "8,0")
    assert (code, error.count("\n")) == (2, 1) and "`context` must ascend; got 8, 0" in error


@pytest.mark.integration
def test_from_a_file_to_a_user_on_the_command_line(tmp_path: Path) -> None:
    data = write_choices(tmp_path / "c.jsonl", users=12, comparisons=16)
    options = "--methods hierarchical --seeds 0 --context 0,4 --device cpu"
    assert call("fit", str(data), "--out", str(tmp_path / "out"), *options.split()) == (0, "")
    asked = ["whois", str(tmp_path / "out"), "--comparisons", str(data), "--user", "u3", "--json"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["user"] == "u3"
    code, error = call("whois", str(tmp_path / "out"), "--comparisons", str(data), "--user", "u33")
    assert code == 2 and "got 'u33'. Did you mean 'u3'?" in error
