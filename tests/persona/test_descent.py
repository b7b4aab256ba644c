import pytest
import torch
from torch import Tensor, nn

from persona.recipes.descent import descend


class Point(nn.Module):
    def __init__(self, *start: float) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.fixed = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def slope(self) -> Tensor:
        """Slope 1 in every coordinate: Adam then goes its full step."""
        return self.at.sum()


def test_figures_are_numbered_and_tell_the_loss_before_the_step() -> None:
    point = Point(2.0)
    rows = list(descend(point, point.slope, steps=2, learning_rate=0.1, weight_decay=0.0, name="user_step"))
    assert [row["user_step"] for row in rows] == [1, 2]
    # A constant slope moves Adam by the step size, less the 1e-8 that keeps it from dividing by zero.
    assert [row["loss"] for row in rows] == pytest.approx([2.0, 1.9], abs=1e-7)
    assert point.at.item() == pytest.approx(1.8, abs=1e-7)


def test_nothing_happens_before_the_first_step_is_asked_for_nor_without_steps() -> None:
    point = Point(2.0)
    assert list(descend(point, point.slope, steps=0, learning_rate=0.1, weight_decay=0.0)) == []
    training = descend(point, point.slope, steps=5, learning_rate=0.1, weight_decay=0.0)
    assert point.at.item() == 2.0
    next(training)
    assert point.at.item() == pytest.approx(1.9)


def test_weights_decay_apart_from_the_gradient() -> None:
    point = Point(2.0)
    list(descend(point, point.slope, steps=1, learning_rate=0.1, weight_decay=0.5))
    assert point.at.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1, abs=1e-7)
    assert point.fixed.item() == 1.0  # no gradient, so no step at all


def test_warm_up_takes_shares_of_the_full_step() -> None:
    point = Point(0.0)
    places = [
        point.at.item()
        for _ in descend(point, point.slope, steps=5, learning_rate=0.4, weight_decay=0.0, warmup_steps=4)
    ]
    assert places == pytest.approx([-0.1, -0.3, -0.6, -1.0, -1.4], abs=1e-6)


def test_gradients_are_cut_to_the_norm_they_may_have() -> None:
    point = Point(0.0, 0.0)
    weights = torch.tensor([30.0, 40.0], dtype=torch.float64)
    for _ in descend(
        point, lambda: (point.at * weights).sum(), steps=1, learning_rate=0.1, weight_decay=0.0, clip_norm=5.0
    ):
        assert point.at.grad is not None
        assert point.at.grad.tolist() == pytest.approx([3.0, 4.0], rel=1e-5)
    for _ in descend(point, lambda: (point.at * weights).sum(), steps=1, learning_rate=0.1, weight_decay=0.0):
        assert point.at.grad is not None
        assert point.at.grad.tolist() == weights.tolist()
