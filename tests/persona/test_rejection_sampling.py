from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.errors import DataError, ShapeError
from persona.hypervolume import hypervolume
from persona.policy import ConditionedPolicy, LanguageModel
from persona.profiles.direction import directions_between
from persona.recipes.rejection_sampling import (
    RejectionSamplingConfig,
    reward_front,
    tell_by_gate,
    tell_by_text,
    train_rejection_sampling,
)
from persona.types import Condition, Conversation
from tests.helpers.tiny_models import WORDS, tiny_language_model

SHORT = RejectionSamplingConfig(
    rounds=2, prompts_per_round=6, replies_per_prompt=3, steps_per_round=2, winners_per_step=4,
    max_new_tokens=4,
)  # fmt: skip
AXES = torch.eye(2)
PROMPTS: list[Conversation] = [[{"role": "user", "content": word}] for word in " ".join(WORDS).split()]


@pytest.fixture(scope="module")
def base() -> LanguageModel:
    return tiny_language_model()


def build(base: LanguageModel) -> ConditionedPolicy:
    return ConditionedPolicy.build(base, latent_dim=1, direction_dim=2, hidden=16, seed=0)


def measure(rows: NDArray[np.int64], replies: Sequence[str]) -> Tensor:
    """Brevity, and how early in the alphabet letters are; each about one deviation wide."""
    letters = [[ord(c) - ord("a") for c in reply.lower() if "a" <= c <= "z"] or [12] for reply in replies]
    early = [(12 - np.mean(row)) / 3 for row in letters]
    return torch.tensor([[2 - len(r) / 8, e] for r, e in zip(replies, early, strict=True)]).float()


def draw(count: int, rng: np.random.Generator) -> Tensor:
    return directions_between(AXES[0], AXES[1], torch.from_numpy(rng.random(count)))


def train(policy: ConditionedPolicy, config: RejectionSamplingConfig = SHORT) -> list[dict[str, float]]:
    return train_rejection_sampling(
        policy, PROMPTS, config, measure=measure, draw=draw, tell=tell_by_gate(latent_dim=1), seed=0
    )


def volume(policy: ConditionedPolicy) -> float:
    fan = directions_between(AXES[0], AXES[1], torch.linspace(0, 1, 4))
    front = reward_front(
        policy, PROMPTS[:12], fan,
        measure=measure, tell=tell_by_gate(latent_dim=1), seed=1, max_new_tokens=8,
    )  # fmt: skip
    return hypervolume(front.numpy(), [-2.0, -2.0])


@pytest.mark.integration
def test_rounds_enlarge_the_front(base: LanguageModel) -> None:
    policy = build(base)
    before = volume(policy)
    config = RejectionSamplingConfig(
        rounds=2, prompts_per_round=64, replies_per_prompt=8, steps_per_round=24, max_new_tokens=8
    )
    history = train(policy, config)
    assert [row["round"] for row in history] == [1.0, 2.0]
    assert all(row["kept"] > row["sampled"] for row in history)
    assert history[1]["sampled"] > history[0]["sampled"]
    assert volume(policy) > before * 1.1


def test_one_seed_gives_the_same_bits_and_the_base_is_not_touched(base: LanguageModel) -> None:
    before = [p.clone() for p in base.model.parameters()]
    runs = []
    for _ in range(2):
        policy = build(base)
        runs.append((train(policy), [p.detach().clone() for p in policy.gate.parameters()]))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(a, b) for a, b in zip(runs[0][1], runs[1][1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, base.model.parameters(), strict=True))


