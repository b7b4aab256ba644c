import json
from pathlib import Path
from typing import Any

import pytest

from app.headlines import MINUS, Headline, find, headlines, show
from app.report import assemble_report
from app.verdict import verdict
from tests.helpers.finished_run import measure, write_run

GAPS = "preference.gaps_at_k8"


@pytest.fixture
def report(tmp_path: Path) -> dict[str, Any]:
    write_run(tmp_path)
    return assemble_report(tmp_path)


def line(report: dict[str, Any], name: str) -> Headline:
    return next(found for found in headlines(report) if found.name == name)


def put(report: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of the report with one figure changed."""
    changed: dict[str, Any] = json.loads(json.dumps(report))
    *parents, last = path.split(".")
    find(changed, ".".join(parents))[last] = value
    return changed


@pytest.mark.parametrize(
    ("name", "path", "value", "met"),
    [
        ("Gain over the average user", f"{GAPS}.vpl_over_pooled", measure(0.08, 0.001, 0.2), True),
        ("Gain over the average user", f"{GAPS}.vpl_over_pooled", measure(0.08, 0.0, 0.2), False),
        ("Gain over the average user", f"{GAPS}.vpl_over_pooled", measure(0.079, 0.05, 0.2), False),
        ("Gain with nothing known", "preference.details.vpl.k0.over_baseline", measure(-0.021, -0.1, 0.1), False),
        ("Gain with nothing known", "preference.details.vpl.k0.over_baseline", measure(0.021, -0.1, 0.1), False),
        ("Gain with nothing known", "preference.details.vpl.k0.over_baseline", measure(0.02, -0.1, 0.1), True),
        ("Gain over hierarchical Bayes", f"{GAPS}.vpl_over_hierarchical_bayes", measure(-0.02, -0.1, 0.1), False),
        ("Share of the oracle's gap closed", "preference.gap_closed", 0.39, False),
        ("Share of the oracle's gap closed", "preference.gap_closed", measure(0.4, 0.3, 0.5), True),
        ("Wins over the average condition", "policy.win_rate_conditioned_vs_average", measure(0.66, 0.5, 0.8), False),
        ("Replies with another title", "policy.invented_title_rate", measure(0.011, 0.0, 0.1), False),
        ("Replies with another title", "policy.invented_title_rate", measure(0.01, 0.0, 0.1), True),
        ("Gain in true utility", "dialogue.utility.gain", measure(0.1, -0.001, 0.2), False),
        ("NDCG@10 of GNOLR over popularity", "retrieval.gnolr.ndcg@10_over_popularity", measure(0.0, -0.1, 0.1), False),
        ("Time of all stages", "timing.total", 540.1, False),
    ],
)  # fmt: skip
def test_goal_is_met_exactly_within_its_bounds(
    report: dict[str, Any], name: str, path: str, value: object, met: bool
) -> None:
    assert line(put(report, path, value), name).met is met


def test_memory_goal_is_four_billion_bytes(report: dict[str, Any]) -> None:
    assert line({**report, "peak_rss_mb": 4e9 / 2**20}, "Most memory held").met is True
    assert line({**report, "peak_rss_mb": 4e9 / 2**20 + 0.1}, "Most memory held").met is False


def test_figure_without_a_value_is_neither_met_nor_missed(report: dict[str, Any]) -> None:
    found = line(put(report, "preference.gap_closed", None), "Share of the oracle's gap closed")
    assert (found.shown, found.met) == ("not measured", None)


def test_figure_without_a_goal_has_no_state(report: dict[str, Any]) -> None:
    found = line(report, "Wins over the untrained policy")
    assert (found.goal, found.met) == ("", None)


def test_goals_read_as_words(report: dict[str, Any]) -> None:
    goals = {found.name: found.goal for found in headlines(report)}
    assert goals["Gain over the average user"] == "at least 8 points, interval above 0"
    assert goals["Gain with nothing known"] == f"{MINUS}2 to 2 points"
    assert goals["Wins over the average condition"] == "at least 65 %, interval above 50 %"
    assert goals["Most memory held"] == "at most 4 GB"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (measure(-0.051, -0.1, 0.02), "points", f"{MINUS}5.1 points [{MINUS}10.0, +2.0]"),
        (measure(0.12345, 0.1, 0.2), "metric", "0.123 [0.100, 0.200]"),
        (measure(-0.0001, -0.1, 0.1), "gain", f"0.00 [{MINUS}0.10, +0.10]"),
        (measure(4.0, 3.0, 5.0), "count", "4 [3, 5]"),
        ({"value": 399.4}, "seconds", "399 s"),
    ],
)
def test_figures_are_shown_in_their_unit(value: dict[str, Any], unit: Any, text: str) -> None:
    assert show(value, unit) == text


def test_path_that_ends_early_finds_nothing(report: dict[str, Any]) -> None:
    assert find(report, "preference.gap_closed.value") is None
    assert find(report, "preference.nothing") is None


def test_verdict_speaks_of_a_change_only_where_the_interval_is_clear(report: dict[str, Any]) -> None:
    for gain, words in (
        (
            measure(0.5, 0.1, 0.9),
            "True utility rose: 3.00 before, 3.50 after, a change of +0.50 [+0.10, +0.90].",
        ),
        (measure(0.5, -0.1, 0.9), "True utility did not clearly change: "),
        (measure(-0.5, -0.9, -0.1), "True utility fell: "),
    ):
        changed = put(report, "dialogue.utility.gain", gain)
        assert verdict(changed, headlines(changed)).changed[1].startswith(words)


def test_verdict_names_each_goal_that_is_missed(report: dict[str, Any]) -> None:
    changed = put(report, "policy.exact_title_rate", measure(0.9, 0.8, 0.95))
    for name in ("warmth", "reasons"):
        changed = put(changed, f"policy.sliders.{name}.spearman", measure(0.2, 0.1, 0.3))
    before, after = (verdict(r, headlines(r)).fell_short for r in (report, changed))
    assert [sentence for sentence in after if sentence not in before] == [
        "Replies with the exact title: 90.0 % [80.0, 95.0]; goal: at least 99 %.",
        "Sliders whose rank correlation misses its goal (at least 0.8): warmth 0.20 [0.10, 0.30], "
        "reasons 0.20 [0.10, 0.30].",
    ]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("retrieval.gnolr.ndcg@10_over_ease", measure(-0.1, -0.2, -0.01), "EASE finds better films than GNOLR"),
        ("dialogue.success_rate.gain", measure(-0.1, -0.2, -0.01), "Fewer dialogues end in success"),
        ("dialogue.goodhart_gap", measure(0.5, 0.1, 0.9), "the Goodhart gap is +0.50 [+0.10, +0.90]"),
        ("policy.win_rate_after_vs_before", measure(0.6, 0.5, 0.7), "does not clearly beat the untrained one"),
        ("policy.worst_decile_gain_conditioned_vs_average", -0.3, "would rather have the average user's reply"),
        ("policy.worst_decile_gain_conditioned_vs_average", measure(-0.3, -1, 1), f"utility of {MINUS}0.30"),
    ],
)  # fmt: skip
def test_verdict_warns_of_what_no_goal_covers(
    report: dict[str, Any], path: str, value: object, words: str
) -> None:
    assert not any(words in sentence for sentence in verdict(report, headlines(report)).fell_short)
    changed = put(report, path, value)
    assert any(words in sentence for sentence in verdict(changed, headlines(changed)).fell_short)


def test_verdict_warns_of_a_round_that_taught_nothing(report: dict[str, Any]) -> None:
    assert verdict(report, headlines(report)).fell_short == [
        "Round 2 found no rewrite that its user rated higher, so it taught the policy nothing new."
    ]
