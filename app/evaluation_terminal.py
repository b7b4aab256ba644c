"""The tables of an evaluation on the terminal."""

import re
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Report = Mapping[str, Any]
SHOWN = ("ndcg", "recall", "hit_rate", "mrr")
LEVEL_COLUMNS = {"auc": "AUC", "log_loss": "log loss", "ece_width": "ECE", "gauc": "GAUC", "brier": "Brier"}
# Columns of a terminal below which fewer figures with fewer digits are shown.
WIDE = 130


def print_evaluation(console: Console, report: Report) -> None:
    """Print the figures of lists, those of levels, and what may be said of them.

    Args:
        console: Where they go.
        report: What `evaluation.json` holds.
    """
    if report["leaks"]["overridden"]:
        console.print("[bold red]LEAKS WERE ALLOWED: these figures are not to be believed.[/]")
    is_wide = console.width >= WIDE
    console.print(_lists_table(report, is_wide=is_wide))
    if any("pointwise" in model for model in report["models"].values()):
        console.print(_levels_table(report, is_wide=is_wide))
    for sentence in (*better_sentences(report), *facts_of(report)):
        console.print(sentence, markup=False, soft_wrap=True)


def show(measure: Mapping[str, Any] | None, decimals: int = 4) -> str:
    """A figure with its interval.

    Args:
        measure: value, ci95 and n; None where there is none.
        decimals: Digits after the point.

    Example:
        >>> show({"value": 0.25, "ci95": [0.2, 0.3], "n": 9}, 2)
        '0.25 [0.20, 0.30]'
    """
    if measure is None or measure["value"] is None:
        return ""
    text = f"{measure['value']:.{decimals}f}"
    if measure["ci95"] is None:
        return text
    low, high = measure["ci95"]
    return f"{text} [{low:.{decimals}f}, {high:.{decimals}f}]"


def rankers(report: Report) -> list[str]:
    """Models that rank, the best first by the main metric."""
    main = report["main_metric"]
    found = [name for name, model in report["models"].items() if "metrics" in model]
    return sorted(found, key=lambda name: -report["models"][name]["metrics"][main]["value"])


def better_sentences(report: Report) -> list[str]:
    """Which model is better than which, as far as that may be said."""
    main = report["main_metric"].replace("ndcg", "NDCG")
    found = []
    for name in rankers(report):
        beaten = [row["second"] for row in report["comparisons"] if row["first"] == name and row["is_better"]]
        beaten += [row["first"] for row in report["comparisons"] if row["second"] == name and row["is_worse"]]
        if beaten:
            found.append(f"{name} is better than {', '.join(beaten)} by {main}.")
    if report["comparisons"] and not found:
        found.append(f"No model may be called better than another by {main}.")
    return found


def facts_of(report: Report) -> list[str]:
    """What must be known beside the figures, a sentence each."""
    split, data = report["split"], report["data"]
    target = split["parts"]["test target"]
    level = f"level {data['relevant_level']}"
    name = data["levels"][data["relevant_level"]]
    wanted = level if name == level else f"{name!r} ({level})"
    found = [
        f"Relevant is {wanted}; all {split['candidates']:,} items of the catalogue are ranked but those seen.",
        f"The test has {target['rows']:,} rows of {target['users']:,} users; {target['cold_users']:,} of these users, "
        f"{target['cold_items']:,} items and {target['cold_rows']:,} rows are cold: train has no row of the user or "
        "the item.",
    ]
    if split["out_of_reach"]["test"]:
        found.append(
            f"{split['out_of_reach']['test']:,} test rows are of pairs known before; seen items are not offered, so "
            "these rows are left out."
        )
    if data["merged"]:
        found.append(f"{data['merged']:,} rows repeated a user and an item and were merged.")
    if not report["leaks"]["findings"]:
        found.append("The leak detector found nothing.")
    tuned = max(model["trials_run"] for model in report["models"].values())
    found.append(
        "Settings are the defaults; --tune N chooses them on the validation."
        if tuned == 1
        else f"Settings are the best of up to {tuned} trials on the validation, as many for each model that has any."
    )
    best = report["models"][report["retriever"]]
    found.append(
        f"Retriever: {report['retriever']}, the best on the validation (NDCG@10 {best['score']:.4f})."
    )
    return found


def _lists_table(report: Report, *, is_wide: bool) -> Table:
    k = report["main_metric"].partition("@")[2]
    metrics, decimals = (SHOWN, 4) if is_wide else (SHOWN[:2], 3)
    table = _table(f"Lists of {k}, mean over users with 95 % intervals")
    table.add_column("model", no_wrap=True)
    for name in (*(f"{metric}@{k}" for metric in metrics), "coverage", "train s"):
        table.add_column(name, justify="right", no_wrap=True)
    best = _best(report)
    for name in rankers(report):
        model = report["models"][name]
        cells = [_short(show(model["metrics"][f"{metric}@{k}"], decimals), is_wide) for metric in metrics]
        seconds = f"{sum(model['train_seconds']) / len(model['train_seconds']):.2f}"
        coverage = show(model["beyond"][f"coverage@{k}"], 3)
        shown = f"[bold]{escape(name)}[/]" if name == best else escape(name)
        table.add_row(shown, *cells, coverage, seconds)
    return table


def _best(report: Report) -> str | None:
    """The model that is better than every other; None where no test says so."""
    others = len(rankers(report)) - 1
    for name in rankers(report):
        won = [
            row
            for row in report["comparisons"]
            if (row["first"] == name and row["is_better"]) or (row["second"] == name and row["is_worse"])
        ]
        if others and len(won) == others:
            return name
    return None


def _levels_table(report: Report, *, is_wide: bool) -> Table:
    metrics, decimals = dict(list(LEVEL_COLUMNS.items())[: 5 if is_wide else 3]), 4 if is_wide else 3
    table = _table("Levels of shown items, row by row", gap=int(is_wide))
    for name in ("model", "level", *metrics.values()):
        table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    for model_name, model in report["models"].items():
        if "pointwise" not in model:
            continue
        for place, level in enumerate(model["pointwise"]["levels"]):
            cells = [_short(show(level["metrics"][name], decimals), is_wide) for name in metrics]
            table.add_row(escape(model_name) if place == 0 else "", str(level["level"]), *cells)
        table.add_section()
    return table


def _table(title: str, *, gap: int = 1) -> Table:
    return Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, gap, 0, 0),
    )


def _short(text: str, is_wide: bool) -> str:
    """The figure without the noughts before the point where room is short."""
    return text if is_wide else re.sub(r"\b0\.", ".", text)
