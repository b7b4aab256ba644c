"""PRO: weights over named objectives that follow the prompt, and a user's own log-weights beside them.

P(chosen over rejected | x, u) = sigmoid(scale * sum_k w_k(x, u) gap_k), with gap_k the difference of the
replies' scores on objective k and w(x, u) = softmax(g(x) + h_u). The adapter g knows what a prompt asks for;
h_u is what the user adds to it, zero for the average user and normally distributed among users.

The first K columns of the features are objective scores of the reply, by any scorer; the last `prompt_dim`
describe the prompt; there is nothing between. Weights are never negative: where users may dislike an objective,
give its negated scores as one more.

Source: Liu et al. (2025), "PRO: Preference Orchestrator", arXiv 2511.10656, for the adapter; the user is ours.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, logsigmoid

from persona.artefacts import load_artefact, save_artefact
from persona.data.comparisons import ComparisonTable
from persona.errors import DataError, ShapeError
from persona.profiles.kinds import belief_over_kinds, gaussian_belief, log_weight_points
from persona.profiles.laplace import predictive_probability
from persona.profiles.tilted_weights import read_lifted, tilted_sums
from persona.types import Posterior, ReplyPairs

SURE = 0.95
"""A weight above this counts as all the weight, in `describe_weights`."""

_BINS = 10


class PromptWeights(nn.Module):
    """Adapter and users' tilts; lifted features are a reply's K standardised scores, then K log-weights g(x).

    Args:
        n_objectives: Number K of objectives, at least 2.
        prompt_dim: Columns that describe the prompt; 0 gives the same weights to all prompts.
        hidden: Units of the adapter's hidden layer, beside its linear part; 0 leaves it linear.
        points: Number S of points that stand for possible users.
        seed: Draws the adapter's start and the points.

    Attributes:
        log_scale: Logarithm of the log-odds of one unit of weighted gap. Shape ().
        log_spread: Logarithm of the deviation of log-weights among users. Shape ().
        score_mean: Of each objective over training replies. Shape (K,).
        score_deviation: The same, positive. Shape (K,).
    """

    score_mean: Tensor
    score_deviation: Tensor
    points: Tensor

    def __init__(
        self, n_objectives: int, *, prompt_dim: int = 0, hidden: int = 32, points: int = 1024, seed: int = 0
    ) -> None:
        """Start with even weights at every prompt."""
        super().__init__()
        if n_objectives < 2 or min(prompt_dim, hidden) < 0:
            raise ShapeError(
                "`n_objectives` must be at least 2, `prompt_dim` and `hidden` at least 0; got "
                f"{n_objectives}, {prompt_dim} and {hidden}. Choose sizes in range."
            )
        rng = torch.Generator().manual_seed(seed)
        inner = torch.randn(hidden, prompt_dim, generator=rng) / max(prompt_dim, 1) ** 0.5
        self.inner = nn.Parameter(inner)
        self.outer = nn.Parameter(torch.zeros(n_objectives, hidden))
        self.linear = nn.Parameter(torch.zeros(n_objectives, prompt_dim))
        self.bias = nn.Parameter(torch.zeros(n_objectives))
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.log_spread = nn.Parameter(torch.zeros(()))
        self.register_buffer("score_mean", torch.zeros(n_objectives))
        self.register_buffer("score_deviation", torch.ones(n_objectives))
        self.register_buffer("points", log_weight_points(n_objectives, points, seed=seed))

    @property
    def n_objectives(self) -> int:
        """Number K of objectives."""
        return len(self.bias)

    @property
    def prompt_dim(self) -> int:
        """Columns that describe the prompt."""
        return self.linear.shape[1]

    @property
    def latent_dim(self) -> int:
        """One log-weight for each objective."""
        return self.n_objectives

    def log_weights(self, prompt: Tensor) -> Tensor:
        """The average user's log-weights (..., K) at prompts given by their features (..., E)."""
        logits = self.bias + prompt @ self.linear.T + torch.tanh(prompt @ self.inner.T) @ self.outer.T
        return log_softmax(logits, dim=-1)

    def lift(self, features: Tensor) -> Tensor:
        """Standardised scores of each reply, then the adapter's log-weights for its prompt.

        Args:
            features: K objective scores, then the prompt's features. Shape (..., K + prompt_dim).

        Returns:
            Shape (..., 2 K).

        Raises:
            ShapeError: Another number of columns.
        """
        k = self.n_objectives
        if features.shape[-1] != k + self.prompt_dim:
            raise ShapeError(
                f"`features` must have {k} objective scores and {self.prompt_dim} columns of the prompt; got "
                f"{features.shape[-1]} columns. Leave out everything else."
            )
        scores = (features[..., :k] - self.score_mean) / self.score_deviation
        return torch.cat([scores, self.log_weights(features[..., k:])], dim=-1)

    def read(self, pairs: ReplyPairs) -> tuple[Tensor, Tensor]:
        """Score gaps of each pair and the adapter's log-weights there; each (B, P, K).

        Raises:
            ShapeError: Pairs that were not built from lifted features.
        """
        return read_lifted(pairs, self.n_objectives)

    def log_likelihood(self, pairs: ReplyPairs) -> Tensor:
        """Log-probability of each choice under each possible user, differentiable; shape (B, P, S)."""
        gaps, log_weights = self.read(pairs)
        total, weight = tilted_sums(gaps, log_weights, self.log_spread.exp() * self.points)
        return logsigmoid(self.log_scale.exp() * total / weight)

    def encode(self, pairs: ReplyPairs) -> Posterior:
        """Gaussian belief about each user's log-weights h, with the exact posterior's mean and covariance.

        Args:
            pairs: Of B users, with lifted features (B, P, 2 K).

        Returns:
            Mean (B, K), which sums to zero as only ratios of weights matter, and covariance (B, K, K).

        Raises:
            ShapeError: Pairs that were not built from lifted features.
        """
        even = self.points.new_full((len(self.points),), 1.0 / len(self.points)).log()
        return gaussian_belief(
            belief_over_kinds(self.log_likelihood, even, pairs), self.log_spread.exp() * self.points
        )

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
        """Probability that each user prefers the first of two replies.

        The log-odds are taken as linear in h around its mean, so the belief's covariance gives their variance.

        Args:
            posterior: Of B users.
            asked: T pairs of each user, with lifted features (B, T, 2 K).

        Returns:
            Shape (B, T), in 0..1.

        Raises:
            ShapeError: Pairs that were not built from lifted features.
        """
        gaps, log_weights = self.read(asked)
        weights = torch.softmax(log_weights + posterior.mean[:, None], dim=-1)
        gain = (weights * gaps).sum(-1, keepdim=True)
        slope = self.log_scale.exp() * weights * (gaps - gain)
        variance = torch.einsum("btk,bkl,btl->bt", slope, posterior.covariance, slope)
        return predictive_probability(self.log_scale.exp() * gain[..., 0], variance.clamp_min(0.0))

    def save(self, folder: Path, name: str = "prompt_weights") -> None:
        """Write `name`.safetensors and `name`.json into `folder`."""
        sizes = {
            "n_objectives": self.n_objectives,
            "prompt_dim": self.prompt_dim,
            "hidden": len(self.inner),
            "points": len(self.points),
        }
        save_artefact(folder, name, kind="prompt weights", tensors=self.state_dict(), facts=sizes)

    @classmethod
    def load(cls, folder: Path, name: str = "prompt_weights") -> "PromptWeights":
        """The profile that `save` wrote, on the CPU.

        Raises:
            DataError: The files are missing, damaged, or of sizes that do not fit one another.
        """
        tensors, facts = load_artefact(folder, name, kind="prompt weights")
        sizes = {key: facts[key] for key in ("n_objectives", "prompt_dim", "hidden", "points")}
        profile = cls(**sizes)
        try:
            profile.load_state_dict(tensors)
        except RuntimeError as err:
            raise DataError(
                f"`{folder / name}.safetensors` must hold weights of {sizes['n_objectives']} objectives, as "
                f"{name}.json says; it does not. Train it again."
            ) from err
        return profile


