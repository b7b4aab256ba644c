"""The plots of an audit as plain Plotly figures; see `app.plots` for what is left to the page.

The simulated side is orange with squares or dashes, the real side blue with circles or full lines, throughout.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice, pairwise
from typing import Any

from app.plots import BLUE, GREY, ORANGE, Figure

Part = Mapping[str, Any]
SIDES = ("simulated", "real")
_LOOKS: Mapping[str, tuple[str, str, str]] = {
    "simulated": (ORANGE, "square", "dash"),
    "real": (BLUE, "circle", "solid"),
}
_FAINT = {"simulated": "rgba(217,119,43,0.16)", "real": "rgba(63,127,214,0.16)"}
_MOST_SHOWN = 3.0


def shares_figure(part: Part, labels: Sequence[str], axis: str) -> Figure:
    """How often each value or kind occurs on both sides, in percent.

    Args:
        part: Has shares under simulated and real.
        labels: Of the values.
        axis: Title of the horizontal axis.
    """
    data = [_bars(side, list(labels), [100 * share for share in part[side]]) for side in SIDES]
    layout = {
        "barmode": "group",
        "xaxis": {"title": {"text": axis}, "type": "category"},
        "yaxis": {"title": {"text": "share, %"}, "rangemode": "tozero"},
    }
    return {"data": data, "layout": layout}


def survival_figure(part: Part, axis: str) -> Figure:
    """Share of sessions that outlast each length, with bands.

    Args:
        part: A survival part of a report.
        axis: Title of the vertical axis.
    """
    times = [0, *part["times"]]
    bands, curves = [], []
    for side in SIDES:
        colour, mark, dash = _LOOKS[side]
        low, high = ([1.0, *bounds] for bounds in part[f"{side}_band"])
        # Corners of the steps, so that a filled band follows them.
        steps = [time for pair in pairwise(times) for time in pair]
        lows, highs = ([v for v in bound[:-1] for _ in range(2)] for bound in (low, high))
        bands.append(
            {
                "type": "scatter", "mode": "lines", "x": [*steps, *reversed(steps)],
                "y": [100 * bound for bound in (*lows, *reversed(highs))], "fill": "toself",
                "fillcolor": _FAINT[side], "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False,
            }
        )  # fmt: skip
        curves.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": side, "x": times,
                "y": [100.0, *(100 * share for share in part[side])],
                "line": {"color": colour, "width": 2, "dash": dash, "shape": "hv"},
                "marker": {"size": 7, "symbol": mark, "color": colour},
                "hovertemplate": "%{y:.1f} % outlast %{x}<extra>" + side + "</extra>",
            }
        )  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": f"length in {part['unit']}"}},
        "yaxis": {"title": {"text": axis}, "range": [0, 103]},
    }
    return {"data": [*bands, *curves], "layout": layout}


def position_figure(part: Part) -> Figure:
    """Share of rows opened at each position, in percent.

    Args:
        part: The position part of a report.
    """
    data = []
    for side in SIDES:
        colour, mark, dash = _LOOKS[side]
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": side, "x": [p + 1 for p in part["positions"]],
                "y": [None if rate is None else 100 * rate for rate in part[f"{side}_rate"]],
                "line": {"color": colour, "width": 2, "dash": dash}, "marker": {"size": 8, "symbol": mark},
                "hovertemplate": "place %{x}: %{y:.1f} %<extra>" + side + "</extra>",
            }
        )  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "place in the list"}},
        "yaxis": {"title": {"text": "opened, %"}, "rangemode": "tozero"},
    }
    return {"data": data, "layout": layout}


def ranking_figure(part: Part) -> Figure:
    """Value of each policy in the simulator against its value in the log, in percent, with intervals.

    Args:
        part: The ranking part of a report.
    """
    values = {side: [100 * one["value"] for one in part[side]] for side in SIDES}
    # Policies come by their real value, so neighbours, whose names would cover each other, get corners of their own.
    corners = ("top left", "bottom right", "top right", "bottom left")
    trace = {
        "type": "scatter", "mode": "markers+text", "x": values["real"], "y": values["simulated"],
        "text": part["policies"], "textposition": [*islice(cycle(corners), len(part["policies"]))],
        "cliponaxis": False, "showlegend": False,
        "marker": {"size": 10, "color": ORANGE, "symbol": "square"},
        "error_x": _errors(part["real"], BLUE), "error_y": _errors(part["simulated"], ORANGE),
        "hovertemplate": "%{text}: really %{x:.2f} %, simulated %{y:.2f} %<extra></extra>",
    }  # fmt: skip
    ends = [min((*values["real"], *values["simulated"])), max((*values["real"], *values["simulated"]))]
    line = {
        "type": "scatter", "mode": "lines", "name": "alike", "x": ends, "y": ends, "hoverinfo": "skip",
        "line": {"color": GREY, "width": 1.5, "dash": "dash"},
    }  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "accepted in reality, %"}},
        "yaxis": {"title": {"text": "accepted in the simulator, %"}},
    }
    return {"data": [line, trace], "layout": layout}


def reliability_figure(part: Part) -> Figure:
    """Rate at which options were taken against their predicted probability, in percent.

    Args:
        part: The choices part of a report.
    """
    curve = part["reliability"]
    said, was = ([100 * value for value in curve[name]] for name in ("probability", "rate"))
    top = max((*said, *was))
    data = [
        {
            "type": "scatter", "mode": "lines", "name": "as said", "x": [0, top], "y": [0, top], "hoverinfo": "skip",
            "line": {"color": GREY, "width": 1.5, "dash": "dash"},
        },
        {
            "type": "scatter", "mode": "lines+markers", "name": "simulator", "x": said, "y": was,
            "line": {"color": ORANGE, "width": 2}, "marker": {"size": 8, "symbol": "square"},
            "customdata": curve["rows"],
            "hovertemplate": "said %{x:.1f} %, was %{y:.1f} % of %{customdata} options<extra></extra>",
        },
    ]  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "predicted probability, %"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "taken, %"}, "rangemode": "tozero"},
    }
    return {"data": data, "layout": layout}


def slots_figure(part: Part) -> Figure:
    """Expected and top-1 accuracy by the place of the option taken, in percent.

    Args:
        part: The choices part of a report.
    """
    slots = part["slots"]
    places = [str(place + 1) for place in range(len(slots["rows"]))]
    data = [
        {
            "type": "bar", "name": name, "x": places, "marker": {"color": colour}, "customdata": slots["rows"],
            "y": [None if value is None else 100 * value for value in slots[key]],
            "hovertemplate": "place %{x}: %{y:.1f} % of %{customdata} choices<extra>" + name + "</extra>",
        }
        for key, name, colour in (("expected", "expected accuracy", ORANGE), ("top1", "top-1 accuracy", GREY))
    ]  # fmt: skip
    layout = {
        "barmode": "group",
        "xaxis": {"title": {"text": "place of the option taken"}, "type": "category"},
        "yaxis": {"title": {"text": "accuracy, %"}, "rangemode": "tozero"},
    }
    return {"data": data, "layout": layout}


def errors_figure(tags: Mapping[str, Part], names: Sequence[str]) -> Figure:
    """Share of dialogues with each fault on both sides, in percent, with intervals.

    Args:
        tags: Rates by tag.
        names: The tags in words.
    """
    data = []
    for side in reversed(SIDES):
        colour = _LOOKS[side][0]
        rows = [tags[tag][side] for tag in tags]
        bars = _bars(side, [100 * row["value"] for row in rows][::-1], list(names)[::-1])
        data.append({**bars, "orientation": "h", "error_x": _errors(rows[::-1], colour)})
    layout = {
        "barmode": "group",
        "xaxis": {"title": {"text": "dialogues, %"}, "rangemode": "tozero"},
        "yaxis": {"type": "category", "automargin": True},
        "legend": {"traceorder": "reversed", "orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    }
    return {"data": data, "layout": layout}


def disclosure_figure(part: Part) -> Figure:
    """Things named for the first time at each message of the user, with intervals.

    Args:
        part: The disclosure part of a report.
    """
    data = []
    for side, shift in zip(SIDES, (0.04, -0.04), strict=True):
        colour, mark, dash = _LOOKS[side]
        rows = [row[side] for row in part["turns"]]
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": side,
                "x": [row["turn"] + shift for row in part["turns"]], "y": [row["value"] for row in rows],
                "line": {"color": colour, "width": 2, "dash": dash}, "marker": {"size": 8, "symbol": mark},
                "error_y": _errors(rows, colour, factor=1), "customdata": [row["n"] for row in rows],
                "hovertemplate": "%{y:.2f}, %{customdata} users<extra>" + side + "</extra>",
            }
        )  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "message of the user"}, "dtick": 1},
        "yaxis": {"title": {"text": "things named for the first time"}, "rangemode": "tozero"},
    }
    return {"data": data, "layout": layout}


def limits_figure(criteria: Sequence[Part]) -> Figure:
    """Each measure that has an upper limit as a multiple of it, with its interval; 1 is the limit.

    Args:
        criteria: Criteria of kind "most" or "around" that have a value.
    """
    rows = list(reversed(criteria))
    colours = {"within": BLUE, "beyond": ORANGE, "not settled": GREY}
    marks = {"within": "circle", "beyond": "square", "not settled": "diamond"}
    shown, ends = [], []
    for row in rows:
        bounds = row["ci95"] or (row["value"], row["value"])
        scaled = [value / row["limit"] for value in (row["value"], *bounds)]
        shown.append(max(-_MOST_SHOWN, min(_MOST_SHOWN, scaled[0])))
        ends.append([max(-_MOST_SHOWN, min(_MOST_SHOWN, end)) for end in scaled[1:]])
    trace = {
        "type": "scatter", "mode": "markers", "x": shown, "y": [row["words"] for row in rows], "showlegend": False,
        "marker": {
            "size": 10, "color": [colours[row["standing"]] for row in rows],
            "symbol": [marks[row["standing"]] for row in rows],
        },
        "error_x": {
            "type": "data", "symmetric": False, "thickness": 1.5, "width": 4, "color": GREY,
            "array": [max(0.0, high - x) for x, (_, high) in zip(shown, ends, strict=True)],
            "arrayminus": [max(0.0, x - low) for x, (low, _) in zip(shown, ends, strict=True)],
        },
        "customdata": [[row["value"], row["limit"], row["standing"]] for row in rows],
        "hovertemplate": "%{customdata[0]:.3g}, limit %{customdata[1]:.3g}: %{customdata[2]}<extra></extra>",
    }  # fmt: skip
    lines = [
        {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper",
         "line": {"color": GREY, "width": 1.5, "dash": dash}}
        for x, dash in ((1, "dash"), (-1, "dash"), (0, "dot"))
        if x >= 0 or min(low for low, _ in ends) < 0
    ]  # fmt: skip
    layout = {
        "xaxis": {
            "title": {"text": f"measure over its limit; beyond {_MOST_SHOWN:g} drawn at {_MOST_SHOWN:g}"}
        },
        "yaxis": {"type": "category", "automargin": True, "range": [-0.6, len(rows) - 0.4]},
        "shapes": lines,
    }
    return {"data": [trace], "layout": layout}


def _bars(side: str, x: list[Any], y: list[Any]) -> dict[str, Any]:
    return {
        "type": "bar", "name": side, "x": x, "y": y, "marker": {"color": _LOOKS[side][0]},
        "hovertemplate": "%{x}: %{y:.1f}<extra>" + side + "</extra>",
    }  # fmt: skip


def _errors(rows: Sequence[Part], colour: str, *, factor: float = 100) -> dict[str, Any]:
    """Distances from values to the ends of their intervals; none where an interval is not known."""
    ends = [
        (row["value"], row["value"]) if None in row["ci95"] else (row["ci95"][0], row["ci95"][1])
        for row in rows
    ]
    return {
        "type": "data", "symmetric": False, "color": colour, "thickness": 1.5, "width": 4,
        "array": [factor * max(0.0, high - row["value"]) for row, (_, high) in zip(rows, ends, strict=True)],
        "arrayminus": [factor * max(0.0, row["value"] - low) for row, (low, _) in zip(rows, ends, strict=True)],
    }  # fmt: skip
