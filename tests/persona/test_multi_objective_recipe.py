from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from persona.errors import DataError, ShapeError
from persona.policy import LanguageModel
from persona.recipes.multi_objective import MultiObjectiveConfig, number_prompts, train_multi_objective
from persona.rewards.adapted import AdaptedReward, adapted_states
from persona.rewards.multi_objective import explained_variance
from persona.types import Conversation
from tests.helpers.tiny_models import tiny_language_model

WORDS = ["film", "story", "warm", "slow", "short", "more", "because", "something"]
NAMES = ("affirmation", "fit")
SHORT = MultiObjectiveConfig(steps=4, check_every=2, replies_per_step=8, rank=2)


@pytest.fixture(scope="module")
def base() -> LanguageModel:
    return tiny_language_model()


def rated(prompts: int, seed: int = 0) -> tuple[list[Conversation], list[str], Tensor]:
    """Replies of "yes" or "no" and a word, with two ratings of which some are missing.

    "affirmation" is high after "yes"; "fit" is high if "yes" comes with one of the first four words or "no"
    with one of the others, which no sum of the two words' parts can say.
    """
    generator = torch.Generator().manual_seed(seed)
    talks: list[Conversation] = []
    replies, labels = [], []
    for prompt in range(prompts):
        for turn in range(4):
            word = int(torch.randint(len(WORDS), (), generator=generator))
            affirms = turn < 2
            talks.append([{"role": "user", "content": f"more like {prompt}"}])
            replies.append(("yes " if affirms else "no ") + WORDS[word])
            labels.append([70.0 if affirms else 30.0, 90.0 if affirms == (word < 4) else 10.0])
    gaps = torch.rand(len(labels), 2, generator=generator) < 0.2
    return talks, replies, torch.tensor(labels).masked_fill(gaps, float("nan"))


@pytest.mark.integration
def test_a_lora_learns_what_frozen_states_do_not_say(base: LanguageModel) -> None:
    talks, replies, labels = rated(120)
    config = MultiObjectiveConfig(steps=100, check_every=50, lora_lr=5e-3, head_lr=3e-3)
    looks: list[dict[str, float]] = []
    reward = train_multi_objective(
        base, talks, replies, labels, config, names=NAMES, seed=0, report=looks.append
    )
    assert [row["step"] for row in looks] == [0, 50, 100]
    frozen_only = train_multi_objective(
        base, talks, replies, labels, config.model_copy(update={"steps": 0}), names=NAMES, seed=0
    )
    unseen, answers, truth = rated(40, seed=1)
    frozen, adapted = (
        explained_variance(which.rate(unseen, answers), truth, NAMES) for which in (frozen_only, reward)
    )
    assert adapted["affirmation"] > 0.9
    assert frozen["fit"] < 0.6 and adapted["fit"] > 0.85


def test_before_training_the_states_are_those_of_the_base(base: LanguageModel) -> None:
    talks, replies, labels = rated(5)
    reward = train_multi_objective(
        base, talks, replies, labels, SHORT.model_copy(update={"steps": 0}), names=NAMES, seed=0
    )
    rows = reward.encoder.encode_replies(talks, replies)
    torch.testing.assert_close(
        adapted_states(reward.encoder, rows), reward.encoder.hidden_states(talks, replies)
    )


def test_products_in_bfloat16_still_give_states_in_float32(base: LanguageModel) -> None:
    talks, replies, labels = rated(5)
    mixed = replace(base, mixed=True)
    reward = train_multi_objective(mixed, talks, replies, labels, SHORT, names=NAMES, seed=0)
    states = adapted_states(reward.encoder, reward.encoder.encode_replies(talks, replies))
    assert states.dtype == torch.float32
    assert not torch.equal(states, states.bfloat16().float())
    assert reward.score(talks, replies).dtype == torch.float32


def test_one_seed_gives_one_reward_and_the_base_is_not_touched(base: LanguageModel, tmp_path: Path) -> None:
    talks, replies, labels = rated(8)
    before = [p.clone() for p in base.model.parameters()]
    first, again = (
        train_multi_objective(base, talks, replies, labels, SHORT, names=NAMES, seed=1) for _ in range(2)
    )
    scores = first.score(talks, replies)
    assert torch.equal(scores, again.score(talks, replies))
    assert all(torch.equal(a, b) for a, b in zip(before, base.model.parameters(), strict=True))
    first.save(tmp_path)
    loaded = AdaptedReward.load(tmp_path, base)
    assert loaded.head.names == NAMES
    torch.testing.assert_close(loaded.score(talks, replies), scores)


def test_wild_steps_are_undone_by_the_held_out_prompts(base: LanguageModel) -> None:
    talks, replies, labels = rated(8)
    wild = SHORT.model_copy(update={"lora_lr": 50.0, "head_lr": 50.0})
    looks: list[dict[str, float]] = []
    reward = train_multi_objective(
        base, talks, replies, labels, wild, names=NAMES, seed=0, report=looks.append
    )
    assert min(looks, key=lambda row: row["held_out_loss"])["step"] == 0
    calm = train_multi_objective(
        base, talks, replies, labels, SHORT.model_copy(update={"steps": 0}), names=NAMES, seed=0
    )
    assert torch.equal(reward.score(talks, replies), calm.score(talks, replies))


def test_faults_are_named(base: LanguageModel) -> None:
    talks, replies, labels = rated(3)
    with pytest.raises(DataError, match="at least 4 prompts; got 3"):
        train_multi_objective(base, talks, replies, labels, SHORT, names=NAMES, seed=0)
    with pytest.raises(ShapeError, match=r"shape \(12, 1\).*got \(12, 2\)"):
        train_multi_objective(base, talks, replies, labels, SHORT, names=NAMES[:1], seed=0)


def test_equal_conversations_are_one_prompt() -> None:
    one, other = [{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]
    assert number_prompts([one, other, list(one)]).tolist() == [0, 1, 0]
