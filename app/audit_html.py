"""`audit.html`: one file that needs no network, readable in light and dark, with a table beside every plot.

Every text of the data is escaped, and the page's policy lets a browser run the two scripts written here and nothing
else, and load nothing from anywhere.
"""

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from app import audit_plots as plots
from app import audit_tables as tables
from app.audit_terminal import counted
from app.pages import fingerprint, page_environment, page_scripts, read_template
from app.report_html import Plot
from app.report_tables import Table
from simulators.faithfulness import Tag

Report = Mapping[str, Any]
_BARS = "Bars are means over all rows; the table of distances below has the intervals over users."


def render_audit(report: Report) -> str:
    """The whole page.

    Args:
        report: What `audit.json` holds.

    Returns:
        HTML; the same input gives the same bytes.
    """
    scripts = page_scripts()
    return (
        page_environment()
        .get_template("audit.html.j2")
        .render(
            report=report,
            simulated=counted(report["counts"]["simulated"]),
            real=counted(report["counts"]["real"]),
            plots=_plots(report),
            tables=_tables(report),
            criteria=[tables.criteria_table(verdict) for verdict in report["verdicts"]],
            style=Markup(read_template("report.css")),
            manifest=json.dumps(report["manifest"], indent=2, sort_keys=True, ensure_ascii=False),
            # Written by this project and by Plotly, so they may stand in the page as they are.
            scripts=[Markup(script) for script in scripts],
            script_hashes=Markup(" ".join(fingerprint(script) for script in scripts)),
        )
    )


def _tables(report: Report) -> dict[str, Table]:
    found = {
        "counts": tables.counts_table(report),
        "limits": tables.limits_table(report),
        "reactions": tables.reactions_table(report),
        "sessions": tables.sessions_table(report),
        "words": tables.words_table(report),
    }
    if "errors" in report:
        found |= {"errors": tables.errors_table(report), "examples": tables.examples_table(report)}
    if "choices" in report:
        found["choices"] = tables.choices_table(report)
    if "ranking" in report:
        found["ranking"] = tables.ranking_table(report)
    return {name: table for name, table in found.items() if table.rows}


def _plots(report: Report) -> dict[str, Plot]:
    found = [
        *_limit_plot(report),
        *_reaction_plots(report),
        *_session_plots(report),
        *_word_plots(report),
        *_choice_plots(report),
    ]
    return {plot.key: plot for plot in found}


def _limit_plot(report: Report) -> list[Plot]:
    by_words = {
        row["words"]: row
        for verdict in report["verdicts"]
        for row in verdict["criteria"]
        if row["value"] is not None and row["kind"] in {"most", "around"}
    }
    if not by_words:
        return []
    rows = [
        [row["words"], f"{row['value']:.3g}", f"{row['limit']:g}", row["standing"]]
        for row in by_words.values()
    ]
    return [
        Plot(
            "limits",
            "Every measure over its limit",
            "Between the dashed lines a measure is within its limit. Circles: the whole interval is within; squares: "
            "beyond; diamonds: not settled by these users. Measures held to a floor stand in the tables alone.",
            plots.limits_figure(list(by_words.values())),
            Table("Measures and limits", ["measure", "value", "limit", ""], rows),
        )
    ]


