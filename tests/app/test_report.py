import base64
import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects
import pytest
from plotly.offline import get_plotlyjs
from rich.console import Console

from app.config import RunConfig
from app.errors import StoreError
from app.headlines import MINUS, find
from app.report import REPORT_JSON, assemble_report, needed_stages, write_report
from app.run import _plan
from persona.rewards.attributes import ATTRIBUTES
from tests.helpers.finished_run import USERS, measured, preferences, write_run, write_stage

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>\"&{{7*7}}"
KEY_PATHS = [
    *(f"preference.accuracy.{name}" for name in ("pooled", "length_only", "oracle", "hierarchical_bayes.k8")),
    *(f"preference.accuracy.vpl.k{k}" for k in (0, 2, 4, 8)),
    "preference.active_units",
    "preference.context_shuffle_gap",
    "policy.win_rate_conditioned_vs_average",
    "policy.win_rate_after_vs_before",
    "policy.exact_title_rate",
    "policy.invented_title_rate",
    *(f"policy.sliders.{name}.spearman" for name in ATTRIBUTES),
    *(
        f"dialogue.{name}.{when}"
        for name in ("satisfaction", "utility", "success_rate", "turns")
        for when in ("before", "after")
    ),
    "dialogue.goodhart_gap",
    *(
        f"retrieval.{name}.{metric}"
        for name in ("gnolr", "ease", "popularity")
        for metric in ("ndcg@10", "recall@20")
    ),
]


class Page(HTMLParser):
    """Tags with their attributes, the text outside scripts and styles, and the scripts by type."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attributes, before = self.scripts[-1]
            self.scripts[-1] = (attributes, before + data)
        elif self._inside != "style":
            self.text += data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_run(tmp_path)
    return tmp_path


def write(folder: Path) -> tuple[str, str]:
    """What the terminal shows, and the page."""
    terminal = io.StringIO()
    page = write_report(folder, console=Console(file=terminal, width=160))
    return terminal.getvalue(), page.read_text(encoding="utf-8")


def own_part(html: str) -> str:
    """The page without Plotly's own code, whose maps name tile servers that nothing here draws from."""
    assert html.count(get_plotlyjs()) == 1
    return html.replace(get_plotlyjs(), "")


def figures(page: Page) -> Iterator[dict[str, Any]]:
    yield from (json.loads(text) for kind, text in page.scripts if kind.get("type") == "application/json")


def test_report_has_every_promised_key_with_its_interval(folder: Path) -> None:
    write(folder)
    report = json.loads((folder / REPORT_JSON).read_bytes())
    for path in KEY_PATHS:
        found = find(report, path)
        assert found is not None, path
        assert found["ci95"][0] <= found["value"] <= found["ci95"][1] and found["n"] > 0, path
    assert {"config", "seed", "device", "data_hashes"} <= report["manifest"].keys()
    assert report["world"]["films"] == 2400


def test_values_are_those_that_the_stages_measured(folder: Path) -> None:
    report = assemble_report(folder)
    assert report["policy"] == measured()["policy"]
    assert report["preference"]["accuracy"] == preferences()["accuracy"]
    assert report["dialogue"]["satisfaction"] == measured()["dialogue"]["satisfaction"]


def test_timing_adds_up_and_memory_is_the_most_of_any_stage(folder: Path) -> None:
    write_stage(folder, "policy", seconds=20.25)
    report = assemble_report(folder)
    assert report["timing"]["policy"] == 20.25
    assert report["timing"]["total"] == 20.25 + 1.5 * 12
    assert report["peak_rss_mb"] == 520.25


def test_only_timing_and_memory_depend_on_the_clock(folder: Path) -> None:
    first = assemble_report(folder)
    for name in ("policy", "learn-1"):
        write_stage(folder, name, seconds=99.0)
    second = assemble_report(folder)
    assert {key for key in first if first[key] != second[key]} == {"timing", "peak_rss_mb"}


