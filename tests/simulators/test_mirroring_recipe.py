"""Mirroring: which rationales become examples, what has a loss, and what training does to a tiny model."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from persona.policy import ConditionedPolicy
from persona.policy.language_model import TokenRow
from persona.recipes import imitation
from simulators.errors import MirrorError
from simulators.mirror.light_model import LightModel, decision_prompt
from simulators.mirror.rationales import option_labels, scene_text
from simulators.recipes import mirroring
from simulators.recipes.mirroring import (
    DecisionScenes,
    Examples,
    MirroringConfig,
    select_examples,
    train_light_model,
)
from tests.helpers.tiny_models import tiny_language_model

# What the reader makes of each story, over the options that are on offer.
READ = {
    "sure": [0.9, 0.1, 0.0],
    "good": [0.6, 0.3, 0.1],
    "tie": [0.5, 0.5, 0.0],
    "bad": [0.1, 0.9, 0.0],
    "worse": [0.0, 0.05, 0.95],
    "blank": [0.4, 0.3, 0.3],
}
ABC = option_labels(3)
TEXTS = [scene_text(["warm"], ["slow", "short", "yes"]) for _ in range(2)]
CONFIG = MirroringConfig(sft_lr=5e-3, dpo_lr=5e-3, dpo_epochs=8.0, sft_epochs=4.0, batch=2)


def reader(
    texts: Sequence[str], labels: Sequence[Sequence[str]], thoughts: Sequence[str]
) -> NDArray[np.float64]:
    table = np.zeros((len(thoughts), max(map(len, labels))))
    for row, (own, story) in enumerate(zip(labels, thoughts, strict=True)):
        count = len(own)
        table[row, :count] = np.asarray(READ[story][:count]) / sum(READ[story][:count])
    return table


def tiny_policy() -> ConditionedPolicy:
    return ConditionedPolicy.build(tiny_language_model(), latent_dim=0, direction_dim=0, rank=4, seed=0)


def four_examples() -> Examples:
    texts = [scene_text(["warm"], ["slow", name]) for name in ("short", "yes", "no", "more")]
    chosen = [f"stimulus: slow\nbehaviour: {label}" for label in "ABAB"]
    rejected = [f"stimulus: a story\nbehaviour: {label}" for label in "BABA"]
    return Examples(np.arange(4), texts, chosen, rejected, np.zeros(4), 0)


def test_examples_are_the_surest_hit_and_the_surest_miss_with_the_letters_they_lead_to() -> None:
    scenes = DecisionScenes.of([*TEXTS, scene_text([], ["a", "b"])], [ABC, ABC, ABC[:2]], [0, 2, 0])
    strong = [["good", "sure"], ["worse", "blank"], ["sure", "good"]]
    weak = [["blank", "bad"], ["bad", "blank"], ["tie", "sure"]]
    found = select_examples(scenes, strong, weak, reader, MirroringConfig())
    decisions = {
        int(row): (chosen, rejected)
        for row, chosen, rejected in zip(found.rows, found.chosen, found.rejected, strict=True)
    }
    assert decisions[0] == ("sure\nbehaviour: A", "bad\nbehaviour: B")
    assert decisions[1] == ("worse\nbehaviour: C", "bad\nbehaviour: B")
    # A tie misses; its letter is the one that was not taken.
    assert decisions[2] == ("sure\nbehaviour: A", "tie\nbehaviour: B")
    assert [found.texts[place] for place in np.argsort(found.rows)] == list(scenes.texts)
    assert found.missed == 0 and (np.diff(found.gain) <= 0).all()


def test_rationales_out_of_form_cost_no_scene_and_missing_ones_only_their_own() -> None:
    scenes = DecisionScenes.of(TEXTS * 2, [ABC] * 4, [0] * 4)
    strong: list[list[str | None]] = [["sure", None], [None, None], ["worse", "bad"], ["sure", "good"]]
    weak: list[list[str | None]] = [[None, "bad"], ["bad", "blank"], ["bad", "worse"], []]
    found = select_examples(scenes, strong, weak, reader, MirroringConfig())
    assert found.rows.tolist() == [0]
    assert found.missed == 1  # the third; the second and fourth lack a model's rationales


def test_selection_is_even_over_strata_and_bounded() -> None:
    scenes = DecisionScenes.of(TEXTS * 2, [ABC] * 4, [0] * 4, strata=["film", "film", "film", "song"])
    weak = [["blank", "bad"], ["blank", "worse"], ["blank", "blank"], ["bad", "worse"]]
    found = select_examples(scenes, [["sure"]] * 4, weak, reader, MirroringConfig(scenes=2))
    assert sorted(found.rows.tolist())[-1] == 3 and len(found.rows) == 2


def test_only_the_decision_and_its_end_have_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, examples, seen = tiny_policy(), four_examples(), list[TokenRow]()

    def spy(trained: ConditionedPolicy, rows: Sequence[TokenRow], *rest: object) -> list[float]:
        seen.extend(rows)
        return imitation.imitate(trained, rows, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(mirroring, "imitate", spy)
    train_light_model(policy, examples, MirroringConfig(dpo_epochs=0.0, batch=2), seed=0)
    model = policy.language_model
    for row, text, decision in zip(seen, examples.texts, examples.chosen, strict=True):
        learned = [token for token, own in zip(row.ids, row.policy, strict=True) if own]
        assert learned[-1] == model.end_token
        assert model.decode(learned[:-1]) == decision
        read = row.ids[: len(row.ids) - len(learned)]
        assert list(read) == model.encode(decision_prompt(text))


def test_training_prefers_the_chosen_to_the_rejected_over_the_imitating_model() -> None:
    policy, examples = tiny_policy(), four_examples()
    prompts = [decision_prompt(text) for text in examples.texts]
    steps: list[float] = []
    training = train_light_model(policy, examples, CONFIG, seed=0, report=lambda m: steps.append(m["step"]))
    assert len(training.imitation) == 8 and len(training.preference) == len(steps) == 16
    # The reference is the model that imitation left, so the first margin is zero and the loss log 2.
    assert training.preference[0]["dpo"] == pytest.approx(np.log(2), abs=1e-5)
    assert training.preference[-1]["margin"] > 0
    assert training.imitation[-1] < training.imitation[0]
    with torch.no_grad():
        margin = policy.log_probs(prompts, examples.chosen) - policy.log_probs(prompts, examples.rejected)
    assert (margin > 0).all()


def test_the_same_seed_gives_the_same_bits() -> None:
    def trained(seed: int) -> torch.Tensor:
        policy = tiny_policy()
        train_light_model(policy, four_examples(), MirroringConfig(sft_lr=1e-3, batch=2), seed=seed)
        return torch.cat([parameter.detach().ravel() for parameter in policy.adapter_parameters()])

    first = trained(0)
    assert torch.equal(first, trained(0))
    assert not torch.equal(first, trained(1))


def test_a_light_model_can_be_its_own_reader() -> None:
    policy = tiny_policy()
    with torch.no_grad():
        for parameter in policy.adapter_parameters():
            parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    light = LightModel(policy, max_new_tokens=8)
    scenes = DecisionScenes.of([scene_text(["warm"], ["slow", "short"])] * 2, [ABC[:2]] * 2, [0, 1])
    told = [f"stimulus: {word}" for word in "slow short yes no warm story film tonight more like".split()]
    found = select_examples(scenes, [told] * 2, [told] * 2, light.score, MirroringConfig())
    read = light.score([scenes.texts[0]] * len(told), [ABC[:2]] * len(told), told)
    surest = [f"{told[int(read[:, option].argmax())]}\nbehaviour: {'AB'[option]}" for option in (0, 1)]
    decisions = dict(zip(found.rows.tolist(), zip(found.chosen, found.rejected, strict=True), strict=True))
    assert decisions == {0: (surest[0], surest[1]), 1: (surest[1], surest[0])}


def test_what_cannot_be_learned_from_is_refused() -> None:
    scenes = DecisionScenes.of(TEXTS, [ABC, ABC], [0, 0])
    with pytest.raises(MirrorError, match=r"for each of 2 scenes; got 1 and 2"):
        select_examples(scenes, [["sure"]], [["bad"]] * 2, reader, MirroringConfig())
    with pytest.raises(MirrorError, match="got none among 2 scenes"):
        select_examples(scenes, [["bad"]] * 2, [["worse"]] * 2, reader, MirroringConfig())
    with pytest.raises(MirrorError, match="got none among 0 scenes"):
        select_examples(scenes, [[None]] * 2, [["worse"]] * 2, reader, MirroringConfig())
    with pytest.raises(MirrorError, match=r"slot of one of a scene's options; got \[3\] of \[3\] options"):
        DecisionScenes.of(TEXTS, [ABC, ABC], [0, 3])
    with pytest.raises(
        MirrorError, match=r"one text, list of labels, choice and stratum each; got \(2, 2, 1, 2\)"
    ):
        DecisionScenes.of(TEXTS, [ABC, ABC], [0])
    with pytest.raises(ValidationError, match="batch"):
        MirroringConfig(batch=0)
