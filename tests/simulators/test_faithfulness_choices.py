"""Choices out of lists: likelihood, accuracy, calibration and slots, by hand and on planted worlds."""

import numpy as np
import pandas as pd
import pytest

from recsys.metrics import calibration_error
from simulators.errors import FaithfulnessError
from simulators.faithfulness import (
    Scenes,
    expected_accuracy_by_scene,
    nll_by_scene,
    reliability,
    scenes_from_frame,
    slot_accuracy,
    top1_by_scene,
)
from simulators.faithfulness.choices import mean_over_users
from tests.helpers.film_evidence import film_scenes

TWO = pd.DataFrame(
    {
        "scene_id": [7, 7, 7, 3, 3],
        "user_id": ["x", "x", "x", "y", "y"],
        "slot": [2, 0, 1, 0, 1],
        "probability": [0.2, 0.4, 0.4, 0.25, 0.75],
        "chosen": [0, 1, 0, 1, 0],
    }
)


def test_measures_by_hand() -> None:
    scenes = scenes_from_frame(TWO)
    # Scene 3 first, then scene 7 in the order of its slots; both options taken stand in slot 0.
    assert scenes.users.tolist() == ["y", "x"] and scenes.slots.tolist() == [0, 0]
    assert scenes.probabilities.tolist() == [0.25, 0.75, 0.4, 0.4, 0.2]
    assert nll_by_scene(scenes).tolist() == pytest.approx([np.log(4), np.log(2.5)])
    assert expected_accuracy_by_scene(scenes).tolist() == [0.25, 0.4]
    # Not the likeliest; shares the first place with one other.
    assert top1_by_scene(scenes).tolist() == [0.0, 0.5]
    assert mean_over_users(scenes, top1_by_scene(scenes), seed=0).value == 0.25


def test_expected_accuracy_is_the_mean_of_many_draws() -> None:
    scenes, rng = scenes_from_frame(film_scenes(30, 0)), np.random.default_rng(0)
    cumulative = np.cumsum(scenes.probabilities.reshape(-1, 5), axis=1)
    draws = (rng.random((2000, len(scenes), 1)) > cumulative).sum(-1)
    assert expected_accuracy_by_scene(scenes).mean() == pytest.approx(
        (draws == scenes.slots).mean(), abs=0.005
    )


def test_calibration_equals_the_metric_and_finds_too_sure_a_model() -> None:
    scenes = scenes_from_frame(film_scenes(300, 1))
    happened = np.zeros(len(scenes.probabilities), dtype=bool)
    happened[scenes.taken] = True
    found = reliability(scenes, seed=0, n_boot=200)
    assert found.error.value == pytest.approx(
        calibration_error(scenes.probabilities, happened, binning="mass")
    )
    assert found.error.value < 0.02 and found.rows.sum() == len(scenes.probabilities)
    sure = reliability(scenes_from_frame(film_scenes(300, 1, sharpness=3.0)), seed=0, n_boot=200)
    assert sure.error.low > 0.05


def test_users_weigh_alike_however_many_scenes_they_have() -> None:
    scenes = Scenes(np.array(["a", "a", "a", "b"]), np.full(4, 2), np.full(8, 0.5), np.zeros(4, np.int64))
    assert mean_over_users(scenes, np.array([1.0, 1.0, 1.0, 0.0]), seed=0).value == 0.5


def test_slots_of_an_honest_model_are_flat_and_even() -> None:
    found = slot_accuracy(scenes_from_frame(film_scenes(300, 2)), seed=0, n_permutations=199)
    assert found.p_flat > 0.05 and found.p_even > 0.05
    assert 0.005 < found.by_chance < 0.05
    few = slot_accuracy(scenes_from_frame(film_scenes(10, 2)), seed=0, n_permutations=199)
    assert few.by_chance > 0.05
    assert found.rows.sum() == 900 and found.due.tolist() == pytest.approx([180.0] * 5)


