import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from persona.errors import DataError, ShapeError
from persona.policy import ConditionedPolicy, LanguageModel
from persona.recipes.policy import PolicyConfig, PreferencePairs, endless_batches, rate_factor, train_policy
from persona.types import Condition, Conversation
from tests.helpers.tiny_models import WORDS, tiny_language_model


@pytest.fixture(scope="module")
def base() -> LanguageModel:
    return tiny_language_model()


def users(count: int, seed: int = 0) -> Condition:
    """Directions in the plane; those to the right want "yes"."""
    angle = 2 * math.pi * torch.rand(count, generator=torch.Generator().manual_seed(seed))
    return Condition.of_direction(torch.stack([angle.cos(), angle.sin()], 1), latent_dim=3)


def wishes(condition: Condition) -> tuple[list[Conversation], list[str], list[str]]:
    conversations: list[Conversation] = [
        [{"role": "user", "content": WORDS[row % len(WORDS)]}] for row in range(len(condition))
    ]
    rightward = (condition.direction[:, 0] > 0).tolist()
    chosen = ["yes" if right else "no" for right in rightward]
    return conversations, chosen, ["no" if right else "yes" for right in rightward]


def build(base: LanguageModel) -> ConditionedPolicy:
    return ConditionedPolicy.build(base, latent_dim=3, direction_dim=2, hidden=16, seed=0)


def pairs_for(policy: ConditionedPolicy, condition: Condition) -> PreferencePairs:
    return PreferencePairs.from_replies(policy, *wishes(condition), condition)


def share_preferred(policy: ConditionedPolicy, condition: Condition, shown: Condition) -> float:
    conversations, chosen, rejected = wishes(condition)
    with torch.no_grad():
        margin = policy.log_probs(conversations, chosen, shown) - policy.log_probs(
            conversations, rejected, shown
        )
    return (margin > 0).float().mean().item()


@pytest.mark.integration
def test_sixty_steps_teach_each_user_their_word(base: LanguageModel) -> None:
    policy = build(base)
    steps: list[dict[str, float]] = []
    history = train_policy(
        policy,
        pairs_for(policy, users(160)),
        PolicyConfig(steps=60),
        seed=0,
        report=lambda row: steps.append(dict(row)),
    )
    assert steps == history and [row["step"] for row in history] == list(range(60))
    assert history[0]["dpo"] == pytest.approx(math.log(2), abs=1e-5)
    unseen = users(80, seed=1)
    assert share_preferred(policy, unseen, unseen) > 0.9
    opposite = Condition(unseen.latent, -unseen.direction, unseen.text)
    assert share_preferred(policy, unseen, opposite) < 0.1
    conversations, chosen, _ = wishes(unseen)
    replies = policy.generate(conversations, unseen, seeds=range(80), max_new_tokens=4, temperature=0.0)
    assert np.mean([reply.startswith(word[0]) for reply, word in zip(replies, chosen, strict=True)]) > 0.8


def test_the_same_seed_gives_the_same_bits(base: LanguageModel) -> None:
    weights = []
    for seed in (3, 3, 4):
        policy = build(base)
        history = train_policy(policy, pairs_for(policy, users(20)), PolicyConfig(steps=4), seed=seed)
        weights.append((history, [p.detach().clone() for p in policy.adapter_parameters()]))
    assert weights[0][0] == weights[1][0] != weights[2][0]
    assert all(torch.equal(a, b) for a, b in zip(weights[0][1], weights[1][1], strict=True))


def test_withheld_conditions_teach_the_gate_nothing(base: LanguageModel) -> None:
    policy = build(base)
    before = [p.detach().clone() for p in policy.gate.parameters()]
    history = train_policy(
        policy, pairs_for(policy, users(20)), PolicyConfig(steps=3, drop_condition=1.0), seed=0
    )
    assert all(torch.equal(a, b) for a, b in zip(before, policy.gate.parameters(), strict=True))
    assert history[-1]["grad_norm"] > 0


def test_the_base_model_is_not_trained(base: LanguageModel) -> None:
    before = [p.clone() for p in base.model.parameters()]
    policy = build(base)
    train_policy(policy, pairs_for(policy, users(8)), PolicyConfig(steps=2, pairs_per_step=8), seed=0)
    assert all(torch.equal(a, b) for a, b in zip(before, base.model.parameters(), strict=True))


@pytest.mark.integration
def test_weights_decide_between_contradicting_pairs(base: LanguageModel) -> None:
    policy = build(base)
    right = users(16)
    conversations, chosen, rejected = wishes(right)
    doubled = Condition.concatenate([right, right])
    pairs = PreferencePairs.from_replies(
        policy,
        [*conversations, *conversations],
        [*chosen, *rejected],
        [*rejected, *chosen],
        doubled,
        weight=torch.cat([torch.full((16,), 10.0), torch.ones(16)]),
    )
    train_policy(policy, pairs, PolicyConfig(steps=40, pairs_per_step=32, sft_weight=0.0), seed=0)
    assert share_preferred(policy, right, right) > 0.9


