"""`persona evaluate`: models side by side on one split of one data set, on the terminal and in files.

OUT/manifest.json             arguments, versions, commit and hashes of the data, written first
OUT/stages/<model>/           what each finished model left; a stopped evaluation goes on behind them
OUT/evaluation.json           every figure with its interval, and everything that it depends on
OUT/evaluation.html           the same for people, one file that needs no network
OUT/models/<model>/           the trained models
OUT/retriever/                the best of them on the validation, for `persona recommend`
"""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
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

from app.errors import ConfigError
from app.evaluation_config import EvaluationConfig
from app.evaluation_data import hash_inputs, prepare
from app.evaluation_entries import save_entry
from app.evaluation_report import write_evaluation
from app.stages import Stage, StageView, run_stages
from app.store import RunStore
from app.wiring import (
    ALWAYS_BESIDE,
    DEFAULT_RANKERS,
    FORETELLER_PACKAGES,
    FORETELLERS,
    INSTALL,
    RANKERS,
)
from persona.policy.device import resolve_device
from recsys.errors import MissingDependency
from recsys.recipes.contest import enter, enter_foreteller
from recsys.recipes.contest_data import Contest

# Intervals over fewer users are hardly worth their name.
FEW_USERS = 30


class Lineup(NamedTuple):
    """Who competes.

    names: Rankers and foretellers, in the order of the tables.
    left_out: Who does not, and why, a sentence each.
    """

    names: tuple[str, ...]
    left_out: tuple[str, ...]


def evaluate(config: EvaluationConfig, out: Path, *, resume: bool = False, console: Console) -> Path:
    """Train, tune and measure every model that is not finished yet, and write the report.

    Args:
        config: The evaluation's choices.
        out: Its folder.
        resume: Whether `out` may hold an unfinished evaluation of the same choices and data.
        console: Where progress and the tables are shown.

    Returns:
        The path of `evaluation.html`.

    Raises:
        AppError, RecsysError: What is asked for cannot be done; nothing is written then. See `prepare` and
            `RunStore.open`.
    """
    # Training iALS and BPR holds the threads of BLAS down by itself; the package warns before that.
    warnings.filterwarnings("ignore", message="OpenBLAS is configured", category=RuntimeWarning)
    _check_names(config)
    device = str(resolve_device(config.device))
    hashes = hash_inputs(config)
    with console.status("Reading and cutting the data"):
        contest, facts = prepare(config)
    lineup = choose_lineup(config, contest)
    for sentence in _warnings(facts, lineup):
        console.print(sentence, markup=False, soft_wrap=True)
    with RunStore.open(out, config, hashes, resume=resume, device=device) as store:
        stages = [Stage(name, name, _work(contest, name, config, device)) for name in lineup.names]
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        )  # fmt: skip
        with Progress(*columns, console=console) as progress:
            run_stages(store, stages, progress)
        facts["left_out"] = list(lineup.left_out)
        return write_evaluation(store, contest, facts, config, lineup.names, console=console)


def choose_lineup(config: EvaluationConfig, contest: Contest) -> Lineup:
    """The models that compete on this log, and why others do not.

    Args:
        config: Names models, or none.
        contest: The log that they must fit.

    Raises:
        ConfigError: A named model cannot be compared on this log.
        MissingDependency: A named model needs a package that is not installed.
    """
    if max(config.k) > contest.n_items:
        raise ConfigError(
            f"--k must be at most the {contest.n_items:,} items of the catalogue; got {max(config.k)}. Lower it."
        )
    named = config.models
    names, left_out = [], []
    for name in named or DEFAULT_RANKERS:
        reason = _obstacle(name, contest)
        if reason is None:
            names.append(name)
            continue
        if named is not None and name in FORETELLERS:
            raise ConfigError(
                f"`{name}` must have something to foretell; {reason}. Leave it out of --models."
            )
        if named is not None and reason.startswith("it needs the package"):
            package = reason.rpartition(" ")[2]
            raise MissingDependency(package, needed_for=f"the model `{name}`", install=INSTALL)
        left_out.append(f"{name} is left out: {reason}.")
    foretells = contest.can_foretell and any(
        RANKERS[name].enter(contest).foretell is not None for name in names if name in RANKERS
    )
    if foretells:
        names += [name for name in ALWAYS_BESIDE if name not in names]
    if not any(name in RANKERS for name in names):
        raise ConfigError(
            f"--models must name one that ranks: {', '.join(RANKERS)}; got {', '.join(names) or 'none that fits'}. "
            "Add popularity."
        )
    return Lineup(tuple(names), tuple(left_out))


def _check_names(config: EvaluationConfig) -> None:
    known = {**RANKERS, **FORETELLERS}
    unknown = [name for name in config.models or () if name not in known]
    if unknown:
        raise ConfigError(
            f"--models must be among {', '.join(known)}; got {', '.join(unknown[:3])}. Correct the names."
        )


def _obstacle(name: str, contest: Contest) -> str | None:
    """Why a model cannot be compared on this log, in words."""
    if name in FORETELLERS:
        package = FORETELLER_PACKAGES.get(name)
        if not contest.can_foretell:
            return "every shown row reached every level, or none did"
    else:
        ranker = RANKERS[name]
        package = ranker.package
        if ranker.needs_times and not contest.dataset.has_times:
            return "the log has no times"
        if ranker.most_items is not None and contest.n_items > ranker.most_items:
            return f"it takes at most {ranker.most_items:,} items, and the catalogue has {contest.n_items:,}"
        if name == "gnolr-impressions" and not contest.can_foretell:
            return "it learns from shown rows alone, and all of them reached the same levels"
    if package is not None and find_spec(package) is None:
        return f"it needs the package {package}"
    return None


def _work(contest: Contest, name: str, config: EvaluationConfig, device: str) -> Callable[[StageView], None]:
    """The stage of one model."""

    def function(view: StageView) -> None:
        if name in FORETELLERS:
            entry = enter_foreteller(
                contest, FORETELLERS[name], seeds=config.seeds, device=device, tell=view.advance
            )
        else:
            entry = enter(
                contest,
                RANKERS[name].enter(contest),
                k=max(config.k),
                trials=config.tune,
                seeds=config.seeds,
                device=device,
                tell=view.advance,
            )
        save_entry(view.folder, entry)

    return function


def _warnings(facts: dict[str, Any], lineup: Lineup) -> list[str]:
    """What a person should know before waiting."""
    sentences = [f"Split: {facts['split']['protocol']}."]
    if facts["split"]["test_users"] < FEW_USERS:
        sentences.append(
            f"The test has fewer than {FEW_USERS} users: intervals over so few say little, and one user has none."
        )
    if facts["leaks"]["overridden"]:
        sentences.append("LEAKS ARE ALLOWED: the figures below are not to be believed.")
    sentences += [
        f"{leak['kind']} ({leak['severity']}): {leak['sentence']}" for leak in facts["leaks"]["findings"]
    ]
    return sentences + list(lineup.left_out)
