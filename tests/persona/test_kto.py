"""Kahneman-Tversky optimisation: the formula, its bounds, its baseline, and whole dialogues."""

import math

import pytest
import torch
from torch import Tensor

from persona.errors import DataError, ShapeError
from persona.objectives import KtoWeights, TurnLogProbs, kto_baseline, kto_loss, multi_turn_kto_loss
from persona.policy.language_model import TokenRow
from persona.policy.scoring import policy_log_probs
from tests.helpers.tiny_models import tiny_llama, tiny_tokenizer

POLICY, REFERENCE = torch.tensor([-3.0, -5.0, -2.0]), torch.tensor([-5.0, -4.0, -2.0])
GOOD = torch.tensor([True, False, False])


def test_is_the_formula() -> None:
    loss = kto_loss(POLICY, REFERENCE, GOOD, torch.tensor(0.5), beta=0.4, weights=KtoWeights(2.0, 3.0))
    by_hand = [
        2.0 * (1 - 1 / (1 + math.exp(-0.4 * (2.0 - 0.5)))),
        3.0 * (1 - 1 / (1 + math.exp(-0.4 * (0.5 + 1.0)))),
        3.0 * (1 - 1 / (1 + math.exp(-0.4 * (0.5 - 0.0)))),
    ]
    torch.testing.assert_close(loss, torch.tensor(by_hand))


def test_gradient_raises_the_good_lowers_the_bad_and_spares_the_baseline() -> None:
    policy = POLICY.clone().requires_grad_()
    baseline = torch.tensor(0.5, requires_grad=True)
    kto_loss(policy, REFERENCE, GOOD, baseline, beta=0.4).sum().backward()
    assert policy.grad is not None and policy.grad.sign().tolist() == [-1, 1, 1]
    assert baseline.grad is None


def test_the_hopeless_and_the_safe_have_no_gradient() -> None:
    policy = torch.tensor([-1000.0, 1000.0]).requires_grad_()
    loss = kto_loss(policy, torch.zeros(2), torch.tensor([True, True]), torch.tensor(0.0), beta=1.0)
    loss.sum().backward()
    assert loss.tolist() == [1.0, 0.0]
    assert policy.grad is not None and not policy.grad.any()


def test_the_baseline_is_the_mean_log_ratio_and_never_negative() -> None:
    policy = torch.tensor([1.0, 4.0], requires_grad=True)
    found = kto_baseline(policy, torch.tensor([0.0, 1.0]))
    assert found.item() == 2.0 and not found.requires_grad
    assert kto_baseline(torch.tensor([-3.0]), torch.tensor([0.0])).item() == 0.0


def test_a_dialogue_counts_the_sum_of_its_own_turns() -> None:
    turns = TurnLogProbs(
        torch.tensor([[-1.0, -2.0], [-5.0, math.nan]]),
        torch.tensor([[-2.0, -3.0], [-4.0, math.nan]]),
        torch.tensor([[True, True], [True, False]]),
    )
    good = torch.tensor([True, False])
    expected = kto_loss(POLICY[:2], REFERENCE[:2], good, torch.tensor(0.2), beta=0.3)
    torch.testing.assert_close(multi_turn_kto_loss(turns, good, torch.tensor(0.2), beta=0.3), expected)


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"got \[\(3,\), \(3,\), \(1,\)\]"):
        kto_loss(POLICY, REFERENCE, GOOD[:1], torch.tensor(0.0), beta=0.1)
    with pytest.raises(ShapeError, match=r"and \(2,\)"):
        kto_loss(POLICY, REFERENCE, GOOD, torch.zeros(2), beta=0.1)
    with pytest.raises(DataError, match=r"got 0.0 and \(1.0, 1.0\)"):
        kto_loss(POLICY, REFERENCE, GOOD, torch.tensor(0.0), beta=0.0)
    with pytest.raises(DataError, match=r"\(1.0, -1.0\)"):
        kto_loss(POLICY, REFERENCE, GOOD, torch.tensor(0.0), beta=0.1, weights=KtoWeights(1.0, -1.0))
    with pytest.raises(ShapeError, match=r"got \(0,\) and \(0,\)"):
        kto_baseline(torch.zeros(0), torch.zeros(0))


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
def test_agrees_with_the_trainer_of_trl(tmp_path: object) -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    tokenizer = tiny_tokenizer()
    model, reference = (tiny_llama(len(tokenizer), seed=seed) for seed in (0, 1))
    texts = [
        ("What film?", " You may like this.", True),
        ("yes", " I would watch something short.", False),
        ("no", " warm and slow", True),
    ]
    rows = [dict(zip(("prompt", "completion", "label"), text, strict=True)) for text in texts]
    settings = trl.KTOConfig(
        output_dir=str(tmp_path),
        beta=0.3,
        desirable_weight=1.5,
        undesirable_weight=2.0,
        per_device_train_batch_size=3,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    trainer = trl.KTOTrainer(
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
                (*e["prompt_ids"], *e[f"{name}_ids"]),
                (False,) * len(e["prompt_ids"]) + (True,) * len(e[f"{name}_ids"]),
            )
            for e in examples
        ]
        return policy_log_probs(model if judge == "policy" else reference, found).sum(1)

    labels = torch.tensor([bool(e["label"]) for e in examples])
    baseline = kto_baseline(score("policy", "KL_completion"), score("reference", "KL_completion"))
    ours = kto_loss(
        score("policy", "completion"),
        score("reference", "completion"),
        labels,
        baseline,
        beta=0.3,
        weights=KtoWeights(1.5, 2.0),
    )
    torch.testing.assert_close(ours.mean(), theirs, rtol=0, atol=1e-6)