class WeightReport(NamedTuple):
    """How an adapter spreads its weights over a table's pairs, and how far its predictions can be trusted.

    mean_weights: Average weight of each objective. Shape (K,).
    entropy: Mean entropy of the weights over its maximum log K; 1 is even, 0 is one objective alone.
    sure_share: Share of pairs at whose prompt one objective has more than `SURE` of the weight.
    accuracy: Share of pairs whose chosen reply has the higher weighted score, an even call counting half.
    log_loss: Mean surprise at the choices, in nats.
    ece: Mean distance between confidence and accuracy over ten equal bins of confidence from one half to 1.
    """

    mean_weights: Tensor
    entropy: float
    sure_share: float
    accuracy: float
    log_loss: float
    ece: float


@torch.no_grad()
def describe_weights(profile: PromptWeights, table: ComparisonTable, features: Tensor) -> WeightReport:
    """Entropy and calibration of the average user's weights, over all pairs of a table.

    Args:
        profile: The adapter with its scale.
        table: At least one comparison that is no tie, preferably of unseen users and prompts; ties are left out.
        features: Objective scores, then the prompt's features. Shape (N, K + prompt_dim).

    Raises:
        DataError: No comparison.
    """
    table = table.without_ties()
    if not len(table):
        raise DataError("`table` must hold at least one comparison; got none. Hold out more prompts.")
    lifted = profile.lift(features)
    chosen, rejected = (
        lifted[torch.from_numpy(rows).to(lifted.device)] for rows in (table.chosen, table.rejected)
    )
    gaps, log_weights = (chosen - rejected)[:, : profile.n_objectives], chosen[:, profile.n_objectives :]
    weights = log_weights.exp()
    entropy = -torch.special.xlogy(weights, weights).sum(-1) / np.log(profile.n_objectives)
    odds = profile.log_scale.exp() * (weights * gaps).sum(-1)
    confidence = torch.sigmoid(odds.abs())
    right = (odds > 0).float() + 0.5 * (odds == 0)
    place = ((2.0 * confidence - 1.0) * _BINS).long().clamp_max(_BINS - 1)
    gap = torch.zeros(_BINS, device=odds.device).index_add(0, place, right - confidence)
    return WeightReport(
        weights.mean(0),
        entropy.mean().item(),
        (weights.amax(-1) > SURE).float().mean().item(),
        right.mean().item(),
        -logsigmoid(odds).mean().item(),
        gap.abs().sum().item() / len(table),
    )
