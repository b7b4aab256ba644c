"""Training on whole dialogues: tokens of the moment, the policy's own and no others, pairs of one user, both losses."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from persona.objectives.dpo import TurnLogProbs, multi_turn_dpo_loss
from persona.policy.conditioned import ConditionedPolicy
from persona.policy.language_model import TokenRow
from persona.types import Condition
from recsys.models.popularity import Popularity
from recsys.types import histories_from_log
from simulators.agent import Recommender
from simulators.errors import RolloutError
from simulators.recipes.trajectories import (
    TrajectoryConfig,
    mismatched,
    train_on_outcomes,
    train_on_pairs,
    turn_log_probs,
)
from simulators.recipes.trajectory_pairs import (
    LabelledTrajectories,
    TrajectoryPairs,
    label_trajectories,
    pair_trajectories,
    trajectory_of,
)
from simulators.rollout import rollout
from simulators.types import Dialogue, Feedback, GeneratedTokens, ItemCard, StopReason, Turn, Utterance
from tests.helpers.talking import talking_world
from tests.helpers.tiny_models import tiny_language_model

WORLD, _, VIEWERS = talking_world(users=12)
HISTORIES = histories_from_log(WORLD.log, np.arange(12), len(WORLD.catalogue))
SETTINGS = TrajectoryConfig(steps=6, examples_per_step=4, beta=0.5, lora_lr=2e-2, gate_lr=2e-2)


def new_policy() -> ConditionedPolicy:
    """A policy that is not the base any more."""
    policy = ConditionedPolicy.build(tiny_language_model(), 2, 6, rank=4, hidden=8, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.adapter_parameters():
            if not parameter.any():
                parameter.normal_(0.0, 0.1, generator=generator)
    return policy


def known(rows: int) -> Condition:
    return Condition.of_direction(torch.eye(6)[torch.arange(rows) % 6] * 0.5, latent_dim=2)


def talk(policy: ConditionedPolicy, users: list[int], *, keep: bool, attempt: int = 0) -> list[Dialogue]:
    agent = Recommender(
        WORLD.catalogue, Popularity.fit(HISTORIES), policy, max_new_tokens=8, attempts=1, keep_tokens=keep
    )
    return rollout(
        users,
        agent,
        VIEWERS,
        histories=HISTORIES[users],
        condition=known(len(users)),
        seed=3,
        attempt=attempt,
    )


def row(prompt: list[int], reply: list[int]) -> TokenRow:
    return TokenRow((*prompt, *reply), (False,) * len(prompt) + (True,) * len(reply))


GOOD = [(row([5, 6, 7], [20, 21, 1]), row([5, 6, 7, 8, 9], [22, 1])), (row([9, 5], [23, 20, 21]),)] * 2
BAD = [(row([5, 6], [30, 1]),), (row([8, 8, 8], [31, 32, 1]), row([7], [33]), row([6, 5], [30, 31]))] * 2


def test_tokens_are_those_of_the_moment() -> None:
    policy, users = new_policy(), [0, 5]
    with_tokens, without = (talk(policy, users, keep=keep) for keep in (True, False))
    for dialogue, plain in zip(with_tokens, without, strict=True):
        rows = trajectory_of(dialogue)
        assert len(rows) == len(dialogue.turns)
        for turn, same, found in zip(dialogue.turns, plain.turns, rows, strict=True):
            assert (turn.reply.raw, turn.reply.text) == (same.reply.raw, same.reply.text)
            assert policy.reply_text(found).strip().split("\n")[0].strip().startswith(turn.reply.raw)
            assert found.ids[: found.policy.index(True)] == turn.reply.tokens.prompt  # type: ignore[union-attr]


def test_another_attempt_draws_other_replies_to_the_same_first_words() -> None:
    policy, users = new_policy(), [0, 1]
    first, again, other = (talk(policy, users, keep=False, attempt=a) for a in (0, 0, 1))
    assert first == again
    assert [d.turns[0].user for d in first] == [d.turns[0].user for d in other]
    assert [d.turns[0].reply for d in first] != [d.turns[0].reply for d in other]


def longhand(policy: ConditionedPolicy, rows: tuple[TokenRow, ...], condition: Condition) -> Tensor:
    """Sum of log-probabilities of the policy's tokens, from the logits of every position of one row at a time."""
    total = torch.zeros(())
    gates = policy._multipliers(condition)
    for one in rows:
        with policy._hooks.using(gates):
            logits = policy._adapted(input_ids=torch.tensor([one.ids])).logits[0].float()
        scores = torch.log_softmax(logits, -1)
        for at in range(1, len(one.ids)):
            if one.policy[at]:
                total = total + scores[at - 1, one.ids[at]]
    return total


