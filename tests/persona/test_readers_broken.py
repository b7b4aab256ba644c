"""Files with anything broken anywhere: one sentence or a count, never a stack trace."""

import copy
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from persona.data.readers import ReadOptions, read_answers, read_preferences
from persona.errors import DataError
from tests.helpers.preference_files import (
    ROW,
    completion,
    helpsteer_row,
    hh_row,
    personal_llm_row,
    prism_conversation,
    prism_utterances,
    write_lines,
)

TALKS = [
    prism_conversation(i, f"u{i}", [("hi", [("a", 80), ("b", 30)]), ("sing", [("la", 55), ("lo", 50)])])
    for i in (0, 1)
]
MESSAGES = {
    "user_id": "bob",
    "prompt": [{"role": "user", "content": "p"}],
    "chosen": [{"role": "assistant", "content": "a"}],
    "rejected": [{"role": "assistant", "content": "b"}],
}
RICH = {
    **ROW,
    "tie": False,
    "chosen_score": 3,
    "rejected_score": 2,
    "scores": {"warm": [1, 2]},
    "strength": 1,
}
FILES: dict[str, list[dict[str, Any]]] = {
    "pairs": [ROW, RICH, MESSAGES],
    "HH-RLHF": [hh_row("a", "b", "c"), hh_row("a", "d", "c")],
    "UltraFeedback": [
        {"instruction": f"q{i}", "completions": [completion("a", "1234"), completion("b", "4311")]}
        for i in (0, 1)
    ],
    "HelpSteer": [helpsteer_row("p", text, "12340") for text in "abcd"],
    "HelpSteer2 preferences": [
        {"prompt": "p", "response_1": "a", "response_2": text, "preference_strength": 1} for text in "bc"
    ],
    "PRISM": TALKS,
    "PRISM utterances": prism_utterances(TALKS),
    "PersonalLLM": [personal_llm_row(f"p{i}", [(i, 1.0), (2.0, i), (0.5, 0.5)]) for i in (0, 1, 2)],
    "answers": [{"prompt": "p", "responses": {"m": "a", "n": "b"}}, {"prompt": "q", "responses": {"m": "c"}}],
}
JUNK: list[Any] = [
    None, float("nan"), float("inf"), "", " ", "x", "\ud800", 3, -1.5, 1e30, 10**400, True,
    [], {}, [1], [None], [[]], [{}], {"a": 1}, {"role": "user"},
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in nested rows."""
    if path:
        yield path
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield from places(child, (*path, key))


def broken(rows: list[dict[str, Any]], rng: np.random.Generator) -> list[Any]:
    """Rows with something in one to three places replaced by junk, or gone."""
    changed: Any = copy.deepcopy(rows)
    for _ in range(rng.integers(1, 4)):
        found = list(places(changed))
        *path, last = found[rng.integers(len(found))]
        parent = changed
        for key in path:
            parent = parent[key]
        junk = int(rng.integers(len(JUNK) + 1))
        if junk == len(JUNK) and len(changed) > 1:
            del parent[last]
        else:
            parent[last] = copy.deepcopy(JUNK[junk % len(JUNK)])
    return list(changed)


@pytest.mark.integration
@pytest.mark.parametrize("layout", FILES)
def test_junk_in_any_cell_is_counted_or_named(tmp_path: Path, layout: str) -> None:
    def read(path: Path) -> Any:
        options = ReadOptions(simulated_users=3, simulated_comparisons=5)
        return read_answers(path) if layout == "answers" else read_preferences(path, options=options)

    rng = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(40):
        path = write_lines(tmp_path / "a.jsonl", broken(FILES[layout], rng))
        try:
            read(path)
        except DataError as err:
            assert str(err).endswith(".")
            assert "\n" not in str(err)
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
    assert outcomes["read"] > 0


@pytest.mark.integration
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz"])
def test_flipped_bytes_are_named(tmp_path: Path, name: str) -> None:
    rows = [{**ROW, "user_id": f"u{i}", "chosen": f"yes, {i}"} for i in range(20)]
    path, frame = tmp_path / name, pd.DataFrame(rows)
    if name == "a.parquet":
        frame.to_parquet(path)
    elif name in ("a.csv", "a.tsv"):
        frame.to_csv(path, index=False, sep="," if name == "a.csv" else "\t")
    else:
        text = (json.dumps(rows) if name == "a.json" else "\n".join(map(json.dumps, rows))).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(40):
        content = bytearray(whole[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else whole)
        for place in rng.integers(len(content), size=rng.integers(0, 4)):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            read_preferences(path)
        except DataError as err:
            assert str(err).endswith(".")
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
    assert min(outcomes.values()) > 0


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv.gz"])
@pytest.mark.parametrize(("content", "got"), [(b"", "an empty file"), (b"\n \n\n", "blank lines alone")])
def test_a_file_without_anything_in_it_is_told_in_one_sentence(
    name: str, content: bytes, got: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(
        DataError, match=f"`{name}` must hold at least one row; got {got}. Give a file with rows."
    ):
        read_preferences(tmp_path / name)
