import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from app.errors import ConfigError
from app.fit_config import FitConfig
from app.fit_contexts import fit_context_aware, number_contexts
from app.fit_data import material_for, prepare, split_trial
from app.fit_methods import find_method
from app.profile_methods import METHODS, Material
from app.whois import Ask, tell_user
from tests.helpers.choices_file import choices, write_choices
from tests.helpers.finished_fit import run_fit

SHORT, LONG = "prefer the shorter reply", "prefer the longer reply"


def told_why(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that say by which of two criteria they are judged: what the user wanted."""
    return [{**row, "context": SHORT if int(row["user_id"][1:]) % 2 else LONG} for row in rows]


def test_criteria_are_numbered_with_features_of_their_words() -> None:
    found = number_contexts(["b words", "", "a", "b words"], ("surface",))
    assert found is not None
    assert found.texts == ("a", "b words") and found.rows.tolist() == [1, -1, 0, 1]
    assert found.features.shape[0] == 2 and not torch.equal(found.features[0], found.features[1])
    assert number_contexts(["a", ""], ("surface",)) is None and number_contexts([], ("surface",)) is None


def test_criteria_follow_their_comparisons_into_a_split(tmp_path: Path) -> None:
    rows = told_why(choices(users=12, comparisons=12))
    rows[3]["tie"] = True
    config = FitConfig(data=str(write_choices(tmp_path / "c.jsonl", rows)), device="cpu")
    prepared = prepare(config)
    trial = split_trial(prepared, config, 0)
    train, features = trial.split.train, torch.zeros(len(prepared.indexed.replies), 1)
    given = material_for(prepared, train, features, trial.scale, METHODS["pooled"], seed=0)
    assert given.contexts is not None
    odd = np.array([int(prepared.indexed.user_ids[user][1:]) % 2 for user in train.users])
    assert [given.contexts.texts[row] for row in given.contexts.rows] == [
        SHORT if own else LONG for own in odd
    ]


def test_without_criteria_it_is_told(tmp_path: Path) -> None:
    config = FitConfig(data=str(write_choices(tmp_path / "c.jsonl", users=8, comparisons=4)), device="cpu")
    table = prepare(config).indexed.table
    with pytest.raises(ConfigError, match=r"`context-aware` must be told .* in a column `context`"):
        fit_context_aware(Material(table, torch.zeros(9, 1), 0))


@pytest.mark.integration
def test_users_are_found_among_the_criteria(tmp_path: Path) -> None:
    data = write_choices(tmp_path / "c.jsonl", told_why(choices(users=24, comparisons=24)))
    report, _ = run_fit(data, tmp_path / "out", methods=("context-aware",), seeds=(0,))
    own = report["methods"]["context-aware"]
    assert own["title"] == find_method("context-aware").title and own["latent_dim"] == 2
    assert own["by_context"]["k4"]["accuracy"]["value"] > own["by_context"]["k0"]["accuracy"]["value"] + 0.05
    told = tell_user(tmp_path / "out", Ask(data, "u1", "context-aware"), console=Console(file=io.StringIO()))
    brevity = next(wish for wish in told["wishes"] if wish["attribute"] == "brevity")
    assert brevity["words"] == "shorter replies"
