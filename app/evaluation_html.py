"""`evaluation.html`: one file that needs no network, readable in light and dark, with a table beside every plot.

Every text of the data is escaped, and the page's policy lets a browser run the two scripts written here and nothing
else, and load nothing from anywhere.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from app import evaluation_plots as plots
from app.evaluation_terminal import better_sentences, facts_of, rankers, show
from app.pages import fingerprint, page_environment, page_scripts, read_template
from app.report_html import Plot
from app.report_tables import Table

_KINDS_OF_ITEMS = ("head", "torso", "tail", "cold_items", "warm_items")
_LEVEL_METRICS = {
    "auc": "AUC",
    "gauc": "GAUC",
    "log_loss": "log loss",
    "ece_width": "ECE",
    "ece_mass": "ECE, equal rows",
    "brier": "Brier",
}
# Settings that follow from the log and the question.
_SAME_FOR_ALL = ("levels", "relevant_level", "retrieve_level")
Report = Mapping[str, Any]


def render_evaluation(report: Report) -> str:
    """The whole page.

    Args:
        report: What `evaluation.json` holds.

    Returns:
        HTML; the same input gives the same bytes.
    """
    scripts = page_scripts()
    names = rankers(report)
    return (
        page_environment()
        .get_template("evaluation.html.j2")
        .render(
            report=report,
            sentences=better_sentences(report),
            facts=facts_of(report),
            forest=_forest(report, names),
            slices=_slices(report, names),
            trades=_trades(report, names),
            reliability=_reliability(report),
            tables=_tables(report, names),
            style=Markup(read_template("report.css")),
            own_style=Markup(read_template("evaluation.css")),
            manifest=json.dumps(report["manifest"], indent=2, sort_keys=True, ensure_ascii=False),
            # Written by this project and by Plotly, so they may stand in the page as they are.
            scripts=[Markup(script) for script in scripts],
            script_hashes=Markup(" ".join(fingerprint(script) for script in scripts)),
        )
    )


def _forest(report: Report, names: Sequence[str]) -> Plot:
    main = report["main_metric"]
    rows = [
        [name, show(measure), f"{measure['n']:,}"]
        for name, measure in ((name, report["models"][name]["metrics"][main]) for name in names)
    ]
    return Plot(
        "forest",
        f"{main.upper()} of every model",
        "Mean over test users with a relevant item. Intervals that overlap do not settle a comparison, as models share "
        "their users: the table of comparisons does.",
        plots.forest_figure(report, names),
        Table("Mean over test users", ["model", main, "users"], rows),
    )


def _slices(report: Report, names: Sequence[str]) -> list[Plot]:
    there = [
        part
        for part in report["models"][names[0]]["slices"]
        if all(part in report["models"][name]["slices"] for name in names)
    ]
    groups = (
        ("items", "By popularity of the items", "Only the relevant items of the slice count, ranked among all others. "
         "A cold item has no training row.", [part for part in there if part in _KINDS_OF_ITEMS]),
        ("users", "By what is known of the user", "Cold users have nothing known; 1 to 10 are tenths of the others, "
         "10 the most active.", [part for part in there if part not in {*_KINDS_OF_ITEMS, "warm_users"}]),
    )  # fmt: skip
    main = report["main_metric"]
    return [
        Plot(
            f"slices-{key}",
            title,
            caption,
            plots.slices_figure(report, names, parts),
            Table(
                f"{main} by slice, with its users",
                ["slice", "users", *names],
                [
                    [
                        part.replace("_", " "),
                        f"{report['models'][names[0]]['slices'][part][main]['n']:,}",
                        *(show(report["models"][name]["slices"][part][main], 3) for name in names),
                    ]
                    for part in parts
                ],
            ),
        )
        for key, title, caption, parts in groups
        if parts
    ]


def _trades(report: Report, names: Sequence[str]) -> list[Plot]:
    main = report["main_metric"]
    k = main.partition("@")[2]
    known = report["models"][names[0]]["beyond"]
    wanted = {
        f"coverage@{k}": "share of the catalogue that is shown",
        f"novelty@{k}": "novelty, bits",
    }
    return [
        Plot(
            f"trade-{beyond.partition('@')[0]}",
            f"Accuracy against {beyond.partition('@')[0]}",
            report["definitions"][beyond],
            plots.trade_figure(report, names, beyond, title),
            Table(
                f"{main} and {beyond}",
                ["model", main, beyond],
                [
                    [
                        name,
                        show(report["models"][name]["metrics"][main]),
                        show(report["models"][name]["beyond"][beyond], 3),
                    ]
                    for name in names
                ],
            ),
        )
        for beyond, title in wanted.items()
        if beyond in known
    ]


def _reliability(report: Report) -> list[Plot]:
    names = [name for name, model in report["models"].items() if "pointwise" in model]
    if not names:
        return []
    found = []
    for level, title in enumerate(report["data"]["levels"][1:], start=1):
        curves = {name: report["models"][name]["pointwise"]["levels"][level - 1]["curve"] for name in names}
        rows = [
            [name, f"{said:.3f}", f"{was:.3f}", f"{count:,}"]
            for name, curve in curves.items()
            for said, was, count in zip(curve["mean"], curve["rate"], curve["rows"], strict=True)
        ]
        found.append(
            Plot(
                f"reliability-{level}",
                f"Level {level}: {title}",
                f"Bins of equal width with {plots.LEAST_ROWS} rows or more (the table has all); on the dashed line, "
                "chances come true as often as said.",
                plots.reliability_figure(report, names, level),
                Table("Bins", ["model", "said", "was", "rows"], rows),
            )
        )
    return found


def _tables(report: Report, names: Sequence[str]) -> dict[str, Table]:
    models = report["models"]
    beyond = list(models[names[0]]["beyond"])
    found = {
        "metrics": Table(
            "Mean over test users, with 95 % intervals",
            ["metric", *names],
            [
                [metric, *(show(models[name]["metrics"][metric], 3) for name in names)]
                for metric in models[names[0]]["metrics"]
            ],
        ),
        "beyond": Table(
            "Beyond accuracy",
            ["figure", *names],
            [[figure, *(show(models[name]["beyond"].get(figure), 3) for name in names)] for figure in beyond],
        ),
        "comparisons": Table(
            f"Differences of {report['main_metric']} over the same users",
            ["first", "second", "difference", "p", "p, Holm", "verdict"],
            [_comparison(row) for row in report["comparisons"]],
        ),
        "models": Table(
            "What each model was, and what it cost",
            ["model", "trials", "validation", "train CPU s", "answers s", "settings"],
            [_model(name, model) for name, model in models.items()],
        ),
        "parts": _parts(report),
    }
    if any("pointwise" in model for model in models.values()):
        found["levels"] = _levels(report)
    return found


def _comparison(row: Mapping[str, Any]) -> list[str]:
    verdict = "better" if row["is_better"] else "worse" if row["is_worse"] else "undecided"
    difference = show({"value": row["difference"], "ci95": [row["low"], row["high"]]})
    return [row["first"], row["second"], difference, f"{row['p']:.4f}", f"{row['p_holm']:.4f}", verdict]


def _model(name: str, model: Mapping[str, Any]) -> list[str]:
    settings = ", ".join(
        f"{key} {_plain(value)}"
        for key, value in model["settings"].items()
        if value is not None and key not in _SAME_FOR_ALL
    )
    mean = sum(model["train_seconds"]) / len(model["train_seconds"])
    answers = sum(model["answer_seconds"]) / len(model["answer_seconds"])
    score = f"{model['score']:.4f}"
    return [name, str(model["trials_run"]), score, f"{mean:.2f}", f"{answers:.3f}", settings]


def _plain(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)


def _parts(report: Report) -> Table:
    head = [
        "part",
        "rows",
        "users",
        "items",
        "by level",
        "cold users",
        "cold items",
        "cold rows",
        "no history",
    ]
    rows = [
        [
            name,
            *(f"{part[key]:,}" for key in ("rows", "users", "items")),
            " / ".join(f"{count:,}" for count in part["level_counts"]),
            *(f"{part[key]:,}" for key in ("cold_users", "cold_items", "cold_rows", "users_without_history")),
        ]
        for name, part in report["split"]["parts"].items()
    ]
    return Table("The parts of the split", head, rows)


def _levels(report: Report) -> Table:
    rows = []
    for name, model in report["models"].items():
        if "pointwise" not in model:
            continue
        for level in model["pointwise"]["levels"]:
            own = [show(level["metrics"][metric], 3) for metric in _LEVEL_METRICS]
            nll = show(model["pointwise"]["nll"], 3) if level["level"] == 1 else ""
            rows.append([name if level["level"] == 1 else "", str(level["level"]), *own, nll])
    return Table(
        "Levels of shown items, row by row, with 95 % intervals over users",
        ["model", "level", *_LEVEL_METRICS.values(), "NLL of the exact level"],
        rows,
    )
