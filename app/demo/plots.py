"""The demo's plots, drawn to be read on a light page and on a dark one."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from app.attribute_words import MORE_AND_LESS
from app.demo.teaching import Belief
from persona.rewards.attributes import ATTRIBUTES
from persona.types import Posterior

_OWN, _AVERAGE, _GREY = "#0f8b8d", "#e2953b", "rgba(128,128,128,0.35)"
_Z95 = 1.96


def attribute_bars(measured: NDArray[np.float64] | None) -> go.Figure:
    """Measured attributes of the two replies, side by side.

    Args:
        measured: Own reply and average user's reply, in deviations of the base model's replies. Shape (2, A);
            None before the first question.
    """
    figure = go.Figure()
    for row, (name, colour) in enumerate((("yours", _OWN), ("average user's", _AVERAGE))):
        values = np.full(len(ATTRIBUTES), np.nan) if measured is None else measured[row]
        bars = go.Bar(
            name=name, y=list(ATTRIBUTES), x=values.tolist(), orientation="h", marker_color=colour,
            hovertemplate="%{y}: %{x:+.1f}<extra>" + name + "</extra>",
        )  # fmt: skip
        figure.add_trace(bars)
    figure.update_xaxes(range=[-3.2, 3.2], title="deviations from the usual reply")
    figure.update_layout(barmode="group", bargap=0.25, legend={"orientation": "h", "y": 1.15, "x": 0})
    return _dress(figure, height=330, top=24)


def belief_plot(belief: Belief) -> go.Figure:
    """How much more than the average user the person wants of each attribute, with 95 % intervals."""
    figure = _intervals(list(ATTRIBUTES), belief.mean, belief.std)
    figure.update_xaxes(title="wanted, compared with the average user (logits a deviation)")
    reach = float(np.max(np.abs(belief.mean) + _Z95 * belief.std)) * 1.15
    less_and_more = [(-reach, "left", 1), (reach, "right", 0)]
    for index, name in enumerate(ATTRIBUTES):
        for x, anchor, side in less_and_more:
            figure.add_annotation(
                x=x, y=index + 0.32, text=MORE_AND_LESS[name][side], showarrow=False, xanchor=anchor,
                font={"size": 10, "color": "gray"},
            )  # fmt: skip
    figure.update_xaxes(range=[-reach, reach])
    return _dress(figure, height=390, top=48)


def latent_plot(posterior: Posterior) -> go.Figure:
    """The posterior of each coordinate of the latent, with 95 % intervals, over the band of the prior."""
    mean = posterior.mean[0].double().numpy()
    std = posterior.covariance[0].diagonal().double().sqrt().numpy()
    figure = _intervals([f"z{i + 1}" for i in range(len(mean))], mean, std)
    figure.add_vrect(x0=-_Z95, x1=_Z95, fillcolor=_GREY, opacity=0.35, line_width=0, layer="below")
    figure.update_xaxes(range=[-3.5, 3.5], title="latent; grey: before any choice")
    return _dress(figure, height=390, top=48)


def _intervals(names: Sequence[str], mean: NDArray[np.float64], std: NDArray[np.float64]) -> go.Figure:
    points = go.Scatter(
        x=mean.tolist(), y=list(names), mode="markers", marker={"size": 11, "color": _OWN},
        error_x={"type": "data", "array": (_Z95 * std).tolist(), "color": _OWN, "thickness": 2, "width": 5},
        hovertemplate="%{y}: %{x:+.2f}<extra></extra>",
    )  # fmt: skip
    return go.Figure(points)


def _dress(figure: go.Figure, *, height: int, top: int) -> go.Figure:
    figure.update_layout(
        template="none", height=height, autosize=True, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12, "color": "gray"},
        margin={"l": 92, "r": 12, "t": top, "b": 44}, dragmode=False,
    )  # fmt: skip
    figure.update_xaxes(gridcolor=_GREY, zeroline=True, zerolinecolor="gray", fixedrange=True)
    # Reversed, so that the first attribute stands on top, as the sliders do.
    figure.update_yaxes(autorange="reversed", showgrid=False, fixedrange=True, automargin=True)
    return figure
