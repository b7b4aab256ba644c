import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from app import pretrain as command
from app.errors import StoreError
from persona.errors import DataError
from persona.policy.tokenizer import train_tokenizer
from persona.recipes.pretrain import PretrainConfig

Calls = list[tuple[PretrainConfig, dict[str, Any]]]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the recipe was called with, in place of training."""
    calls: Calls = []

    def record(config: PretrainConfig, *_: object, **options: Any) -> None:
        calls.append((config, options))

    def fit(dialogues: list[list[dict[str, str]]], seed: int) -> PreTrainedTokenizerFast:
        return train_tokenizer(
            [m["content"] for d in dialogues for m in d], vocab_size=300, slots=["<title>"]
        )

    monkeypatch.setattr(command, "pretrain", record)
    monkeypatch.setattr(command, "_fit_tokenizer", fit)
    return calls


def write_dialogues(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [json.dumps({"turns": [f"number {i}?", f"It is {i}."]}) for i in range(count)]
    (folder / "talk.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_few_dialogues_are_enough_with_one_held_out(tmp_path: Path, trainings: Calls) -> None:
    command.main(write_dialogues(tmp_path / "d", 2), tmp_path / "out")
    held_out = trainings[0][1]["held_out"]
    assert held_out["dialogues"].shape == held_out["film"].shape == (64, 256)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_dialogues_are_refused(tmp_path: Path, count: int) -> None:
    dialogues = write_dialogues(tmp_path / "d", count)
    with pytest.raises(DataError, match=rf"at least 2 dialogues, .*; got {count}\. Add dialogues"):
        command.main(dialogues, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(StoreError, match=r"--out must be a folder; got .*out, which is a file"):
        command.main(tmp_path, tmp_path / "out")


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"can be written; got .*out \(Not a directory\)\. Choose another"):
        command.main(write_dialogues(tmp_path / "d", 2), tmp_path / "file" / "out")


@pytest.mark.usefixtures("trainings")
def test_disk_that_fills_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "pretrain", fill)
    with pytest.raises(StoreError, match=r"can be written; got .*out \(No space left on device\)"):
        command.main(write_dialogues(tmp_path / "d", 2), tmp_path / "out")


@pytest.mark.parametrize("resume", [False, True])
def test_folder_of_something_else_is_refused_untouched(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StoreError, match=r"must be empty or hold a training; got .* with thesis\.tex in it"):
        command.main(tmp_path, tmp_path, resume=resume)
    assert listing(tmp_path) == ["thesis.tex"]


def test_settings_of_the_first_start_are_kept_and_met(tmp_path: Path, trainings: Calls) -> None:
    dialogues, out = write_dialogues(tmp_path / "d", 2), tmp_path / "out"
    command.main(dialogues, out, tokens=11_000_000, resume=True)
    before = (out / "settings.json").read_bytes()
    assert json.loads(before) == PretrainConfig(tokens=11_000_000).model_dump()
    with pytest.raises(StoreError, match=r"must not hold a training yet; got .*out, .* Pass --resume"):
        command.main(dialogues, out)
    with pytest.raises(StoreError, match=r"same settings, .*; got .* with seed 0 there and 3 now\. Give"):
        command.main(dialogues, out, seed=3, resume=True)
    command.main(dialogues, out, tokens=8_400_000, resume=True)
    assert [config.tokens for config, _ in trainings] == [11_000_000, 8_400_000]
    assert (out / "settings.json").read_bytes() == before
