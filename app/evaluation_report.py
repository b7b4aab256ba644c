"""`evaluation.json` and what stands beside it, from what the finished models left.

But for times, `evaluation.json` is a pure function of the data, the arguments and the stages' files, so an evaluation
that was stopped and resumed ends with the same one.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from app.errors import StoreError
from app.evaluation_config import EvaluationConfig
from app.evaluation_entries import MODEL, SavedEntry, read_entry
from app.evaluation_html import render_evaluation
from app.evaluation_retriever import save_retriever
from app.evaluation_terminal import print_evaluation
from app.files import PARTIAL, move_folder, read_json, write_atomically, write_json
from app.store import RECORD, RunStore
from recsys.metrics import definitions
from recsys.recipes.contest import LIST_SCORE
from recsys.recipes.contest_data import Contest
from recsys.recipes.contest_measures import Table, measure_lists
from recsys.recipes.contest_pointwise import POINTWISE, measure_chances
from recsys.significance import compare_models, definition_of_better

EVALUATION_JSON, EVALUATION_HTML = "evaluation.json", "evaluation.html"
Report = dict[str, Any]


def write_evaluation(
    store: RunStore,
    contest: Contest,
    facts: Mapping[str, Any],
    config: EvaluationConfig,
    names: Sequence[str],
    *,
    console: Console,
) -> Path:
    """Measure what the models left, write the report, the models and the retriever, and print the tables.

    Args:
        store: The evaluation's folder, every stage finished.
        contest: Data and split.
        facts: What `prepare` found, and who was left out.
        config: The evaluation's choices.
        names: The models in the order of the tables.
        console: Where the tables go.

    Returns:
        The path of `evaluation.html`.

    Raises:
        StoreError: A stage's file is damaged, or the folder cannot be written.
    """
    entries = {name: read_entry(store.stage_folder(name)) for name in names}
    report = assemble(contest, facts, config, entries)
    report["manifest"] = store.manifest
    records = {name: read_json(store.stage_folder(name) / RECORD) for name in names}
    report["timing"] = {name: record["seconds"] for name, record in records.items()}
    copy_models(store, names)
    best = report["retriever"]
    save_retriever(
        store.folder, store.stage_folder(best) / MODEL, contest, name=best, device=store.manifest["device"]
    )
    page = store.folder / EVALUATION_HTML
    write_json(store.folder / EVALUATION_JSON, report)
    write_atomically(page, render_evaluation(report).encode())
    print_evaluation(console, report)
    console.print(f"Report: {page}", markup=False, soft_wrap=True)
    return page


def assemble(
    contest: Contest, facts: Mapping[str, Any], config: EvaluationConfig, entries: Mapping[str, SavedEntry]
) -> Report:
    """Every figure, with the sentences that define it.

    Args:
        contest: Data and split.
        facts: What `prepare` found, and who was left out.
        config: The evaluation's choices.
        entries: By model, in the order of the tables.

    Returns:
        data, split, leaks, left_out, main_metric, order, models, comparisons, retriever and definitions, as JSON can
        hold it.
    """
    models: dict[str, Any] = {}
    main: dict[str, Table] = {}
    for name, entry in entries.items():
        found: dict[str, Any] = {**entry.facts, "trials_run": max(1, len(entry.facts["trials"]))}
        if entry.lists is not None:
            figures = measure_lists(contest, entry.lists, cutoffs=config.k, seed=config.seed)
            found |= {"metrics": figures.metrics, "slices": figures.slices, "beyond": figures.beyond}
            main[name] = figures.main
        if entry.probabilities is not None:
            found["pointwise"] = measure_chances(contest.test, entry.probabilities, seed=config.seed)
        models[name] = found
    rankers = [name for name in models if models[name]["score_name"] == LIST_SCORE]
    comparisons = compare_models(main, seed=config.seed) if len(main) > 1 else []
    return {
        **facts,
        "main_metric": f"ndcg@{config.k[0]}",
        # JSON files are sorted by name, so the order of the tables is said apart.
        "order": list(models),
        "models": models,
        "comparisons": [dict(row._asdict()) for row in comparisons],
        "retriever": max(rankers, key=lambda name: models[name]["score"]),
        "definitions": _definitions(models, len(comparisons)),
    }


def copy_models(store: RunStore, names: Sequence[str]) -> None:
    """Put each model that can be saved into OUT/models, whole or not at all.

    Files are linked, not copied, where the file system can.

    Args:
        store: The evaluation's folder.
        names: The models.

    Raises:
        StoreError: The folder cannot be written.
    """
    folder = store.folder / "models"
    for name in names:
        source, final = store.stage_folder(name) / MODEL, folder / name
        if final.exists() or not source.exists():
            continue
        partial = folder / (PARTIAL + name)
        try:
            folder.mkdir(exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(source, partial, copy_function=_link_or_copy)
        except OSError as err:
            raise StoreError(
                f"{final} must be writable; got {err.strerror or err}. Make room and go on with --resume."
            ) from err
        move_folder(partial, final)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _definitions(models: Mapping[str, Any], comparisons: int) -> dict[str, str]:
    """One sentence for each figure of the report, in the order in which it has them."""
    names: list[str] = []
    for model in models.values():
        names += [*model.get("metrics", ()), *model.get("beyond", ())]
        names += ["activity" if name.startswith("activity_") else name for name in model.get("slices", ())]
        if "pointwise" in model:
            names += [*POINTWISE, "nll"]
    found = definitions(dict.fromkeys(names))
    if comparisons:
        found["better"] = definition_of_better(comparisons)
    found["interval"] = (
        "Brackets hold 95 % percentile bootstrap intervals: users, with all their rows, and training seeds where there "
        "are several are drawn again, 2000 times for lists, 500 times for their slices and for chances. A calibration "
        "error is a mean of absolute values, so its interval leans upwards."
    )
    return found
