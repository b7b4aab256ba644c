"""The tables of `audit.html` as plain texts: those of the page, and those that stand beside the plots."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.headlines import MINUS, NOT_MEASURED, show
from app.report_tables import Table
from simulators.faithfulness import Tag
from simulators.types import LEVELS, StopReason

Part = Mapping[str, Any]
_KINDS = {
    "most": "at most {}",
    "around": "within \N{PLUS-MINUS SIGN}{}",
    "above": "interval above {}",
    "order": "at least {}, interval above 0",
    "p": "at least {}",
}
ENDS = {
    StopReason.ACCEPTED: "took an item",
    StopReason.OUT_OF_PATIENCE: "walked out",
    StopReason.MAX_TURNS: "cut off by the limit",
    StopReason.MODEL_FAILED: "a model failed",
}


def level_labels(support: Sequence[float], max_level: int) -> list[str]:
    """Levels by number, with their names where there are as many as the project's own.

    Args:
        support: The levels.
        max_level: The deepest level.
    """
    named = max_level == len(LEVELS) - 1
    return [f"{int(level)} {LEVELS[int(level)]}" if named else f"{level:g}" for level in support]


def criteria_table(verdict: Part) -> Table:
    """What one verdict rests on.

    Args:
        verdict: One of `verdicts` in a report.
    """
    rows = [
        [row["words"], _measured(row), _KINDS[row["kind"]].format(f"{row['limit']:g}"), _standing(row)]
        for row in verdict["criteria"]
    ]
    return Table(
        f"{verdict['use'].capitalize()}: what it rests on", ["measure", "value [95 %]", "limit", ""], rows
    )


def _standing(criterion: Part) -> str:
    note = criterion.get("note")
    return f"{criterion['standing']}: {note}" if note else str(criterion["standing"])


def limits_table(report: Part) -> Table:
    """Every limit with its reason."""
    rows = [
        [name, f"{limit['value']:g}", limit["reason"]] for name, limit in sorted(report["limits"].items())
    ]
    return Table("Limits, and why", ["limit", "value", "reason"], rows)


def counts_table(report: Part) -> Table:
    """How much of what was compared."""
    names = {"users": "users", "rows": "reactions", "dialogues": "dialogues", "scenes": "predicted choices"}
    rows = [
        [words, *(f"{report['counts'][side][name]:,}" for side in ("simulated", "real"))]
        for name, words in names.items()
    ]
    return Table("What was compared", ["", "simulated", "real"], rows)


def reactions_table(report: Part) -> Table:
    """Distances and rates of reactions, as far as they were measured."""
    rows = []
    if "levels" in report:
        rows += _distances("levels", report["levels"])
    if "satisfaction" in report:
        rows += _distances("satisfaction, stars", report["satisfaction"])
    if "acceptance_rate" in report:
        rate = report["acceptance_rate"]
        rows += [
            ["accepted, simulated", show(rate["simulated"], "share"), ""],
            ["accepted, real", show(rate["real"], "share"), ""],
            ["excess of acceptance", show(rate["gap"], "points"), ""],
        ]
    if "acceptance" in report:
        part = report["acceptance"]
        source = f"{part['pairs']:,} pairs of user and item, {part['answers']}"
        rows.append(["AUC for what real users accept", show(part["auc"], "metric"), source])
        if part["within_user"] is not None:
            rows.append(["the same within users", show(part["within_user"], "metric"), source])
    if "position" in report:
        rows += [
            [f"slope along the list, {side}", show(report["position"][side], "metric_gain"), ""]
            for side in ("simulated", "real")
        ]
    if "actions" in report:
        rows.append(["mix of actions, Jensen-Shannon", show(report["actions"]["distance"], "metric"), ""])
    if found := report.get("two_sample", {}).get("behaviour"):
        rows.append(["AUC of a classifier of behaviour", show(found["auc"], "metric"), _chance(found["p"])])
    return Table("Reactions", ["measure", "value [95 %]", ""], rows)


def sessions_table(report: Part) -> Table:
    """Distances of lengths and ends, as far as they were measured."""
    rows = []
    for name, words in (("sessions", "lengths"), ("abandonment", "walking out")):
        if name in report:
            part = report[name]
            rows.append(
                [f"{words}: largest distance of the curves", show(part["gap"], "points"), _chance(part["p"])]
            )
            rows.append([f"{words}: log-rank statistic", f"{part['log_rank']:.2f}", _chance(part["p"])])
    if "ends" in report:
        rows.append(["mix of ends, Jensen-Shannon", show(report["ends"]["distance"], "metric"), ""])
    return Table("Sessions", ["measure", "value [95 %]", ""], rows)


def words_table(report: Part) -> Table:
    """Variety and recognisability of words."""
    rows = []
    names = {
        "self_bleu": "self-BLEU",
        "distinct_1": "distinct words",
        "distinct_2": "distinct pairs of words",
    }
    for key, words in names.items():
        if key in report.get("diversity", {}):
            part = report["diversity"][key]
            cells = [show(part[side], "metric") for side in ("simulated", "real")]
            rows.append([words, *cells, show(part["gap"], "metric_gain")])
    if found := report.get("two_sample", {}).get("words"):
        rows.append(
            ["AUC of a classifier of words", "", "", f"{show(found['auc'], 'metric')}, {_chance(found['p'])}"]
        )
    return Table("Words", ["measure", "simulated", "real", "difference"], rows)


def errors_table(report: Part) -> Table:
    """Shares of dialogues with each fault and severity."""
    part = report["errors"]
    named = {tag.value: part["tags"][tag.name.lower()] for tag in Tag}
    named |= {"any that helped the agent": part["helped"], "any that hindered it": part["hindered"]}
    rows = [
        [words, show(rates["simulated"], "share"), show(rates["real"], "share"), show(rates["gap"], "points")]
        for words, rates in named.items()
    ]
    return Table("Dialogues in which the user ...", ["", "simulated", "real", "excess"], rows)


def examples_table(report: Part) -> Table:
    """The first simulated messages with each fault."""
    rows = [
        [row["tag"], row["severity"], row["user"], row["text"] or "(nothing)"]
        for row in report["errors"]["examples"]
    ]
    return Table(
        "Faults of simulated users, the first of each kind",
        ["the user ...", "severity", "user", "words"],
        rows,
    )


def _strays(by_chance: float | None) -> str:
    return "not tested" if by_chance is None else f"{by_chance:.3f}"


def choices_table(report: Part) -> Table:
    """How well choices are foretold."""
    part = report["choices"]
    rows = [
        ["expected accuracy: probability of the option taken", show(part["expected"], "share")],
        ["top-1 accuracy", show(part["top1"], "share")],
        ["accuracy of picking blindly", show(part["chance"], "share")],
        ["negative log-likelihood, nats", show(part["nll"], "metric")],
        ["nats saved over picking blindly", show(part["nll_saved"], "metric_gain")],
        ["calibration error (ECE, equal mass)", show(part["ece"], "metric")],
        ["chance of accuracies as uneven over places", f"{part['slots']['p_flat']:.3g}"],
        ["how far one place's accuracy strays by chance", _strays(part["slots"]["by_chance"])],
        ["chance of places as uneven", f"{part['slots']['p_even']:.3g}"],
    ]
    return Table(
        f"{part['scenes']:,} choices out of lists, means over users", ["measure", "value [95 %]"], rows
    )


def ranking_table(report: Part) -> Table:
    """Values of policies on both sides, the really best first."""
    part = report["ranking"]
    rows = [
        [name, show(one, "share"), show(other, "share")]
        for name, one, other in zip(part["policies"], part["simulated"], part["real"], strict=True)
    ]
    return Table(
        "Share of reactions that accept, by policy",
        ["policy", "simulated", f"real ({part['estimator']})"],
        rows,
    )


def shares_table(caption: str, head: str, labels: Sequence[str], part: Part) -> Table:
    """Shares of values on both sides.

    Args:
        caption: What it shows.
        head: What the labels are.
        labels: One a value.
        part: Has shares under simulated and real.
    """
    rows = [
        [label, f"{100 * one:.1f} %", f"{100 * other:.1f} %"]
        for label, one, other in zip(labels, part["simulated"], part["real"], strict=True)
    ]
    return Table(caption, [head, "simulated", "real"], rows)


def survival_table(caption: str, part: Part) -> Table:
    """Shares that outlast each length.

    Args:
        caption: What it shows.
        part: A survival part of a report.
    """
    return shares_table(caption, f"length in {part['unit']}", [str(time) for time in part["times"]], part)


def rates_table(
    caption: str, head: str, labels: Sequence[str], sides: Mapping[str, Sequence[float | None]]
) -> Table:
    """Rates that may be absent, a column a side.

    Args:
        caption: What it shows.
        head: What the labels are.
        labels: One a row.
        sides: Columns of rates by title.
    """
    rows = [
        [
            label,
            *(
                "" if rates[row] is None else f"{100 * float(rates[row] or 0):.1f} %"
                for rates in sides.values()
            ),
        ]
        for row, label in enumerate(labels)
    ]
    return Table(caption, [head, *sides], rows)


def disclosure_table(part: Part) -> Table:
    """Things named for the first time at each message.

    Args:
        part: The disclosure part of a report.
    """
    rows = [
        [str(row["turn"]), show(row["simulated"], "number"), show(row["real"], "number")]
        for row in part["turns"]
    ]
    return Table("Things named for the first time", ["message", "simulated", "real"], rows)


def _distances(name: str, part: Part) -> list[list[str]]:
    return [
        [f"{name}: Kolmogorov-Smirnov distance", show(part["ks"], "metric"), _chance(part["p"])],
        [f"{name}: Wasserstein distance", show(part["wasserstein"], "metric"), ""],
        [f"{name}: difference of means", show(part["mean_gap"], "metric_gain"), ""],
    ]


def _chance(p: float) -> str:
    return f"p {p:.3g}"


def _measured(row: Part) -> str:
    if row["value"] is None:
        return NOT_MEASURED if row["standing"] == "not measured" else "no value"
    text = f"{row['value']:.3g}"
    if row["ci95"] is not None:
        text += f" [{row['ci95'][0]:.3g}, {row['ci95'][1]:.3g}]"
    elif row["kind"] != "p":
        text += " [too few users]"
    return text.replace("-", MINUS)
