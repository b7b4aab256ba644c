"""The figures that a run is judged by, each with its interval and the goal that it is held to.

A goal is a bound on the measured value, and where sampling could have met it by luck, on its interval too. Whether it
is met is arithmetic; there is no shade between met and not met. `report.json` has the figures by dotted path.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from persona.rewards.attributes import ATTRIBUTES

Report = Mapping[str, Any]
Measure = Mapping[str, Any]
Unit = Literal["share", "points", "number", "gain", "metric", "metric_gain", "count", "seconds", "gigabytes"]

MINUS = "\N{MINUS SIGN}"
NOT_MEASURED = "not measured"
SLIDER = "Slider "
"""How the names of the sliders' lines begin."""
_MIB_PER_GB = 2**20 / 1e9
_DECIMALS: Mapping[Unit, int] = {
    "share": 1, "points": 1, "number": 2, "gain": 2, "metric": 3, "metric_gain": 3, "count": 0, "seconds": 0,
    "gigabytes": 2,
}  # fmt: skip
_TAILS: Mapping[Unit, str] = {"share": " %", "points": " points", "seconds": " s", "gigabytes": " GB"}
_SIGNED = frozenset({"points", "gain", "metric_gain"})


class Goal(NamedTuple):
    """Bounds that a figure must keep, in its own unit; None where there is none.

    least: The value is at least this.
    most: The value is at most this.
    above: The value is above this.
    clear_of: The whole interval is above this.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    clear_of: float | None = None


class Headline(NamedTuple):
    """One figure of the summary.

    part: What it is about, such as "Policy".
    name: What was measured, in words.
    shown: Value and interval, ready to be read.
    goal: The goal in words, "" where it is held to none.
    met: Whether the goal is met; None without a goal or a figure.
    """

    part: str
    name: str
    shown: str
    goal: str
    met: bool | None


class _Line(NamedTuple):
    part: str
    name: str
    path: str
    unit: Unit
    goal: Goal = Goal()


_LINES = (
    _Line("Preference", "Choices foretold, latent profile", "preference.accuracy.vpl.k8", "share"),
    _Line("Preference", "Choices foretold, hierarchical Bayes", "preference.accuracy.hierarchical_bayes.k8", "share"),
    _Line("Preference", "Choices foretold, average user", "preference.accuracy.pooled", "share"),
    _Line("Preference", "Choices foretold, oracle", "preference.accuracy.oracle", "share"),
    _Line("Preference", "Gain over the average user", "preference.gaps_at_k8.vpl_over_pooled", "points",
          Goal(least=0.08, clear_of=0.0)),
    _Line("Preference", "Share of the oracle's gap closed", "preference.gap_closed", "share", Goal(least=0.4)),
    _Line("Preference", "Gain over hierarchical Bayes", "preference.gaps_at_k8.vpl_over_hierarchical_bayes", "points",
          Goal(least=-0.01)),
    _Line("Preference", "Gain with nothing known", "preference.details.vpl.k0.over_baseline",
          "points", Goal(least=-0.02, most=0.02)),
    _Line("Preference", "Loss when contexts are shuffled", "preference.context_shuffle_gap", "points",
          Goal(least=0.08)),
    _Line("Preference", "Active units of the latent", "preference.active_units", "count", Goal(least=4)),
    _Line("Policy", "Wins over the average condition", "policy.win_rate_conditioned_vs_average",
          "share", Goal(least=0.65, clear_of=0.5)),
    _Line("Policy", "Wins over the untrained policy", "policy.win_rate_after_vs_before", "share"),
    *(_Line("Policy", f"{SLIDER}{name}, rank correlation", f"policy.sliders.{name}.spearman", "number", Goal(least=0.8))
      for name in ATTRIBUTES),
    _Line("Policy", "Replies with the exact title", "policy.exact_title_rate", "share", Goal(least=0.99)),
    _Line("Policy", "Replies with another title", "policy.invented_title_rate", "share", Goal(most=0.01)),
    _Line("Policy", "Replies with an invented fact", "policy.invented_fact_rate", "share", Goal(most=0.01)),
    _Line("Dialogue", "Gain in satisfaction, stars", "dialogue.satisfaction.gain", "gain", Goal(clear_of=0.0)),
    _Line("Dialogue", "Gain in true utility", "dialogue.utility.gain", "gain", Goal(clear_of=0.0)),
    _Line("Dialogue", "Gain in success rate", "dialogue.success_rate.gain", "points"),
    _Line("Dialogue", "Change in turns", "dialogue.turns.gain", "gain"),
    _Line("Dialogue", "Goodhart gap", "dialogue.goodhart_gap", "gain"),
    _Line("Retrieval", "NDCG@10 of GNOLR", "retrieval.gnolr.ndcg@10", "metric"),
    _Line("Retrieval", "NDCG@10 of GNOLR over popularity", "retrieval.gnolr.ndcg@10_over_popularity", "metric_gain",
          Goal(above=0.0)),
    _Line("Retrieval", "NDCG@10 of GNOLR over EASE", "retrieval.gnolr.ndcg@10_over_ease", "metric_gain"),
)  # fmt: skip

_LATER = _Line(
    "World", "Nats saved on later ratings", "world.later_ratings.log_loss_saved", "metric_gain", Goal(clear_of=0.0)
)  # fmt: skip


def headlines(report: Report) -> list[Headline]:
    """Every headline figure of a report, in reading order.

    Args:
        report: What `report.json` holds.

    Returns:
        One line a figure; a world with real later ratings has one line more.
    """
    invented = "later_ratings" not in report["world"]
    lines = _LINES if invented else (*_LINES, _LATER)
    found = [_judge(line, as_measure(find(report, line.path))) for line in lines]
    found.append(
        _judge(
            _Line(
                "Cost", "Time of all stages", "timing.total", "seconds", Goal(most=540 if invented else 900)
            ),
            as_measure(report["timing"]["total"]),
        )
    )
    memory = as_measure(report["peak_rss_mb"] * _MIB_PER_GB)
    found.append(_judge(_Line("Cost", "Most memory held", "peak_rss_mb", "gigabytes", Goal(most=4)), memory))
    return found


def find(report: Report, path: str) -> Any:
    """What lies at a dotted path, or None where the path ends early."""
    value: Any = report
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def as_measure(found: Any) -> Measure:
    """A figure as value, ci95 and n, whether or not it came with an interval."""
    if isinstance(found, Mapping):
        return {"value": found.get("value"), "ci95": found.get("ci95"), "n": found.get("n")}
    return {"value": found, "ci95": None, "n": None}


def show(measure: Measure, unit: Unit) -> str:
    """A figure with its interval in words.

    Args:
        measure: value, and ci95 where it is known.
        unit: "share" is shown in percent, "points" as a difference of shares; "gain" and "metric_gain" are
            other differences; all differences bear their sign.

    Example:
        >>> show({"value": 0.5, "ci95": [0.4, 0.6]}, "share")
        '50.0 % [40.0, 60.0]'
    """
    value, interval = measure["value"], measure.get("ci95")
    if value is None:
        return NOT_MEASURED
    text = show_value(value, unit)
    if interval is None or None in interval:
        return text
    low, high = (_digits(bound, unit) for bound in interval)
    return f"{text} [{low}, {high}]"


def show_value(value: float, unit: Unit) -> str:
    """A bare figure in its unit."""
    return _digits(value, unit) + _TAILS.get(unit, "")


def _digits(value: float, unit: Unit) -> str:
    scaled = 100 * value if unit in ("share", "points") else value
    text = f"{abs(scaled):.{_DECIMALS[unit]}f}"
    if not float(text):
        return text
    sign = MINUS if scaled < 0 else "+" * (unit in _SIGNED)
    return sign + text


def _judge(line: _Line, measure: Measure) -> Headline:
    goal = _in_words(line.goal, line.unit)
    met = _is_met(line.goal, measure) if goal and measure["value"] is not None else None
    return Headline(line.part, line.name, show(measure, line.unit), goal, met)


def _is_met(goal: Goal, measure: Measure) -> bool:
    value, interval = measure["value"], measure["ci95"]
    return (
        (goal.least is None or value >= goal.least)
        and (goal.most is None or value <= goal.most)
        and (goal.above is None or value > goal.above)
        and (goal.clear_of is None or (interval is not None and interval[0] > goal.clear_of))
    )


def _in_words(goal: Goal, unit: Unit) -> str:
    if goal.least is not None and goal.most is not None:
        return f"{_bound(goal.least, unit, bare=True)} to {_bound(goal.most, unit)}"
    named = (
        ("at least", goal.least),
        ("at most", goal.most),
        ("above", goal.above),
        ("interval above", goal.clear_of),
    )
    return ", ".join(f"{word} {_bound(value, unit)}" for word, value in named if value is not None)


def _bound(value: float, unit: Unit, *, bare: bool = False) -> str:
    """A bound without needless decimals, such as 8 points, 99 %, 0.8 or plain 0."""
    scaled = 100 * value if unit in ("share", "points") else value
    tail = "" if bare or not value else _TAILS.get(unit, "")
    return f"{MINUS * (value < 0)}{abs(scaled):g}{tail}"
