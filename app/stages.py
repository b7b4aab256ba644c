"""The steps of a run: each reads what finished ones left, and its own folder appears whole or not at all."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress, TaskID

from app import files
from app.errors import StoreError
from app.memory import give_back_memory, peak_rss_mb
from app.store import RECORD, RunStore


class StageView:
    """What one stage is given: a folder of its own, and a way to show how far it is.

    Attributes:
        folder: Where this stage writes; becomes `stages/<name>` once the stage returns. Anything may be saved
            into it, a PEFT folder for instance.
    """

    def __init__(self, folder: Path, advance: Callable[[int, int], None]) -> None:
        """See the attributes; `advance` is called with the steps done and their total."""
        self.folder = folder
        self._advance = advance

    def advance(self, done: int, total: int) -> None:
        """Show how far the stage is: `done` of `total` steps."""
        self._advance(done, total)


class Stage(NamedTuple):
    """One step of a run.

    name: Its folder, in lower case with - or _.
    title: What the progress bar says.
    function: Does the work; depends on the configuration and on the files of earlier stages alone.
    """

    name: str
    title: str
    function: Callable[[StageView], None]


def run_stages(store: RunStore, stages: Sequence[Stage], progress: Progress) -> None:
    """Run, in order, the stages that are not finished.

    Args:
        store: The run's folder.
        stages: All stages of the run.
        progress: A rich progress display, started by the caller; each stage is one task on it.

    Raises:
        StoreError: Two stages bear one name, or a stage cannot read or write a file.
    """
    names = [stage.name for stage in stages]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise StoreError(
            f"Every stage must have a name of its own; got {', '.join(twice)} twice. Rename one."
        )
    for number, stage in enumerate(stages, start=1):
        kept = store.done(stage.name)
        task = progress.add_task(f"{number}/{len(stages)} {stage.title}{' (kept)' * kept}", total=None)

        def advance(done: int, total: int, task: TaskID = task) -> None:
            progress.update(task, completed=done, total=total)

        if not kept:
            _run_stage(store, stage, advance)
        advance(1, 1)


def _run_stage(store: RunStore, stage: Stage, advance: Callable[[int, int], None]) -> None:
    final = store.stage_folder(stage.name)
    partial = final.with_name(files.PARTIAL + stage.name)
    began = time.monotonic()
    try:
        partial.mkdir()
        stage.function(StageView(partial, advance))
        record = {"seconds": round(time.monotonic() - began, 3), "peak_rss_mb": peak_rss_mb()}
        files.write_json(partial / RECORD, record)
        files.move_folder(partial, final)
    except OSError as err:
        where = f" at {err.filename}" if err.filename else ""
        raise StoreError(
            f"The stage `{stage.name}` must be able to read and write its files; got {err.strerror or err}{where}. "
            "Put that right and go on with --resume."
        ) from err
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        # What a stage needed for a while is not held beside what the next one needs.
        give_back_memory()
