"""Dialogues on disk: cut off anywhere, a rollout ends in the same files, with none lost and none doubled."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recsys.types import Histories, histories_from_log
from simulators.dialogue_store import IDENTITY, LINES, TABLE, DialogueStore, read_table, recorded_rollout
from simulators.errors import DialogueStoreError
from simulators.rollout import rollout
from simulators.types import Dialogue, GeneratedTokens, StopReason, Utterance
from tests.helpers.talking import talking_world

ROOT = Path(__file__).parents[2]
WORLD, AGENT, VIEWERS = talking_world()
USERS = [7, 3, 40, 12, 25, 0, 59, 31, 18, 44, 2]
BLOCK = 4


def histories() -> Histories:
    return histories_from_log(WORLD.log, USERS, len(WORLD.catalogue))


def record(folder: Path) -> Path:
    with DialogueStore(folder, identity={"agent": "popularity"}) as store:
        return recorded_rollout(
            store, USERS, AGENT, VIEWERS, histories=histories(), condition=None, seed=3, block=BLOCK
        )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a rollout that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    record(folder)
    return folder


def test_holds_the_dialogues_of_a_plain_rollout_in_order(whole: Path) -> None:
    expected = rollout(USERS, AGENT, VIEWERS, histories=histories(), condition=None, seed=3)
    assert read_table(whole / TABLE) == expected
    table = pq.read_table(whole / TABLE).to_pylist()
    assert [row["user"] for row in table] == USERS and {row["seed"] for row in table} == {3}
    for row, dialogue in zip(table, expected, strict=True):
        stars = [turn.feedback.satisfaction for turn in dialogue.turns]
        assert (row["turns"], row["stop"]) == (len(stars), dialogue.stop)
        assert row["mean_satisfaction"] == sum(stars) / len(stars)
        assert row["deepest_level"] == max(turn.feedback.level for turn in dialogue.turns)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.5, 0.77, 0.999, 1.0])
def test_cut_off_anywhere_it_ends_in_the_same_files(whole: Path, tmp_path: Path, share: float) -> None:
    lines = (whole / LINES).read_bytes()
    (tmp_path / LINES).write_bytes(lines[: round(share * len(lines))])
    record(tmp_path)
    assert (tmp_path / LINES).read_bytes() == lines
    assert (tmp_path / TABLE).read_bytes() == (whole / TABLE).read_bytes()


def test_what_is_there_is_not_held_again(whole: Path) -> None:
    class Silent:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"asked for {name}")

    with DialogueStore(whole, identity={"agent": "popularity"}) as store:
        silent: Any = Silent()
        path = recorded_rollout(
            store,
            USERS,
            silent,
            silent,
            histories=histories(),
            condition=None,
            seed=3,
            block=BLOCK,
        )
    assert path == whole / TABLE


def test_none_is_doubled_and_seeds_are_apart(tmp_path: Path) -> None:
    talk = Dialogue(5, stop=StopReason.MODEL_FAILED, opening=Utterance("", "", "no answer"))
    with DialogueStore(tmp_path) as store:
        assert store.add([talk, talk], seed=1) == 1
        assert store.add([talk], seed=1) == 0
        assert store.add([talk], seed=2) == 1
        assert store.missing([4, 5, 6], seed=1) == [4, 6] and len(store) == 2
        assert list(store.read([5], seed=2)) == [talk]
        row = pq.read_table(store.write_table([5], seed=1)).to_pylist()[0]
    assert row["mean_satisfaction"] is None and row["deepest_level"] is None and row["turns"] == 0


def test_tokens_come_back(tmp_path: Path) -> None:
    said = Utterance("hi", "hi", tokens=GeneratedTokens((1, 2), (3,)))
    with DialogueStore(tmp_path) as store:
        store.add([Dialogue(1, stop=StopReason.MODEL_FAILED, opening=said)], seed=0)
        assert next(store.read([1], seed=0)).opening == said


def test_refuses_damage_other_runs_company_and_gaps(whole: Path, tmp_path: Path) -> None:
    with DialogueStore(tmp_path / "a") as store:
        with pytest.raises(DialogueStoreError, match="another has it open"):
            DialogueStore(tmp_path / "a")
        with pytest.raises(DialogueStoreError, match=r"users \[8, 9\] have none"):
            list(store.read([8, 9], seed=0))
    with pytest.raises(DialogueStoreError, match='got agent "popularity" there and "random" now'):
        DialogueStore(whole, identity={"agent": "random"})
    (tmp_path / "b").mkdir()
    saved = (whole / LINES).read_text().splitlines()
    broken = [
        re.sub(pattern, to, saved[1], count=1)
        for pattern, to in (
            (r'"seed": \d+', '"seed": Infinity'),
            (r'"level": \d', '"level": 99'),
            (r'"level": \d', '"level": "deep"'),
            (r'"satisfaction": [\d.]+', '"satisfaction": NaN'),
        )
    ]
    assert saved[1] not in broken
    for damaged in (
        "{broken",
        json.dumps({"user": 1, "seed": 0}),
        saved[1].replace('"level"', '"depth"'),
        *broken,
    ):
        (tmp_path / "b" / LINES).write_text("\n".join([saved[0], damaged, saved[2], ""]))
        with pytest.raises(DialogueStoreError, match="line 2 does not"):
            DialogueStore(tmp_path / "b")
    (tmp_path / "a" / IDENTITY).write_text('{"agent')
    with pytest.raises(DialogueStoreError, match=r"run\.json there is damaged"):
        DialogueStore(tmp_path / "a")
    (tmp_path / "c").write_text("a file")
    with pytest.raises(DialogueStoreError, match=r"must go to a folder that can be written.*File exists"):
        DialogueStore(tmp_path / "c")
    (tmp_path / "d" / IDENTITY).mkdir(parents=True)
    with pytest.raises(DialogueStoreError, match=r"d' gave: Is a directory\. Put that right"):
        DialogueStore(tmp_path / "d")
    (tmp_path / "a" / IDENTITY).write_bytes(b"\xff")
    with pytest.raises(DialogueStoreError, match=r"run\.json there is damaged"):
        DialogueStore(tmp_path / "a")


def test_a_full_disk_is_told_and_loses_nothing_that_was_there(tmp_path: Path) -> None:
    talks = [
        Dialogue(user, stop=StopReason.MODEL_FAILED, opening=Utterance("", "", "x" * 3000))
        for user in range(9)
    ]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with DialogueStore(tmp_path) as store:
        store.add(talks[:2], seed=0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, before[1]))
        try:
            with pytest.raises(DialogueStoreError, match=r"gave: File too large.*finished before is kept"):
                store.add(talks[2:], seed=0)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
            with pytest.raises(DialogueStoreError, match=r"gave: .*File too large"):
                store.write_table([0, 1], seed=0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with DialogueStore(tmp_path) as store:
        assert list(store.read([0, 1], seed=0)) == talks[:2]
        store.add(talks, seed=0)
        assert list(store.read(range(9), seed=0)) == talks


@pytest.mark.integration
def test_goes_on_after_a_kill(whole: Path, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; import tests.simulators.test_dialogue_store as t\n"
        "def die(done):\n"
        "    if done >= 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with t.DialogueStore(Path(sys.argv[1]), identity={'agent': 'popularity'}) as store:\n"
        "    t.recorded_rollout(store, t.USERS, t.AGENT, t.VIEWERS, histories=t.histories(), condition=None, seed=3,\n"
        "        block=t.BLOCK, progress=die)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / LINES).read_bytes().count(b"\n") == 8 and not (tmp_path / TABLE).exists()
    record(tmp_path)
    for name in (LINES, TABLE):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
