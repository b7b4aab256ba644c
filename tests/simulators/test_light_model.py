"""The light model: decisions as text, and probabilities of options equal to constrained decoding by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Regex, normalizers

from persona.policy import ConditionedPolicy, LanguageModel
from simulators.errors import MirrorError
from simulators.mirror.light_model import (
    LightModel,
    decision_prompt,
    decision_text,
    mean_over_rationales,
    thoughts_in,
)
from simulators.mirror.rationales import option_labels, scene_text
from tests.helpers.tiny_models import tiny_language_model, tiny_llama, tiny_tokenizer

SCENES = [scene_text(["warm"], ["slow", "short", "a story"]), scene_text([], ["film", "more"])]
LABELS = [option_labels(3), option_labels(2)]
THOUGHTS = ["stimulus: the slow one\nknowledge: warm\nevaluation: quickly", ""]


def light_model(language_model: LanguageModel | None = None) -> LightModel:
    model = language_model or tiny_language_model()
    policy = ConditionedPolicy.build(model, latent_dim=0, direction_dim=0, rank=4, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.adapter_parameters():
            parameter.normal_(0.0, 0.1, generator=generator)
    return LightModel(policy, max_new_tokens=12)


def by_hand(model: LightModel, scene: str, labels: Sequence[str], thoughts: str) -> list[float]:
    """Walk along each option's tokens; at every step only what some option could go on with is allowed."""
    policy = model.policy
    ids = [
        policy.language_model.encode_reply(decision_prompt(scene), decision_text(thoughts, label)).ids
        for label in labels
    ]
    chances = []
    for own in ids:
        chance = 1.0
        for place in range(len(own)):
            allowed = sorted({other[place] for other in ids if other[:place] == own[:place]})
            if len(allowed) > 1:
                with torch.no_grad():
                    logits = policy.peft_model(input_ids=torch.tensor([own[:place]])).logits[0, -1]
                held = torch.softmax(logits[allowed].double(), dim=0)
                chance *= held[allowed.index(own[place])].item()
        chances.append(chance)
    return chances


def merging_tokenizer_model() -> LanguageModel:
    """A tokenizer that merges one label with all of its stage, another with its colon, and a third with nothing."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("behaviour: A", ": B")])
    model = tiny_llama(len(tokenizer))
    model.config.persona_slots = []
    return LanguageModel.wrap(model, tokenizer, name="merging")


def test_a_decision_ends_with_its_label_and_gives_its_thoughts_back() -> None:
    for thoughts in THOUGHTS:
        text = decision_text(thoughts, "B")
        assert text.endswith("behaviour: B")
        assert thoughts_in(text) == thoughts
    assert thoughts_in("stimulus: the fo") == "stimulus: the fo"
    assert thoughts_in("stimulus: a\nbehaviour: C\nstimulus: more") == "stimulus: a"
    assert thoughts_in("stimulus: his behaviour: odd") == "stimulus: his behaviour: odd"


@pytest.mark.parametrize("make", [tiny_language_model, merging_tokenizer_model])
def test_probabilities_are_those_of_constrained_decoding(make: object) -> None:
    model = light_model(make())  # type: ignore[operator]
    found = model.score(SCENES, LABELS, THOUGHTS)
    assert found.shape == (2, 3) and found[1, 2] == 0
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found[0], by_hand(model, SCENES[0], LABELS[0], THOUGHTS[0]), atol=1e-5)
    np.testing.assert_allclose(found[1, :2], by_hand(model, SCENES[1], LABELS[1], THOUGHTS[1]), atol=1e-5)
    assert len(set(np.round(found[0], 4))) == 3


def test_labels_may_be_texts_that_begin_alike() -> None:
    model, labels = light_model(), ["slow film", "slow", "slow film, warm", "more"]
    found = model.score(SCENES[:1], [labels], ["stimulus: warm"])
    np.testing.assert_allclose(found.sum(), 1)
    np.testing.assert_allclose(found[0], by_hand(model, SCENES[0], labels, "stimulus: warm"), atol=1e-5)
    np.testing.assert_array_equal(model.score(SCENES[:1], [["slow"]], [""]), [[1.0]])


def test_rationales_follow_their_seeds_and_not_their_company() -> None:
    model = light_model()
    together = model.options_by_rationale(SCENES, LABELS, rationales=2, seeds=[4, 9])
    alone = model.options_by_rationale(SCENES[1:], LABELS[1:], rationales=2, seeds=[9])
    assert together.shape == (2, 2, 3)
    np.testing.assert_allclose(together[1, :, :2], alone[0], atol=1e-5)
    np.testing.assert_array_equal(
        together, model.options_by_rationale(SCENES, LABELS, rationales=2, seeds=[4, 9])
    )
    other = model.options_by_rationale(SCENES, LABELS, rationales=2, seeds=[5, 9])
    assert np.abs(other[0] - together[0]).max() > 1e-6
    assert model.score([], [], []).shape == (0, 0)


def test_the_mean_counts_one_more_rationale_that_knows_nothing() -> None:
    given = [[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]]
    # (1 + 1/2 + 1/2) / 3 and (0 + 1/2 + 1/2) / 3 for two options; the third is not on offer.
    np.testing.assert_allclose(mean_over_rationales(given, [2]), [[2 / 3, 1 / 3, 0]])
    np.testing.assert_allclose(mean_over_rationales(given, [3])[0], [11 / 18, 5 / 18, 2 / 18])


def test_what_cannot_be_scored_is_refused() -> None:
    model = light_model()
    with pytest.raises(MirrorError, match="`rationales` must be at least 1; got 0"):
        model.options_by_rationale(SCENES, LABELS, rationales=0, seeds=[0, 1])
    with pytest.raises(MirrorError, match="at least one option; got none"):
        model.score(SCENES[:1], [[]], [""])
    with pytest.raises(
        MirrorError, match=r"must differ as tokens; got the same \d+ tokens for options \[0, 2\]"
    ):
        model.score(SCENES[:1], [["A", "B", "A"]], [""])
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex("[A-Z]"), "x")
    same = LanguageModel.wrap(tiny_llama(len(tokenizer)), tokenizer, name="same")
    with pytest.raises(
        MirrorError, match=r"must differ as tokens; got the same \d+ tokens for options \[0, 1, 2\]"
    ):
        light_model(same).score(SCENES[:1], LABELS[:1], [""])
