import pytest
import torch
from torch import Tensor, nn

from persona.errors import ShapeError
from persona.policy import GateHooks, RankGate


def gate(latent_dim: int = 3, direction_dim: int = 2) -> RankGate:
    generator = torch.Generator().manual_seed(0)
    return RankGate(latent_dim, direction_dim, modules=4, rank=5, hidden=6, generator=generator)


def conditions(rows: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 3, generator=generator), torch.randn(rows, 2, generator=generator)


def test_absent_condition_gives_exactly_one() -> None:
    assert torch.equal(gate()(torch.zeros(7, 3), torch.zeros(7, 2)), torch.ones(4, 7, 1, 5))


def test_equals_the_formula_row_by_row() -> None:
    network = gate()
    latent, direction = conditions()
    network.fit_scale(latent, direction)
    found = network(latent, direction)
    assert found.shape == (4, 7, 1, 5)
    for row in range(7):
        z = latent[row] / latent.square().mean().sqrt()
        d = direction[row] / direction.square().mean().sqrt()
        hidden = torch.tanh(z @ network.from_latent + d @ network.from_direction)
        expected = 1 + (hidden @ network.to_ranks).view(4, 5)
        torch.testing.assert_close(found[:, row, 0], expected)


def test_opposite_users_are_gated_symmetrically_about_the_average() -> None:
    network = gate()
    latent, direction = conditions()
    torch.testing.assert_close(
        network(latent, direction) + network(-latent, -direction), torch.full((4, 7, 1, 5), 2.0)
    )


def test_scale_is_the_root_mean_square_of_present_rows_and_fitted_once() -> None:
    network = gate()
    latent = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 3.0, 3.0]])
    network.fit_scale(latent, torch.zeros(3, 2))
    assert network.latent_scale.item() == pytest.approx((27 / 6) ** 0.5)
    assert network.direction_scale.item() == 0
    network.fit_scale(5 * latent, torch.ones(3, 2))
    assert network.latent_scale.item() == pytest.approx((27 / 6) ** 0.5)
    assert network.direction_scale.item() == 1


def test_either_part_may_have_no_entries() -> None:
    latent, direction = conditions()
    nothing = torch.zeros(7, 0)
    assert gate(latent_dim=0)(nothing, direction).shape == (4, 7, 1, 5)
    only_latent = gate(direction_dim=0)
    only_latent.fit_scale(latent, nothing)
    assert only_latent(latent, nothing).shape == (4, 7, 1, 5)


def test_gradient_reaches_every_weight() -> None:
    network = gate()
    network(*conditions()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_wrong_widths_are_refused() -> None:
    with pytest.raises(ShapeError, match="3 latent and 2 direction entries a row; got 2 and 3"):
        gate()(torch.zeros(1, 2), torch.zeros(1, 3))


def test_hooks_scale_each_modules_output_and_then_let_go() -> None:
    modules = [nn.Linear(3, 5, bias=False) for _ in range(2)]
    inputs = torch.ones(4, 6, 3)
    plain = [module(inputs) for module in modules]
    hooks = GateHooks(modules)
    multipliers = torch.rand(2, 4, 1, 5)
    with hooks.using(multipliers):
        for index, module in enumerate(modules):
            torch.testing.assert_close(module(inputs), plain[index] * multipliers[index])
    assert all(torch.equal(module(inputs), before) for module, before in zip(modules, plain, strict=True))


def test_a_batch_of_another_size_is_refused() -> None:
    module = nn.Linear(3, 5)
    hooks = GateHooks([module])
    hooks.set(torch.ones(1, 1, 1, 5))
    with pytest.raises(ShapeError, match=r"got 1 rows for activations of shape \(4, 6, 5\)"):
        module(torch.ones(4, 6, 3))
