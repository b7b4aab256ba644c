import math

import pytest
import torch

from persona.errors import ShapeError
from persona.objectives.swap_guidance import swap_guidance_loss


def test_it_is_the_arithmetic_of_two_cosines() -> None:
    mean, swapped = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, -3.0]])  # at a right angle
    spread, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])  # at half of one
    got = swap_guidance_loss(mean, spread, swapped, other, variance_weight=0.2)
    assert got.item() == pytest.approx(0.5 * (1 + 0) + 0.2 * 0.5 * (1 - math.cos(math.pi / 4)))


def test_a_mirrored_belief_costs_nothing_and_an_equal_one_all() -> None:
    mean, spread = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), -torch.ones(6, 3)
    torch.testing.assert_close(swap_guidance_loss(mean, spread, -2.0 * mean, spread), torch.zeros(6))
    torch.testing.assert_close(swap_guidance_loss(mean, spread, mean, -spread), torch.full((6,), 1.1))


def test_its_gradient_turns_the_mean_away_from_the_opposite_user() -> None:
    mean = torch.tensor([[1.0, 0.0]], requires_grad=True)
    opposite = torch.tensor([[0.6, 0.8]])
    swap_guidance_loss(mean, torch.ones(1, 2), opposite, torch.ones(1, 2)).sum().backward()
    assert mean.grad is not None
    assert (mean.grad @ opposite[0]).item() > 0  # descent lowers the cosine


def test_shapes_must_agree() -> None:
    with pytest.raises(ShapeError, match=r"got \[\(2, 3\), \(2, 4\)\]"):
        swap_guidance_loss(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 4), torch.ones(2, 3))
