"""What `persona ope` prints."""

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from recsys.off_policy import OffPolicyEstimate, PolicyEvaluation
from recsys.significance import Interval


def print_evaluation(
    console: Console, found: PolicyEvaluation, *, told: str, own_log: Interval | None
) -> None:
    """Print estimates, what the log can say of the policy, and notes.

    Args:
        console: Where to.
        found: The evaluation.
        told: The policy in words.
        own_log: Mean reward of the policy's own log, where there is one.
    """
    overlap = found.overlap
    console.print(f"Policy: {told}", markup=False)
    grid = Grid(title="Mean reward a row, 95 % intervals", title_justify="left")
    head = ("estimator", "value [interval]", "effective rows", "shrunk", "bias at most")
    for title in head:
        grid.add_column(title, justify="left" if title == "estimator" else "right")
    for one in found.estimates:
        grid.add_row(escape(one.name), *estimate_cells(one))
    grid.add_section()
    grid.add_row("the log's own policy", show_interval(found.logged), f"{overlap.n:,}", "", "")
    if own_log is not None:
        grid.add_row("the policy's own log", show_interval(own_log), f"{own_log.n:,}", "", "")
    console.print(grid)
    console.print(
        f"{overlap.n:,} rows are worth {overlap.ess:,.0f} of the policy's own. Weights: mean "
        f"{show_interval(overlap.mean_weight)}, largest {overlap.max_weight:.4g}; "
        f"{100 * overlap.share_without_support:.3g} % of the rows without support.",
        markup=False,
    )
    for note in found.notes:
        console.print(f"Note: {note}", markup=False)


def estimate_cells(one: OffPolicyEstimate) -> tuple[str, str, str, str]:
    """Value with its interval, effective rows, share of rows shrunk and bound of the bias; blank where it has none."""
    value = f"{one.value:.4g} [{one.low:.4g}, {one.high:.4g}]" if np.isfinite(one.value) else "undefined"
    bias = f"{one.bias_bound:.2g}" if one.level is not None else ""
    shrunk = f"{100 * one.share_shrunk:.3g} %" if one.level is not None else ""
    return value, f"{one.ess:,.0f}" if one.ess else "", shrunk, bias


def show_interval(interval: Interval) -> str:
    """A figure and its interval, four digits each."""
    return f"{interval.value:.4g} [{interval.low:.4g}, {interval.high:.4g}]"
