"""`report.html`: one file that needs no network, readable in light and dark, with a table beside every plot.

The page is a template that escapes every text put into it, since titles and names come from catalogues that anyone may
have written. Beyond that, its policy lets a browser run the two scripts written here and nothing else, and load
nothing from anywhere.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from markupsafe import Markup

from app import plots
from app.headlines import Headline, Report, as_measure, show, show_value
from app.pages import fingerprint, page_environment, page_scripts, read_template
from app.plots import Figure
from app.report_tables import Table, accuracy_table, map_table, measures_table, report_tables, turns_table
from app.verdict import verdict
from simulators.types import LEVELS

_STARS = 5
_STOPS = {
    "accepted": "The user takes this film.",
    "out_of_patience": "The user leaves, out of patience.",
    "max_turns": "The last turn is over.",
}


class Portraits(NamedTuple):
    """What the stage "map" left for people to look at.

    map: Latents and hidden styles of the unseen users, and the two opposed ones.
    samples: Dialogues of those two, and answers to the same questions.
    """

    map: Mapping[str, Any]
    samples: Mapping[str, Any]


class Plot(NamedTuple):
    """A figure with everything a reader needs who cannot see it.

    key: Name of its element in the page.
    title: Short heading.
    caption: What it shows and how to read it.
    figure: For Plotly.
    table: The same values.
    """

    key: str
    title: str
    caption: str
    figure: Figure
    table: Table


def render_report(report: Report, lines: Sequence[Headline], portraits: Portraits) -> str:
    """The whole page.

    Args:
        report: What `report.json` holds.
        lines: Its headline figures.
        portraits: For the map and the dialogues.

    Returns:
        HTML; the same input gives the same bytes.
    """
    scripts = page_scripts()
    return (
        page_environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            verdict=verdict(report, lines),
            parts=[(part, list(own)) for part, own in groupby(lines, key=lambda line: line.part)],
            plots=_plots(report, portraits.map),
            sliders=_sliders(report["policy"]["sliders"]),
            drags=_drags(report["policy"]["sliders"]),
            tables=report_tables(report),
            goodhart=show(report["dialogue"]["goodhart_gap"], "gain"),
            timing=_timing(report["timing"]),
            people=_people(portraits),
            answers=portraits.samples["answers"],
            manifest=json.dumps(report["manifest"], indent=2, sort_keys=True, ensure_ascii=False),
            # Written by this project and by Plotly, so they may stand in the page as they are.
            scripts=[Markup(script) for script in scripts],
            script_hashes=[fingerprint(script) for script in scripts],
            style=Markup(read_template("report.css")),
        )
    )


def _plots(report: Report, portrait: Mapping[str, Any]) -> dict[str, Plot]:
    accuracy, policy = report["preference"]["accuracy"], report["policy"]
    by_turn = report["dialogue"]["satisfaction_by_turn"]
    found = [
        Plot(
            "accuracy",
            "Choices foretold against comparisons known",
            "Unseen users, questions kept from training. Bands are 95 % intervals over users.",
            plots.accuracy_figure(accuracy),
            accuracy_table(accuracy),
        ),
        Plot(
            "map",
            "Map of the unseen users",
            f"Where {portrait['shots']} comparisons put each unseen user: first two coordinates of the posterior mean. "
            "Colours are not learned: they show the attribute that the user weighs most in the hidden truth; filled "
            "where more of it is liked, hollow where less. A and B are the two users shown below.",
            plots.map_figure(portrait),
            map_table(portrait),
        ),
        Plot(
            "wins",
            "Single replies: how often the user's own reply wins",
            "Share of unseen prompts on which the trained policy's reply under the user's own posterior has more true "
            "utility for that user than the other reply. Bars are 95 % intervals over users.",
            plots.wins_figure(policy),
            measures_table(
                "Wins of the reply under the user's own condition",
                {
                    "over the average user's reply": policy["win_rate_conditioned_vs_average"],
                    "over the untrained policy": policy["win_rate_after_vs_before"],
                },
                "share",
            ),
        ),
        Plot(
            "turns",
            "Satisfaction by turn",
            "Mean stars at each turn, among the users who got that far: those easily pleased have left by then, so "
            "compare before with after, not one turn with the next. Bars are 95 % intervals over users.",
            plots.turns_figure(by_turn),
            turns_table(by_turn),
        ),
    ]
    return {plot.key: plot for plot in found}


def _sliders(sliders: Mapping[str, Any]) -> list[Plot]:
    bounds = plots.slider_bounds(sliders)
    return [
        Plot(
            f"slider-{name}",
            name,
            f"rank correlation {show(slider['spearman'], 'number')}",
            plots.slider_figure(slider, bounds),
            Table(
                f"Measured {name} by place of its slider",
                ["slider", "standard deviations"],
                [
                    [f"{value:+g}", show_value(height, "number")]
                    for value, height in zip(slider["values"], slider["curve"], strict=True)
                ],
            ),
        )
        for name, slider in sorted(sliders.items())
    ]


def _drags(sliders: Mapping[str, Any]) -> dict[str, Any]:
    """Rank correlation of every slider with every attribute: the heatmap."""
    names = sorted(sliders)
    rows = []
    for name in names:
        known = {**sliders[name]["drags"], name: sliders[name]["spearman"]}
        values = [as_measure(known[other])["value"] for other in names]
        cells = [
            {
                "text": f"{value:+.2f}".replace("-", "\N{MINUS SIGN}"),
                "weight": round(100 * abs(value)),
                "up": value > 0,
            }
            for value in values
        ]
        rows.append({"name": name, "cells": cells})
    return {"names": names, "rows": rows}


def _timing(timing: Mapping[str, float]) -> list[dict[str, Any]]:
    """Rows of the timing table in falling order of time, each with its share of the whole in percent."""
    total = max(timing["total"], 1e-9)
    stages = sorted(
        (item for item in timing.items() if item[0] != "total"), key=lambda item: (-item[1], item[0])
    )
    return [
        {"name": name, "seconds": seconds, "share": round(100 * seconds / total, 1)}
        for name, seconds in stages
    ]


def _people(portraits: Portraits) -> list[dict[str, Any]]:
    """The two opposed users with their hidden wishes and their dialogues, side by side."""
    found = []
    for letter, sample in zip("AB", portraits.samples["dialogues"], strict=True):
        row = sample["row"]
        style = dict(zip(portraits.map["attributes"], portraits.map["hidden_style"][row], strict=True))
        strongest = sorted(style.items(), key=lambda item: (-abs(item[1]), item[0]))[:3]
        wishes = [f"{'more' if w > 0 else 'less'} {name} ({show_value(w, 'gain')})" for name, w in strongest]
        pairs = zip(sample["before"], sample["after"], strict=True)
        found.append(
            {
                "letter": letter,
                "user": portraits.map["users"][row],
                "wishes": ", ".join(wishes),
                "dialogues": [{"before": _dialogue(b), "after": _dialogue(a)} for b, a in pairs],
            }
        )
    return found


def _dialogue(saved: Mapping[str, Any]) -> dict[str, Any]:
    turns = [
        {
            "said": turn["user"]["text"],
            "title": turn["title"],
            "reply": turn["reply"]["text"],
            "stars": _draw_stars(turn["satisfaction"]),
            "rating": f"{turn['satisfaction']:g} of {_STARS} stars",
            "level": LEVELS[turn["level"]],
            "complaint": _complaint(turn["complaint"]),
        }
        for turn in saved["turns"]
    ]
    last = saved["turns"][-1]["next"]["text"] if saved["turns"] else ""
    return {"turns": turns, "last": last, "stop": _STOPS.get(saved["stop"], "")}


def _draw_stars(satisfaction: float) -> str:
    full = min(_STARS, max(0, round(satisfaction)))
    return "\N{BLACK STAR}" * full + "\N{WHITE STAR}" * (_STARS - full)


def _complaint(complaint: Sequence[Any] | None) -> str:
    if not complaint:
        return ""
    attribute, sign = complaint
    return f"minded too {'much' if sign > 0 else 'little'} {attribute}"
