import math

import numpy as np
import pytest
import torch

from persona.errors import DataError, ShapeError
from persona.profiles import (
    combine_directions,
    decorrelation,
    direction_as_text,
    direction_from_sliders,
    direction_reward,
)
from persona.profiles.direction import directions_between
from persona.rewards import ATTRIBUTES


def test_sliders_give_a_unit_vector_in_the_order_of_the_attributes() -> None:
    direction = direction_from_sliders({"enthusiasm": 0.3, "brevity": -0.4})
    torch.testing.assert_close(direction, torch.tensor([-0.8, 0.0, 0.0, 0.0, 0.0, 0.6]))


@pytest.mark.parametrize("unit", [True, False])
def test_zero_sliders_are_the_average_user(unit: bool) -> None:
    for sliders in ({}, dict.fromkeys(ATTRIBUTES, 0.0)):
        assert torch.equal(direction_from_sliders(sliders, unit=unit), torch.zeros(len(ATTRIBUTES)))


def test_without_unit_length_a_half_slider_asks_for_half() -> None:
    assert direction_from_sliders({"warmth": 0.5}, unit=False)[1].item() == 0.5
    both = direction_from_sliders({"warmth": 1.0, "reasons": 1.0}, unit=False)
    assert both.norm().item() == pytest.approx(1.0)


@pytest.mark.parametrize("value", [1.01, -2.0, math.nan, math.inf])
def test_sliders_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(DataError, match=f"Slider `warmth` must lie between -1 and 1; got {value}"):
        direction_from_sliders({"warmth": value})


def test_an_unknown_slider_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"got `brevty`\. Did you mean `brevity`\?"):
        direction_from_sliders({"brevty": 0.5})


def test_directions_add_up_and_cancel_out() -> None:
    axes = torch.eye(len(ATTRIBUTES))[:2]
    torch.testing.assert_close(
        combine_directions(axes, torch.tensor([3.0, -4.0]))[:2], torch.tensor([0.6, -0.8])
    )
    opposite = torch.stack([axes[0], -axes[0]])
    assert not combine_directions(opposite, torch.ones(2)).any()
    with pytest.raises(ShapeError, match=r"got \(2, 6\) and \(3,\)"):
        combine_directions(axes, torch.ones(3))


def test_a_fan_turns_evenly_from_one_direction_to_the_other() -> None:
    start, end = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([-1.0, 1.0, 0.0])
    fan = directions_between(start, end, torch.tensor([0.0, 1 / 3, 2 / 3, 1.0]))
    angles = torch.tensor([0.0, 45.0, 90.0, 135.0]).deg2rad()
    torch.testing.assert_close(fan, torch.stack([angles.cos(), angles.sin(), torch.zeros(4)], 1))
    same = directions_between(start, 3 * start, torch.tensor([0.0, 0.7]))
    torch.testing.assert_close(same, torch.tensor([[1.0, 0.0, 0.0]]).expand(2, 3))


def test_a_fan_needs_two_directions_with_a_shorter_way() -> None:
    axis, share = torch.tensor([1.0, 0.0]), torch.zeros(1)
    with pytest.raises(DataError, match=r"lengths 1 and 2 with cosine -1\."):
        directions_between(axis, -2 * axis, share)
    with pytest.raises(DataError, match=r"lengths 0 and 1 with cosine 0\."):
        directions_between(0 * axis, axis, share)
    with pytest.raises(ShapeError, match=r"got \(2,\) and \(3,\)"):
        directions_between(axis, torch.ones(3), share)


def test_reward_is_the_product_with_the_direction() -> None:
    attributes = torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.0]])
    direction = torch.tensor([[0.6, 0.8], [0.0, 0.0]])
    expected = torch.tensor([[0.6 + 1.6, -0.8, 1.8], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(direction_reward(attributes, direction), expected)
    with pytest.raises(ShapeError, match=r"got \(3, 2\) and \(1, 3\)"):
        direction_reward(attributes, torch.zeros(1, 3))


def test_decorrelation_removes_correlation_and_keeps_names() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(4000, 3)) @ np.array([[1.0, 0.5, 0.0], [0.0, 0.8, 0.3], [0.0, 0.0, 1.0]])
    attributes = torch.from_numpy((base - base.mean(0)) / base.std(0)).float()
    white = attributes @ decorrelation(attributes)
    torch.testing.assert_close(torch.cov(white.T, correction=0), torch.eye(3), atol=1e-4, rtol=0.0)
    own = [float(torch.corrcoef(torch.stack([attributes[:, a], white[:, a]]))[0, 1]) for a in range(3)]
    assert min(own) > 0.9


def test_decorrelation_does_not_blow_up_a_repeated_attribute() -> None:
    column = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    assert decorrelation(torch.cat([column, column], dim=1)).abs().max() < 4.0
    with pytest.raises(DataError, match="at least 2 replies; got 1"):
        decorrelation(torch.zeros(1, 2))


def test_text_names_weights_in_hundredths_and_leaves_out_zeros() -> None:
    text = direction_as_text(direction_from_sliders({"reasons": -0.3, "curiosity": 0.4}))
    assert text is not None
    assert "- 60 * reasons + 80 * curiosity" in text
    assert "warmth" not in text
    assert direction_as_text(torch.zeros(len(ATTRIBUTES))) is None
    with pytest.raises(ShapeError, match=r"shape \(6,\).*got \(2,\)"):
        direction_as_text(torch.zeros(2))
