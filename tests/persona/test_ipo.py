import pytest
import torch
from torch import Tensor

from persona.errors import DataError, ShapeError
from persona.objectives.dpo import dpo_loss
from persona.objectives.ipo import ipo_loss, mean_log_probs
from persona.policy.language_model import TokenRow
from persona.policy.scoring import policy_log_probs
from tests.helpers.tiny_models import tiny_llama, tiny_tokenizer


def ipo_of(log_probs: list[Tensor], beta: float) -> Tensor:
    policy_chosen, policy_rejected, ref_chosen, ref_rejected = log_probs
    return ipo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)


def test_no_margin_costs_the_target_squared() -> None:
    same = torch.tensor([-3.0, -7.0])
    torch.testing.assert_close(ipo_loss(same, same, same, same, 0.01), torch.full((2,), 50.0**2))


def test_equals_its_arithmetic_on_both_sides_of_the_target() -> None:
    sides = [torch.tensor(x) for x in ([-3.0, 0.0], [-6.0, -9.0], [-4.0, -2.0], [-5.0, -1.0])]
    expected = [(((-3 + 4) - (-6 + 5)) - 2.5) ** 2, (((0 + 2) - (-9 + 1)) - 2.5) ** 2]
    torch.testing.assert_close(ipo_of(sides, 0.2), torch.tensor(expected))


def test_a_margin_past_its_target_is_drawn_back_where_dpo_still_pushes() -> None:
    for loss, sign in ((ipo_loss, 1.0), (dpo_loss, -1.0)):
        chosen = torch.tensor([30.0], requires_grad=True)
        nothing = torch.zeros(1)
        loss(chosen, nothing, nothing, nothing, 0.1).sum().backward()
        assert chosen.grad is not None and sign * chosen.grad.item() > 0


def test_mixed_labels_settle_at_the_share_of_wins() -> None:
    grid = torch.linspace(-6.0, 6.0, 2401, dtype=torch.float64)
    nothing = torch.zeros_like(grid)
    cost = 0.8 * ipo_loss(grid, nothing, nothing, nothing, 0.1) + 0.2 * ipo_loss(
        nothing, grid, nothing, nothing, 0.1
    )
    assert grid[cost.argmin()].item() == pytest.approx((2 * 0.8 - 1) / (2 * 0.1), abs=0.005)


def test_lengths_turn_sums_into_means() -> None:
    torch.testing.assert_close(
        mean_log_probs(torch.tensor([-6.0, -6.0]), torch.tensor([2, 3])), torch.tensor([-3.0, -2.0])
    )


def test_inputs_must_fit() -> None:
    one, two = torch.zeros(1), torch.zeros(2)
    with pytest.raises(ShapeError, match=r"one shape; got \[\(1,\), \(2,\), \(1,\), \(1,\)\]"):
        ipo_loss(one, two, one, one, 0.1)
    with pytest.raises(DataError, match="`beta` must be positive; got 0"):
        ipo_loss(one, one, one, one, 0.0)
    with pytest.raises(ShapeError, match=r"got \(2,\) and \(1,\)"):
        mean_log_probs(two, torch.ones(1))
    with pytest.raises(DataError, match="at least 1; got 0"):
        mean_log_probs(two, torch.tensor([3, 0]))


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
def test_the_averaged_form_agrees_with_the_trainer_of_trl(tmp_path: object) -> None:
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
        loss_type="ipo",
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
    theirs = trainer.compute_loss(trainer.model.train(), trainer.data_collator(examples))

    def score(judge: str, name: str) -> Tensor:
        found = [
            TokenRow(
                (*example["prompt_ids"], *example[f"{name}_ids"]),
                (False,) * len(example["prompt_ids"]) + (True,) * len(example[f"{name}_ids"]),
            )
            for example in examples
        ]
        summed = policy_log_probs(model if judge == "policy" else reference, found).sum(1)
        return mean_log_probs(summed, torch.tensor([len(example[f"{name}_ids"]) for example in examples]))

    scores = [score(judge, name) for judge in ("policy", "reference") for name in ("chosen", "rejected")]
    torch.testing.assert_close(ipo_of(scores, 0.3).mean(), theirs)