def test_same_stages_give_the_same_bytes(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "run"
    shutil.copytree(folder, other)
    _, first = write(folder)
    write(other)
    _, second = write(other)
    assert first == second
    assert (folder / REPORT_JSON).read_bytes() == (other / REPORT_JSON).read_bytes()


def test_satisfaction_by_turn_counts_the_users_who_got_that_far(folder: Path) -> None:
    by_turn = assemble_report(folder)["dialogue"]["satisfaction_by_turn"]
    assert [(row["turn"], row["n"], row["value"]) for row in by_turn["before"]] == [(1, 3, 3.0), (2, 2, 4.0)]
    assert [row["ci95"] for row in by_turn["after"]] == [[2.0, 2.0], [4.0, 4.0]]


def test_rounds_say_how_many_rewrites_were_accepted(folder: Path) -> None:
    first, second = assemble_report(folder)["rounds"]
    assert (first["round"], first["dialogues"], first["turns"], first["fell_short"]) == (1, USERS, 6, 3)
    assert first["accepted"] == 2 and first["acceptance_rate"]["value"] == pytest.approx(2 / 3)
    # One of three users is without a rewrite: drawn thrice with chance 1/27, more than a fortieth.
    assert first["acceptance_rate"]["ci95"] == [0.0, 1.0] and first["acceptance_rate"]["n"] == 3
    assert first["satisfaction"] == {"value": 3.0, "ci95": [3.0, 3.0], "n": 3}
    assert second["accepted"] == 0 and second["acceptance_rate"]["ci95"] == [0.0, 0.0]


def test_round_without_short_turns_is_not_measured(folder: Path) -> None:
    talk = json.loads((folder / "stages/talk-2/talk.json").read_bytes())
    for found in talk["dialogues"]:
        for turn in found["turns"]:
            turn["satisfaction"] = 4.0
    write_stage(folder, "talk-2", talk={**talk, "fell_short": 0})
    _, html = write(folder)
    assert assemble_report(folder)["rounds"][1]["acceptance_rate"] == {"value": None, "ci95": None, "n": 0}
    assert "not measured" in Page(html).text


def test_stages_that_the_report_needs_are_in_the_plan_of_a_run() -> None:
    plan = [name for name, _, _ in _plan(RunConfig(rounds=3))]
    assert [name for name in plan if name in needed_stages(3)] == needed_stages(3)
    assert plan[-1] == needed_stages(3)[-1]


def test_missing_stages_are_named(folder: Path) -> None:
    shutil.rmtree(folder / "stages/measure")
    with pytest.raises(StoreError, match=r"without measure\. Finish it with `persona run`.* --resume"):
        write_report(folder)
    for name in ("talk-1", "after", "map"):
        shutil.rmtree(folder / "stages" / name)
    with pytest.raises(StoreError, match=r"without talk-1, after, measure and 1 more\."):
        write_report(folder)
    assert not (folder / REPORT_JSON).exists()


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"must hold manifest\.json; got .* Make it with `persona run`"):
        write_report(tmp_path)


@pytest.mark.parametrize("content", [{"policy": {}}, {"policy": {}, "dialogue": {}}, [1]])
def test_stage_file_of_other_content_is_refused(folder: Path, content: object) -> None:
    write_stage(folder, "measure", measure=content)
    with pytest.raises(
        StoreError,
        match=r"measure\.json must hold .*; got it without policy\.win_rate_.*ci95, .* and \d+ more\.",
    ):
        assemble_report(folder)


def test_missing_figures_are_named_by_their_path(folder: Path) -> None:
    found = measured()
    del found["dialogue"]["turns"]["after"]["value"]
    write_stage(folder, "measure", measure=found)
    with pytest.raises(StoreError, match=r"got it without dialogue\.\w+\.after\.value"):
        write_report(folder)
    (folder / "stages/policy/stage.json").write_text("{}", encoding="utf-8")
    write_stage(folder, "measure", measure=measured())
    with pytest.raises(StoreError, match=r"policy/stage\.json must .*without seconds, peak_rss_mb\."):
        write_report(folder)


@pytest.mark.parametrize("config", [{}, []])
def test_run_without_its_configuration_is_refused(folder: Path, config: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"config": config}), encoding="utf-8")
    with pytest.raises(StoreError, match=r"must have a configuration of this version; got "):
        write_report(folder)


