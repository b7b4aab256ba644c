"""Guidance of a user encoder by the user of the opposite taste, who would have chosen the other reply each time."""

from torch import Tensor
from torch.nn.functional import cosine_similarity

from persona.errors import ShapeError


def swap_guidance_loss(
    mean: Tensor,
    log_variance: Tensor,
    swapped_mean: Tensor,
    swapped_log_variance: Tensor,
    *,
    variance_weight: float = 0.1,
) -> Tensor:
    """Distance of two beliefs from mirroring each other: opposite means, equal variances.

    loss = (1 + cos(m, m')) / 2 + variance_weight (1 - cos(v, v')) / 2, with m', v' the belief after the same
    comparisons with every choice swapped. It is 0 for an encoder that mirrors exactly, and then teaches nothing; it
    holds encoders that do not to tell users apart by what they chose, against collapse.

    Args:
        mean: Of each user's belief. Shape (B, Z), float.
        log_variance: Logarithms of its variances. Shape (B, Z), float.
        swapped_mean: Of the fictitious opposite user; pass it without gradient, as a fixed sign-post. Shape (B, Z).
        swapped_log_variance: Shape (B, Z).
        variance_weight: Weight of the second term, at least 0.

    Returns:
        Loss of each user, unreduced, in 0..1 + variance_weight. Shape (B,).

    Raises:
        ShapeError: The four do not have one shape (B, Z).

    Example:
        >>> one, up = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.5]])
        >>> swap_guidance_loss(one, up, -one, up), swap_guidance_loss(one, up, one, up)
        (tensor([0.]), tensor([1.]))

    Source: Swap-guided Preference Learning (2026), arXiv 2603.12595; the released code gives the whole the weight
    1e-5 in the loss.
    """
    shapes = {tuple(part.shape) for part in (mean, log_variance, swapped_mean, swapped_log_variance)}
    if len(shapes) != 1 or mean.ndim != 2:
        raise ShapeError(
            f"The beliefs and their opposites must have one shape (B, Z); got {sorted(shapes)}. Encode the same users "
            "twice, once with `pairs.swapped`."
        )
    apart = 0.5 * (1.0 + cosine_similarity(mean, swapped_mean, dim=-1))
    alike = 0.5 * (1.0 - cosine_similarity(log_variance, swapped_log_variance, dim=-1))
    return apart + variance_weight * alike
