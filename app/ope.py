"""`persona ope`: what a target policy would have earned, told from the log of another, on the terminal and in files.

    OUT/ope.json     estimates with intervals, overlap, notes, and what they were made from
    OUT/ope.html     the same for people, one file that needs no network

A policy that has to be fitted learns from the earlier part of the log and is evaluated on the later one; all others are
evaluated on every row.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from app.errors import StoreError
from app.files import write_atomically, write_json
from app.plots import BLUE, GREY, ORANGE, Figure
from recsys.data.bandit import BanditLog, Values, bandit_log_from_frame, refuse_rows
from recsys.data.readers.open_bandit import read_bandit_log
from recsys.errors import DataFileError, PolicyError
from recsys.off_policy import (
    ESTIMATORS,
    OffPolicyEstimate,
    PolicyEvaluation,
    evaluate_policy,
    logged_policy,
    popular_policy,
    read_policy,
    softmax_policy,
    uniform_policy,
)
from recsys.significance import Interval, bootstrap_interval

OPE_JSON, OPE_HTML = "ope.json", "ope.html"
POLICIES = ("uniform", "popular", "logistic", "logged:PATH", "FILE")
_TEMPLATES = Path(__file__).parent / "templates"
_ACTION, _REWARD, _CHANCE, _SLOT, _TIME = "action", "reward", "propensity", "position", "timestamp"
_OPEN_BANDIT = "propensity_score"


class _Task(NamedTuple):
    """A policy on the rows that it is evaluated on. elsewhere: mean reward of its own log, where there is one."""

    log: BanditLog
    action_dist: Values
    told: str
    elsewhere: Interval | None


def evaluate_log(
    log_path: Path,
    *,
    policy: str,
    out: Path | None = None,
    seed: int = 0,
    estimators: Sequence[str] = tuple(ESTIMATORS),
    levels: Mapping[str, float] | None = None,
    cluster: str | None = None,
    n_actions: int | None = None,
    fit_share: float = 0.5,
    console: Console,
) -> PolicyEvaluation:
    """Evaluate one policy on one log, print the table, and write `ope.json` and `ope.html`.

    Args:
        log_path: A file or folder of the Open Bandit Dataset, or a CSV or Parquet file with the columns action,
            reward and propensity; position and timestamp if it has them; every other column is context.
        policy: One of `POLICIES`: "logged:PATH" is what another such log shows; FILE holds probabilities, see
            `recsys.off_policy.read_policy`.
        out: Folder to write to, made if missing; None writes nothing.
        seed: Every random draw follows from it.
        estimators: Names out of `recsys.off_policy.ESTIMATORS`.
        levels: Where the shrinkage of an estimator stands, by its name; the others' is chosen from the log.
        cluster: Column whose rows are drawn together for intervals, such as a user; it is no context then.
        n_actions: Number of actions, where the log lacks some of those numbered 0..n-1; None counts the log's own.
        fit_share: Earliest share of the log that "popular" and "logistic" learn from, above 0 and below 1.
        console: Where the table goes.

    Returns:
        The evaluation.

    Raises:
        DataFileError: The log cannot be read.
        InteractionError: A row of the log cannot be used.
        PolicyError: The policy, an estimator or `fit_share` makes no sense.
        StoreError: The folder cannot be written.
    """
    task = _prepare(log_path, policy, cluster=cluster, n_actions=n_actions, fit_share=fit_share, seed=seed)
    found = evaluate_policy(task.log, task.action_dist, estimators=estimators, levels=levels, seed=seed)
    _print(console, found, task)
    if out is not None:
        report = _report(found, task, log_path, policy, seed)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise StoreError(
                f"{out} must be a folder that can be made; got {err.strerror}. Choose another with --out."
            ) from err
        write_json(out / OPE_JSON, report)
        write_atomically(out / OPE_HTML, _render(report, found, task).encode())
        console.print(f"Report: {out / OPE_HTML}", markup=False, soft_wrap=True)
    return found


def _prepare(
    path: Path, policy: str, *, cluster: str | None, n_actions: int | None, fit_share: float, seed: int
) -> _Task:
    """Read what is needed, and split the log where the policy has to learn from it."""
    if not 0 < fit_share < 1:
        raise PolicyError(f"`fit_share` must lie between 0 and 1; got {fit_share}. Take 0.5.")
    frame = _read_frame(path)
    kind, _, other_path = policy.partition(":")
    others = [_read_frame(Path(other_path))] if kind == "logged" else []
    frames = [frame, *others]
    actions = _shared_ids(frames, _ACTION) if n_actions is None else list(range(n_actions))
    slots = _shared_ids(frames, _SLOT)
    log = _as_log(frame, cluster, actions, slots)
    if kind == "logged":
        other = _as_log(others[0], None, actions, slots)
        own = bootstrap_interval(other.rewards, seed=seed)
        told = f"what {other_path} shows in each slot, whatever the context ({len(other):,} rows)"
        return _Task(log, logged_policy(other, log), told, own)
    if policy == "uniform":
        return _Task(log, uniform_policy(log), "every action equally often", None)
    if policy in {"popular", "logistic"}:
        early, late = _split(frame, log, fit_share)
        fitted = f"fitted on the earliest {len(early):,} rows, evaluated on the other {len(late):,}"
        if policy == "popular":
            return _Task(
                late, popular_policy(early, late), f"best mean reward, 10 % exploration; {fitted}", None
            )
        return _Task(late, softmax_policy(early, late), f"softmax of a logistic regression; {fitted}", None)
    if not Path(policy).is_file():
        raise PolicyError(
            f"`policy` must be one of {', '.join(POLICIES)}; got {policy!r}, which is no file. Correct it."
        )
    return _Task(log, read_policy(Path(policy), log), f"the probabilities in {policy}", None)


def _read_frame(path: Path) -> pd.DataFrame:
    """The log as a table with the columns action, reward and propensity."""
    if path.is_dir():
        return read_bandit_log(path)
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as err:
        raise DataFileError(
            f"{path} must be a readable CSV or Parquet file, or a folder of the Open Bandit Dataset; got: {err}. "
            "Correct the path or the file."
        ) from err
    return read_bandit_log(path) if _OPEN_BANDIT in frame else frame


def _shared_ids(frames: Sequence[pd.DataFrame], name: str) -> list[Any] | None:
    """Every value of a column, ascending; None where no log has it."""
    found = [frame[name].dropna() for frame in frames if name in frame]
    if len({column.dtype.kind for column in found}) > 1:
        raise DataFileError(
            f"Both logs must write `{name}` alike; got {[str(column.dtype) for column in found]}. "
            "Give both numbers or both texts."
        )
    return sorted(pd.concat(found).unique().tolist()) if found else None


def _as_log(
    frame: pd.DataFrame, cluster: str | None, actions: list[Any] | None, slots: list[Any] | None
) -> BanditLog:
    special = {_ACTION, _REWARD, _CHANCE, _SLOT, _TIME, cluster}
    return bandit_log_from_frame(
        frame,
        position=_SLOT if _SLOT in frame else None,
        context=[
            str(name)
            for name in frame.columns
            if name not in special and not str(name).startswith("Unnamed:")
        ],
        cluster=cluster,
        action_ids=actions,
        position_ids=slots,
    )


def _split(frame: pd.DataFrame, log: BanditLog, share: float) -> tuple[BanditLog, BanditLog]:
    """The earliest rows and the others; by the order of the file where it has no times."""
    times = frame[_TIME].to_numpy() if _TIME in frame else np.arange(len(log))
    refuse_rows(pd.isna(times), times, f"`{_TIME}` must be known in every row", "Drop the rows")
    order = np.argsort(times, kind="stable")
    cut = int(share * len(log))
    if cut == 0:
        raise PolicyError(
            f"The log must have rows to learn from and rows to evaluate on; got {len(log)} at `fit_share` {share}. "
            "Bring a longer log."
        )
    return log.select(order[:cut]), log.select(order[cut:])


def _report(found: PolicyEvaluation, task: _Task, path: Path, policy: str, seed: int) -> dict[str, Any]:
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    return {
        "log": path.name,
        "data_hashes": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        "policy": policy,
        "policy_told": task.told,
        "seed": seed,
        "actions": task.log.n_actions,
        "slots": task.log.n_positions,
        "estimates": [one.to_report() for one in found.estimates],
        "overlap": found.overlap.to_report(),
        "logged": found.logged.to_report(),
        "own_log": None if task.elsewhere is None else task.elsewhere.to_report(),
        "notes": list(found.notes),
    }


def _print(console: Console, found: PolicyEvaluation, task: _Task) -> None:
    overlap = found.overlap
    console.print(f"Policy: {task.told}", markup=False)
    grid = Grid(title="Mean reward a row, 95 % intervals", title_justify="left")
    head = ("estimator", "value [interval]", "effective rows", "shrunk", "bias at most")
    for title in head:
        grid.add_column(title, justify="left" if title == "estimator" else "right")
    for one in found.estimates:
        grid.add_row(escape(one.name), *_cells(one))
    grid.add_section()
    grid.add_row("the log's own policy", _show(found.logged), f"{overlap.n:,}", "", "")
    if task.elsewhere is not None:
        grid.add_row("the policy's own log", _show(task.elsewhere), f"{task.elsewhere.n:,}", "", "")
    console.print(grid)
    console.print(
        f"{overlap.n:,} rows are worth {overlap.ess:,.0f} of the policy's own. Weights: mean "
        f"{_show(overlap.mean_weight)}, largest {overlap.max_weight:.4g}; "
        f"{100 * overlap.share_without_support:.3g} % of the rows without support.",
        markup=False,
    )
    for note in found.notes:
        console.print(f"Note: {note}", markup=False)


def _cells(one: OffPolicyEstimate) -> tuple[str, str, str, str]:
    value = f"{one.value:.4g} [{one.low:.4g}, {one.high:.4g}]" if np.isfinite(one.value) else "undefined"
    bias = f"{one.bias_bound:.2g}" if one.level is not None else ""
    shrunk = f"{100 * one.share_shrunk:.3g} %" if one.level is not None else ""
    return value, f"{one.ess:,.0f}" if one.ess else "", shrunk, bias


def _show(interval: Interval) -> str:
    return f"{interval.value:.4g} [{interval.low:.4g}, {interval.high:.4g}]"


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


def _render(report: dict[str, Any], found: PolicyEvaluation, task: _Task) -> str:
    """The page; the same input gives the same bytes."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    scripts = [get_plotlyjs(), (_TEMPLATES / "report.js").read_text(encoding="utf-8")]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    overlap = found.overlap
    bounds = {one.name: one.bernstein for one in found.estimates}
    return environment.from_string(_PAGE).render(
        report=report,
        rows=[
            (
                one.name,
                *_cells(one),
                "" if (ends := bounds[one.name]) is None else f"{ends[0]:.4g} to {ends[1]:.4g}",
            )
            for one in found.estimates
        ],
        logged=_show(found.logged),
        own_log=None if task.elsewhere is None else _show(task.elsewhere),
        overlap=[
            ("rows", f"{overlap.n:,}"),
            ("effective rows", f"{overlap.ess:,.1f}"),
            ("mean weight, should be 1", _show(overlap.mean_weight)),
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
        manifest=json.dumps({key: report[key] for key in ("log", "data_hashes", "policy", "seed")}, indent=2),
        # Written by this project and by Plotly, so they may stand in the page as they are.
        scripts=[Markup(script) for script in scripts],
        script_hashes=Markup(" ".join(f"'sha256-{value}'" for value in hashes)),
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
    )


_PAGE = """\
{% macro table(caption, head, rows) %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ caption }}"><table><caption>{{ caption }}</caption>
<thead><tr>{% for title in head %}<th scope="col">{{ title }}</th>{% endfor %}</tr></thead><tbody>
{% for row in rows %}
<tr>{% for cell in row %}{% if loop.first %}<th scope="row">{{ cell }}</th>{% else %}<td>{{ cell }}</td>{% endif %}\
{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src {{ script_hashes }}; \
style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Persona: {{ report.policy }} on {{ report.log }}</title>
<style>
{{ style }}
</style>
</head>
<body>
<header class="top">
<h1>What another policy would have earned</h1>
<p class="facts">{{ report.policy_told }} · log {{ report.log }} · {{ report.actions }} actions, {{ report.slots }} \
slots · seed {{ report.seed }}</p>
</header>
<main>
{% for note in report.notes %}
<p><strong>Note.</strong> {{ note }}</p>
{% endfor %}
<h2>Estimates</h2>
<p>The log's own policy earned {{ logged }} a row.\
{% if own_log %} On its own log, the policy in question earned {{ own_log }}.{% endif %}</p>
<figure><figcaption>Mean reward a row with 95 % bootstrap intervals.</figcaption>
<div class="plot" role="img" aria-label="Estimates with intervals" data-figure="figure-estimates"></div></figure>
{{ table("Mean reward a row. Bias at most: estimated from the log, of what shrinking weights took away.",
  ["estimator", "value [95 % interval]", "effective rows", "shrunk", "bias at most", "Bernstein 95 %"], rows) }}
<h2>Overlap</h2>
<figure><figcaption>Importance weights above 0: far apart means that few rows speak for many.</figcaption>
<div class="plot low" role="img" aria-label="Histogram of weights" data-figure="figure-weights"></div>
<details><summary>The values as a table</summary>{{ table("Rows by weight", ["weight", "rows"], histogram) }}</details>
</figure>
{{ table("What the log can say of the policy", ["figure", "value"], overlap) }}
<h2>Made from</h2>
<pre>{{ manifest }}</pre>
</main>
<footer></footer>
{% for key, figure in figures %}
<script type="application/json" id="figure-{{ key }}">{{ figure | tojson }}</script>
{% endfor %}
{% for script in scripts %}
<script>{{ script }}</script>
{% endfor %}
</body>
</html>
"""
