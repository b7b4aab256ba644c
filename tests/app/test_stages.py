import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from app import files
from app.config import RunConfig
from app.errors import StoreError
from app.stages import Stage, StageView, run_stages
from app.store import RECORD, RunStore


def open_store(out: Path, *, resume: bool = False) -> RunStore:
    return RunStore.open(out, RunConfig(), {}, resume=resume, device="cpu")


def quiet() -> Progress:
    return Progress(disable=True)


def draw(view: StageView) -> None:
    files.write_json(view.folder / "draws.json", np.random.default_rng(0).normal(size=3).tolist())


def total(view: StageView) -> None:
    drawn = files.read_json(view.folder.parent / "draw" / "draws.json")
    files.write_json(view.folder / "total.json", sum(drawn))


STAGES = (Stage("draw", "drawing", draw), Stage("total", "adding up", total))


def counted(calls: list[str], name: str) -> Callable[[StageView], None]:
    return lambda view: calls.append(name)


def test_stages_read_what_earlier_ones_left(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        run_stages(store, STAGES, quiet())
        drawn = files.read_json(store.stage_folder("draw") / "draws.json")
        assert files.read_json(store.stage_folder("total") / "total.json") == sum(drawn)


def test_finished_stage_says_what_it_took(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        run_stages(store, STAGES[:1], quiet())
        record = files.read_json(store.stage_folder("draw") / RECORD)
    assert record["seconds"] >= 0
    assert record["peak_rss_mb"] > 10


def test_freed_memory_goes_back_after_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr("app.stages.give_back_memory", lambda: calls.append("given back"))
    with open_store(tmp_path) as store:
        run_stages(store, [Stage(name, name, counted(calls, name)) for name in ("a", "b")], quiet())
    assert calls == ["a", "given back", "b", "given back"]


def test_finished_stages_are_skipped(tmp_path: Path) -> None:
    calls: list[str] = []
    stages = [Stage(name, name, counted(calls, name)) for name in ("a", "b")]
    with open_store(tmp_path) as store:
        run_stages(store, stages[:1], quiet())
        progress = quiet()
        run_stages(store, stages, progress)
    assert calls == ["a", "b"]
    assert [task.description for task in progress.tasks] == ["1/2 a (kept)", "2/2 b"]
    assert all(task.finished for task in progress.tasks)


def test_failed_stage_leaves_nothing_and_can_be_tried_again(tmp_path: Path) -> None:
    def fail(view: StageView) -> None:
        files.write_json(view.folder / "half.json", 1)
        raise KeyError("broken")

    with open_store(tmp_path) as store:
        with pytest.raises(KeyError, match="broken"):
            run_stages(store, [Stage("a", "a", fail)], quiet())
        assert not store.done("a") and not list((tmp_path / "stages").iterdir())
        run_stages(store, [Stage("a", "a", draw)], quiet())
        assert store.done("a")


def test_stage_that_cannot_write_is_named_in_one_sentence(tmp_path: Path) -> None:
    def fill(view: StageView) -> None:
        raise OSError(28, "No space left on device", "weights")

    with open_store(tmp_path) as store:
        with pytest.raises(
            StoreError, match=r"`a` must .*; got No space left on device at weights\. .*--resume"
        ):
            run_stages(store, [Stage("a", "a", fill)], quiet())
        assert not list((tmp_path / "stages").iterdir())


def test_two_stages_of_one_name_are_refused(tmp_path: Path) -> None:
    with open_store(tmp_path) as store, pytest.raises(StoreError, match=r"name of its own; got draw twice"):
        run_stages(store, [STAGES[0], STAGES[0]], quiet())


def test_stage_tells_how_far_it_is(tmp_path: Path) -> None:
    progress = quiet()
    seen: list[tuple[float, float | None]] = []

    def step(view: StageView) -> None:
        view.advance(3, 12)
        seen.append((progress.tasks[0].completed, progress.tasks[0].total))

    with open_store(tmp_path) as store:
        run_stages(store, [Stage("a", "a", step)], progress)
    assert seen == [(3, 12)]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from rich.progress import Progress
    import numpy as np
    from app import files
    from app.config import RunConfig
    from app.stages import Stage, run_stages
    from app.store import RunStore

    def chain(number):
        def work(view):
            before = view.folder.parent / f"s{number - 1}" / "x.safetensors"
            x = files.read_tensors(before)["x"].numpy() if number else np.arange(4.0)
            after = {"x": x * 1.1 + np.random.default_rng(number).normal(size=4)}
            files.write_arrays(view.folder / "x.safetensors", after)
            if os.environ.get("KILL_IN") == str(number):
                os.kill(os.getpid(), signal.SIGKILL)
        return work

    out = Path(sys.argv[1])
    stages = [Stage(f"s{n}", f"step {n}", chain(n)) for n in range(3)]
    with RunStore.open(out, RunConfig(), {}, resume=True, device="cpu") as store:
        run_stages(store, stages, Progress(disable=True))
        files.write_json(out / "report.json", (out / "stages/s2/x.safetensors").read_bytes().hex())
"""


@pytest.mark.integration
def test_killed_run_ends_in_the_same_report_bit_for_bit(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(KILLED), encoding="utf-8")
    root = Path(__file__).parents[2]

    def run(out: Path, kill_in: str) -> int:
        environment = os.environ | {"KILL_IN": kill_in, "PYTHONPATH": str(root)}
        return subprocess.run(
            [sys.executable, str(script), str(out)], env=environment, check=False
        ).returncode

    assert run(tmp_path / "whole", "") == 0
    for kill_in in ("0", "2"):
        assert run(tmp_path / "killed", kill_in) == -signal.SIGKILL
        assert not (tmp_path / "killed" / "report.json").exists()
    assert run(tmp_path / "killed", "") == 0
    assert (tmp_path / "killed/report.json").read_bytes() == (tmp_path / "whole/report.json").read_bytes()
    assert sorted(p.name for p in (tmp_path / "killed/stages").iterdir()) == ["s0", "s1", "s2"]
