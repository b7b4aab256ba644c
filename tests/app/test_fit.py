import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from app.errors import ConfigError, StoreError
from app.fit_measures import _loudness
from app.fit_plots import calibration_figure, has_calibration
from app.fit_report import PROFILES_HTML
from app.fit_scores import read_scores
from app.fit_words import _what_it_knows, _what_it_minds, answer, diagnostics_meanings, facts_of
from app.headlines import show
from app.profile_files import load_profile
from app.profile_methods import METHODS, Material, Method
from persona.errors import DataError
from persona.profiles import Profile
from tests.helpers.choices_file import choices, write_choices
from tests.helpers.finished_fit import FinishedFit, finished_fit, run_fit


@pytest.fixture(name="done", scope="session")
def a_finished_comparison(tmp_path_factory: pytest.TempPathFactory) -> FinishedFit:
    return finished_fit(tmp_path_factory.getbasetemp())


def without_times(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name not in {"timing", "manifest"}}


@pytest.mark.integration
def test_a_taste_that_is_there_is_found_and_said_first(done: FinishedFit) -> None:
    report, printed = done.report, done.printed
    assert report["order"] == ["pooled", "length", "hierarchical"]
    assert printed.startswith("Personalisation helps here: after 4 comparisons") or printed.startswith(
        "Personalisation helps here: after up to 4 comparisons"
    )
    best = report["best"]["name"]
    gain = report["methods"][best]["by_context"]["k4"]["over_pooled"]
    assert best != "pooled" and gain["ci95"][0] > 0
    row = next(row for row in report["comparisons"] if row["first"] == best)
    assert row["is_better"] and row["p_holm"] >= row["p"]
    assert gain["ci95"] == [row["low"], row["high"]]  # one difference, one interval, wherever it stands
    assert np.isclose(row["difference"], gain["value"])
    assert report["methods"][best]["shuffle_gap"]["ci95"][0] > 0
    assert np.isclose(np.mean(report["methods"][best]["gains"]), gain["value"])
    assert report["split"]["shown"]["k0"] == 0.0


@pytest.mark.integration
def test_tables_fit_a_terminal_of_80_columns(done: FinishedFit) -> None:
    printed = done.printed
    tables = printed[printed.index("Choices foretold after") : printed.index("serves best")]
    assert max(map(len, tables.splitlines()[:-1])) <= 80 and "\N{HORIZONTAL ELLIPSIS}" not in tables


@pytest.mark.integration
def test_profiles_are_kept_for_use(done: FinishedFit) -> None:
    out, report = done.out, done.report
    for name in report["order"]:
        profile = load_profile(out / "profiles" / name)
        kind = json.loads((out / "profiles" / name / "profile.json").read_text())["kind"]
        assert profile.latent_dim == report["methods"][name]["latent_dim"], kind
    pool = json.loads((out / "profiles" / "pool.json").read_text())
    assert len(pool["pairs"]) > 100 and all(pair["first"] != pair["second"] for pair in pool["pairs"])


