"""How a condition drives one LoRA that all users share: every rank of every layer is scaled, row by row.

A LoRA layer adds `B (A x)` to the frozen layer's output; here it adds `B (g * A x)`, where the multiplier g
of shape (r,) belongs to the row's user and comes from a small network of that user's condition. The network
has no bias, so an absent condition (zeros) gives g = 1 exactly: the ungated LoRA is the average user. Since g
depends on the row and not on the weights, users mix freely in one batch and no adapter is ever swapped.

Shape letters: B rows, Z latent size, A direction size, M adapted modules, r LoRA rank.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from persona.errors import ShapeError

START_SPREAD = 4.0
"""Scale of the output layer's first weights; multipliers start about 0.6 times this far from one."""


class RankGate(nn.Module):
    """Multipliers of LoRA ranks: 1 + W2 tanh(W_z z / s_z + W_d d / s_d), without biases.

    The scales s_z and s_d are buffers fitted once from training conditions, so that every training run sees
    inputs of unit root mean square and a saved gate reads raw conditions.

    Args:
        latent_dim: Z, size of the latent; 0 for none.
        direction_dim: A, number of named attributes; 0 for none.
        modules: M, adapted modules.
        rank: r of the LoRA.
        hidden: Width of the hidden layer.
        generator: Draws the initial weights.

    Source: measured in this project (docs/papers.md); the idea of rows with their own LoRA in one product is
    that of Wen and Chaudhuri (2023), "Batched Low-Rank Adaptation of Foundation Models", arXiv 2312.05677.
    """

    latent_scale: Tensor
    direction_scale: Tensor

    def __init__(
        self,
        latent_dim: int,
        direction_dim: int,
        *,
        modules: int,
        rank: int,
        hidden: int,
        generator: torch.Generator,
    ) -> None:
        """Draw weights.

        The output layer does not start at zero, but wide: users pull the LoRA in opposite directions, so with
        multipliers near one their gradients would nearly cancel and little would leave the start.
        """
        super().__init__()
        self.latent_dim, self.direction_dim = latent_dim, direction_dim
        self.modules_gated, self.rank, self.hidden = modules, rank, hidden
        self.from_latent = nn.Parameter(_normal(latent_dim, hidden, generator))
        self.from_direction = nn.Parameter(_normal(direction_dim, hidden, generator))
        self.to_ranks = nn.Parameter(START_SPREAD * _normal(hidden, modules * rank, generator))
        self.register_buffer("latent_scale", torch.zeros(()))
        self.register_buffer("direction_scale", torch.zeros(()))

    def fit_scale(self, latent: Tensor, direction: Tensor) -> None:
        """Take each part's scale from training conditions, unless it is already known.

        The scale is the root mean square over the entries of rows that are not absent. It is fitted once,
        because a change would alter what the trained weights mean; a part that is absent everywhere stays
        unknown.

        Args:
            latent: Shape (N, Z).
            direction: Shape (N, A).
        """
        for scale, values in ((self.latent_scale, latent), (self.direction_scale, direction)):
            present = values[values.ne(0).any(-1)] if values.numel() else values
            if scale == 0 and present.numel():
                scale.copy_(present.double().square().mean().sqrt())

    def forward(self, latent: Tensor, direction: Tensor) -> Tensor:
        """Multipliers of every rank.

        Args:
            latent: Raw latents, zeros where absent. Shape (B, Z).
            direction: Raw directions, zeros where absent. Shape (B, A).

        Returns:
            Shape (M, B, 1, r), float32: exactly 1 in rows where both parts are absent.

        Raises:
            ShapeError: A part has another width than this gate was built for.
        """
        if (latent.shape[-1], direction.shape[-1]) != (self.latent_dim, self.direction_dim):
            raise ShapeError(
                f"The condition must have {self.latent_dim} latent and {self.direction_dim} direction "
                "entries a row; "
                f"got {latent.shape[-1]} and {direction.shape[-1]}. Build it with the sizes that this policy "
                "was built "
                "with."
            )
        inner = _scaled(latent, self.latent_scale) @ self.from_latent
        inner = inner + _scaled(direction, self.direction_scale) @ self.from_direction
        delta = torch.tanh(inner) @ self.to_ranks
        shaped = delta.view(len(delta), self.modules_gated, self.rank).transpose(0, 1)
        return 1.0 + shaped.unsqueeze(2)


def _normal(fan_in: int, fan_out: int, generator: torch.Generator) -> Tensor:
    return torch.randn(fan_in, fan_out, generator=generator) / math.sqrt(max(fan_in, 1))


def _scaled(values: Tensor, scale: Tensor) -> Tensor:
    return values / torch.where(scale > 0, scale, torch.ones_like(scale))


class GateHooks:
    """Applies the current batch's multipliers inside the LoRA layers.

    Args:
        down_projections: The modules `lora_A` in the order of the gate's M axis.
    """

    def __init__(self, down_projections: Sequence[nn.Module]) -> None:
        """Attach one forward hook to every down-projection."""
        self._current: tuple[Tensor, ...] | None = None
        for index, module in enumerate(down_projections):
            module.register_forward_hook(self._hook(index))

    def _hook(self, index: int) -> Callable[[nn.Module, object, Tensor], Tensor]:
        def scale_ranks(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            if self._current is None:
                return output
            multiplier = self._current[index]
            if output.ndim != 3 or len(output) != len(multiplier):
                raise ShapeError(
                    f"The gate must hold one row for each row of the batch; got {len(multiplier)} rows for "
                    "activations "
                    f"of shape {tuple(output.shape)}. Set the condition of the whole batch before the "
                    "forward pass."
                )
            return output * multiplier

        return scale_ranks

    def set(self, multipliers: Tensor | None) -> None:
        """Use these multipliers, of shape (M, B, 1, r), from now on; None ungates every row."""
        self._current = None if multipliers is None else tuple(multipliers.unbind(0))

    @contextmanager
    def using(self, multipliers: Tensor | None) -> Iterator[None]:
        """Use these multipliers inside the block and none after it."""
        self.set(multipliers)
        try:
            yield
        finally:
            self.set(None)
