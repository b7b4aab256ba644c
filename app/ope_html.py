"""`ope.html`: one file that needs no network, readable in light and dark, with a table beside every plot.

Every text of the log is escaped, and the page's policy lets a browser run the two scripts written here and nothing
else, and load nothing from anywhere.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from app.ope_terminal import estimate_cells, show_interval
from app.pages import fingerprint, page_environment, page_scripts, read_template
from app.plots import BLUE, GREY, ORANGE, Figure
from recsys.off_policy import PolicyEvaluation
from recsys.significance import Interval


def render_ope(report: Mapping[str, Any], found: PolicyEvaluation, own_log: Interval | None) -> str:
    """The whole page.

    Args:
        report: What `ope.json` holds.
        found: The evaluation that it was written from.
        own_log: Mean reward of the policy's own log, where there is one.

    Returns:
        HTML; the same input gives the same bytes.
    """
    scripts = page_scripts()
    overlap = found.overlap
    bounds = {one.name: one.bernstein for one in found.estimates}
    return (
        page_environment()
        .get_template("ope.html.j2")
        .render(
            report=report,
            rows=[
                (
                    one.name,
                    *estimate_cells(one),
                    "" if (ends := bounds[one.name]) is None else f"{ends[0]:.4g} to {ends[1]:.4g}",
                )
                for one in found.estimates
            ],
            logged=show_interval(found.logged),
            own_log=None if own_log is None else show_interval(own_log),
            overlap=[
                ("rows", f"{overlap.n:,}"),
                ("effective rows", f"{overlap.ess:,.1f}"),
                ("mean weight, should be 1", show_interval(overlap.mean_weight)),
                ("largest weight", f"{overlap.max_weight:.4g}"),
                ("rows without support", f"{100 * overlap.share_without_support:.3g} %"),
                ("choices never logged in their slot", f"{100 * overlap.mass_never_logged:.3g} %"),
            ],
            histogram=[
                (f"{low:.3g} to {high:.3g}", f"{int(count):,}")
                for low, high, count in zip(
                    np.exp(overlap.edges[:-1]), np.exp(overlap.edges[1:]), overlap.counts, strict=True
                )
                if count
            ],
            figures=[("estimates", _estimates_figure(found)), ("weights", _weights_figure(found))],
            manifest=json.dumps(
                {key: report[key] for key in ("log", "data_hashes", "policy", "seed")}, indent=2
            ),
            # Written by this project and by Plotly, so they may stand in the page as they are.
            scripts=[Markup(script) for script in scripts],
            script_hashes=Markup(" ".join(fingerprint(script) for script in scripts)),
            style=Markup(read_template("report.css")),
        )
    )


def _estimates_figure(found: PolicyEvaluation) -> Figure:
    """Estimates with their intervals, the logging policy's own mean as a line."""
    shown = [one for one in found.estimates if np.isfinite(one.value)][::-1]
    names = [one.name for one in shown]
    points = {
        "type": "scatter", "mode": "markers", "name": "estimate", "x": [one.value for one in shown], "y": names,
        "marker": {"color": BLUE, "size": 9}, "hovertemplate": "%{y}: %{x:.4g}<extra></extra>",
        "error_x": {
            "type": "data", "symmetric": False, "color": BLUE, "thickness": 1.5, "width": 4,
            "array": [one.high - one.value for one in shown], "arrayminus": [one.value - one.low for one in shown],
        },
    }  # fmt: skip
    line = {
        "type": "scatter", "mode": "lines", "name": "the log's own policy", "x": [found.logged.value] * 2,
        "y": [names[0], names[-1]] if names else [], "line": {"color": GREY, "dash": "dash", "width": 2},
        "hovertemplate": "%{x:.4g}",
    }  # fmt: skip
    layout = {"xaxis": {"title": {"text": "mean reward a row"}}, "yaxis": {"type": "category"}}
    return {"data": [points, line], "layout": layout}


def _weights_figure(found: PolicyEvaluation) -> Figure:
    """How many rows have which weight, on a logarithmic axis."""
    edges, counts = found.overlap.edges / np.log(10), found.overlap.counts
    bars = {
        "type": "bar", "x": ((edges[1:] + edges[:-1]) / 2).tolist(), "y": counts.tolist(),
        "width": np.diff(edges).tolist(), "marker": {"color": ORANGE}, "showlegend": False,
        "hovertemplate": "10^%{x:.2f}: %{y} rows<extra></extra>",
    }  # fmt: skip
    layout = {"xaxis": {"title": {"text": "log10 of the weight"}}, "yaxis": {"title": {"text": "rows"}}}
    return {"data": [bars], "layout": layout}
