import math

import pytest
import torch
from torch import Tensor

from persona.errors import ShapeError
from persona.objectives import TurnLogProbs, dpo_loss, multi_turn_dpo_loss, sft_loss
from persona.policy.language_model import TokenRow
from persona.policy.scoring import policy_log_probs
from tests.helpers.tiny_models import tiny_llama, tiny_tokenizer


def side(policy: list[list[float]], reference: list[list[float]], mask: list[list[bool]]) -> TurnLogProbs:
    return TurnLogProbs(torch.tensor(policy), torch.tensor(reference), torch.tensor(mask))


def dpo_of(log_probs: list[Tensor], beta: float) -> Tensor:
    policy_chosen, policy_rejected, ref_chosen, ref_rejected = log_probs
    return dpo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)


def test_no_difference_costs_log_two() -> None:
    same = torch.tensor([-3.0, -7.0])
    torch.testing.assert_close(dpo_loss(same, same, same, same, 0.3), torch.full((2,), math.log(2)))


def test_equals_the_log_sigmoid_of_the_reward_difference() -> None:
    loss = dpo_of([torch.tensor([x]) for x in (-3.0, -6.0, -4.0, -5.0)], 0.25)
    margin = 0.25 * ((-3 + 4) - (-6 + 5))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-margin)))


def test_large_margins_stay_finite() -> None:
    loss = dpo_of([torch.tensor([x]) for x in (-2000.0, 0.0, 0.0, 0.0)], 1.0)
    assert loss.item() == 2000.0


def test_gradient_is_beta_times_the_probability_of_the_wrong_choice() -> None:
    values = [torch.tensor([x], requires_grad=True) for x in (-3.0, -6.0, -4.0, -5.0)]
    dpo_of(values, 0.5).sum().backward()
    wrong = 1 / (1 + math.exp(0.5 * 2))
    gradients = [value.grad.item() for value in values if value.grad is not None]
    assert gradients == pytest.approx([-0.5 * wrong, 0.5 * wrong, 0.5 * wrong, -0.5 * wrong])


def test_shapes_must_agree() -> None:
    one, two = torch.zeros(1), torch.zeros(2)
    with pytest.raises(ShapeError, match=r"one shape; got \[\(1,\), \(1,\), \(2,\), \(1,\)\]"):
        dpo_loss(one, one, two, one, 0.1)


def test_one_turn_is_plain_dpo() -> None:
    chosen = side([[-3.0], [-1.0]], [[-4.0], [-1.5]], [[True], [True]])
    rejected = side([[-6.0], [-2.0]], [[-5.0], [-1.0]], [[True], [True]])
    expected = dpo_loss(
        chosen.policy[:, 0], rejected.policy[:, 0], chosen.reference[:, 0], rejected.reference[:, 0], 0.1
    )
    assert torch.equal(multi_turn_dpo_loss(chosen, rejected, beta=0.1), expected)


def test_turns_add_up_and_sides_may_differ_in_length() -> None:
    chosen = side([[-3.0, -2.0]], [[-4.0, -2.5]], [[True, True]])
    rejected = side([[-6.0, -1.0, -9.0]], [[-5.0, -1.0, -3.0]], [[True, True, False]])
    margin = 0.2 * ((-3 + 4) + (-2 + 2.5) - ((-6 + 5) + (-1 + 1)))
    loss = multi_turn_dpo_loss(chosen, rejected, beta=0.2)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-margin)))


def test_masked_turns_are_not_read_and_get_no_gradient() -> None:
    chosen = side([[-3.0, math.nan]], [[-4.0, math.inf]], [[True, False]])
    chosen.policy.requires_grad_(True)
    rejected = side([[-6.0]], [[-5.0]], [[True]])
    loss = multi_turn_dpo_loss(chosen, rejected, beta=1.0)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))
    loss.sum().backward()
    assert chosen.policy.grad is not None and chosen.policy.grad[0, 1] == 0


def test_turns_and_mask_must_agree() -> None:
    good = side([[-3.0]], [[-4.0]], [[True]])
    bad = side([[-3.0]], [[-4.0]], [[True, False]])
    with pytest.raises(ShapeError, match=r"\(B, H\); got \[\(1, 1\), \(1, 1\), \(1, 2\)\]"):
        multi_turn_dpo_loss(good, bad, beta=0.1)
    twice = side([[-3.0], [-3.0]], [[-4.0], [-4.0]], [[True], [True]])
    with pytest.raises(ShapeError, match=r"got \[\(1,\), \(2,\), \(1,\), \(2,\)\]"):
        multi_turn_dpo_loss(good, twice, beta=0.1)


def test_sft_is_the_mean_over_policy_tokens() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, -6.0], [-5.0, math.nan, math.nan], [1.0, 1.0, 1.0]])
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    torch.testing.assert_close(sft_loss(log_probs, mask), torch.tensor([3.0, 5.0, 0.0]))
    with pytest.raises(ShapeError, match=r"got \(3, 3\) and \(3, 2\)"):
        sft_loss(log_probs, mask[:, :2])


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
def test_agrees_with_the_trainer_of_trl(tmp_path: object) -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    tokenizer = tiny_tokenizer()
    model, reference = (tiny_llama(len(tokenizer), seed=seed) for seed in (0, 1))
    texts = [
        ("What film?", " You may like this.", " no"),
        ("yes", " I would watch something short.", " warm and slow"),
    ]
    rows = [dict(zip(("prompt", "chosen", "rejected"), text, strict=True)) for text in texts]
    settings = trl.DPOConfig(
        output_dir=str(tmp_path),
        beta=0.3,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    trainer = trl.DPOTrainer(
        model,
        reference,
        args=settings,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    examples = list(trainer.train_dataset)
    batch = trainer.data_collator(examples)
    theirs = trainer.compute_loss(trainer.model.train(), batch)

    def score(judge: str, name: str) -> Tensor:
        found = [
            TokenRow(
                (*example["prompt_ids"], *example[f"{name}_ids"]),
                (False,) * len(example["prompt_ids"]) + (True,) * len(example[f"{name}_ids"]),
            )
            for example in examples
        ]
        return policy_log_probs(model if judge == "policy" else reference, found).sum(1)

    scores = [score(judge, name) for judge in ("policy", "reference") for name in ("chosen", "rejected")]
    torch.testing.assert_close(dpo_of(scores, 0.3).mean(), theirs)
