import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs
from rich.console import Console

from app.errors import StoreError
from app.ope import OPE_HTML, OPE_JSON, evaluate_log
from recsys.errors import DataFileError, InteractionError, PolicyError
from recsys.off_policy import ESTIMATORS, PolicyEvaluation
from tests.helpers.bandit_world import make_world

ROWS = 240


@pytest.fixture(name="path")
def a_log(tmp_path: Path) -> Path:
    """A small log whose rows do not stand in the order of their times."""
    log, _ = make_world().draw(ROWS, 0)
    frame = pd.DataFrame(
        {
            "timestamp": np.random.default_rng(0).permutation(ROWS),
            "action": log.actions,
            "reward": log.rewards,
            "propensity": log.propensities,
            "position": log.positions + 1,
            "mood": log.context[:, 0],
            "town": np.where(log.context[:, 1] > 0, "<b>here</b>", "there"),
            "user": np.arange(ROWS) // 3,
        }
    )
    frame.to_csv(tmp_path / "log.csv", index=False)
    return tmp_path / "log.csv"


def run(path: Path, policy: str, **settings: Any) -> tuple[PolicyEvaluation, str]:
    """The evaluation and what the terminal shows."""
    terminal = io.StringIO()
    found = evaluate_log(path, policy=policy, console=Console(file=terminal, width=140), **settings)
    return found, terminal.getvalue()


