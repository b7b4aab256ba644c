"""`persona simulate`: dialogues of a finished run's agent with simulated users, kept as they come.

OUT/run.json             what the dialogues were held with
OUT/dialogues.jsonl      finished dialogues, a block of users at a time; a stopped simulation goes on behind them
OUT/dialogues.parquet    all of them in the order of the users, one row each
OUT/summary.json         how users fared, with intervals
"""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from app.errors import StoreError
from app.files import write_json
from app.quiet import quiet_libraries
from app.rehearsing import agent_from, hash_run, invite_learners, invite_unseen, users_of
from app.simulate_config import SimulateConfig
from app.trained import open_run
from recsys.significance import bootstrap_interval
from simulators.dialogue_store import IDENTITY, LINES, TABLE, DialogueStore, recorded_rollout
from simulators.rehearsal import outcome_of
from simulators.types import StopReason

_SUMMARY = "summary.json"
_INVITE = {"unseen": invite_unseen, "learners": invite_learners}


def simulate(config: SimulateConfig, out: Path, *, console: Console) -> Path:
    """Hold all dialogues that are not held yet, and write table and summary.

    Args:
        config: The simulation's choices.
        out: Its folder; one that holds a stopped simulation of the same choices is gone on with.
        console: Where progress and the summary are shown.

    Returns:
        The path of `summary.json`.

    Raises:
        StoreError: There is no finished run where the configuration says, or `out` holds something else.
        ConfigError: The run has too few users.
        DialogueStoreError: `out` holds dialogues of other choices, or is in use.
    """
    quiet_libraries()
    _check_folder(out)
    run = open_run(Path(config.run), "choices", "policy")
    guests = _INVITE[config.population](run, config.dialogues, seed=config.seed)
    seed, users = run.seed(f"simulate {config.seed}"), guests.users.tolist()
    identity = {**config.model_dump(mode="json"), "run": hash_run(run)}
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with (
        DialogueStore(out, identity=identity) as store,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        # Learning users takes a while, so the folder is looked at first.
        viewers = users_of(run, config.users)
        task = progress.add_task("Users talk with the agent", total=len(users))
        recorded_rollout(
            store,
            users,
            agent_from(run, config.agent),
            viewers,
            histories=guests.histories,
            condition=guests.condition if config.personal else None,
            seed=seed,
            block=config.block,
            progress=lambda done: progress.update(task, completed=done),
        )
        dialogues = list(store.read(users, seed=seed))
    outcome = outcome_of(dialogues, viewers, seed=seed)
    stops = [dialogue.stop for dialogue in dialogues]
    summary: dict[str, Any] = {
        "dialogues": len(dialogues),
        "stops": {str(reason): stops.count(reason) for reason in StopReason if reason in stops},
        **{
            name: bootstrap_interval(values, seed=config.seed).to_report()
            for name, values in outcome._asdict().items()
        },
    }
    write_json(out / _SUMMARY, summary)
    for name in outcome._fields:
        low, high = summary[name]["ci95"]
        console.print(f"{name}: {summary[name]['value']:.3f} (95 % interval {low:.3f} to {high:.3f})")
    console.print(", ".join(f"{reason}: {count}" for reason, count in summary["stops"].items()))
    return out / _SUMMARY


def _check_folder(out: Path) -> None:
    """Refuse a folder of other work, such as the run that is simulated with."""
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    known = (LINES, TABLE, IDENTITY, _SUMMARY)
    if strange := [name for name in names if not any(own in name for own in known)]:
        raise StoreError(
            f"--out must be empty or hold a simulation; got {out} with {', '.join(strange[:3])} in it. Choose another "
            "--out."
        )
