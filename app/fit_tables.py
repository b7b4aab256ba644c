"""The tables of `profiles.html` as plain texts: those of the page, and those that stand beside the plots."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.fit_terminal import ranked
from app.fit_words import figures, last_size, title_of, verdict_of
from app.headlines import Unit, show, show_value
from app.profile_methods import POOLED
from app.report_tables import Table

Report = Mapping[str, Any]


def fit_tables(report: Report) -> dict[str, Table]:
    """The tables of the page by name.

    Args:
        report: What `profiles.json` holds.
    """
    names, size = ranked(report), last_size(report)
    rows = {row["first"]: row for row in report["comparisons"]}
    return {
        "figures": Table(
            f"After {size} comparisons, means over users with 95 % intervals",
            ["method", "foretold", "over one model", "p, Holm", "verdict", "worst tenth of users"],
            [
                [
                    title_of(report, name),
                    show(figures(report, name)["accuracy"], "share"),
                    "" if name == POOLED else show(figures(report, name)["over_pooled"], "points"),
                    f"{rows[name]['p_holm']:.4f}" if name in rows else "",
                    verdict_of(report, name),
                    show(figures(report, name)["worst_decile"], "share"),
                ]
                for name in names
            ],
        ),
        "pairs": _pairs(report),
        "sureness": Table(
            f"Probabilities after {size} comparisons",
            ["method", "log loss, nats", "calibration error", "lost under another's comparisons"],
            [
                [
                    title_of(report, name),
                    show(figures(report, name)["log_loss"], "metric"),
                    show(figures(report, name)["ece"], "metric"),
                    show(report["methods"][name]["shuffle_gap"], "points"),
                ]
                for name in names
            ],
        ),
        "diagnostics": _diagnostics(report),
        "ranking": _rankings(report),
        "methods": Table(
            "What each method is, and what it costs",
            ["method", "name", "source", "latent size", "active axes by split", "fit, s", "new user, ms"],
            [
                [
                    title_of(report, name),
                    name,
                    report["methods"][name]["source"],
                    _or_none_of([report["methods"][name]["latent_dim"]]),
                    _or_none_of(report["methods"][name]["active_units"]),
                    f"{report['timing'][name]['fit_seconds']:.1f}",
                    f"{report['timing'][name]['new_user_ms']:.2f}",
                ]
                for name in names
            ],
        ),
        "parts": Table(
            "Parts of each split: comparisons, users and prompts",
            ["split", "train", "context", "target"],
            [
                [
                    seed,
                    *(
                        f"{part['comparisons']:,} / {part['users']:,} / {part['prompts']:,}"
                        for part in (parts["train"], parts["context"], parts["target"])
                    ),
                ]
                for seed, parts in report["split"]["parts"].items()
            ],
        ),
        "data": _data(report),
    }


def plot_tables(report: Report) -> dict[str, Table]:
    """The values of each plot, by its key.

    Args:
        report: What `profiles.json` holds.
    """
    names, sizes = ranked(report), report["context_sizes"]
    personal = [name for name in names if name != POOLED]
    gains = np.asarray(report["methods"][report["best"]["name"]]["gains"])
    marks = (0, 10, 25, 50, 75, 90, 100)
    portrait = report["map"]
    wishes = list(zip(portrait["strongest"], portrait["wants_more"], strict=True))
    return {
        "accuracy": Table(
            "Choices foretold by comparisons known",
            ["known", *(title_of(report, name) for name in names)],
            [
                [
                    str(size),
                    *(
                        show(report["methods"][name]["by_context"][f"k{size}"]["accuracy"], "share")
                        for name in names
                    ),
                ]
                for size in sizes
            ],
        ),
        "calibration": Table(
            "Right more often than said, by sureness",
            ["method", "sure", "choices", "right more often, points"],
            [
                [
                    title_of(report, name),
                    f"{100 * part['from']:.0f} to {100 * part['to']:.0f} %",
                    f"{part['choices']:,}",
                    show_value(part["gap"], "points"),
                ]
                for name in names
                for part in report["methods"][name]["calibration"]
            ],
        ),
        "forest": Table(
            "Points over one model for everybody",
            ["method", "difference"],
            [
                [title_of(report, name), show(figures(report, name)["over_pooled"], "points")]
                for name in personal
            ],
        ),
        "gains": Table(
            "Gain by share of users",
            ["users with at most this gain", "gain"],
            [
                [f"{mark} %", show_value(float(value), "points")]
                for mark, value in zip(marks, np.percentile(gains, marks), strict=True)
            ],
        ),
        "map": Table(
            "Users by what they want most, as far as the belief tells",
            ["attribute", "more", "less"],
            [
                [name, str(wishes.count((name, True))), str(wishes.count((name, False)))]
                for name in portrait["attributes"]
            ],
        ),
    }


def _pairs(report: Report) -> Table:
    judged = report["data"]["judged"]
    caption = (
        f"Pairs that several users judged: {judged['agreed']:,} comparisons where all chose alike, "
        f"{judged['controversial']:,} where they did not; {judged['by_one_user']:,} comparisons are of pairs that one "
        "user alone judged"
    )
    rows = [
        [
            title_of(report, name),
            *(_or_none(report["methods"][name][key]) for key in ("agreed", "controversial")),
        ]
        for name in ranked(report)
    ]
    return Table(caption, ["method", "foretold, agreed", "foretold, controversial"], rows)


def _diagnostics(report: Report) -> Table:
    rows = [
        [
            title_of(report, name),
            _or_none(report["methods"][name]["label_flip"], "metric"),
            _or_none(report["methods"][name]["loudness"], "metric"),
            show(report["methods"][name]["shuffle_gap"], "points"),
            _or_none_of(report["methods"][name]["active_units"]),
        ]
        for name in ranked(report)
    ]
    head = ["method", "flipped labels, cosine", "loudest over quietest", "lost under another's comparisons"]
    return Table("What may be wrong although the accuracy looks right", [*head, "active axes by split"], rows)


def _rankings(report: Report) -> Table:
    """How policies rank replies; without rows where no method has a policy."""
    keys = ("reward", "ranking", "idealised", "reference", "gained", "lost")
    rows = [
        [title_of(report, name), *(show({"value": ranking[key]}, "share") for key in keys)]
        for name in ranked(report)
        if (ranking := report["methods"][name]["ranking"]) is not None
    ]
    head = ["method", "reward right", "policy right", "could be right", "base model right", "gained", "lost"]
    return Table("Whether policies themselves rank replies as users do, share of choices", head, rows)


def _or_none_of(numbers: Sequence[int | None]) -> str:
    return ", ".join("none" if number is None else str(number) for number in numbers)


def _or_none(measure: Mapping[str, Any] | None, kind: Unit = "share") -> str:
    return "none" if measure is None else show(measure, kind)


def _data(report: Report) -> Table:
    data = report["data"]
    per_user, shown = data["per_user"], report["split"]["shown"]
    rows = [
        ["layout of the file", data["layout"]],
        ["rows, choices, ties", f"{data['rows']:,}, {data['comparisons']:,}, {data['ties']:,}"],
        ["comparisons of a user: least, median, most",
         f"{per_user['least']:,}, {per_user['median']:,.0f}, {per_user['most']:,}"],
        ["users with a single comparison", f"{data['users_with_one']:,}"],
        ["different replies", f"{data['replies']:,}"],
        ["shown on average, by comparisons asked for",
         ", ".join(f"{key[1:]}: {value:.1f}" for key, value in shown.items())],
    ]  # fmt: skip
    if data["dropped"]:
        rows += [[f"left out: {drop['reason']}", f"{drop['count']:,}"] for drop in data["dropped"]]
    else:
        rows.append(["rows left out", "none"])
    return Table("The data", ["what", "how many"], rows)
