"""Reading dialogue collections."""

import gzip
import json
from pathlib import Path

import pytest

from persona.data.dialogues import read_dialogues
from persona.errors import DataError


def test_every_layout_becomes_a_conversation(tmp_path: Path) -> None:
    rows = [
        {"turns": ["hello", "hi there"]},
        {"turns": [{"agent": "a", "message": "one"}, {"agent": "b", "message": "two"}]},
        {"messages": [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "answer"}]},
        {"conversation": ["User 1: me", "User 2: you"]},
        {"turns": ["alone"]},
    ]
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    found = list(read_dialogues(tmp_path))
    assert [[m["content"] for m in dialogue] for dialogue in found] == [
        ["hello", "hi there"],
        ["one", "two"],
        ["ask", "answer"],
        ["me", "you"],
    ]
    assert [m["role"] for m in found[0]] == ["user", "assistant"]


@pytest.mark.parametrize("line", ["not json", '{"text": "x"}', '{"turns": [3]}', "[1]"])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "bad.jsonl").write_text('{"turns": ["a", "b"]}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"bad\.jsonl, line 2"):
        list(read_dialogues(tmp_path))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must hold dialogues"):
        list(read_dialogues(tmp_path))


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b'{"turns": ["a", "\xff"]}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl must be UTF-8"):
        list(read_dialogues(tmp_path))
