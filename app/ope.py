"""`persona ope`: what a target policy would have earned, told from the log of another, on the terminal and in files.

    OUT/ope.json     estimates with intervals, overlap, notes, and what they were made from
    OUT/ope.html     the same for people, one file that needs no network

A policy that has to be fitted learns from the earlier part of the log and is evaluated on the later one; all others are
evaluated on every row.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console

from app.errors import StoreError
from app.files import write_atomically, write_json
from app.ope_html import render_ope
from app.ope_terminal import print_evaluation
from recsys.data.bandit import BanditLog, Values, bandit_log_from_frame, refuse_rows
from recsys.data.readers.open_bandit import read_bandit_log
from recsys.errors import DataFileError, PolicyError
from recsys.off_policy import (
    ESTIMATORS,
    PolicyEvaluation,
    evaluate_policy,
    logged_policy,
    popular_policy,
    read_policy,
    softmax_policy,
    uniform_policy,
)
from recsys.significance import Interval, bootstrap_interval

OPE_JSON, OPE_HTML = "ope.json", "ope.html"
POLICIES = ("uniform", "popular", "logistic", "logged:PATH", "FILE")
_ACTION, _REWARD, _CHANCE, _SLOT, _TIME = "action", "reward", "propensity", "position", "timestamp"
_OPEN_BANDIT = "propensity_score"


class _Task(NamedTuple):
    """A policy on the rows that it is evaluated on. elsewhere: mean reward of its own log, where there is one."""

    log: BanditLog
    action_dist: Values
    told: str
    elsewhere: Interval | None


def evaluate_log(
    log_path: Path,
    *,
    policy: str,
    out: Path | None = None,
    seed: int = 0,
    estimators: Sequence[str] = tuple(ESTIMATORS),
    levels: Mapping[str, float] | None = None,
    cluster: str | None = None,
    n_actions: int | None = None,
    fit_share: float = 0.5,
    console: Console,
) -> PolicyEvaluation:
    """Evaluate one policy on one log, print the table, and write `ope.json` and `ope.html`.

    Args:
        log_path: A file or folder of the Open Bandit Dataset, or a CSV or Parquet file with the columns action,
            reward and propensity; position and timestamp if it has them; every other column is context.
        policy: One of `POLICIES`: "logged:PATH" is what another such log shows; FILE holds probabilities, see
            `recsys.off_policy.read_policy`.
        out: Folder to write to, made if missing; None writes nothing.
        seed: Every random draw follows from it.
        estimators: Names out of `recsys.off_policy.ESTIMATORS`.
        levels: Where the shrinkage of an estimator stands, by its name; the others' is chosen from the log.
        cluster: Column whose rows are drawn together for intervals, such as a user; it is no context then.
        n_actions: Number of actions, where the log lacks some of those numbered 0..n-1; None counts the log's own.
        fit_share: Earliest share of the log that "popular" and "logistic" learn from, above 0 and below 1.
        console: Where the table goes.

    Returns:
        The evaluation.

    Raises:
        DataFileError: The log cannot be read.
        InteractionError: A row of the log cannot be used.
        PolicyError: The policy, an estimator or `fit_share` makes no sense.
        StoreError: The folder cannot be written.
    """
    task = _prepare(log_path, policy, cluster=cluster, n_actions=n_actions, fit_share=fit_share, seed=seed)
    found = evaluate_policy(task.log, task.action_dist, estimators=estimators, levels=levels, seed=seed)
    print_evaluation(console, found, told=task.told, own_log=task.elsewhere)
    if out is not None:
        report = _report(found, task, log_path, policy, seed)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise StoreError(
                f"{out} must be a folder that can be made; got {err.strerror}. Choose another with --out."
            ) from err
        write_json(out / OPE_JSON, report)
        write_atomically(out / OPE_HTML, render_ope(report, found, task.elsewhere).encode())
        console.print(f"Report: {out / OPE_HTML}", markup=False, soft_wrap=True)
    return found


def _prepare(
    path: Path, policy: str, *, cluster: str | None, n_actions: int | None, fit_share: float, seed: int
) -> _Task:
    """Read what is needed, and split the log where the policy has to learn from it."""
    if not 0 < fit_share < 1:
        raise PolicyError(f"`fit_share` must lie between 0 and 1; got {fit_share}. Take 0.5.")
    frame = _read_frame(path)
    kind, _, other_path = policy.partition(":")
    others = [_read_frame(Path(other_path))] if kind == "logged" else []
    frames = [frame, *others]
    actions = _shared_ids(frames, _ACTION) if n_actions is None else list(range(n_actions))
    slots = _shared_ids(frames, _SLOT)
    log = _as_log(frame, cluster, actions, slots)
    if kind == "logged":
        other = _as_log(others[0], None, actions, slots)
        own = bootstrap_interval(other.rewards, seed=seed)
        told = f"what {other_path} shows in each slot, whatever the context ({len(other):,} rows)"
        return _Task(log, logged_policy(other, log), told, own)
    if policy == "uniform":
        return _Task(log, uniform_policy(log), "every action equally often", None)
    if policy in {"popular", "logistic"}:
        early, late = _split(frame, log, fit_share)
        fitted = f"fitted on the earliest {len(early):,} rows, evaluated on the other {len(late):,}"
        if policy == "popular":
            return _Task(
                late, popular_policy(early, late), f"best mean reward, 10 % exploration; {fitted}", None
            )
        return _Task(late, softmax_policy(early, late), f"softmax of a logistic regression; {fitted}", None)
    if not Path(policy).is_file():
        raise PolicyError(
            f"`policy` must be one of {', '.join(POLICIES)}; got {policy!r}, which is no file. Correct it."
        )
    return _Task(log, read_policy(Path(policy), log), f"the probabilities in {policy}", None)


def _read_frame(path: Path) -> pd.DataFrame:
    """The log as a table with the columns action, reward and propensity."""
    if path.is_dir():
        return read_bandit_log(path)
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as err:
        raise DataFileError(
            f"{path} must be a readable CSV or Parquet file, or a folder of the Open Bandit Dataset; got: {err}. "
            "Correct the path or the file."
        ) from err
    return read_bandit_log(path) if _OPEN_BANDIT in frame else frame


def _shared_ids(frames: Sequence[pd.DataFrame], name: str) -> list[Any] | None:
    """Every value of a column, ascending; None where no log has it."""
    found = [frame[name].dropna() for frame in frames if name in frame]
    if len({column.dtype.kind for column in found}) > 1:
        raise DataFileError(
            f"Both logs must write `{name}` alike; got {[str(column.dtype) for column in found]}. "
            "Give both numbers or both texts."
        )
    return sorted(pd.concat(found).unique().tolist()) if found else None


def _as_log(
    frame: pd.DataFrame, cluster: str | None, actions: list[Any] | None, slots: list[Any] | None
) -> BanditLog:
    special = {_ACTION, _REWARD, _CHANCE, _SLOT, _TIME, cluster}
    return bandit_log_from_frame(
        frame,
        position=_SLOT if _SLOT in frame else None,
        context=[
            str(name)
            for name in frame.columns
            if name not in special and not str(name).startswith("Unnamed:")
        ],
        cluster=cluster,
        action_ids=actions,
        position_ids=slots,
    )


def _split(frame: pd.DataFrame, log: BanditLog, share: float) -> tuple[BanditLog, BanditLog]:
    """The earliest rows and the others; by the order of the file where it has no times."""
    times = frame[_TIME].to_numpy() if _TIME in frame else np.arange(len(log))
    refuse_rows(pd.isna(times), times, f"`{_TIME}` must be known in every row", "Drop the rows")
    order = np.argsort(times, kind="stable")
    cut = int(share * len(log))
    if cut == 0:
        raise PolicyError(
            f"The log must have rows to learn from and rows to evaluate on; got {len(log)} at `fit_share` {share}. "
            "Bring a longer log."
        )
    return log.select(order[:cut]), log.select(order[cut:])


def _report(found: PolicyEvaluation, task: _Task, path: Path, policy: str, seed: int) -> dict[str, Any]:
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    return {
        "log": path.name,
        "data_hashes": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        "policy": policy,
        "policy_told": task.told,
        "seed": seed,
        "actions": task.log.n_actions,
        "slots": task.log.n_positions,
        "estimates": [one.to_report() for one in found.estimates],
        "overlap": found.overlap.to_report(),
        "logged": found.logged.to_report(),
        "own_log": None if task.elsewhere is None else task.elsewhere.to_report(),
        "notes": list(found.notes),
    }
