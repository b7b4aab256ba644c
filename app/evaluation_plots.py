"""The plots of an evaluation as plain Plotly figures; see `app.plots` for what is left to the page.

Each model keeps its colour and mark through all plots.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from app.plots import BLUE, GREEN, GREY, OCHRE, ORANGE, PURPLE, RED, Figure

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, OCHRE, GREY)
_MARKS = ("circle", "square", "diamond", "cross", "triangle-up", "star", "x")
# Bins of a reliability plot with fewer rows are noise.
LEAST_ROWS = 20
Report = Mapping[str, Any]


def forest_figure(report: Report, names: Sequence[str]) -> Figure:
    """The main metric of every model with its interval, the best on top.

    Args:
        report: What `evaluation.json` holds.
        names: The models that rank, the best first.
    """
    main = report["main_metric"]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "markers", "showlegend": False, "y": [name],
            "x": [measure["value"]], "marker": {"size": 11, **_look(report, name)},
            "error_x": _errors([measure], _look(report, name)["color"]),
            "hovertemplate": "%{y}: %{x:.4f}<extra></extra>",
        }
        for name, measure in ((name, report["models"][name]["metrics"][main]) for name in reversed(names))
    ]  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": f"{_words(main)}, 95 % intervals"}, "rangemode": "tozero"},
        "yaxis": {"type": "category", "automargin": True, "range": [-0.6, len(names) - 0.4]},
    }
    return {"data": data, "layout": layout}


def slices_figure(report: Report, names: Sequence[str], slices: Sequence[str]) -> Figure:
    """NDCG of every model in several slices, side by side.

    Args:
        report: What `evaluation.json` holds.
        names: The models that rank.
        slices: Names of slices that have figures.
    """
    main = report["main_metric"]
    data: list[dict[str, Any]] = []
    for place, name in enumerate(names):
        found = report["models"][name]["slices"]
        look = _look(report, name)
        measures = [found[part][main] for part in slices]
        shift = 0.7 * ((place + 0.5) / len(names) - 0.5)
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": name, "marker": {"size": 8, **look},
                "x": [number + shift for number in range(len(slices))],
                "y": [measure["value"] for measure in measures],
                "customdata": [measure["n"] for measure in measures],
                "error_y": {**_errors(measures, look["color"]), "width": 3, "thickness": 1.2},
                "hovertemplate": "%{y:.4f}, %{customdata} users<extra>" + name + "</extra>",
            }
        )  # fmt: skip
    labels = [part.replace("_", " ").replace("activity ", "") for part in slices]
    layout = {
        "xaxis": {
            "tickvals": list(range(len(slices))),
            "ticktext": labels,
            "range": [-0.5, len(slices) - 0.5],
        },
        "yaxis": {"title": {"text": _words(main)}, "rangemode": "tozero"},
    }
    return {"data": data, "layout": layout}


def trade_figure(report: Report, names: Sequence[str], beyond: str, title: str) -> Figure:
    """The main metric against something beyond accuracy, a mark a model.

    Args:
        report: What `evaluation.json` holds.
        names: The models that rank.
        beyond: Name of the other figure, with its cut-off.
        title: Of the horizontal axis.
    """
    main = report["main_metric"]
    data: list[dict[str, Any]] = []
    for name in names:
        model, look = report["models"][name], _look(report, name)
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": name, "marker": {"size": 12, **look},
                "x": [model["beyond"][beyond]["value"]], "y": [model["metrics"][main]["value"]],
                "error_y": _errors([model["metrics"][main]], look["color"]),
                "hovertemplate": "%{x:.3f}, %{y:.4f}<extra>" + name + "</extra>",
            }
        )  # fmt: skip
    layout = {"xaxis": {"title": {"text": title}}, "yaxis": {"title": {"text": _words(main)}}}
    return {"data": data, "layout": layout}


def reliability_figure(report: Report, names: Sequence[str], level: int) -> Figure:
    """Observed rate against predicted chance of one level, a curve a model; the diagonal is truth.

    Args:
        report: What `evaluation.json` holds.
        names: The models that foretell levels.
        level: 1..C.
    """
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "name": "as often as said",
            "line": {"color": GREY, "dash": "dash", "width": 1.5}, "hoverinfo": "skip",
        }
    ]  # fmt: skip
    for name in names:
        whole = report["models"][name]["pointwise"]["levels"][level - 1]["curve"]
        kept = [place for place, rows in enumerate(whole["rows"]) if rows >= LEAST_ROWS]
        curve = {key: [values[place] for place in kept] for key, values in whole.items()}
        look = _look(report, name)
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": name, "x": curve["mean"], "y": curve["rate"],
                "customdata": curve["rows"], "line": {"color": look["color"], "width": 1.5},
                "marker": {"size": 7, **look},
                "hovertemplate": "said %{x:.3f}, was %{y:.3f}, %{customdata} rows<extra>" + name + "</extra>",
            }
        )  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "mean predicted chance"}, "range": [0, 1]},
        "yaxis": {"title": {"text": "observed rate"}, "range": [0, 1]},
    }
    return {"data": data, "layout": layout}


def _look(report: Report, name: str) -> dict[str, str]:
    place = list(report["models"]).index(name)
    # With more models than colours, the marks go on by another step, so that no two models look alike.
    turn = place // len(_COLOURS)
    return {"color": _COLOURS[place % len(_COLOURS)], "symbol": _MARKS[(place + turn) % len(_MARKS)]}


def _errors(measures: Sequence[Mapping[str, Any]], colour: str) -> dict[str, Any]:
    return {
        "type": "data", "symmetric": False, "color": colour, "thickness": 1.5, "width": 5,
        "array": [measure["ci95"][1] - measure["value"] for measure in measures],
        "arrayminus": [measure["value"] - measure["ci95"][0] for measure in measures],
    }  # fmt: skip


def _words(metric: str) -> str:
    return metric.upper() if metric.startswith("ndcg") else metric