def test_dialogues_train_on_all_their_replies(base: LanguageModel) -> None:
    policy = build(base)
    asked = [{"role": "user", "content": "What film?"}]

    def talk(first: str, *more: str) -> Conversation:
        turns = [{"role": "assistant", "content": first}]
        for reply in more:
            turns += [{"role": "user", "content": "more?"}, {"role": "assistant", "content": reply}]
        return [*asked, *turns]

    chosen = [base.encode_dialogue(talk("yes", "warm", "slow")), base.encode_dialogue(talk("yes"))]
    rejected = [base.encode_dialogue(talk("yes", "story")), base.encode_dialogue(talk("no"))]
    pairs = PreferencePairs(chosen, rejected, users(2)).with_reference(policy)
    assert pairs.turns == 3 and pairs.reference is not None
    replies = [("yes",), ("yes", "warm"), ("yes", "warm", "slow")]
    for turn, said in enumerate(replies):
        row = policy.encode_replies([talk(*said)[:-1]], [said[-1]])
        expected = policy.reference_log_probs(row).sum()
        torch.testing.assert_close(pairs.reference[0][0, turn], expected, rtol=1e-4, atol=1e-4)
    assert not pairs.reference[0][1, 1:].any() and not pairs.reference[1][0, 2:].any()
    history = train_policy(
        policy, pairs, PolicyConfig(steps=25, pairs_per_step=2, drop_condition=0.0), seed=0
    )
    assert history[-1]["margin"] > 0.5 and history[-1]["accuracy"] == 1.0


def test_a_given_reference_is_used_as_it_is(base: LanguageModel) -> None:
    policy = build(base)
    plain = pairs_for(policy, users(4))
    shifted = replace(plain, reference=(torch.zeros(4, 1), torch.full((4, 1), 5.0)))
    assert shifted.with_reference(policy) is shifted
    config = PolicyConfig(steps=1, pairs_per_step=4, sft_weight=0.0)
    scores = policy.log_probs(*_sides(plain, 0)), policy.log_probs(*_sides(plain, 1))
    margin = 0.1 * (scores[0] - scores[1] + 5.0)
    expected = torch.log1p(torch.exp(-margin)).mean().item()
    assert train_policy(policy, shifted, config, seed=0)[0]["loss"] == pytest.approx(expected, rel=1e-4)


def _sides(pairs: PreferencePairs, side: int) -> tuple[list[Conversation], list[str]]:
    conversations, *replies = wishes(pairs.condition)
    return conversations, replies[side]


def test_weight_decay_shrinks_the_adapter_by_its_share_of_the_rate(base: LanguageModel) -> None:
    def after_one_step(decay: float) -> list[torch.Tensor]:
        policy = build(base)
        config = PolicyConfig(steps=1, pairs_per_step=4, lora_lr=0.01, weight_decay=decay)
        train_policy(policy, pairs_for(policy, users(4)), config, seed=0)
        return [parameter.detach() for parameter in policy.adapter_parameters()]

    start = [parameter.detach() for parameter in build(base).adapter_parameters()]
    for before, plain, decayed in zip(start, after_one_step(0.0), after_one_step(0.5), strict=True):
        torch.testing.assert_close(decayed, plain - 0.01 * 0.5 * before, atol=1e-6, rtol=0)


def test_a_single_step_is_a_whole_schedule() -> None:
    assert [rate_factor(step, PolicyConfig(steps=1)) for step in (0, 1)] == [1.0, 1.0]


def test_learning_rate_rises_then_falls_as_a_cosine() -> None:
    config = PolicyConfig(steps=10, warmup=0.2)
    factors = [rate_factor(step, config) for step in range(10)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[6] == pytest.approx(0.5) and factors[9] == pytest.approx(
        (1 + math.cos(math.pi * 7 / 8)) / 2
    )
    assert rate_factor(0, PolicyConfig(steps=10, warmup=0.0)) == 1.0


def test_every_pair_is_met_once_an_epoch_and_batches_hold_like_lengths(base: LanguageModel) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 100, size=50)
    batches = list(islice(endless_batches(lengths, 8, rng), 14))
    for epoch in (batches[:7], batches[7:]):
        assert sorted(i for batch in epoch for i in batch) == list(range(50))
    assert batches[:7] != batches[7:]
    spread = np.mean([np.ptp(lengths[batch]) for batch in batches])
    assert spread < 0.5 * np.ptp(lengths)


def test_few_pairs_make_a_small_batch() -> None:
    rng = np.random.default_rng(0)
    assert sorted(next(endless_batches(np.asarray([3, 4]), 16, rng))) == [0, 1]


def test_parts_must_have_one_entry_a_pair(base: LanguageModel) -> None:
    pairs = pairs_for(build(base), users(4))
    with pytest.raises(ShapeError, match="'chosen': 4, 'rejected': 3, 'condition': 4"):
        replace(pairs, rejected=pairs.rejected[:3])
    with pytest.raises(ShapeError, match="'weight': 2"):
        replace(pairs, weight=torch.ones(2))
    with pytest.raises(ShapeError, match=r"'reference\[0\]': 4, 'reference\[1\]': 1"):
        replace(pairs, reference=(torch.zeros(4, 1), torch.zeros(1, 1)))


def test_pairs_without_rows_or_with_lost_weight_are_refused(base: LanguageModel) -> None:
    with pytest.raises(DataError, match="at least one preference pair; got 0"):
        PreferencePairs([], [], users(0))
    pairs = pairs_for(build(base), users(2))
    with pytest.raises(DataError, match="must be positive; got -1"):
        replace(pairs, weight=torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize("setting", [{"steps": 0}, {"beta": 0.0}, {"drop_condition": 1.5}, {"unknown": 1}])
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(setting))):
        PolicyConfig(**setting)  # type: ignore[arg-type]


def test_pairs_against_the_policy_itself_begin_at_no_margin(base: LanguageModel) -> None:
    policy = build(base)
    config = PolicyConfig(steps=8, pairs_per_step=4, sft_weight=0.0, drop_condition=0.0)
    train_policy(policy, pairs_for(policy, users(4)), config, seed=0)
    again = train_policy(policy, pairs_for(policy, users(4)).against(policy), config, seed=0)
    assert again[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert again[0]["margin"] == pytest.approx(0.0, abs=1e-5) and again[-1]["margin"] > 0.01