def test_numbers_in_the_prompt_leave_the_gate_alone(base: LanguageModel) -> None:
    tell = tell_by_text(("brevity", "early"), latent_dim=1)
    told = tell(torch.tensor([[0.6, -0.8], [0.0, 0.0]]))
    assert told.text[0] is not None and "60 * brevity - 80 * early" in told.text[0]
    assert told.text[1] is None and not told.direction.any() and not told.latent.any()
    policy = build(base)
    gate = [p.detach().clone() for p in policy.gate.parameters()]
    lora = [p.detach().clone() for p in policy.adapter_parameters()]
    train_rejection_sampling(policy, PROMPTS, SHORT, measure=measure, draw=draw, tell=tell, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(gate, policy.gate.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(lora, policy.adapter_parameters(), strict=True))


def test_withheld_directions_teach_the_gate_nothing(base: LanguageModel) -> None:
    policy = build(base)
    gate = [p.detach().clone() for p in policy.gate.parameters()]
    train(policy, SHORT.model_copy(update={"drop_condition": 1.0}))
    assert all(torch.equal(a, b) for a, b in zip(gate, policy.gate.parameters(), strict=True))


def test_before_training_all_directions_give_the_same_replies(base: LanguageModel) -> None:
    fan = directions_between(AXES[0], AXES[1], torch.linspace(0, 1, 3))
    front = reward_front(
        build(base),
        PROMPTS[:3],
        fan,
        measure=measure,
        tell=tell_by_gate(latent_dim=1),
        seed=0,
        max_new_tokens=4,
    )
    torch.testing.assert_close(front, front[:1].expand(3, 2))


def test_the_winner_is_the_reply_worth_most(base: LanguageModel) -> None:
    seen: list[tuple[NDArray[np.int64], Sequence[str]]] = []

    def watch(rows: NDArray[np.int64], replies: Sequence[str]) -> Tensor:
        seen.append((rows, replies))
        return measure(rows, replies)

    def down(count: int, rng: np.random.Generator) -> Tensor:
        return -AXES[:1].expand(count, 2)

    history = train_rejection_sampling(
        build(base), PROMPTS[:4], SHORT.model_copy(update={"rounds": 1, "prompts_per_round": 8}),
        measure=watch, draw=down, tell=tell_by_gate(latent_dim=1), seed=0,
    )  # fmt: skip
    (rows, replies), *_ = seen
    assert np.bincount(rows).tolist() == [6, 6, 6, 6]  # every prompt twice, three replies each time
    longest = [max(len(r) for r in replies[at : at + 3]) for at in range(0, len(replies), 3)]
    assert history[0]["kept"] == pytest.approx(np.mean(longest) / 8 - 2)


def test_faults_are_named(base: LanguageModel) -> None:
    policy, gate = build(base), tell_by_gate(latent_dim=1)
    with pytest.raises(DataError, match="at least one prompt; got 0"):
        train_rejection_sampling(policy, [], SHORT, measure=measure, draw=draw, tell=gate, seed=0)
    with pytest.raises(DataError, match="got 3 of equal worth for all 6 prompts of round 1"):
        train_rejection_sampling(
            policy, PROMPTS, SHORT, measure=lambda rows, replies: torch.zeros(len(rows), 2), draw=draw,
            tell=gate, seed=0,
        )  # fmt: skip
    with pytest.raises(ShapeError, match=r"each of 6 prompts; got shape \(5, 2\)"):
        train_rejection_sampling(
            policy, PROMPTS, SHORT, measure=measure, draw=lambda n, rng: draw(n - 1, rng), tell=gate, seed=0
        )
    with pytest.raises(ShapeError, match=r"2 rewards for each of 18 replies.*got shape \(18, 3\)"):
        train_rejection_sampling(
            policy, PROMPTS, SHORT, measure=lambda rows, replies: torch.zeros(len(rows), 3), draw=draw,
            tell=gate, seed=0,
        )  # fmt: skip
    with pytest.raises(ShapeError, match="each of 18 directions; got 1"):
        train_rejection_sampling(
            policy, PROMPTS, SHORT, measure=measure, draw=draw,
            tell=lambda d: Condition.of_direction(d[:1], latent_dim=1), seed=0,
        )  # fmt: skip
