"""The plots of the report as plain Plotly figures: data and layout, no colours of the page, which the page adds.

A figure is JSON, so that the same run gives the same bytes. Series have mid-tone colours that are legible on white and
on near-black, and differ in mark or dash as well, so that no reading depends on colour alone. Every value that a plot
shows stands in a table beside it, too.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from persona.rewards.attributes import ATTRIBUTES

BLUE, ORANGE, GREEN, PURPLE, RED, OCHRE, GREY = (
    "#3f7fd6", "#d9772b", "#2f9e6e", "#a560c8", "#d9506b", "#9a8420", "#8a8f98"
)  # fmt: skip
_BAND_OPACITY = 0.16
_COLOURS = dict(zip(ATTRIBUTES, (BLUE, RED, OCHRE, GREEN, PURPLE, ORANGE), strict=True))


class Figure(TypedDict):
    """What `Plotly.newPlot` takes.

    data: Traces.
    layout: Axes and notes; fonts and colours are left to the page.
    """

    data: list[dict[str, Any]]
    layout: dict[str, Any]


def context_sizes(curve: Mapping[str, Any]) -> list[int]:
    """Numbers of comparisons that a curve of keys such as `k8` was measured at, ascending."""
    return sorted(int(key[1:]) for key in curve)


def accuracy_figure(accuracy: Mapping[str, Any]) -> Figure:
    """Share of choices foretold against the number of comparisons known, in percent.

    Args:
        accuracy: `preference.accuracy` of a report.
    """
    sizes = context_sizes(accuracy["vpl"])
    data: list[dict[str, Any]] = []
    for key, name, colour, mark in (
        ("vpl", "latent profile", BLUE, "circle"),
        ("hierarchical_bayes", "hierarchical Bayes", ORANGE, "square"),
    ):
        measures = [accuracy[key][f"k{size}"] for size in sizes]
        data += [_band(sizes, measures, colour), _curve(sizes, measures, name, colour, mark)]
    ends = [sizes[0], sizes[-1]]
    for key, name, colour, dash in (
        ("oracle", "oracle", GREEN, "dot"),
        ("pooled", "average user", GREY, "dash"),
        ("length_only", "length alone", PURPLE, "dashdot"),
    ):
        level = 100 * accuracy[key]["value"]
        data.append(
            {
                "type": "scatter", "mode": "lines", "name": name, "x": ends, "y": [level, level],
                "line": {"color": colour, "dash": dash, "width": 2}, "hovertemplate": "%{y:.1f} %",
            }
        )  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "comparisons known of the user"}, "tickvals": sizes},
        "yaxis": {"title": {"text": "choices foretold, %"}},
        "hovermode": "x unified",
    }
    return {"data": data, "layout": layout}


def slider_figure(slider: Mapping[str, Any], bounds: tuple[float, float]) -> Figure:
    """The measured attribute against the place of its own slider.

    Args:
        slider: One entry of `policy.sliders` of a report.
        bounds: Range of the vertical axis, one for all sliders.
    """
    trace = {
        "type": "scatter", "mode": "lines+markers", "x": list(slider["values"]), "y": list(slider["curve"]),
        "line": {"color": BLUE, "width": 2}, "marker": {"size": 8},
        "hovertemplate": "slider %{x}: %{y:.2f}<extra></extra>", "showlegend": False,
    }  # fmt: skip
    layout = {
        "xaxis": {"tickvals": list(slider["values"])},
        "yaxis": {"range": list(bounds)},
        "margin": {"l": 40, "r": 8, "t": 8, "b": 32},
    }
    return {"data": [trace], "layout": layout}


def slider_bounds(sliders: Mapping[str, Mapping[str, Any]]) -> tuple[float, float]:
    """A range that holds the curve of every slider, with a little air."""
    heights = [value for slider in sliders.values() for value in slider["curve"]]
    air = 0.1 * (max(heights) - min(heights)) + 0.05
    return min(heights) - air, max(heights) + air


def turns_figure(by_turn: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Mean satisfaction at each turn before and after training, with intervals.

    Args:
        by_turn: `dialogue.satisfaction_by_turn` of a report.
    """
    data = []
    for when, colour, mark, dash, shift in (
        ("before", GREY, "square", "dash", -0.04),
        ("after", BLUE, "circle", "solid", 0.04),
    ):
        rows = by_turn[when]
        values = [row["value"] for row in rows]
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": f"{when} training",
                "x": [row["turn"] + shift for row in rows], "y": values, "customdata": [row["n"] for row in rows],
                "line": {"color": colour, "width": 2, "dash": dash}, "marker": {"size": 9, "symbol": mark},
                "error_y": {**_errors(rows, 1), "color": colour, "thickness": 1.5, "width": 4},
                "hovertemplate": "%{y:.2f} stars, %{customdata} users<extra>" + when + "</extra>",
            }
        )  # fmt: skip
    last = max(row["turn"] for rows in by_turn.values() for row in rows)
    layout = {
        "xaxis": {
            "title": {"text": "turn"},
            "tickvals": list(range(1, last + 1)),
            "range": [0.7, last + 0.3],
        },
        "yaxis": {"title": {"text": "satisfaction, stars"}},
    }
    return {"data": data, "layout": layout}


