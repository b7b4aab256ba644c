import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from app.fit_data import read_strict
from app.fit_objectives import usable_scores
from app.profile_features import FeatureScale, ReplyScores, build_features, scores_from_pairs, scores_of_pair
from app.whois import Ask, tell_user
from persona.errors import DataError
from tests.helpers.choices_file import choices, write_choices
from tests.helpers.finished_fit import run_fit


def scored(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with two scores a reply: how many words it has, and how many questions."""

    def both(text: str) -> tuple[float, float]:
        return float(len(text.split())), float(text.count("?"))

    return [
        {
            **row,
            "scores": dict(
                zip(
                    ("words", "questions"),
                    zip(both(row["chosen"]), both(row["rejected"]), strict=True),
                    strict=True,
                )
            ),
        }
        for row in rows
    ]


def reason(rows: list[dict[str, Any]], path: Path) -> str:
    return usable_scores(read_strict(write_choices(path / "c.jsonl", rows))).reason


def test_scores_are_read_by_objective_with_unknown_ones_counted(tmp_path: Path) -> None:
    rows = scored(choices(users=9, comparisons=8))
    rows[0]["scores"] = {}
    found = usable_scores(read_strict(write_choices(tmp_path / "c.jsonl", rows)))
    assert found.scores is not None and found.scores.names == ("questions", "words") and found.reason == ""
    assert found.unknown == int(np.isnan(found.scores.values).any(1).sum()) <= 2


def test_scores_that_tell_the_choices_are_not_read(tmp_path: Path) -> None:
    rows = choices(users=9, comparisons=8)
    assert reason(rows, tmp_path) == ""
    one = [{**row, "scores": {"good": [2, 1]}} for row in rows]
    assert reason(one, tmp_path) == "there is good alone, and a direction needs several objectives"
    raters = [{**row, "scores": {"u1": [2, 1], "u2": [1, 2]}} for row in rows]
    assert reason(raters, tmp_path).startswith("users such as u1 are themselves objectives")
    by_choice = scored(rows)
    for place, row in enumerate(by_choice):
        row["chosen"], row["rejected"] = f"{row['chosen']} {place}", f"{row['rejected']} {place}."
        row["scores"] = {**row["scores"], "rating": [2, 1]}
    assert reason(by_choice, tmp_path) == "rating is higher for every chosen reply: it tells the choice"


def test_scores_of_pairs_go_to_json_and_back() -> None:
    scores = ReplyScores(("a", "b"), np.array([[1.0, np.nan], [3.0, 4.0]]))
    pair = scores_of_pair(scores, 0, 1)
    assert pair == {"a": (1.0, 3.0), "b": (None, 4.0)}
    again = scores_from_pairs([pair, {}], ["b", "a"])
    assert np.array_equal(again.values[:2], scores.values[:, ::-1], equal_nan=True)
    assert np.isnan(again.values[2:]).all() and scores_of_pair(None, 0, 1) == {}


def test_unknown_scores_count_as_average_and_missing_objectives_are_refused(tmp_path: Path) -> None:
    texts, owner = ["Here.", "There, there.", "Nowhere."], np.zeros(3, dtype=np.int64)
    scores = ReplyScores(("a", "flat"), np.array([[0.0, 1.0], [2.0, 1.0], [np.nan, 1.0]]))
    raw = build_features(texts, ["Where?"], owner, ("surface",), scores=scores)
    rows = np.arange(3)
    raw = raw._replace(prompts={name: block.repeat(2, 1) for name, block in raw.prompts.items()})
    scale = FeatureScale.fit(raw, ("surface",), rows, np.arange(2))
    assert scale.objectives == ("a",)
    assert scale.matrix(raw, owner, "attributes")[:, 0].tolist() == [-1.0, 1.0, 0.0]
    scale.save(tmp_path)
    again = FeatureScale.load(tmp_path, ("surface",))
    assert torch.equal(again.matrix(raw, owner, "attributes"), scale.matrix(raw, owner, "attributes"))
    with pytest.raises(DataError, match=r"must bring the scores a along, .*; got none. Add them"):
        again.matrix(raw._replace(scores=None), owner, "attributes")
    with pytest.raises(DataError, match=r"; got b. Add them"):
        again.matrix(raw._replace(scores=ReplyScores(("b",), np.zeros((3, 1)))), owner, "attributes")


@pytest.mark.integration
def test_directions_are_over_the_datas_own_scores(tmp_path: Path) -> None:
    rows = scored(choices(users=24, comparisons=24))
    data = write_choices(tmp_path / "c.jsonl", rows)
    report, printed = run_fit(data, tmp_path / "out", methods=("direction",), seeds=(0,))
    assert report["objectives"] == {"scores": ["questions", "words"], "unknown": 0, "unread": ""}
    assert report["methods"]["direction"]["latent_dim"] == 2
    assert "(direction, pro) read the data's own scores: questions, words." in " ".join(printed.split())
    profile = json.loads((tmp_path / "out" / "profiles" / "direction" / "profile.json").read_text())
    assert "questions" in json.dumps(profile)

    def tell(path: Path) -> dict[str, Any]:
        return tell_user(tmp_path / "out", Ask(path, "u1", "direction"), console=Console(file=io.StringIO()))

    brevity = next(wish for wish in tell(data)["wishes"] if wish["attribute"] == "brevity")
    assert brevity["words"] == "shorter replies" and brevity["sure"] > 0.9
    bare = write_choices(tmp_path / "bare.jsonl", choices(users=24, comparisons=24))
    with pytest.raises(DataError, match="must bring the scores questions, words along"):
        tell(bare)
