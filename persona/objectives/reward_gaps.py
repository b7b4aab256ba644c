"""Weights over objectives learned from what set the preferred reply apart from the other."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from persona.errors import DataError, ShapeError


def reward_gap_loss(log_weights: Tensor, gaps: Tensor, scale: Tensor, *, concentration: float) -> Tensor:
    """Bradley-Terry surprise at each choice under weighted score gaps, plus a Dirichlet prior on the weights.

    -log sigmoid(scale * sum_k w_k gap_k) - (concentration - 1) * mean_k log w_k. Only differences of scores
    enter, so a level that all replies to a prompt share has no effect. The second term is the log-density of
    a symmetric Dirichlet up to a constant, for one objective: 1 is no prior, more pulls to even weights.

    Args:
        log_weights: Logarithms of the weights w given to the objectives at each prompt. Shape (B, K).
        gaps: Scores of the chosen reply minus those of the rejected one. Shape (B, K).
        scale: Log-odds of one unit of weighted gap, positive. Shape () or (B,).
        concentration: Of the prior, at least 1.

    Returns:
        Shape (B,), in nats, unreduced.

    Raises:
        ShapeError: `log_weights` and `gaps` differ in shape.
        DataError: A concentration below 1.

    Example:
        >>> even = torch.full((1, 2), 0.5).log()
        >>> loss = reward_gap_loss(even, torch.tensor([[3.0, -1.0]]), torch.tensor(1.0), concentration=1.0)
        >>> round(loss.item(), 4)  # log(1 + exp(-(0.5 * 3 - 0.5 * 1)))
        0.3133

    Source: gaps and gating as in Wang et al. (2024), "Interpretable Preferences via Multi-Objective Reward
    Modeling and Mixture-of-Experts" (ArmoRM), section 3; the prior is ours.
    """
    if log_weights.shape != gaps.shape:
        raise ShapeError(
            "`log_weights` and `gaps` must have one shape (B, K); got "
            f"{tuple(log_weights.shape)} and {tuple(gaps.shape)}. Pass one gap for each objective."
        )
    if not concentration >= 1:
        raise DataError(f"`concentration` must be at least 1; got {concentration}. Use 1 for no prior.")
    odds = scale * (log_weights.exp() * gaps).sum(-1)
    return -logsigmoid(odds) - (concentration - 1.0) * log_weights.mean(-1)
