from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app.errors import ConfigError
from app.fit_config import FitConfig, build_fit_config
from app.fit_data import AGREED, CONTROVERSIAL, SINGLE, judge_pairs, prepare, split_trial
from app.fit_data import Prepared as Data
from app.profile_features import (
    FeatureScale,
    build_features,
    measure_attribute_values,
    standardise_attributes,
)
from persona.data import check_comparisons, index_comparisons
from persona.data.comparisons import ComparisonTable
from persona.data.duplicates import prompt_overlap
from persona.features import SURFACE_NAMES
from tests.helpers.choices_file import choices, write_choices


def prepared(**sizes: int) -> Data:
    indexed = index_comparisons(check_comparisons(pd.DataFrame(choices(**sizes))))
    raw = build_features(indexed.replies, indexed.prompts, indexed.reply_prompts, ("surface",))
    return Data(indexed, raw, standardise_attributes(raw.attributes), judge_pairs(indexed.table), {})


def test_pairs_of_several_users_are_told_apart_by_whether_they_agree() -> None:
    # Pair (0, 1): users 0 and 1 differ; pair (2, 3): users 0 and 1 agree; pair (4, 5): user 0 twice, alone.
    table = ComparisonTable(
        np.array([0, 1, 0, 1, 0, 0]),
        np.array([0, 0, 1, 1, 2, 2]),
        np.array([0, 1, 2, 2, 4, 5]),
        np.array([1, 0, 3, 3, 5, 4]),
    )
    wanted = [CONTROVERSIAL, CONTROVERSIAL, AGREED, AGREED, SINGLE, SINGLE]
    assert judge_pairs(table).tolist() == wanted


def test_marks_of_a_split_are_those_of_its_own_comparisons() -> None:
    data = prepared(users=24, comparisons=30)
    trial = split_trial(data, FitConfig(data="d"), 0)
    target = trial.split.target
    table = data.indexed.table
    for row in range(0, len(target), 7):
        same = (
            (table.users == target.users[row])
            & (table.chosen == target.chosen[row])
            & (table.rejected == target.rejected[row])
        )
        kind = data.judged[np.flatnonzero(same)[0]]
        assert (trial.agreed[row], trial.controversial[row]) == (kind == AGREED, kind == CONTROVERSIAL)


def test_features_are_scaled_by_training_replies_alone() -> None:
    data = prepared(users=24, comparisons=30)
    trial = split_trial(data, FitConfig(data="d"), 0)
    matrix = trial.scale.matrix(data.raw, data.indexed.reply_prompts)
    rows = np.unique(np.concatenate([trial.split.train.chosen, trial.split.train.rejected]))
    assert len(rows) < len(matrix)
    seen = matrix[rows]
    varies = seen.std(0) > 0
    assert seen[:, varies].mean(0).abs().max() < 0.05  # 0 but for values that were cut
    column = trial.scale.length_column
    assert column == SURFACE_NAMES.index("words")


def test_prompt_columns_stand_last_and_are_the_same_for_replies_to_one_prompt() -> None:
    data = prepared(users=9, comparisons=12)
    everything = np.arange(len(data.indexed.replies)), np.arange(len(data.indexed.prompts))
    scale = FeatureScale.fit(data.raw, ("surface",), *everything)
    owner = data.indexed.reply_prompts
    matrix = scale.matrix(data.raw, owner, "replies and prompts")
    assert matrix.shape[1] == 2 * len(SURFACE_NAMES)
    same = np.flatnonzero(owner == owner[0])
    assert (matrix[same, len(SURFACE_NAMES) :] == matrix[same[0], len(SURFACE_NAMES) :]).all()


def test_attributes_that_do_not_vary_are_named_and_left_out() -> None:
    named = standardise_attributes(measure_attribute_values(["Good town.", "A good old town, with rivers."]))
    assert "brevity" in named.names and "curiosity" in named.constant
    assert named.values.shape == (2, len(named.names))
    assert np.allclose(named.values.mean(0), 0.0) and np.allclose(np.abs(named.values), 1.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seeds": (1, 1)}, "`seeds` must name each once; got 1, 1"),
        ({"context": (4, 0)}, "`context` must ascend; got 4, 0"),
        ({"target_prompts": 0.6, "context_prompts": 0.4}, "must leave prompts to train on; got 0.6 and 0.4"),
        ({"test_users": 1.5}, r"--test-users must fit: .*less than 1; got 1.5. See `persona fit --help`"),
        ({"device": "tpu"}, "--device must fit: .*; got 'tpu'"),
    ],
)
def test_options_that_do_not_fit_are_told(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_fit_config({"data": "d", **options, "methods": None})


def test_near_duplicates_can_be_kept_in_one_part(tmp_path: Path) -> None:
    rows = choices(users=24, comparisons=30)
    for row in rows:
        # Prompts come in pairs of near duplicates, and pairs have no word in common.
        number = int(row["prompt"].split()[-1].strip("?"))
        row["prompt"] = (
            " ".join(f"w{number // 2}x{place}" for place in range(8))
            + "!" * (number % 2)
            + " please" * (number % 2)
        )
    data = str(write_choices(tmp_path / "c.jsonl", rows))
    near = {}
    for grouped in (False, True):
        config = FitConfig(data=data, group_near_duplicates=grouped, device="cpu")
        made = prepare(config)
        overlap = prompt_overlap(split_trial(made, config, 0).split, made.indexed.prompts)
        near[grouped] = overlap.near_training + overlap.near_context
    assert near[False] > 0 and near[True] == 0


def test_a_single_prompt_to_train_on_is_told(tmp_path: Path) -> None:
    rows = [{**row, "prompt": f"p{place % 3}"} for place, row in enumerate(choices(users=12, comparisons=12))]
    path = write_choices(tmp_path / "c.jsonl", rows)
    config = build_fit_config({"data": str(path), "seeds": (0,)})
    with pytest.raises(ConfigError, match="at least 2 prompts; got 1 of 3 in the data"):
        split_trial(prepare(config), config, 0)