def _reaction_plots(report: Report) -> list[Plot]:
    found = []
    for key, title, axis in (
        ("levels", "Levels of interest", "level"),
        ("satisfaction", "Satisfaction", "stars"),
    ):
        if key not in report:
            continue
        part = report[key]
        labels = (
            tables.level_labels(part["support"], report["settings"]["max_level"])
            if key == "levels"
            else [f"{value:g}" for value in part["support"]]
        )
        found.append(
            Plot(
                key,
                title,
                _BARS,
                plots.shares_figure(part, labels, axis),
                tables.shares_table(title, axis, labels, part),
            )
        )
    if "actions" in report:
        part = report["actions"]
        found.append(
            Plot(
                "actions", "Actions", _BARS, plots.shares_figure(part, part["kinds"], "action"),
                tables.shares_table("Actions", "action", part["kinds"], part),
            )
        )  # fmt: skip
    if "position" in report:
        part = report["position"]
        labels = [str(place + 1) for place in part["positions"]]
        sides = {side: part[f"{side}_rate"] for side in plots.SIDES}
        found.append(
            Plot(
                "position",
                "Position bias",
                "Share of rows opened at each place of the list. Lists ranked well fall by themselves: compare the two "
                "curves, not a curve with a level line.",
                plots.position_figure(part),
                tables.rates_table("Opened, by place", "place", labels, sides),
            )
        )
    if "ranking" in report:
        found.append(
            Plot(
                "ranking",
                "Does the simulator order policies as reality does?",
                "Each mark is a policy. For ranking, marks need only rise together; on the dashed line the simulator "
                f"gives its true value. The log settles {report['ranking']['settled']} pairs of policies; the "
                f"simulator orders {report['ranking']['settled_alike']} of them alike.",
                plots.ranking_figure(report["ranking"]),
                tables.ranking_table(report),
            )
        )
    return found


def _session_plots(report: Report) -> list[Plot]:
    found = []
    for key, title, caption in (
        ("sessions", "How long sessions last", "Share of sessions that go on beyond each length; those cut off by the "
         "limit of turns count as far as they were watched."),
        ("abandonment", "When users walk out", "Share of users who have not walked out; a dialogue that ends in any "
         "other way counts as far as it was watched."),
    ):  # fmt: skip
        if key in report:
            part = report[key]
            axis = "not yet over, %" if key == "sessions" else "have not walked out, %"
            caption += " Bands are 95 % intervals over users."
            found.append(
                Plot(
                    key, title, caption, plots.survival_figure(part, axis), tables.survival_table(title, part)
                )
            )
    if "ends" in report:
        part = report["ends"]
        labels = [tables.ENDS[kind] for kind in part["kinds"]]
        found.append(
            Plot(
                "ends", "How dialogues end", _BARS, plots.shares_figure(part, labels, "end"),
                tables.shares_table("Ends", "end", labels, part),
            )
        )  # fmt: skip
    return found


def _word_plots(report: Report) -> list[Plot]:
    if "errors" not in report:
        return []
    found = [
        Plot(
            "errors",
            "Faults of users",
            "Share of dialogues in which the user did what a real one would hardly do. The rules are plain and find "
            "some in people too: what counts is the excess. Bars with 95 % intervals over users.",
            plots.errors_figure(report["errors"]["tags"], [tag.value for tag in Tag]),
            tables.errors_table(report),
        )
    ]
    if report["disclosure"]["turns"]:
        found.append(
            Plot(
                "disclosure",
                "How fast users tell what they want",
                f"Things out of a list of {report['disclosure']['things']} (genres, moods and other facts of cards) "
                "that a user names before the agent does, at each message, mean over dialogues that get there.",
                plots.disclosure_figure(report["disclosure"]),
                tables.disclosure_table(report["disclosure"]),
            )
        )
    return found


def _choice_plots(report: Report) -> list[Plot]:
    if "choices" not in report:
        return []
    part = report["choices"]
    curve, slots = part["reliability"], part["slots"]
    rows = [
        [f"{100 * said:.1f} %", f"{100 * was:.1f} %", f"{n:,}"]
        for said, was, n in zip(curve["probability"], curve["rate"], curve["rows"], strict=True)
    ]
    places = [str(place + 1) for place in range(len(slots["rows"]))]
    return [
        Plot(
            "reliability",
            "Do probabilities mean what they say?",
            "Options in bins of equal number by predicted probability. Above the dashed line they are taken more often "
            "than said.",
            plots.reliability_figure(part),
            Table("Said and was", ["predicted", "taken", "options"], rows),
        ),
        Plot(
            "slots",
            "Accuracy by place",
            "Where a model knows the user, its accuracy does not depend on where the option stood in the list.",
            plots.slots_figure(part),
            tables.rates_table(
                "Accuracy by place", "place", places,
                {"expected": slots["expected"], "top-1": slots["top1"]},
            ),
        ),
    ]  # fmt: skip
