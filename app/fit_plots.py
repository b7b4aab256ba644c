"""The plots of a comparison of profiles as plain Plotly figures; see `app.plots` for what is left to the page.

Each method keeps its colour and mark through all plots.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.fit_words import last_size
from app.plots import BLUE, GREEN, GREY, OCHRE, ORANGE, PURPLE, RED, Figure
from app.profile_methods import POOLED

Report = Mapping[str, Any]
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, OCHRE)
_MARKS = ("circle", "square", "diamond", "cross", "triangle-up", "star", "x")
_BAND_OPACITY = 0.13
# Bins of a calibration plot with fewer choices are noise.
LEAST_CHOICES = 50
_NARROWEST_BAR = 0.02


def accuracy_figure(report: Report, names: Sequence[str]) -> Figure:
    """Share of choices foretold against the comparisons known, in percent, with bands of the best and the pooled one.

    Args:
        report: What `profiles.json` holds.
        names: Methods, the best first.
    """
    sizes = report["context_sizes"]
    bands, curves = [], []
    for name in names:
        look = _look(report, name)
        measures = [report["methods"][name]["by_context"][f"k{size}"]["accuracy"] for size in sizes]
        low, high = zip(*(measure["ci95"] for measure in measures), strict=True)
        places = list(range(len(sizes)))
        # The bands of all would cover one another.
        if name in {names[0], POOLED}:
            bands.append(
                {
                    "type": "scatter", "mode": "lines", "x": [*places, *reversed(places)],
                    "y": [100 * bound for bound in (*low, *reversed(high))], "fill": "toself",
                    "fillcolor": _faded(look["color"]), "line": {"width": 0}, "hoverinfo": "skip",
                    "showlegend": False,
                }
            )  # fmt: skip
        curves.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": report["methods"][name]["title"], "x": places,
                "y": [100 * measure["value"] for measure in measures],
                "line": {"color": look["color"], "width": 2.5, "dash": "dash" if name == POOLED else "solid"},
                "marker": {"size": 9, **look}, "hovertemplate": "%{y:.1f} %",
            }
        )  # fmt: skip
    layout = {
        "xaxis": {
            "title": {"text": "comparisons known of the user"},
            "tickvals": list(range(len(sizes))),
            "ticktext": [str(size) for size in sizes],
        },
        "yaxis": {"title": {"text": "choices foretold, %"}},
        "hovermode": "x unified",
    }
    return {"data": [*bands, *curves], "layout": layout}


def has_calibration(report: Report, names: Sequence[str]) -> bool:
    """Whether any of these methods has a bin of enough choices for `calibration_figure`."""
    return any(
        part["choices"] >= LEAST_CHOICES for name in names for part in report["methods"][name]["calibration"]
    )


def calibration_figure(report: Report, names: Sequence[str]) -> Figure:
    """How much more often a method is right than it says, by how sure it says to be; 0 is honest.

    Args:
        report: What `profiles.json` holds.
        names: Methods to show.
    """
    data: list[dict[str, Any]] = []
    for name in names:
        look = _look(report, name)
        bins = [part for part in report["methods"][name]["calibration"] if part["choices"] >= LEAST_CHOICES]
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": report["methods"][name]["title"],
                "x": [50 * (part["from"] + part["to"]) for part in bins], "y": [100 * part["gap"] for part in bins],
                "customdata": [part["choices"] for part in bins],
                "line": {"color": look["color"], "width": 2}, "marker": {"size": 8, **look},
                "hovertemplate": "%{y:+.1f} points, %{customdata} choices<extra>" + name + "</extra>",
            }
        )  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "how sure it says to be, %"}, "range": [49, 101]},
        "yaxis": {"title": {"text": "right more often than said, points"}, "rangemode": "tozero"},
        "shapes": [_line(y0=0, y1=0, x0=0, x1=1, xref="paper")],
    }
    return {"data": data, "layout": layout}


def gains_figure(report: Report, name: str) -> Figure:
    """How many users gain and lose how much over one model for everybody, in points.

    Args:
        report: What `profiles.json` holds.
        name: The method.
    """
    gains = np.asarray(report["methods"][name]["gains"])
    width = max(_NARROWEST_BAR, round(float(np.ptp(gains)) / 24, 2))
    # Nought is the middle of a bar of its own, so that no bar holds both users who gain and users who lose.
    place = np.round(gains / width).astype(np.int64)
    bars = np.arange(place.min(), place.max() + 1)
    count = np.bincount(place - place.min(), minlength=len(bars))
    trace = {
        "type": "bar", "x": (100 * width * bars).tolist(), "y": count.tolist(),
        "width": [100 * width * 0.92] * len(count),
        "marker": {"color": [GREY if not bar else BLUE if bar > 0 else ORANGE for bar in bars.tolist()]},
        "hovertemplate": "%{y} users around %{x:+.1f} points<extra></extra>", "showlegend": False,
    }  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "choices foretold over one model for everybody, points"}},
        "yaxis": {"title": {"text": "users"}},
        "shapes": [_line(x0=0, x1=0, y0=0, y1=1, yref="paper")],
    }
    return {"data": [trace], "layout": layout}


def map_figure(report: Report) -> Figure:
    """Unseen users on the two widest axes of the best method's beliefs, coloured by what they want most.

    Args:
        report: What `profiles.json` holds.
    """
    portrait = report["map"]
    colours = (*_COLOURS, GREY)
    data: list[dict[str, Any]] = []
    for place, attribute in enumerate(portrait["attributes"]):
        rows = [row for row, own in enumerate(portrait["strongest"]) if own == attribute]
        if not rows:
            continue
        # With more attributes than colours, the marks go on by another step, so that no two look alike.
        colour, mark = colours[place % len(colours)], _MARKS[(place + place // len(colours)) % len(_MARKS)]
        more = [portrait["wants_more"][row] for row in rows]
        marker = {"size": 10, "color": colour, "line": {"width": 2, "color": colour}}
        shared = {"type": "scatter", "mode": "markers", "name": attribute, "legendgroup": attribute}
        data += [
            # A trace of its own for the legend, whose mark is always filled.
            {**shared, "x": [None], "y": [None], "marker": {**marker, "symbol": mark}},
            {
                **shared, "showlegend": False,
                "x": [portrait["place"][row][0] for row in rows], "y": [portrait["place"][row][1] for row in rows],
                "text": [f"{portrait['users'][row]}: {'more' if sign else 'less'} {attribute}"
                         for row, sign in zip(rows, more, strict=True)],
                "marker": {**marker, "symbol": [mark if sign else f"{mark}-open" for sign in more]},
                "hovertemplate": "%{text}<extra></extra>",
            },
        ]  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "widest axis of the beliefs, deviations of the prior"}},
        "yaxis": {"title": {"text": "second axis"}, "scaleanchor": "x"},
    }
    return {"data": data, "layout": layout}


def forest_figure(report: Report, names: Sequence[str]) -> Figure:
    """What each method adds to one model for everybody, with intervals, the best on top.

    Args:
        report: What `profiles.json` holds.
        names: Personal methods, the best first.
    """
    size = f"k{last_size(report)}"
    data: list[dict[str, Any]] = []
    for name in reversed(names):
        look, measure = _look(report, name), report["methods"][name]["by_context"][size]["over_pooled"]
        data.append(
            {
                "type": "scatter", "mode": "markers", "showlegend": False,
                "y": [report["methods"][name]["title"]], "x": [100 * measure["value"]],
                "marker": {"size": 11, **look},
                "error_x": {
                    "type": "data", "symmetric": False, "color": look["color"], "thickness": 1.5, "width": 5,
                    "array": [100 * (measure["ci95"][1] - measure["value"])],
                    "arrayminus": [100 * (measure["value"] - measure["ci95"][0])],
                },
                "hovertemplate": "%{x:+.1f} points<extra></extra>",
            }
        )  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "points over one model for everybody"}, "rangemode": "tozero"},
        "yaxis": {"type": "category", "automargin": True, "range": [-0.6, len(names) - 0.4]},
        "shapes": [_line(x0=0, x1=0, y0=0, y1=1, yref="paper")],
    }
    return {"data": data, "layout": layout}


def _look(report: Report, name: str) -> dict[str, str]:
    if name == POOLED:
        return {"color": GREY, "symbol": "x"}
    place = [other for other in report["order"] if other != POOLED].index(name)
    # With more methods than colours, the marks go on by another step, so that no two methods look alike.
    return {
        "color": _COLOURS[place % len(_COLOURS)],
        "symbol": _MARKS[(place + place // len(_COLOURS)) % (len(_MARKS) - 1)],
    }


def _line(**ends: Any) -> dict[str, Any]:
    return {"type": "line", "line": {"color": GREY, "width": 1.5, "dash": "dash"}, **ends}


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{_BAND_OPACITY})"
