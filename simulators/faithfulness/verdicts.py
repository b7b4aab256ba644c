"""What a simulator may be believed for: one verdict a use, each from measures held to stated limits.

A measure is within its limit only if its whole interval is, and beyond it only if the value is and chance does not
explain it; between the two, and without an interval, it is not settled, which more users may change. Where knowledge is
asked for, of items, of choices or of the order of policies, the burden is the simulator's: a value on the wrong side
is beyond, whatever its interval; and as few policies give wide intervals, their order is within if the value is and the
interval lies above 0. A use is granted when everything that it rests on is measured and within, refused when anything
is beyond, and else not shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from simulators.faithfulness.limits import Limits

ALPHA = 0.05


class Answer(StrEnum):
    """Whether a simulator is fit for a use."""

    YES = "yes"
    NO = "no"
    NOT_SHOWN = "not shown"


class Standing(StrEnum):
    """Where a measure lies."""

    WITHIN = "within"
    BEYOND = "beyond"
    UNSETTLED = "not settled"
    MISSING = "not measured"


@dataclass(frozen=True, slots=True)
class Check:
    """One measure that a use rests on.

    Attributes:
        path: Where it lies in the report, dotted.
        words: What it is.
        limit: Field of `Limits`.
        kind: "most": value at most the limit; "around": value within plus and minus the limit; "above": the whole
            interval above the limit; "order": value at least the limit and the interval above 0; "p": a chance of at
            least the limit.
        required: Whether the use cannot be granted without it.
        p_path: Where the chance of such a value lies, where there is one.
        noise: For "p": where it lies how far chance alone moves what is tested, and the field of `Limits` that it must
            stay within for a large p to show anything.
    """

    path: str
    words: str
    limit: str
    kind: Literal["most", "around", "above", "order", "p"]
    required: bool = False
    p_path: str | None = None
    noise: tuple[str, str] | None = None


class Criterion(NamedTuple):
    """A measure held to its limit.

    words: What was measured.
    value: None if it was not, or if it has no value.
    ci95: Its interval, where it has one.
    limit: The limit.
    kind: As in `Check`.
    standing: Where it lies.
    name: Field of `Limits`.
    note: Why it is not settled though the value is within its limit; empty where it is not so.
    """

    words: str
    value: float | None
    ci95: tuple[float, float] | None
    limit: float
    kind: str
    standing: Standing
    name: str
    note: str = ""


class Verdict(NamedTuple):
    """Whether a simulator is fit for one use.

    use: Name of the use.
    answer: yes, no or not shown.
    because: Why, in words.
    criteria: Everything that it rests on.
    """

    use: str
    answer: Answer
    because: str
    criteria: tuple[Criterion, ...]

    @property
    def line(self) -> str:
        """The verdict in one line."""
        return f"{self.use}: {self.answer}, because {self.because}"

    def to_report(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "use": self.use,
            "answer": self.answer.value,
            "because": self.because,
            "line": self.line,
            "criteria": [
                one._asdict()
                | {"standing": one.standing.value, "ci95": None if one.ci95 is None else list(one.ci95)}
                for one in self.criteria
            ],
        }


_LEVEL_KS = Check(
    "levels.ks", "distance of the distributions of levels (KS)", "level_ks", "most", True, "levels.p"
)
_STARS_KS = Check(
    "satisfaction.ks",
    "distance of the distributions of satisfaction (KS)",
    "level_ks",
    "most",
    False,
    "satisfaction.p",
)
_LEVEL_SHIFT = Check("levels.shift", "shift of the mean level, of its range", "level_shift", "around", True)
_STARS_SHIFT = Check(
    "satisfaction.shift", "shift of mean satisfaction, of its range", "level_shift", "around"
)
_KNOWS_ITEMS = Check("acceptance.auc", "AUC for what real users accept", "acceptance_auc", "above")
_POSITION = Check("position.gap", "difference in position bias, in logits", "position_slope", "around")
_RANKING = Check("ranking.tau", "agreement on the order of policies (tau-b)", "ranking_tau", "order", True)
_ORDER = replace(_RANKING, required=False)
"""Whoever tunes a policy compares policies, so an order that is known must be right."""
_CALIBRATED = Check("choices.ece", "calibration error of choices", "calibration_error", "most")
_KNOWS_CHOICES = Check("choices.nll_saved", "nats saved over picking blindly", "choices_saved", "above")
_FLAT = Check(
    "choices.slots.p_flat", "chance of accuracies as uneven over slots", "slot_p", "p",
    noise=("choices.slots.by_chance", "slot_noise"),
)  # fmt: skip
_BEHAVIOUR = Check(
    "two_sample.behaviour.auc", "AUC of behaviour, simulated from real", "behaviour_auc", "most", False,
    "two_sample.behaviour.p",
)  # fmt: skip
_WORDS = Check(
    "two_sample.words.auc",
    "AUC of words, simulated from real",
    "words_auc",
    "most",
    True,
    "two_sample.words.p",
)
_ABANDON = Check(
    "abandonment.gap", "distance of the curves of abandonment", "survival_gap", "most", False, "abandonment.p"
)
_HELPED = Check("errors.helped.gap", "excess of faults that helped the agent", "helped_errors", "most")
_CHECKS: Mapping[str, tuple[Check, ...]] = {
    "fit to rank recommenders": (_RANKING, _KNOWS_ITEMS, _KNOWS_CHOICES, _POSITION, _FLAT, _CALIBRATED),
    "fit to tune wording": (
        _WORDS,
        Check("errors.critical.gap", "excess of critical faults", "critical_errors", "most", True),
        Check("errors.role_swap.gap", "excess of dialogues that swap roles", "role_swaps", "most", True),
        Check("errors.contradiction.gap", "excess of contradictions", "contradictions", "most", True),
        Check("diversity.self_bleu.gap", "excess of sameness (self-BLEU)", "self_bleu_excess", "most", True),
        _ORDER,
    ),
    "fit to estimate satisfaction levels": (_LEVEL_KS, _LEVEL_SHIFT, _STARS_KS, _STARS_SHIFT, _CALIBRATED),
    "fit to train against": (
        Check("acceptance_rate.gap", "excess of acceptance", "acceptance_excess", "most", True),
        _LEVEL_KS,
        Check("two_sample.behaviour.auc", _BEHAVIOUR.words, "behaviour_auc", "most", True, _BEHAVIOUR.p_path),
        _STARS_KS,
        _KNOWS_ITEMS,
        _ORDER,
        _POSITION,
        _ABANDON,
        _HELPED,
    ),
}  # fmt: skip
USES = tuple(_CHECKS)
_SETTLED = "ranking.settled"
_OPEN = "the log settles the order of no two policies"
_LIMIT_WORDS = {
    "most": "",
    "around": "\N{PLUS-MINUS SIGN}",
    "above": "above ",
    "order": "at least ",
    "p": "at least ",
}


def verdicts(report: Mapping[str, Any], limits: Limits) -> list[Verdict]:
    """A verdict for each use.

    Args:
        report: What `simulators.faithfulness.audit_simulator` measured; absent parts count as not measured.
        limits: What each measure is held to.
    """
    return [_judge(use, checks, report, limits) for use, checks in _CHECKS.items()]


def _judge(use: str, checks: tuple[Check, ...], report: Mapping[str, Any], limits: Limits) -> Verdict:
    criteria = tuple(_hold(check, report, limits) for check in checks)
    beyond = [one for one in criteria if one.standing is Standing.BEYOND]
    unsettled = [one for one in criteria if one.standing is Standing.UNSETTLED]
    lacking = [
        one
        for one, check in zip(criteria, checks, strict=True)
        if one.standing is Standing.MISSING and check.required
    ]
    if beyond:
        return Verdict(use, Answer.NO, _and([_figure(one) for one in beyond]), criteria)
    if lacking or unsettled:
        parts = [f"{one.words} is not measured" for one in lacking]
        parts += [f"{_figure(one)}, which these users leave open" for one in unsettled]
        return Verdict(use, Answer.NOT_SHOWN, _and(parts), criteria)
    held = [one for one in criteria if one.standing is Standing.WITHIN]
    return Verdict(use, Answer.YES, _and([_figure(one) for one in held]), criteria)


def _hold(check: Check, report: Mapping[str, Any], limits: Limits) -> Criterion:
    limit = float(getattr(limits, check.limit))
    found = _find(report, check.path)
    if found is None:
        return Criterion(check.words, None, None, limit, check.kind, Standing.MISSING, check.limit)
    if not isinstance(found, Mapping):
        found = {"value": found, "ci95": None}
    value, ci95 = found["value"], found["ci95"]
    # An order that reality itself leaves open cannot be got wrong.
    is_open = check.kind == "order" and _find(report, _SETTLED) == 0
    if value is None:
        # Policies that all score the same have no order, which is no order to rely on.
        standing = Standing.BEYOND if check.kind == "order" else Standing.MISSING
        standing = Standing.UNSETTLED if is_open else standing
        note = _OPEN if is_open else ""
        return Criterion(check.words, None, None, limit, check.kind, standing, check.limit, note)
    ends = None if ci95 is None or None in ci95 else (float(ci95[0]), float(ci95[1]))
    p = None if check.p_path is None else _find(report, check.p_path)
    standing = Standing.UNSETTLED
    if ends is not None or check.kind == "p":
        standing = _standing(check.kind, float(value), ends or (float(value), float(value)), limit, p)
    note = ""
    if standing is Standing.BEYOND and is_open:
        standing, note = Standing.UNSETTLED, _OPEN
    if standing is Standing.WITHIN and check.noise is not None:
        moved, most = _find(report, check.noise[0]), float(getattr(limits, check.noise[1]))
        if moved is None or moved > most:
            standing = Standing.UNSETTLED
            note = (
                "nothing was tested"
                if moved is None
                else f"chance alone moves one by {moved:.2g}, limit {most:g}"
            )
    return Criterion(check.words, float(value), ends, limit, check.kind, standing, check.limit, note)


def _standing(kind: str, value: float, ends: tuple[float, float], limit: float, p: float | None) -> Standing:
    low, high = ends
    if kind == "p":
        return Standing.WITHIN if value >= limit else Standing.BEYOND
    if kind == "above":
        is_within, is_beyond = low > limit, high <= limit or value <= limit
    elif kind == "order":
        is_within, is_beyond = value >= limit and low > 0, high < limit or value <= 0
    elif kind == "around":
        is_within, is_beyond = -limit <= low and high <= limit, low > limit or high < -limit
    else:
        is_within = high <= limit
        # Chance must not explain it either, where that is known: dealing users to sides assumes the least.
        is_beyond = value > limit and (low > limit if p is None else p < ALPHA and low > limit)
    if is_within:
        return Standing.WITHIN
    return Standing.BEYOND if is_beyond else Standing.UNSETTLED


def _figure(one: Criterion) -> str:
    if one.value is None:
        return f"{one.words} has no value" + (f" ({one.note})" if one.note else "")
    shown = _number(one.value)
    if one.ci95 is not None:
        shown += f" [{_number(one.ci95[0])}, {_number(one.ci95[1])}]"
    elif one.kind != "p":
        shown += " [too few users]"
    told = f"{one.words} is {shown}, limit {_LIMIT_WORDS[one.kind]}{one.limit:g}"
    return f"{told} ({one.note})" if one.note else told


def _number(value: float) -> str:
    return f"{value:.2g}".replace("-", "\N{MINUS SIGN}", 1) if value < 0 else f"{value:.2g}"


def _and(parts: list[str]) -> str:
    return "; ".join(parts)


def _find(report: Mapping[str, Any], path: str) -> Any:
    value: Any = report
    for key in path.split("."):
        if not isinstance(value, Mapping) or value.get(key) is None:
            return None
        value = value[key]
    return value
