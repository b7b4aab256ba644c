"""`persona simulate`: dialogues of a finished run's agent with simulated users, kept as they come.

OUT/run.json             what the dialogues were held with
OUT/dialogues.jsonl      finished dialogues, a block of users at a time; a stopped simulation goes on behind them
OUT/personas.jsonl       what users with personas were told of themselves, which no agent reads
OUT/dialogues.parquet    all of them in the order of the users, one row each
OUT/predictions.parquet  how users foretell what real ones did, with reactions.parquet and held_out.parquet
OUT/summary.json         how users fared, with intervals
OUT/answers.sqlite       what endpoints answered, so that a stopped simulation pays for nothing twice
"""

from collections.abc import Mapping
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

from app.agents import agent_from, hash_agent, hash_run
from app.casting import NEEDS_TARGETS, judge_of, personas_of, users_of
from app.chats import ANSWERS, Chats, hash_chats
from app.errors import StoreError
from app.files import write_atomically, write_json
from app.quiet import quiet_libraries
from app.rehearsing import invite_learners, invite_unseen, with_targets
from app.simulate_config import SimulateConfig
from app.simulated_personas import told_personas
from app.simulated_predictions import HELD_OUT, PREDICTIONS, REACTIONS, write_predictions
from app.simulation_summary import read_outcomes, summarise
from app.trained import open_run
from simulators.dialogue_store import IDENTITY, LINES, TABLE, DialogueStore, recorded_rollout
from simulators.rehearsal import Outcome
from simulators.users.told_personas import PERSONAS, told_lines

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
        ConfigError: The run has too few users, there are no true personas of them, or no such agent.
        DialogueStoreError: `out` holds dialogues of other choices, or is in use.
        EndpointError: An endpoint does not answer, or its budget is spent; what is finished is kept.
    """
    quiet_libraries()
    _check_folder(out, config.answers or ANSWERS)
    run = open_run(Path(config.run), "choices", "policy")
    guests = _INVITE[config.population](run, config.dialogues, seed=config.seed)
    seed, users = run.seed(f"simulate {config.seed}"), guests.users.tolist()
    if config.users in NEEDS_TARGETS:
        guests = with_targets(run, guests, seed=seed)
    hashes = {
        "run": hash_run(run),
        "agent_files": hash_agent(run, config.agent),
        "chat_files": hash_chats(config.chat),
    }
    identity = {**config.model_dump(mode="json"), **hashes}
    # What cannot be opened is told before the folder belongs to this simulation.
    agent = agent_from(run, config.agent)
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with (
        DialogueStore(out, identity=identity, policy=config.policy) as store,
        Chats(config, run, out) as chats,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        # Learning users takes a while, so the folder is looked at first.
        chat = chats.of(config.chat)
        people = personas_of(run, config.users, guests, personas=config.personas)
        if people:
            write_atomically(out / PERSONAS, told_lines(told_personas(config.users, people)).encode())
        viewers = users_of(
            run,
            config.users,
            guests,
            chat,
            ailo_satisfaction=config.ailo_satisfaction,
            people=people,
        )
        task = progress.add_task("Users talk with the agent", total=len(users))
        recorded_rollout(
            store,
            users,
            agent,
            viewers,
            histories=guests.histories,
            condition=guests.condition if config.personal else None,
            seed=seed,
            block=config.block,
            progress=lambda done: progress.update(task, completed=done),
        )
        judge = judge_of(run, config.users, viewers)
        fared = read_outcomes(store.read(users, seed=seed), judge, seed=seed)
        summary = summarise(fared, seed=config.seed)
        if config.predictions:
            progress.add_task("Users are held to what was really done", total=None)
            summary["held_out"] = write_predictions(run, viewers, out, seed=seed)
    write_json(out / _SUMMARY, summary)
    _tell(summary, console)
    for name, spent in chats.spent.items():
        tokens = f"{spent.prompt_tokens} tokens read, {spent.completion_tokens} written"
        console.print(f"{name}: {spent.requests} requests, {tokens}", markup=False)
    return out / _SUMMARY


def _tell(summary: Mapping[str, Any], console: Console) -> None:
    for name in Outcome._fields:
        ends = summary[name]["ci95"]
        sure = (
            f"95 % interval {ends[0]:.3f} to {ends[1]:.3f}" if ends else "too few dialogues for an interval"
        )
        console.print(f"{name}: {summary[name]['value']:.3f} ({sure})")
    console.print(", ".join(f"{reason}: {count}" for reason, count in summary["stops"].items()))
    for reason, count in summary.get("failures", {}).items():
        console.print(f"model_failed, {count} times: {reason}", markup=False)
    if held_out := summary.get("held_out"):
        why = f", as {held_out['why']}" if "why" in held_out else ""
        console.print(f"choices foretold for an audit: {held_out['scenes']}{why}", markup=False)


def _check_folder(out: Path, answers: str) -> None:
    """Refuse a folder of other work, such as the run that is simulated with."""
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    known = (
        LINES,
        TABLE,
        IDENTITY,
        PERSONAS,
        PREDICTIONS,
        REACTIONS,
        HELD_OUT,
        _SUMMARY,
        ANSWERS,
        Path(answers).name,
    )
    if strange := [name for name in names if not any(own in name for own in known)]:
        raise StoreError(
            f"--out must be empty or hold a simulation; got {out} with {', '.join(strange[:3])} in it. Choose another "
            "--out."
        )
