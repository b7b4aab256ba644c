import io
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs
from rich.console import Console

from app.errors import ConfigError, StoreError
from app.evaluate import choose_lineup, evaluate
from app.evaluation_config import EvaluationConfig
from app.evaluation_data import hash_inputs, prepare
from app.evaluation_entries import read_entry
from app.evaluation_report import EVALUATION_HTML, EVALUATION_JSON
from app.wiring import RANKERS, SPLITS, Ranker
from recsys.errors import InteractionError, LeakError, MissingDependency
from recsys.metrics import DEFINITIONS
from recsys.models.ease import Ease
from recsys.recipes.contest import enter
from recsys.types import Retriever
from tests.helpers.contest_world import make_contest, make_dataset, write_dataset

DATA = Path(os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "ml-100k"


@pytest.fixture(name="log")
def a_log(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", make_dataset())


def configure(log: Path, **options: Any) -> EvaluationConfig:
    chosen: dict[str, Any] = {
        "models": ("popularity", "ease"),
        "items": str(log.with_name("items.csv")),
        "relevant": "1",
        "k": (5, 10),
        "device": "cpu",
        "test_share": 0.2,
        "validation_share": 0.2,
        **options,
    }
    return EvaluationConfig(data=str(log), **chosen)


def run(
    config: EvaluationConfig, out: Path, *, resume: bool = False, width: int = 80
) -> tuple[dict[str, Any], str]:
    """The report, and what was printed."""
    written = io.StringIO()
    evaluate(config, out, resume=resume, console=Console(file=written, width=width))
    return json.loads((out / EVALUATION_JSON).read_text()), written.getvalue()


def without_times(report: dict[str, Any]) -> dict[str, Any]:
    """What must not change from one run to the next."""
    kept = {name: value for name, value in report.items() if name not in {"timing", "manifest"}}
    for model in kept["models"].values():
        model.pop("train_seconds"), model.pop("answer_seconds")
        for row in model["trials"]:
            row.pop("seconds")
    return kept


def test_two_models_on_one_split_leave_the_whole_report(log: Path, tmp_path: Path) -> None:
    report, printed = run(configure(log), tmp_path / "out")
    assert report["order"] == ["popularity", "ease"]
    assert report["main_metric"] == "ndcg@5"
    assert report["split"]["protocol"].startswith("global temporal: 144 test rows")
    assert report["split"]["parts"]["train"]["rows"] == 432
    assert report["data"]["levels"] == ["level 0", "level 1", "level 2", "level 3"]
    assert report["leaks"] == {"findings": [], "overridden": False}
    assert report["manifest"]["config"]["relevant"] == "1"
    assert {"data: log.csv", "items: items.csv"} == report["manifest"]["data_hashes"].keys()
    for model in report["models"].values():
        low, high = model["metrics"]["ndcg@5"]["ci95"]
        assert low <= model["metrics"]["ndcg@5"]["value"] <= high
        assert {"head", "tail", "cold_users"} & model["slices"].keys()
    assert "Split: global temporal" in printed and "The leak detector found nothing." in printed
    table = printed[printed.index("Lists of 5") : printed.index("better")]
    assert max(map(len, table.splitlines()[:6])) <= 80 and "\N{HORIZONTAL ELLIPSIS}" not in table


def test_every_printed_figure_is_defined(log: Path, tmp_path: Path) -> None:
    report, _ = run(configure(log, models=("popularity",)), tmp_path / "out")
    model = report["models"]["popularity"]
    for name in (*model["metrics"], *model["beyond"]):
        assert report["definitions"][name].startswith(DEFINITIONS[name.partition("@")[0]])
    assert "better" not in report["definitions"]  # there is nothing to compare


def test_figures_are_those_of_the_models_that_were_saved(log: Path, tmp_path: Path) -> None:
    config = configure(log)
    run(config, tmp_path / "out")
    contest = prepare(config).contest
    saved = read_entry(tmp_path / "out" / "stages" / "ease")
    model = Ease.load(tmp_path / "out" / "models" / "ease")
    assert saved.lists is not None
    assert saved.lists[0].tolist() == model.search(contest.test.known, 10).items.tolist()


def test_a_finished_model_is_kept_and_the_report_is_the_same(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = configure(log), tmp_path / "out"
    whole, _ = run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("app.evaluate.RANKERS", {**RANKERS, "ease": stopping(RANKERS["ease"])})
        with pytest.raises(KeyboardInterrupt):
            run(config, out)
    assert not (out / EVALUATION_JSON).exists()
    assert not list(out.rglob(".partial*"))
    with monkeypatch.context() as patch:
        # A finished model that were trained again would stop the evaluation once more.
        patch.setattr("app.evaluate.RANKERS", {**RANKERS, "popularity": stopping(RANKERS["popularity"])})
        resumed, printed = run(config, out, resume=True)
    assert "popularity (kept)" in printed
    assert without_times(resumed) == without_times(whole)


def stopping(ranker: Ranker) -> Ranker:
    """As the ranker, but somebody presses Ctrl-C while it trains."""

    def stop(*_: object) -> Retriever:
        raise KeyboardInterrupt

    return ranker._replace(enter=lambda contest: ranker.enter(contest)._replace(train=stop))


def test_no_unfinished_file_is_left(log: Path, tmp_path: Path) -> None:
    run(configure(log), tmp_path / "out")
    assert not list((tmp_path / "out").rglob(".partial*"))


def test_another_evaluation_in_the_folder_is_refused(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(configure(log, models=("popularity",)), out)
    with pytest.raises(StoreError, match="--out must not hold a run yet"):
        run(configure(log, models=("popularity",)), out)
    with pytest.raises(StoreError, match=r"same configuration; got .* with core 0 there and 1 now"):
        run(configure(log, models=("popularity",), core=1), out, resume=True)
    with log.open("a") as file:
        file.write("u1,i1,1,1700000000\n")
    with pytest.raises(StoreError, match="same data; got"):
        run(configure(log, models=("popularity",)), out, resume=True)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"models": ("easy",)}, ConfigError, "--models must be among popularity, .*; got easy"),
        ({"models": ("rates",)}, ConfigError, "--models must name one that ranks: .*; got rates"),
        ({"relevant": "9"}, ConfigError, "got '9'"),
        ({"split": "given"}, ConfigError, r"--test FILE; got .*log\.csv alone"),
        ({"items": "/no/items.csv"}, ConfigError, "--items must be a file or a folder; got /no/items.csv"),
        ({"core": 50}, InteractionError, "no part of the 720 rows has 50 items"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(
    log: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        run(configure(log, **options), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="DATA must be a file or a folder; got /no/where"):
        hash_inputs(EvaluationConfig(data="/no/where"))


@pytest.mark.parametrize("split", sorted(set(SPLITS) - {"given"}))
def test_every_split_is_there(log: Path, tmp_path: Path, split: str) -> None:
    report, _ = run(configure(log, split=split, models=("popularity",)), tmp_path / "out")
    assert report["split"]["name"] == split
    assert report["models"]["popularity"]["metrics"]["ndcg@5"]["n"] > 0


def test_a_given_split_takes_the_test_file(log: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(log).sort_values("timestamp")
    rows.iloc[:600].to_csv(log, index=False)
    rows.iloc[600:].to_csv(log.with_name("test.csv"), index=False)
    config = configure(log, split="given", test=str(log.with_name("test.csv")), models=("popularity",))
    report, _ = run(config, tmp_path / "out")
    assert report["split"]["parts"]["test target"]["rows"] == 120
    assert "test: test.csv" in report["manifest"]["data_hashes"]


def test_a_leak_is_refused_and_marks_the_report_where_it_is_allowed(log: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(log).sort_values("timestamp")
    rows.iloc[:650].to_csv(log, index=False)  # 50 of its rows are in the test file too
    rows.iloc[600:].drop(columns="timestamp").to_csv(log.with_name("test.csv"), index=False)
    rows.iloc[:650].drop(columns="timestamp").to_csv(log, index=False)
    options = {"split": "given", "test": str(log.with_name("test.csv")), "models": ("popularity",)}
    with pytest.raises(LeakError, match="no times prove that this was before"):
        run(configure(log, **options), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    report, printed = run(configure(log, **options, allow_leaks=True), tmp_path / "out")
    assert report["leaks"]["overridden"] is True
    assert report["split"]["out_of_reach"]["test"] == 50
    assert "LEAKS WERE ALLOWED" in printed and "50 test rows are of pairs known before" in printed
    page = (tmp_path / "out" / EVALUATION_HTML).read_text()
    assert 'class="alarm" role="alert"' in page and "not to be believed" in page


@pytest.mark.parametrize("core", [0, 2])
def test_sales_counted_on_the_whole_log_before_repeats_were_merged_are_refused(
    log: Path, tmp_path: Path, core: int
) -> None:
    rng = np.random.default_rng(0)
    rows = pd.read_csv(log)
    again = rows.loc[rows.index.repeat(rng.integers(1, 5, len(rows)))]
    again.assign(timestamp=again["timestamp"] + rng.integers(0, 60, len(again))).to_csv(log, index=False)
    sold = again.groupby("item_id").size().rename("sold").reset_index()
    items = tmp_path / "sold.csv"
    sold.to_csv(items, index=False)
    with pytest.raises(LeakError, match=r"Column items\.sold follows the number of rows of the log"):
        prepare(configure(log, items=str(items), core=core))
    known = again[again["timestamp"] < again["timestamp"].quantile(0.5)]
    known.groupby("item_id").size().rename("sold").reset_index().to_csv(items, index=False)
    assert not prepare(configure(log, items=str(items), core=core)).facts["leaks"]["findings"]


def test_a_log_without_times_is_evaluated_on_a_split_that_needs_none(tmp_path: Path) -> None:
    log = write_dataset(tmp_path / "data", make_dataset(), with_times=False)
    with pytest.raises(ConfigError, match=r"The split `temporal` needs times; .* has none"):
        run(configure(log, models=None), tmp_path / "out")
    report, _ = run(configure(log, models=("popularity", "recent"), split="random"), tmp_path / "out")
    assert list(report["models"]) == ["popularity"]
    assert report["left_out"] == ["recent is left out: the log has no times."]


def test_models_that_cannot_compete_are_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    contest = make_contest()
    monkeypatch.setattr("app.evaluate.find_spec", lambda package: None)
    small = RANKERS["ease"]._replace(most_items=39)
    monkeypatch.setattr("app.evaluate.RANKERS", {**RANKERS, "ease": small})
    lineup = choose_lineup(EvaluationConfig(data="d"), contest)
    assert lineup.left_out == (
        "ease is left out: it takes at most 39 items, and the catalogue has 40.",
        "ials is left out: it needs the package implicit.",
    )
    expected = ("popularity", "recent", "itemknn", "gnolr", "gnolr-impressions", "rates", "logistic")
    assert lineup.names == expected
    with pytest.raises(MissingDependency, match="`implicit` must be installed for the model `bpr`"):
        choose_lineup(EvaluationConfig(data="d", models=("bpr",)), contest)


def test_levels_that_all_rows_reached_are_not_foretold() -> None:
    dataset = make_dataset()
    met = replace(dataset, log=dataset.log.assign(level=1), level_names=("not met", "met"))
    contest = make_contest(met)
    lineup = choose_lineup(EvaluationConfig(data="d", models=("popularity", "gnolr")), contest)
    assert lineup.names == ("popularity", "gnolr")
    with pytest.raises(ConfigError, match="`rates` must have something to foretell; every shown row"):
        choose_lineup(EvaluationConfig(data="d", models=("popularity", "rates")), contest)


@pytest.mark.parametrize("name", sorted(RANKERS))
def test_every_named_model_competes(name: str) -> None:
    contest = make_contest()
    contestant = RANKERS[name].enter(contest)
    fast = {"epochs": 1} if "epochs" in type(contestant.space.default).model_fields else {}
    default = contestant.space.default.model_copy(update=fast)
    contestant = contestant._replace(space=contestant.space._replace(default=default))
    entry = enter(contest, contestant, k=5, trials=1, seeds=(0,))
    assert entry.lists is not None and entry.lists.min() >= 0
    assert np.isfinite(entry.score)


class Page(HTMLParser):
    """Collects what the page would load, and the tags that it leaves open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value for key, value in attrs if key in {"src", "href"} and value]


@pytest.mark.integration
def test_the_page_is_whole_and_loads_nothing(log: Path, tmp_path: Path) -> None:
    config = configure(log, models=("popularity", "ease", "gnolr", "gnolr-impressions"), tune=2, seeds=(0, 1))
    report, printed = run(config, tmp_path / "out")
    text = (tmp_path / "out" / EVALUATION_HTML).read_text()
    page = Page(text.replace(get_plotlyjs(), ""))
    assert all(link.startswith("#") for link in page.loaded)
    figures = {
        key: json.loads(body)
        for key, body in re.findall(
            r'<script type="application/json" id="figure-([\w-]+)">(.*?)</script>', text
        )
    }
    expected = {"forest", "slices-items", "slices-users", "trade-coverage", "trade-novelty"}
    assert expected | {f"reliability-{level}" for level in (1, 2, 3)} == figures.keys()
    assert [trace["y"][0] for trace in figures["forest"]["data"]][-1] == max(
        (name for name in report["models"] if "metrics" in report["models"][name]),
        key=lambda name: report["models"][name]["metrics"]["ndcg@5"]["value"],
    )
    assert {"rates", "logistic"} <= report["models"].keys()
    tables = printed[printed.index("Lists of 5") : printed.index("Relevant is")]
    assert "Levels of shown items" in tables and "\N{HORIZONTAL ELLIPSIS}" not in tables
    # Six models of which four rank: six comparisons.
    assert len(report["comparisons"]) == 6


@pytest.mark.integration
@pytest.mark.skipif(not (DATA / "ml-100k.inter").exists(), reason=f"{DATA} holds no ml-100k.inter")
def test_ml_100k_end_to_end_gives_the_published_order(tmp_path: Path) -> None:
    config = EvaluationConfig(
        data=str(DATA), models=("popularity", "itemknn", "ease"), levels=("1",), split="random", device="cpu"
    )
    report, printed = run(config, tmp_path / "out")
    ndcg = {name: model["metrics"]["ndcg@10"]["value"] for name, model in report["models"].items()}
    assert ndcg["popularity"] < ndcg["itemknn"] < ndcg["ease"]
    assert "ease is better than itemknn, popularity by NDCG@10." in printed
