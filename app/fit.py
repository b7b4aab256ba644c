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
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from app.errors import AppError, ConfigError
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
from app.fit_methods import check_methods, feature_method, find_method, read_texts
from app.fit_report import write_fit
from app.fit_scores import FACTS, FAILED, KEPT, measure_profile, save_scores, stage_name
from app.fit_text_methods import TEXT_METHODS, TextMaterial, save_text_profile
from app.fit_text_scores import measure_text_profile
from app.fit_texts import Reader, open_reader
from app.manifest import hash_files
from app.profile_features import FeatureScale
from app.profile_files import save_profile
from app.profile_methods import POOLED
from app.stages import Stage, StageView, run_stages
from app.store import RunStore
from persona.data.comparisons import ComparisonTable
from persona.errors import PersonaError
from persona.policy.device import resolve_device
from persona.profiles.texts import TextProfile
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
        reader = open_reader(prepared.indexed, config.model, device) if read_texts(names) else None
    hashes = hash_files(Path(config.data))
    work = _Work(config, prepared, device, reader)
    with RunStore.open(out, config, hashes, resume=resume, device=device) as store:
        stages = _plan(work, names, trials)
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        )  # fmt: skip
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            run_stages(store, stages, progress)
        return write_fit(store, prepared, trials, config, names, console=console)


class _Work(NamedTuple):
    """What every stage needs; `reader` is there if a method reads texts."""

    config: FitConfig
    prepared: Prepared
    device: str
    reader: Reader | None

    def fit_text(
        self, name: str, table: ComparisonTable, scale: FeatureScale, seed: int, view: StageView
    ) -> tuple[TextProfile, Reader]:
        """A profile over texts, and what it reads with."""
        if self.reader is None:
            raise ConfigError(f"A model must be open for {name}; got none. Name it in --methods.")
        matrix = scale.matrix(self.prepared.raw, self.prepared.indexed.reply_prompts)
        material = TextMaterial(table, self.reader, matrix, seed, self.config.steps, view.advance)
        return TEXT_METHODS[name].fit(material), self.reader


def _plan(work: _Work, names: Sequence[str], trials: dict[int, Trial]) -> list[Stage]:
    stages = []
    for name in names:
        measure, keep = (_measure_text, _keep_text) if name in TEXT_METHODS else (_measure, _keep)
        title = find_method(name).title
        for seed, trial in trials.items():
            stage = partial(measure, work, name, trial, seed)
            stages.append(Stage(stage_name(name, seed), f"{title}, split {seed}", _tolerant(name, stage)))
        stage = partial(keep, work, name)
        stages.append(Stage(stage_name(name, KEPT), f"{title}, all users", _tolerant(name, stage)))
    return stages


def _measure(work: _Work, name: str, trial: Trial, seed: int, view: StageView) -> None:
    method, prepared = feature_method(name), work.prepared
    features = features_for(prepared, trial.scale, method, work.device)
    began = time.perf_counter()
    profile = method.fit(material_for(prepared, trial.split.train, features, trial.scale, method, seed=seed))
    seconds = time.perf_counter() - began
    scores, facts = measure_profile(profile, prepared, trial, features, sizes=work.config.context, seed=seed)
    save_scores(view.folder, scores, {**facts, "fit_seconds": seconds})


def _keep(work: _Work, name: str, view: StageView) -> None:
    method, scale = feature_method(name), whole_scale(work.prepared, work.config)
    features = features_for(work.prepared, scale, method, work.device)
    table, seed = work.prepared.indexed.table, work.config.seed
    profile = method.fit(material_for(work.prepared, table, features, scale, method, seed=seed))
    save_profile(profile, view.folder)
    write_json(view.folder / FACTS, {"reads": method.reads})


def _measure_text(work: _Work, name: str, trial: Trial, seed: int, view: StageView) -> None:
    began = time.perf_counter()
    profile, reader = work.fit_text(name, trial.split.train, trial.scale, seed, view)
    seconds = time.perf_counter() - began
    scores, facts = measure_text_profile(
        profile,
        work.prepared,
        trial,
        reader,
        sizes=work.config.context,
        seed=seed,
        beta=TEXT_METHODS[name].beta,
        advance=view.advance,
    )
    save_scores(view.folder, scores, {**facts, "fit_seconds": seconds, "cut_replies": reader.cut})


def _keep_text(work: _Work, name: str, view: StageView) -> None:
    scale = whole_scale(work.prepared, work.config)
    profile, _ = work.fit_text(name, work.prepared.indexed.table, scale, work.config.seed, view)
    save_text_profile(profile, view.folder, model=work.config.model)
    write_json(view.folder / FACTS, {"reads": "texts"})


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
