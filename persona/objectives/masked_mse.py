"""Regression on several ratings at once, of which each row may lack some."""

import torch
from torch import Tensor

from persona.errors import ShapeError


def masked_squared_error(predicted: Tensor, label: Tensor) -> Tensor:
    """Mean squared error of each row over the labels that it has.

    Args:
        predicted: Shape (B, A), float.
        label: NaN where missing; such entries get no gradient. Shape (B, A), float.

    Returns:
        Shape (B,), in squared units of the labels; 0 for a row without labels.

    Raises:
        ShapeError: The two differ in shape.

    Example:
        >>> masked_squared_error(torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, float("nan")]]))
        tensor([4.])
    """
    if predicted.shape != label.shape:
        raise ShapeError(
            f"`predicted` and `label` must have one shape; got {tuple(predicted.shape)} and "
            f"{tuple(label.shape)}. Use NaN for labels that are missing."
        )
    known = ~label.isnan()
    # A missing label is replaced before the difference, for a gradient through NaN is NaN even where masked.
    error = (predicted - torch.where(known, label, predicted.detach())).square()
    return error.sum(1) / known.sum(1).clamp(min=1)