def test_an_answer_that_is_never_last_is_told() -> None:
    frame = film_scenes(300, 2)
    last = frame.loc[(frame["chosen"] == 1) & (frame["slot"] == 4), "scene_id"]
    found = slot_accuracy(scenes_from_frame(frame[~frame["scene_id"].isin(last)]), seed=0, n_permutations=199)
    assert found.p_even == 1 / 200 and found.rows[4] == 0 and np.isnan(found.expected[4])


@pytest.mark.parametrize(("lengths", "slots"), [([2, 2, 2], [0, 0, 0]), ([2, 3, 4, 5], [0, 1, 2, 3])])
def test_where_no_dealing_changes_anything_nothing_is_tested(lengths: list[int], slots: list[int]) -> None:
    size = np.asarray(lengths)
    scenes = Scenes(np.arange(len(size)).astype(str), size, np.repeat(1 / size, size), np.asarray(slots))
    assert np.isnan(slot_accuracy(scenes, seed=0, n_permutations=9).by_chance)


def test_a_model_that_learned_the_slot_is_told() -> None:
    frame = film_scenes(300, 2)
    leaning = frame["probability"] * np.where(frame["slot"] == 0, 2.0, 1.0)
    frame["probability"] = leaning / leaning.groupby(frame["scene_id"]).transform("sum")
    found = slot_accuracy(scenes_from_frame(frame), seed=0, n_permutations=199)
    assert found.p_flat == 1 / 200 and found.expected[0] > found.expected[1:].max()


def test_lists_of_different_lengths_are_not_taken_for_uneven_slots() -> None:
    # Short lists are easier and have no later slots; within each length the accuracy is flat.
    rng = np.random.default_rng(0)
    lengths = np.repeat([2, 6], 400)
    probabilities = np.repeat(1 / lengths, lengths)
    slots = np.floor(rng.random(800) * lengths).astype(np.int64)
    found = slot_accuracy(
        Scenes(np.arange(800).astype(str), lengths, probabilities, slots), seed=0, n_permutations=99
    )
    assert found.p_flat == 1.0 and found.p_even > 0.05
    assert found.due.tolist() == pytest.approx([400 / 2 + 400 / 6] * 2 + [400 / 6] * 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.drop(columns="chosen"), "chosen missing among scene_id, user_id, slot, probability"),
        (lambda f: f.iloc[:0], "must hold at least one scene; got none"),
        (lambda f: f.assign(probability=[np.nan, 0.4, 0.4, 0.25, 0.75]), r"must lie in 0..1; got \[nan\] in 1 rows"),
        (lambda f: f.assign(probability=[-0.2, 0.4, 0.8, 0.25, 0.75]), r"got \[-0.2\] in 1 rows"),
        (lambda f: f.assign(probability=[0.2, 0.4, 0.6, 0.25, 0.75]), "must sum to 1; got 1.2 in scene 7 and 1 such"),
        (lambda f: f.assign(chosen=[0, 1, 1, 1, 0]), "one chosen option.*got 2 in scene 7"),
        (lambda f: f.assign(chosen=["no", "yes", "no", "yes", "no"]), r"0 elsewhere; got \['yes', 'no', 'yes'\]"),
        (lambda f: f.assign(user_id=["x", "x", None, "y", "y"]), "`user_id` of predictions.*none in 1 rows"),
        (lambda f: f.assign(chosen=0), "one chosen option.*got 0 in scene 3"),
        (lambda f: f.assign(slot=[0, 0, 1, 0, 1]), "got scene 7 with 0 twice"),
        (lambda f: f.assign(item_id=["p", "q", "q", "r", "s"]), "each `item_id` once; got scene 7 with q twice"),
        (lambda f: f.assign(user_id=["x", "z", "x", "y", "y"]), "one user; got several in one"),
    ],
)  # fmt: skip
def test_predictions_that_make_no_sense_are_refused(change: object, said: str) -> None:
    with pytest.raises(FaithfulnessError, match=said):
        scenes_from_frame(change(TWO))  # type: ignore[operator]