class Page(HTMLParser):
    """Collects what the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value for key, value in attrs if key in {"src", "href"} and value]


@pytest.mark.integration
def test_the_page_answers_first_and_loads_nothing(done: FinishedFit) -> None:
    out, report, printed = done.out, done.report, done.printed
    text = (out / PROFILES_HTML).read_text()
    assert all(link.startswith("#") for link in Page(text.replace(get_plotlyjs(), "")).loaded)
    found = re.findall(r'<script type="application/json" id="figure-([\w-]+)">(.*?)</script>', text)
    figures = {key: json.loads(body) for key, body in found}
    assert figures.keys() == {"accuracy", "forest", "gains", "map"}
    assert "Too few choices were asked to draw" in text
    assert sum(figures["gains"]["data"][0]["y"]) == report["split"]["measured_users"]
    first = printed.splitlines()[0]
    assert text.index(first.replace("'", "&#39;")) < text.index(
        "<li>Hierarchical Bayes" if "hier" in report["best"]["name"] else "<li>"
    )


@pytest.mark.integration
def test_diagnostics_stand_beside_the_accuracy_with_their_meaning(done: FinishedFit) -> None:
    methods = done.report["methods"]
    assert methods["pooled"]["label_flip"] is None  # nothing that could flip
    assert methods["pooled"]["loudness"]["value"] == pytest.approx(1.0)  # all users are the same one
    own = methods["hierarchical"]
    assert own["label_flip"]["value"] < -0.8 and own["label_flip"]["n"] > 5
    assert own["loudness"]["value"] > 1.0 and own["loudness"]["ci95"][0] <= own["loudness"]["value"]
    thirds = done.report["features"]["attribute_thirds"]
    assert thirds["brevity"]["accuracy"] > 0.7 and set(thirds) == set(done.report["features"]["attribute_r2"])
    text = html.unescape((done.out / PROFILES_HTML).read_text())
    for meaning in diagnostics_meanings(done.report):
        assert meaning.split(":")[0] in text
    assert show(own["label_flip"], "metric") in text


@pytest.mark.integration
def test_ties_are_counted_with_the_reason_why_they_are_left_out(done: FinishedFit) -> None:
    data = {**done.report["data"], "ties": 300}
    said = " ".join(facts_of({**done.report, "data": data}))
    assert "300 ties, 20.0 % of what was judged, left out: all methods learn from choices alone" in said


def test_a_best_method_that_does_not_mind_who_won_is_told() -> None:
    flip = {"value": 0.9, "ci95": [0.8, 1.0], "n": 9}
    report = {"best": {"name": "vpl"}, "methods": {"vpl": {"label_flip": flip}}}
    assert _what_it_minds(report)[0].startswith("Its beliefs hardly mind who won: ")
    flip["ci95"] = [-0.9, 1.0]
    assert _what_it_minds(report) == []


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ([0.01, 0.2], "what it knows is the user."),
        ([-0.01, 0.03], "it hardly knows one user from another."),
        ([-0.05, 0.44], "whether it knows one user from another is not sure."),
    ],
)
def test_what_a_method_knows_is_said_no_surer_than_it_is(interval: list[float], said: str) -> None:
    gap = {"value": sum(interval) / 2, "ci95": interval, "n": 10}
    report = {"best": {"name": "vpl"}, "methods": {"vpl": {"shuffle_gap": gap}}}
    assert _what_it_knows(report)[0].endswith(said)


def undecided(low: float, count: int) -> dict[str, Any]:
    """A report in which `count` methods gain 25 points, with that lower bound and p = 0.3 after correction."""
    share = {"value": 0.5, "ci95": [0.4, 0.6], "n": 10}
    gain = {"value": 0.25, "ci95": [low, 0.4], "n": 10}
    names = ["pooled", *(f"m{place}" for place in range(count))]
    row = {"low": low, "high": 0.4, "p_holm": 0.3, "is_better": False, "is_worse": False}
    return {
        "order": names,
        "context_sizes": [4],
        "split": {"shown": {"k4": 4.0}},
        "methods": {
            name: {"title": name, "by_context": {"k4": {"accuracy": share, "over_pooled": gain}}}
            for name in names
        },
        "comparisons": [{"first": name, **row} for name in names[1:]],
    }


def test_a_gain_that_looks_sure_and_is_not_says_why() -> None:
    assert answer(undecided(-0.1, 3)).endswith(", +40.0] may be luck.")
    assert answer(undecided(0.1, 3)).endswith(
        "may be luck, although its interval is clear of 0: p is 0.30 after correction for 3 comparisons with the one "
        "model."
    )
    assert answer(undecided(0.1, 1)).endswith("p is 0.30 by permutation.")


def test_loudness_is_told_only_where_every_draw_has_one() -> None:
    assert _loudness(np.array([0.0, 0.0, 1.0, 2.0]), 0) is None  # some draws hold silent users alone
    told = _loudness(np.array([1.0, 2.0, 3.0]), 0)
    assert told is not None and told["value"] == pytest.approx(2.8 / 1.2) and told["ci95"][0] >= 1.0


def test_users_who_show_nothing_prove_nothing() -> None:
    report = {**undecided(0.1, 1), "split": {"shown": {"k4": 0.0}}}
    assert answer(report).startswith("Whether personalisation helps cannot be told from this data")


def test_calibration_is_drawn_where_there_are_choices_enough() -> None:
    part = {"from": 0.5, "to": 0.6, "choices": 49, "gap": -0.04}
    rare = {"from": 0.9, "to": 1.0, "choices": 3, "gap": 0.5}
    report = {"order": ["vpl"], "methods": {"vpl": {"title": "VPL", "calibration": [part, rare]}}}
    assert not has_calibration(report, ["vpl"])
    part["choices"] = 50
    assert has_calibration(report, ["vpl"])
    (drawn,) = calibration_figure(report, ["vpl"])["data"]
    assert drawn["x"] == pytest.approx([55.0]) and drawn["y"] == pytest.approx([-4.0])


@pytest.mark.integration
def test_same_arguments_give_the_same_report_and_finished_stages_are_kept(tmp_path: Path) -> None:
    data = write_choices(tmp_path / "c.jsonl", users=16, comparisons=16)
    options: dict[str, Any] = {"methods": ("pooled", "hierarchical"), "seeds": (3,)}
    one, _ = run_fit(data, tmp_path / "one", **options)
    with pytest.raises(StoreError, match="must not hold a run yet"):
        run_fit(data, tmp_path / "one", **options)
    stage = tmp_path / "one" / "stages" / "hierarchical-3"
    before = stage.stat().st_mtime_ns
    again, _ = run_fit(data, tmp_path / "one", resume=True, **options)
    assert without_times(again) == without_times(one) and stage.stat().st_mtime_ns == before
    other, _ = run_fit(data, tmp_path / "other", **options)
    assert without_times(other) == without_times(one)
    scores, facts = read_scores(stage)
    assert facts["latent_dim"] == one["methods"]["hierarchical"]["latent_dim"]
    assert scores.accuracy.shape == (2, len(scores.users))


def _refuse(material: Material) -> Profile:
    raise DataError("A method must like the data; got others. Change them.")


@pytest.mark.integration
def test_a_method_that_fails_is_left_out_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "picky", Method("picky", _refuse, "nowhere"))
    data = write_choices(tmp_path / "c.jsonl", users=16, comparisons=16)
    report, printed = run_fit(data, tmp_path / "out", methods=("picky",), seeds=(0,))
    assert report["order"] == ["pooled"]
    assert report["left_out"] == [
        {"method": "picky", "reason": "A method must like the data; got others. Change them."}
    ]
    assert "picky could not be fitted and is left out: A method must like" in printed
    assert printed.startswith("One model for everybody foretells")


@pytest.mark.integration
def test_no_taste_is_not_called_help(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = choices(users=24, comparisons=20)
    swapped = [
        {**row, "chosen": row["rejected"], "rejected": row["chosen"]} if rng.random() < 0.5 else row
        for row in rows
    ]
    report, printed = run_fit(write_choices(tmp_path / "c.jsonl", swapped), tmp_path / "out", seeds=(0,))
    assert printed.startswith("Personalisation does not clearly help here: ")
    assert not any(row["is_better"] for row in report["comparisons"])


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "must hold at least one row; got none in"),
        (choices(users=1), "comparisons of at least 8 users, .*; got 1 in"),
        ([{**row, "tie": True} for row in choices(users=9)], "must hold choices; got 270 ties alone in"),
        (
            [{"user_id": "u", "prompt": "p", "chosen": " ", "rejected": "r"}],
            r"got none: 1 where .* \(row 1\)",
        ),
    ],
    ids=["empty", "one user", "ties", "blank"],
)
def test_bad_data_are_told_in_one_sentence(rows: list[dict[str, Any]], says: str, tmp_path: Path) -> None:
    data = write_choices(tmp_path / "c.jsonl", rows)
    if not rows:
        data.write_text("")
    with pytest.raises((ConfigError, DataError), match=says):
        run_fit(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be a file; got .*absent.jsonl, which is none"):
        run_fit(tmp_path / "absent.jsonl", tmp_path / "out")


@pytest.mark.integration
def test_what_is_left_out_of_the_data_is_counted_and_named(tmp_path: Path) -> None:
    rows = choices(users=12, comparisons=16)
    blank = {"user_id": "u1", "prompt": "p", "chosen": " ", "rejected": "r"}
    data = write_choices(tmp_path / "c.jsonl", [*rows, blank, rows[0]])
    report, printed = run_fit(data, tmp_path / "out", methods=("pooled",), seeds=(0,))
    assert report["data"]["rows"] == 194 and report["data"]["comparisons"] == 192
    assert [(part["count"], part["rows"]) for part in report["data"]["dropped"]] == [(1, [193]), (1, [194])]
    assert "Left out of the data: 1 where" in printed and "(first in rows 193)" in printed


@pytest.mark.integration
def test_prompts_that_nearly_repeat_those_of_training_are_counted(tmp_path: Path) -> None:
    rows = choices(users=12, comparisons=16, prompts=40)
    for row in rows[::2]:
        # Half of the comparisons ask the same questions in capitals: other prompts, but near duplicates.
        row["prompt"] = row["prompt"].upper()
    report, printed = run_fit(
        write_choices(tmp_path / "c.jsonl", rows), tmp_path / "out", methods=("pooled",), seeds=(0,)
    )
    near = report["split"]["overlap"]
    assert 0 < near["near_training"] <= near["targets"]
    assert f"{near['near_training']} nearly repeat one of training" in " ".join(printed.split())


@pytest.mark.integration
def test_users_with_one_comparison_are_counted(tmp_path: Path) -> None:
    lone = [
        {"user_id": f"lone{i}", "prompt": "Where?", "chosen": "Here, now.", "rejected": "There."}
        for i in range(3)
    ]
    data = write_choices(tmp_path / "c.jsonl", [*choices(users=12, comparisons=16), *lone])
    report, printed = run_fit(data, tmp_path / "out", methods=("pooled",), seeds=(0,))
    assert report["data"]["users_with_one"] == 3
    assert "3 users made a single comparison" in printed


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"methods": ("pooled", "vlp")}, "--methods must be among pooled, .*; got vlp. Correct"),
        ({"features": ("surfaces",)}, "A feature must be surface, .*; got `surfaces`"),
    ],
)
def test_unknown_names_are_refused(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    data = write_choices(tmp_path / "c.jsonl", users=8, comparisons=4)
    with pytest.raises((ConfigError, DataError), match=says):
        run_fit(data, tmp_path / "out", **options)