def test_a_dialogue_scores_its_policy_tokens_and_nothing_else() -> None:
    policy, condition = new_policy(), known(4)
    policy.gate.fit_scale(condition.latent, condition.direction)
    found, mask = turn_log_probs(policy, BAD, condition)
    assert mask.sum(1).tolist() == [1, 3, 1, 3] and found.shape == (4, 3)
    assert not found[~mask].any()
    expected = torch.stack([longhand(policy, d, condition.select([i])) for i, d in enumerate(BAD)])
    torch.testing.assert_close(found.sum(1), expected, rtol=1e-4, atol=1e-4)


def test_tokens_of_the_user_get_exactly_no_gradient() -> None:
    policy, condition = new_policy(), known(1)
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    policy._adapted.get_output_embeddings().register_forward_hook(keep)
    sides = [turn_log_probs(policy, [dialogue], condition) for dialogue in (BAD[1], GOOD[0])]
    chosen, rejected = (TurnLogProbs(score, torch.zeros_like(score), mask) for score, mask in sides)
    multi_turn_dpo_loss(chosen, rejected, beta=0.5).sum().backward()
    touched = sum(int(output.grad.abs().sum(-1).gt(0).sum()) for output in kept if output.grad is not None)
    assert touched == sum(sum(one.policy) for one in (*BAD[1], *GOOD[0]))


def test_pairs_learn_to_prefer_and_start_at_log_two() -> None:
    policy = new_policy()
    base = {name: value.clone() for name, value in policy.language_model.model.state_dict().items()}
    rows: list[Any] = []
    found = train_on_pairs(policy, TrajectoryPairs(GOOD, BAD, known(4)), SETTINGS, seed=0, report=rows.append)
    assert rows == found and len(found) == 6
    assert found[0]["loss"] == pytest.approx(math.log(2), abs=1e-5) and found[0]["margin"] == pytest.approx(
        0, abs=1e-5
    )
    assert found[-1]["margin"] > 0.5 and found[-1]["accuracy"] == 1.0
    after = policy.language_model.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in base.items())


def test_outcomes_learn_without_pairs_and_start_at_half_the_weight() -> None:
    data = LabelledTrajectories([*GOOD, *BAD[:2]], torch.tensor([True] * 4 + [False] * 2), known(6))
    found = train_on_outcomes(
        new_policy(), data, SETTINGS.model_copy(update={"examples_per_step": 6, "steps": 10}), seed=0
    )
    assert found[0]["loss"] == pytest.approx(0.5, abs=1e-5) and found[0]["baseline"] == pytest.approx(
        0, abs=1e-5
    )
    assert found[-1]["margin"] > 0.3 and found[-1]["loss"] < 0.45


@pytest.mark.parametrize("objective", ["pairs", "outcomes"])
def test_the_same_seed_gives_the_same_bits(objective: str) -> None:
    def run() -> list[dict[str, float]]:
        short = SETTINGS.model_copy(update={"steps": 2})
        if objective == "pairs":
            return train_on_pairs(new_policy(), TrajectoryPairs(GOOD, BAD, known(4)), short, seed=1)
        data = LabelledTrajectories([*GOOD, *BAD], torch.arange(8) < 4, known(8))
        return train_on_outcomes(new_policy(), data, short, seed=1)

    first, again = run(), run()
    assert [list(map(repr, step.values())) for step in first] == [
        list(map(repr, step.values())) for step in again
    ]


