"""Gradient descent as MiCRo and PRO are trained: AdamW, a step at a time, so that callers can look between steps."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn


def descend(
    module: nn.Module,
    loss: Callable[[], Tensor],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    warmup_steps: int = 1,
    clip_norm: float | None = None,
    name: str = "step",
) -> Iterator[dict[str, float]]:
    """Train `module` in place by AdamW, giving the figures of each optimiser step after it.

    Step t of w warm-up steps goes min(1, t / w) of the full length.

    Args:
        module: Whose parameters move; those without a gradient stay.
        loss: Draws a batch and scores it. Shape ().
        steps: How many; 0 gives nothing.
        learning_rate: Full step size.
        weight_decay: Decoupled decay of every parameter.
        warmup_steps: Steps until the full step size, at least 1.
        clip_norm: Largest norm of a gradient; None leaves gradients as they are.
        name: What the step's number, from 1, is called.

    Yields:
        `name` and `loss`, the latter before the step.

    Source: Loshchilov & Hutter (2019), "Decoupled Weight Decay Regularization".
    """
    optimiser = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / warmup_steps))
    for step in range(1, steps + 1):
        value = loss()
        optimiser.zero_grad()
        value.backward()
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(module.parameters(), clip_norm)
        optimiser.step()
        schedule.step()
        yield {name: step, "loss": value.item()}
