"""What a run showed, in plain sentences: what was learned, what training changed, and what did not work.

The sentences are built from the figures alone. A change is called one only where its interval is clear of zero, and
nothing that went wrong is left out because something else went well.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from app.headlines import SLIDER, Headline, Measure, Report, Unit, find, show, show_value


class Verdict(NamedTuple):
    """Sentences for the top of the report.

    learned: What is now known of users, and what the policy does with it.
    changed: Before and after training.
    fell_short: Goals that were not met, and warnings that no goal covers; empty if there are none.
    """

    learned: list[str]
    changed: list[str]
    fell_short: list[str]


def verdict(report: Report, lines: Sequence[Headline]) -> Verdict:
    """Put a report into words.

    Args:
        report: What `report.json` holds.
        lines: Its headline figures.
    """
    return Verdict(_learned(report), _changed(report), [*_missed(lines), *_warnings(report)])


def _learned(report: Report) -> list[str]:
    accuracy, policy = report["preference"]["accuracy"], report["policy"]
    own = show(accuracy["vpl"]["k8"], "share")
    average, oracle = (show_value(accuracy[name]["value"], "share") for name in ("pooled", "oracle"))
    config = report["manifest"]["config"]
    shots, name = config["shots"], config.get("profile", "vpl")
    profile = "the latent profile" if name == "vpl" else f"the profile `{name}`"
    return [
        f"After 8 choices between two replies, {profile} foretold {own} of an unseen user's next choices, "
        f"on questions kept from training. A model of the average user foretold {average}; knowing the hidden "
        f"truth gives {oracle}.",
        f"Told of a user by {_count(shots, 'comparison')}, the trained policy wrote a reply of more true worth to that "
        f"user than its reply to the average user in {show(policy['win_rate_conditioned_vs_average'], 'share')} of "
        "cases.",
        f"{show_value(policy['exact_title_rate']['value'], 'share')} of replies name their film exactly; "
        f"{show_value(policy['invented_title_rate']['value'], 'share')} name another one.",
    ]


def _missed(lines: Sequence[Headline]) -> list[str]:
    """One sentence for each goal that is not met; the sliders, which have one goal, share one."""
    short = [line for line in lines if line.met is False]
    sliders = [line for line in short if line.name.startswith(SLIDER)]
    sentences = [f"{line.name}: {line.shown}; goal: {line.goal}." for line in short if line not in sliders]
    if sliders:
        values = ", ".join(f"{line.name.removeprefix(SLIDER).split(',')[0]} {line.shown}" for line in sliders)
        sentences.append(f"Sliders whose rank correlation misses its goal ({sliders[0].goal}): {values}.")
    return sentences


def _changed(report: Report) -> list[str]:
    named: tuple[tuple[str, str, Unit, Unit], ...] = (
        ("satisfaction", "Satisfaction", "number", "gain"),
        ("utility", "True utility", "number", "gain"),
        ("success_rate", "The success rate", "share", "points"),
        ("turns", "The length of a dialogue in turns", "number", "gain"),
    )
    sentences = []
    for key, name, unit, difference in named:
        part = report["dialogue"][key]
        before, after = (show_value(part[when]["value"], unit) for when in ("before", "after"))
        gain = show(part["gain"], difference)
        sentences.append(
            f"{name} {_movement(part['gain'])}: {before} before, {after} after, a change of {gain}."
        )
    return sentences


def _movement(gain: Measure) -> str:
    low, high = gain["ci95"]
    if low > 0:
        return "rose"
    return "fell" if high < 0 else "did not clearly change"


def _warnings(report: Report) -> list[str]:
    """What a reader should know although no goal is bound to it."""
    found = []
    for path, sentence in (
        ("retrieval.gnolr.ndcg@10_over_ease", "EASE finds better films than GNOLR: NDCG@10 differs by {}."),
        ("dialogue.success_rate.gain", "Fewer dialogues end in success than before: {}."),
    ):
        gap = find(report, path)
        if gap and gap["ci95"][1] < 0:
            unit: Unit = "points" if "rate" in path else "metric_gain"
            found.append(sentence.format(show(gap, unit)))
    goodhart = report["dialogue"]["goodhart_gap"]
    if goodhart["ci95"][0] > 0:
        found.append(
            f"Ratings grew by more than users gained: the Goodhart gap is {show(goodhart, 'gain')} standard deviations."
        )
    trained = report["policy"]["win_rate_after_vs_before"]
    if trained["ci95"][0] <= 0.5:
        found.append(
            f"The trained policy does not clearly beat the untrained one on single replies: {show(trained, 'share')}."
        )
    worst = _value(report["policy"].get("worst_decile_gain_conditioned_vs_average"))
    if worst is not None and worst < 0:
        found.append(
            "The tenth of unseen users served worst would rather have the average user's reply: a change in true "
            f"utility of {show_value(worst, 'gain')}."
        )
    found += [
        f"Round {part['round']} found no rewrite that its user rated higher, so it taught the policy nothing new."
        for part in report["rounds"]
        if not part["accepted"]
    ]
    return found


def _value(found: Any) -> float | None:
    """A figure that may come with or without an interval."""
    value = found.get("value") if isinstance(found, Mapping) else found
    return None if value is None else float(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
