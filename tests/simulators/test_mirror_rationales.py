"""Rationales: doubt by hand-derived numbers, selection, pairs, and prompts that tell nothing of the choice."""

import json

import numpy as np
import pytest
from numpy import log

from simulators.chat.model import ScriptedChat
from simulators.errors import MirrorError
from simulators.mirror.rationales import (
    Rationale,
    decompose_doubt,
    option_labels,
    pair_rationales,
    rationale_prompt,
    scene_text,
    score_options,
    scoring_prompt,
    select_scenes,
    selection_gain,
    write_rationales,
)
from tests.helpers.tiny_models import tiny_language_model

QUARTERS = -(0.75 * log(0.75) + 0.25 * log(0.25))


def test_doubt_is_split_as_derived() -> None:
    doubt = decompose_doubt(
        [
            [[1.0, 0.0], [0.5, 0.5]],  # mean (.75, .25); entropies 0 and log 2
            [[0.5, 0.5], [0.5, 0.5]],  # all in the model
            [[1.0, 0.0], [0.0, 1.0]],  # all in the data
        ]
    )
    np.testing.assert_allclose(doubt.total, [QUARTERS, log(2), log(2)])
    np.testing.assert_allclose(doubt.model, [log(2) / 2, log(2), 0])
    np.testing.assert_allclose(doubt.data, [QUARTERS - log(2) / 2, 0, log(2)], atol=1e-12)


def test_gain_is_what_the_strong_model_settles() -> None:
    weak, strong = [[[0.5, 0.5]], [[1.0, 0.0]]], [[[1.0, 0.0], [1.0, 0.0]], [[0.5, 0.5], [1.0, 0.0]]]
    np.testing.assert_allclose(selection_gain(np.array(weak), np.array(strong)), [log(2), -log(2) / 2])


def test_strata_take_turns_and_small_ones_leave_their_places() -> None:
    gain = np.array([9.0, 8.0, 7.0, 6.0, 1.0, 2.0, 5.0])
    strata = np.array(["a", "a", "a", "a", "b", "b", "c"])
    usable = np.array([True, True, True, True, True, True, False])
    # Turn 1: 0 and 5; turn 2: 1 and 4; then only "a" is left.
    assert select_scenes(gain, strata, usable, 2).tolist() == [0, 5]
    assert select_scenes(gain, strata, usable, 3).tolist() == [0, 1, 5]
    assert select_scenes(gain, strata, usable, 5).tolist() == [0, 1, 2, 5, 4]
    assert select_scenes(gain, strata, usable, 99).tolist() == [0, 1, 2, 3, 5, 4]
    assert select_scenes(gain, strata, usable, 0).tolist() == []


def test_pairs_take_the_surest_hit_and_the_surest_miss() -> None:
    strong = np.array(
        [
            [[0.6, 0.4], [0.9, 0.1]],  # both hit option 0, the second more surely
            [[0.5, 0.5], [0.2, 0.8]],  # a tie is a miss, and less sure than the other miss
            [[0.1, 0.9], [0.3, 0.7]],  # no strong one hits
            [[0.9, 0.1], [0.8, 0.2]],  # no one misses
        ]
    )
    weak = np.array([[[0.3, 0.7]], [[0.1, 0.9]], [[0.4, 0.6]], [[0.7, 0.3]]])
    pairs = pair_rationales(strong, weak, [0, 0, 0, 0])
    assert pairs.chosen.tolist() == [1, -1, -1, 0]
    assert pairs.rejected.tolist() == [2, 2, 0, -1]
    assert pairs.usable.tolist() == [True, False, False, False]
    assert pairs.missed.tolist() == [False, True, True, False]


def test_what_is_no_distribution_is_refused() -> None:
    with pytest.raises(MirrorError, match=r"sum to 1 .* got shape \(1, 1, 2\)"):
        decompose_doubt([[[0.5, 0.6]]])
    with pytest.raises(MirrorError, match=r"at least one rationale.* got shape \(1, 0, 2\)"):
        decompose_doubt(np.zeros((1, 0, 2)))
    with pytest.raises(MirrorError, match=r"same scenes and options; got \(1, 1, 2\), \(1, 1, 3\)"):
        pair_rationales([[[1.0, 0.0]]], [[[1.0, 0.0, 0.0]]], [0])
    with pytest.raises(MirrorError, match=r"`taken` must lie in 0\.\.1; got 2\.\.2"):
        pair_rationales([[[1.0, 0.0]]], [[[1.0, 0.0]]], [2])
    with pytest.raises(MirrorError, match=r"one entry a scene .* got \(1,\), \(1,\), \(1,\) and -1"):
        select_scenes(np.ones(1), np.ones(1), np.ones(1, bool), -1)
    with pytest.raises(MirrorError, match="2 to 26 options to be lettered; got 1"):
        option_labels(1)


def test_prompts_show_the_scene_and_never_the_behaviour() -> None:
    scene = scene_text(["The Old Mill"], ["A Quiet Harbour", "Nine Foxes"])
    assert "- The Old Mill" in scene and "[B] Nine Foxes" in scene
    assert "nothing that is known" in scene_text([], ["x", "y"])
    told = Rationale(stimulus="the foxes", knowledge="a fable", evaluation="quickly", behaviour="B")
    assert rationale_prompt(scene)[-1]["content"] == scene
    asked = scoring_prompt(scene, told.thoughts)[-1]["content"]
    assert "stimulus: the foxes" in asked and "behaviour" not in asked


def test_rationales_out_of_form_are_none() -> None:
    told = {"stimulus": "s", "knowledge": "k", "evaluation": "e", "behaviour": "A"}
    chat = ScriptedChat(lambda messages: json.dumps(told) if "good" in str(messages[1]) else "no idea")
    assert write_rationales(chat, ["good", "bad"], seeds=[0, 1]) == [Rationale(**told), None]


def test_options_are_scored_over_those_on_offer() -> None:
    told = Rationale(stimulus="a", knowledge="b", evaluation="c", behaviour="A")
    scenes = [scene_text(["m"], ["x", "y", "z"]), scene_text(["m"], ["x", "y"])]
    found = score_options(
        tiny_language_model(), scenes, [option_labels(3), option_labels(2)], [told.thoughts] * 2
    )
    assert found.shape == (2, 3) and found[1, 2] == 0
    np.testing.assert_allclose(found.sum(axis=1), 1)
    alone = score_options(tiny_language_model(), scenes[1:], [option_labels(2)], [told.thoughts])
    np.testing.assert_allclose(alone[0], found[1, :2], atol=1e-5)