def wins_figure(policy: Mapping[str, Any]) -> Figure:
    """How often the trained policy's reply under the user's own condition wins, in percent, with intervals.

    Args:
        policy: `policy` of a report.
    """
    rows = [policy["win_rate_after_vs_before"], policy["win_rate_conditioned_vs_average"]]
    trace = {
        "type": "scatter", "mode": "markers", "y": ["over untrained", "over average user"],
        "x": [100 * row["value"] for row in rows], "marker": {"size": 12, "color": BLUE},
        "error_x": {**_errors(rows, 100), "color": BLUE, "thickness": 2, "width": 6},
        "hovertemplate": "%{x:.1f} %<extra></extra>", "showlegend": False,
    }  # fmt: skip
    even = {
        "type": "line", "x0": 50, "x1": 50, "y0": 0, "y1": 1, "yref": "paper",
        "line": {"color": GREY, "width": 2, "dash": "dash"},
    }  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "wins, %; the dashed line is chance"}, "range": [0, 100]},
        "yaxis": {"automargin": True, "range": [-0.6, 1.6]},
        "shapes": [even],
    }
    return {"data": [trace], "layout": layout}


def strongest_wish(style: Sequence[float]) -> tuple[int, bool]:
    """Which attribute a user weighs most, as its place on the attribute axis, and whether more of it is liked."""
    place = max(range(len(style)), key=lambda index: abs(style[index]))
    return place, style[place] > 0


def map_figure(portrait: Mapping[str, Any]) -> Figure:
    """Unseen users at the first two coordinates of their latents, coloured by what each truly weighs most.

    Args:
        portrait: What the stage "map" left: users, latents, attributes, hidden_style, opposed.
    """
    points = [(latent[0], latent[1] if len(latent) > 1 else 0.0) for latent in portrait["latents"]]
    wishes = [strongest_wish(style) for style in portrait["hidden_style"]]
    data: list[dict[str, Any]] = []
    for place, attribute in enumerate(portrait["attributes"]):
        rows = [row for row, (own, _) in enumerate(wishes) if own == place]
        signs = [wishes[row][1] for row in rows]
        colour = _COLOURS.get(attribute, GREY)
        shared = {"type": "scatter", "mode": "markers", "name": attribute, "legendgroup": attribute}
        marker = {"size": 10, "color": colour, "line": {"width": 2, "color": colour}}
        data += [
            # A trace of its own for the legend, whose mark is always filled.
            {**shared, "x": [None], "y": [None], "marker": marker},
            {
                **shared,
                "showlegend": False,
                "x": [points[row][0] for row in rows],
                "y": [points[row][1] for row in rows],
                "text": [
                    f"user {portrait['users'][row]}: {'more' if sign else 'less'} {attribute}"
                    for row, sign in zip(rows, signs, strict=True)
                ],
                "marker": {**marker, "symbol": ["circle" if sign else "circle-open" for sign in signs]},
                "hovertemplate": "%{text}<extra></extra>",
            },
        ]
    names = [
        {
            "x": points[row][0], "y": points[row][1], "text": f"<b>{letter}</b>",
            "showarrow": True, "arrowhead": 0, "ax": 0, "ay": -28,
        }
        for letter, row in zip("AB", portrait["opposed"], strict=True)
    ]  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "first coordinate of the latent"}},
        "yaxis": {"title": {"text": "second coordinate"}, "scaleanchor": "x"},
        "annotations": names,
    }
    return {"data": data, "layout": layout}


def _curve(
    sizes: Sequence[int], measures: Sequence[Mapping[str, Any]], name: str, colour: str, mark: str
) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": list(sizes),
        "y": [100 * measure["value"] for measure in measures],
        "line": {"color": colour, "width": 2.5}, "marker": {"size": 9, "symbol": mark},
        "hovertemplate": "%{y:.1f} %",
    }  # fmt: skip


def _band(sizes: Sequence[int], measures: Sequence[Mapping[str, Any]], colour: str) -> dict[str, Any]:
    """The interval around a curve as one closed outline: along the lower ends and back along the upper ones."""
    low, high = zip(*(measure["ci95"] for measure in measures), strict=True)
    return {
        "type": "scatter", "mode": "lines", "x": [*sizes, *reversed(sizes)],
        "y": [100 * bound for bound in (*low, *reversed(high))],
        "fill": "toself", "fillcolor": _faded(colour), "line": {"width": 0},
        "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip


def _errors(rows: Sequence[Mapping[str, Any]], scale: float) -> dict[str, Any]:
    """Distances from each value up and down to the ends of its interval."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [scale * (row["ci95"][1] - row["value"]) for row in rows],
        "arrayminus": [scale * (row["value"] - row["ci95"][0]) for row in rows],
    }


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{_BAND_OPACITY})"