def test_summary_shows_interval_goal_and_whether_it_is_met(folder: Path) -> None:
    text, _ = write(folder)
    assert re.search(
        r"Wins over the average condition\s+│ +70\.0 % \[60\.0, 80\.0\] │ at least 65 %.*│ met ", text
    )
    assert re.search(r"Choices foretold, oracle\s+│ +80\.0 % \[75\.0, 85\.0\] │ +│ +│", text)
    assert text.rstrip().endswith("report.html")


def test_page_shows_values_with_their_intervals(folder: Path) -> None:
    text = Page(write(folder)[1]).text
    for shown in ("70.0 % [60.0, 80.0]", "3.00 [2.95, 3.05]", "0.200 [0.150, 0.250]", "+0.50 [+0.40, +0.60]"):
        assert shown in text


def test_page_loads_nothing_from_anywhere(folder: Path) -> None:
    html = own_part(write(folder)[1])
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html.replace("// Draws", ""), re.IGNORECASE)
    linked = [
        value
        for _, attributes in Page(html).tags
        for name, value in attributes.items()
        if name in ("src", "href")
    ]
    assert linked and all(str(value).startswith("#") for value in linked)


def test_browser_may_run_the_two_scripts_of_the_page_alone(folder: Path) -> None:
    page = Page(write(folder)[1])
    policy = next(
        str(a["content"]) for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"
    )
    code = [text for kind, text in page.scripts if "type" not in kind]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in code]
    assert len(code) == 2 and policy.startswith("default-src 'none'; ")
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes


def test_hostile_titles_stay_text(tmp_path: Path) -> None:
    write_run(tmp_path, title=HOSTILE, catalogue=HOSTILE)
    page = Page(own_part(write(tmp_path)[1]))
    assert HOSTILE in page.text
    assert "img" not in {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "alert" not in "".join(text for _, text in page.scripts)
    assert len(page.scripts) == 2 + len(list(figures(page)))


def test_every_plot_is_one_that_plotly_takes_and_has_words_and_a_table(folder: Path) -> None:
    page = Page(write(folder)[1])
    drawn = list(figures(page))
    assert len(drawn) == 4 + len(ATTRIBUTES)
    for figure in drawn:
        plotly.graph_objects.Figure(figure)
    holders = [attributes for tag, attributes in page.tags if "data-figure" in attributes]
    names = {attributes.get("id") for tag, attributes in page.tags if tag == "script"}
    assert {attributes["data-figure"] for attributes in holders} <= names
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in holders)
    assert page.text.count("The values as a table") == len(drawn)


def test_page_is_marked_up_for_readers_who_listen(folder: Path) -> None:
    page = Page(write(folder)[1])
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(
        attributes.get("scope") in ("row", "col", "rowgroup") for tag, attributes in page.tags if tag == "th"
    )
    assert ("html", {"lang": "en"}) in page.tags
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = {str(attributes["href"])[1:] for tag, attributes in page.tags if tag == "a"}
    assert anchors <= set(ids)


def test_page_holds_three_dialogues_of_each_of_the_two_users(folder: Path) -> None:
    text = Page(write(folder)[1]).text
    assert len(re.findall(r"before training, \d", text)) == len(re.findall(r"after training, \d", text)) == 6
    assert "A (user 4) truly likes more brevity (+1.00)" in text
    assert f"B (user 7) truly likes less warmth ({MINUS}2.00)" in text
    assert "★★☆☆☆" in text and "minded too little warmth" in text


def test_later_ratings_of_real_users_are_shown_and_held_to_their_goal(tmp_path: Path) -> None:
    write_run(tmp_path, later=True, catalogue="ml-100k")
    text, html = write(tmp_path)
    assert re.search(
        r"Nats saved on later ratings\s+│ +\+0\.300 \[\+0\.250, \+0\.350\] │ interval above 0 +│ met", text
    )
    assert "at most 900 s" in text
    assert "item-mean rule" in Page(html).text
    assert np.isclose(assemble_report(tmp_path)["world"]["later_ratings"]["log_loss_saved"]["value"], 0.3)
