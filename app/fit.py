"""`persona fit`: how far personalisation helps on your comparisons, which method serves them, and how sure that is.

OUT/manifest.json             arguments, versions, commit and hash of the data, written first
OUT/stages/<method>-<seed>/   figures of one method on one split; a stopped comparison goes on behind them
OUT/stages/<method>-kept/     the method fitted anew to all users
OUT/profiles.json             every figure with its interval, and everything that it depends on
OUT/profiles.html             the same for people, one file that needs no network
OUT/profiles/<method>/        the profiles of all users, for `persona whois`
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from app.config import RunConfig
from app.errors import AppError
from app.files import write_json
from app.fit_config import FitConfig
from app.fit_data import (
    Prepared,
    Trial,
    features_for,
    material_for,
    prepare,
    split_trial,
    whole_scale,
)
from app.fit_report import write_fit
from app.fit_scores import FACTS, FAILED, KEPT, measure_profile, save_scores, stage_name
from app.manifest import hash_files
from app.profile_files import save_profile
from app.profile_methods import METHODS, POOLED, check_methods
from app.stages import Stage, StageView, run_stages
from app.store import RunStore
from persona.errors import PersonaError
from persona.policy.device import resolve_device
from recsys.errors import RecsysError


def fit(config: FitConfig, out: Path, *, resume: bool = False, console: Console) -> Path:
    """Fit and measure every method that is not finished yet, and write the report.

    Args:
        config: The comparison's choices.
        out: Its folder.
        resume: Whether `out` may hold an unfinished comparison of the same choices and data.
        console: Where progress and the tables are shown.

    Returns:
        The path of `profiles.html`.

    Raises:
        AppError, PersonaError: What is asked for cannot be done; nothing is written then.
    """
    names = check_methods(config.methods)
    device = str(resolve_device(config.device))
    with console.status("Reading and measuring the comparisons"):
        # States of models are kept beside the folders of comparisons, which may share them.
        prepared = prepare(config, cache=out.parent / ".features")
        trials = {seed: split_trial(prepared, config, seed) for seed in config.seeds}
    hashes = hash_files(Path(config.data))
    # A store asks of a configuration only its fields and a seed, which this one has too.
    with RunStore.open(out, cast(RunConfig, config), hashes, resume=resume, device=device) as store:
        stages = _plan(config, names, prepared, trials, device)
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        )  # fmt: skip
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            run_stages(store, stages, progress)
        return write_fit(store, prepared, trials, config, names, console=console)


def _plan(
    config: FitConfig, names: Sequence[str], prepared: Prepared, trials: dict[int, Trial], device: str
) -> list[Stage]:
    stages = []
    for name in names:
        for seed, trial in trials.items():
            title = f"{METHODS[name].title}, split {seed}"
            work = _measure_stage(config, name, prepared, trial, device, seed)
            stages.append(Stage(stage_name(name, seed), title, _tolerant(name, work)))
        title = f"{METHODS[name].title}, all users"
        stages.append(
            Stage(stage_name(name, KEPT), title, _tolerant(name, _kept_stage(config, name, prepared, device)))
        )
    return stages


def _measure_stage(
    config: FitConfig, name: str, prepared: Prepared, trial: Trial, device: str, seed: int
) -> Callable[[StageView], None]:
    def function(view: StageView) -> None:
        method = METHODS[name]
        features = features_for(prepared, trial.scale, method, device)
        began = time.perf_counter()
        profile = method.fit(material_for(trial.split.train, features, trial.scale, method, seed))
        seconds = time.perf_counter() - began
        scores, facts = measure_profile(profile, prepared, trial, features, sizes=config.context, seed=seed)
        save_scores(view.folder, scores, {**facts, "fit_seconds": seconds})

    return function


def _kept_stage(config: FitConfig, name: str, prepared: Prepared, device: str) -> Callable[[StageView], None]:
    def function(view: StageView) -> None:
        method, scale = METHODS[name], whole_scale(prepared, config)
        features = features_for(prepared, scale, method, device)
        profile = method.fit(material_for(prepared.indexed.table, features, scale, method, config.seed))
        save_profile(profile, view.folder)
        write_json(view.folder / FACTS, {"reads": method.reads})

    return function


def _tolerant(name: str, work: Callable[[StageView], None]) -> Callable[[StageView], None]:
    """The stage, which leaves its reason where a method cannot be fitted to this data; the others go on."""

    def function(view: StageView) -> None:
        try:
            work(view)
        except (AppError, PersonaError, RecsysError) as err:
            if name == POOLED:
                raise
            reason: dict[str, Any] = {FAILED: " ".join(str(err).split())}
            write_json(view.folder / FACTS, reason)

    return function