def test_strangers_answer_each_prompt_with_the_replies_of_another_user() -> None:
    found = mismatched([GOOD[0], BAD[1]])
    assert [r.ids for r in found[0]] == [(5, 6, 7, 31, 32, 1), (5, 6, 7, 8, 9, 33)]
    assert [r.ids for r in found[1]] == [(8, 8, 8, 20, 21, 1), (7, 22, 1), (6, 5, 20, 21, 1)]
    assert [sum(r.policy) for r in found[1]] == [3, 2, 3]
    # Dialogues come by user, three attempts each: reply 10 + n is that of user n // 3.
    by_user = mismatched(
        [(row([user], [10 + 3 * user + attempt]),) for user in range(4) for attempt in range(3)]
    )
    assert all((r.ids[1] - 10) // 3 != r.ids[0] for (r,) in by_user)


def spoken(user: int, stop: StopReason, token: int, *, turns: int = 1) -> Dialogue:
    said = Utterance("a", "a")
    reply = Utterance("b", "b", tokens=GeneratedTokens((1, 2), (token,)))
    turn = Turn(said, ItemCard(0, "T"), reply, Feedback(1, 3.0, said))
    return Dialogue(user, (turn,) * turns, stop)


ACCEPTED, LEFT, FAILED = StopReason.ACCEPTED, StopReason.OUT_OF_PATIENCE, StopReason.MODEL_FAILED


def test_pairs_are_of_one_user_who_both_accepted_and_did_not() -> None:
    attempts = [
        [spoken(4, ACCEPTED, 10), spoken(5, LEFT, 11), spoken(6, ACCEPTED, 12), spoken(7, FAILED, 13)],
        [spoken(4, ACCEPTED, 14), spoken(5, ACCEPTED, 15), spoken(6, ACCEPTED, 16), spoken(7, ACCEPTED, 17)],
        [
            spoken(4, StopReason.MAX_TURNS, 18),
            spoken(5, FAILED, 19),
            *(spoken(u, LEFT, 20, turns=0) for u in (6, 7)),
        ],
    ]
    pairs = pair_trajectories(attempts, known(4), seed=0)
    assert [d[0].ids[-1] for d in pairs.rejected] == [18, 11]
    assert pairs.chosen[0][0].ids[-1] in {10, 14} and pairs.chosen[1][0].ids[-1] == 15
    assert torch.equal(pairs.condition.direction, known(4).direction[:2])
    drawn = {pair_trajectories(attempts, known(4), seed=s).chosen[0][0].ids[-1] for s in range(20)}
    assert drawn == {10, 14}
    labelled = label_trajectories(attempts, known(4))
    assert [d[0].ids[-1] for d in labelled.dialogues] == [10, 14, 18, 11, 15, 12, 16, 17]
    assert labelled.desirable.tolist() == [True, True, False, False, True, True, True, True]
    assert torch.equal(labelled.condition.direction, known(4).direction[[0, 0, 0, 1, 1, 2, 2, 3]])


def test_refuses_what_does_not_fit() -> None:
    same = [spoken(4, ACCEPTED, 10)]
    with pytest.raises(RolloutError, match=r"got {'chosen': 0, 'rejected': 0, 'condition': 0}"):
        pair_trajectories([same, same], known(1), seed=0)
    with pytest.raises(RolloutError, match="2 different lists of users and 1 rows"):
        pair_trajectories([same, [spoken(5, LEFT, 1)]], known(1), seed=0)
    bare = Turn(Utterance("a", "a"), ItemCard(0, "T"), Utterance("b", "b"), same[0].turns[0].feedback)
    with pytest.raises(RolloutError, match="user 4 has 1 of 2"):
        trajectory_of(Dialogue(4, (same[0].turns[0], bare), ACCEPTED))
    with pytest.raises(RolloutError, match="user 9 has 0 of 0"):
        trajectory_of(Dialogue(9, (), LEFT))
    with pytest.raises(RolloutError, match="'dialogues': 4, 'desirable': 1"):
        LabelledTrajectories(GOOD, torch.tensor([True]), known(4))