@pytest.mark.parametrize("policy", ["uniform", "popular", "logistic"])
def test_a_policy_becomes_a_table_a_file_and_a_page(path: Path, tmp_path: Path, policy: str) -> None:
    found, shown = run(path, policy, out=tmp_path / "out" / "deep")
    assert all(name in shown for name in ESTIMATORS) and "worth" in shown
    report = json.loads((tmp_path / "out" / "deep" / OPE_JSON).read_bytes())
    assert [one["name"] for one in report["estimates"]] == list(ESTIMATORS)
    assert report["overlap"]["n"] == (ROWS if policy == "uniform" else ROWS // 2)
    assert report["logged"]["value"] == found.logged.value
    assert report["policy"] == policy and list(report["data_hashes"]) == ["log.csv"]


def test_a_fitted_policy_learns_from_the_earlier_part_only(path: Path) -> None:
    frame = pd.read_csv(path).sort_values("timestamp", kind="stable")
    found, shown = run(path, "popular", fit_share=0.25, estimators=["ips"])
    late = frame.iloc[ROWS // 4 :]
    assert found.overlap.n == len(late) == 180
    assert found.logged.value == pytest.approx(late["reward"].mean())
    changed = frame.assign(reward=np.where(np.arange(ROWS) < ROWS // 4, frame["reward"], 1 - frame["reward"]))
    changed.to_csv(path, index=False)
    other, _ = run(path, "popular", fit_share=0.25, estimators=["ips"])
    assert other.overlap.max_weight == found.overlap.max_weight and other.overlap.ess == found.overlap.ess
    assert "earliest 60 rows, evaluated on the other 180" in shown


def test_another_log_is_a_policy_and_its_own_mean_stands_beside(path: Path, tmp_path: Path) -> None:
    other = pd.read_csv(path).query("action < 3 and position == position")
    other.to_parquet(tmp_path / "other.parquet")
    found, shown = run(path, f"logged:{tmp_path / 'other.parquet'}", out=tmp_path)
    report = json.loads((tmp_path / OPE_JSON).read_bytes())
    assert report["own_log"]["value"] == pytest.approx(other["reward"].mean())
    assert "the policy's own log" in shown
    assert found.overlap.share_without_support == pytest.approx(1 - len(other) / ROWS)


def test_a_file_of_probabilities_follows_the_rows_of_the_log(path: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(path)
    dist = np.full((ROWS, 6), 0.02)
    dist[np.arange(ROWS), frame["action"]] = 0.9
    np.save(tmp_path / "p.npy", dist)
    found, _ = run(path, str(tmp_path / "p.npy"), n_actions=6, estimators=["ips"])
    expected = (0.9 / frame["propensity"] * frame["reward"]).mean()
    assert found.estimates[0].value == pytest.approx(expected)
    assert found.overlap.mass_never_logged == pytest.approx(0.02)
    assert found.notes[-1].startswith("The policy gives 2 %")


def test_a_cluster_is_drawn_together_and_is_no_context(path: Path) -> None:
    found, _ = run(path, "uniform", cluster="user", estimators=["dm"])
    assert found.logged.n == found.overlap.mean_weight.n == ROWS // 3


def test_levels_can_be_set(path: Path) -> None:
    found, _ = run(path, "uniform", estimators=["dros"], levels={"dros": 2.5})
    assert found.estimates[0].level == 2.5


def test_the_page_needs_no_network_escapes_and_repeats_itself(path: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "<img src=x>.csv"
    hostile.write_bytes(path.read_bytes())
    run(hostile, "uniform", out=tmp_path / "first")
    run(hostile, "uniform", out=tmp_path / "second")
    first, second = ((tmp_path / name / OPE_HTML).read_text() for name in ("first", "second"))
    assert first == second and first.count(get_plotlyjs()) == 1
    own = first.replace(get_plotlyjs(), "")
    assert (
        "<img" not in own and "&lt;img src=x&gt;.csv" in own and "http" not in own.replace("http-equiv", "")
    )
    figures = re.findall(r'<script type="application/json" id="(.*?)">(.*?)</script>', own, re.DOTALL)
    assert [name for name, _ in figures] == ["figure-estimates", "figure-weights"]
    assert all(json.loads(text)["data"] for _, text in figures)
    titles: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: titles.append(tag)  # type: ignore[method-assign]
    parser.feed(own)
    assert titles.count("table") == 3


def test_a_policy_without_any_support_still_gets_its_page(path: Path, tmp_path: Path) -> None:
    dist = np.zeros((ROWS, 5))
    dist[np.arange(ROWS), (pd.read_csv(path)["action"] + 1) % 5] = 1
    np.save(tmp_path / "p.npy", dist)
    _, shown = run(path, str(tmp_path / "p.npy"), out=tmp_path)
    assert "undefined" in shown and "Note: The mean weight is 0.000" in shown
    assert json.loads((tmp_path / OPE_JSON).read_bytes())["estimates"][0]["value"] is None


def test_what_cannot_be_evaluated_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"one of uniform, .*; got 'best', which is no file"):
        run(path, "best")
    with pytest.raises(PolicyError, match=r"`fit_share` must lie between 0 and 1; got 1"):
        run(path, "popular", fit_share=1)
    with pytest.raises(DataFileError, match=r"gone\.csv must be a readable CSV .* No such file"):
        run(tmp_path / "gone.csv", "uniform")
    frame = pd.read_csv(path)
    frame.head(1).to_csv(tmp_path / "one.csv", index=False)
    with pytest.raises(PolicyError, match=r"rows to evaluate on; got 1 at `fit_share` 0\.5"):
        run(tmp_path / "one.csv", "popular")
    times = frame.assign(timestamp=np.arange(float(ROWS)))
    times.loc[3, "timestamp"] = np.nan
    times.to_csv(tmp_path / "times.csv", index=False)
    with pytest.raises(InteractionError, match=r"`timestamp` must be known in every row; got nan in row 3"):
        run(tmp_path / "times.csv", "popular")
    frame.drop(columns="propensity").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(InteractionError, match=r"\['propensity'\] are missing"):
        run(tmp_path / "less.csv", "uniform")
    frame.assign(action="a").to_csv(tmp_path / "named.csv", index=False)
    with pytest.raises(DataFileError, match=r"write `action` alike; got \['int64', '(object|str)'\]"):
        run(path, f"logged:{tmp_path / 'named.csv'}")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="must be a folder that can be made"):
        run(path, "uniform", out=tmp_path / "file" / "below", estimators=["ips"])


def test_an_open_bandit_folder_is_read_by_its_own_reader(path: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(path)
    folder = tmp_path / "random"
    folder.mkdir()
    table = pd.DataFrame(
        {
            "timestamp": "2019-11-24 00:03:13.442536+00:00",
            "item_id": frame["action"],
            "position": frame["position"],
            "click": frame["reward"].astype(int),
            "propensity_score": frame["propensity"],
            "user_feature_0": frame["town"],
            "user-item_affinity_0": frame["mood"],
        }
    )
    table.to_csv(folder / "men.csv")
    by_folder, _ = run(folder, "uniform", estimators=["ips", "dm"])
    by_file, _ = run(folder / "men.csv", "uniform", estimators=["ips", "dm"])
    plain, _ = run(path, "uniform", estimators=["ips"])
    assert by_folder.estimates == by_file.estimates
    assert by_folder.estimates[0] == plain.estimates[0]
