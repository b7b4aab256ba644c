"""MiCRo: several linear rewards, a router that weighs them by the prompt, and a user who tilts the weights.

P(chosen over rejected | x, u) = sum_k w_k(x, u) sigmoid(r_k(chosen) - r_k(rejected)), with r_k linear in the
reply's features and w(x, u) = softmax(log f(x) + h_u): f is the router, h_u the user's log-weights relative to
the average user, normally distributed among users with deviation `spread`. That deviation is the temperature
of the update: with 0 a user's pairs change nothing, with a large one they soon single out one head. The belief
about h_u is exact over a fixed set of points; it can be updated online, as the evidence of pairs adds up.

Source: Shen et al. (2025), "MiCRo: Mixture Modeling and Context-aware Routing for Personalized Preference
Learning", arXiv 2505.24846.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from persona.artefacts import load_artefact, save_artefact
from persona.errors import DataError, ShapeError
from persona.profiles.kinds import belief_over_kinds, gaussian_belief, log_weight_points
from persona.profiles.tilted_weights import read_lifted, tilted_sums
from persona.types import Posterior, ReplyPairs


class MixtureOfRewards(nn.Module):
    """Heads, router and users' tilts; lifted features are a reply's K rewards, then the K router log-weights.

    Args:
        n_features: Columns D of the feature matrix, the prompt's among them.
        n_heads: Number K of heads, at least 2.
        prompt_dim: How many of the last columns describe the prompt; 0 gives a router that knows no prompt.
        hidden: Units of the router's hidden layer.
        points: Number S of points that stand for possible users.
        seed: Draws heads, router and points.

    Attributes:
        heads: Weights of each reward. Shape (K, D - prompt_dim).
        log_spread: Logarithm of the deviation of log-weights among users. Shape ().
        average: The router's mean over training prompts, which the belief over heads starts from. Shape (K,).
        points: Possible users, as log-weights in units of the spread. Shape (S, K).
    """

    average: Tensor
    points: Tensor

    def __init__(
        self,
        n_features: int,
        n_heads: int,
        *,
        prompt_dim: int = 0,
        hidden: int = 128,
        points: int = 1024,
        seed: int = 0,
    ) -> None:
        """Start with small random heads and an even router."""
        super().__init__()
        if n_heads < 2 or not 0 <= prompt_dim < n_features or hidden < 1:
            raise ShapeError(
                "`n_heads` must be at least 2, `hidden` at least 1 and `prompt_dim` below `n_features`; got "
                f"{n_heads}, {hidden} and {prompt_dim} of {n_features}. Choose sizes in range."
            )
        rng = torch.Generator().manual_seed(seed)
        width = n_features - prompt_dim
        self.n_features, self.prompt_dim = n_features, prompt_dim
        self.heads = nn.Parameter(torch.randn(n_heads, width, generator=rng) / width**0.5)
        inner = torch.randn(hidden, prompt_dim, generator=rng) / max(prompt_dim, 1) ** 0.5
        self.router_in = nn.Parameter(inner)
        self.router_shift = nn.Parameter(torch.zeros(hidden))
        self.router_out = nn.Parameter(0.01 * torch.randn(n_heads, hidden, generator=rng) / hidden**0.5)
        self.router_bias = nn.Parameter(torch.zeros(n_heads))
        self.log_spread = nn.Parameter(torch.zeros(()))
        self.register_buffer("average", torch.full((n_heads,), 1.0 / n_heads))
        self.register_buffer("points", log_weight_points(n_heads, points, seed=seed))

    @property
    def n_heads(self) -> int:
        """Number K of heads."""
        return len(self.heads)

    @property
    def latent_dim(self) -> int:
        """One log-weight for each head."""
        return self.n_heads

    def lift(self, features: Tensor) -> Tensor:
        """Rewards of each reply under each head, then the router's log-weights for its prompt.

        Args:
            features: Reply features, then the prompt's, shape (..., D).

        Returns:
            Shape (..., 2 K).

        Raises:
            ShapeError: Another number of columns.
        """
        if features.shape[-1] != self.n_features:
            raise ShapeError(
                f"`features` must have {self.n_features} columns, the last {self.prompt_dim} the prompt's; got "
                f"{features.shape[-1]}. Use the same featurizers."
            )
        width = self.n_features - self.prompt_dim
        reply, prompt = features[..., :width], features[..., width:]
        inner = torch.relu(prompt @ self.router_in.T + self.router_shift)
        logits = inner @ self.router_out.T + self.router_bias
        return torch.cat([reply @ self.heads.T, log_softmax(logits, dim=-1)], dim=-1)

    def read(self, pairs: ReplyPairs) -> tuple[Tensor, Tensor]:
        """Margins of each pair under each head, and the router's log-weights there; each (B, P, K).

        Raises:
            ShapeError: Pairs that were not built from lifted features.
        """
        return read_lifted(pairs, self.n_heads)

    def log_likelihood(self, pairs: ReplyPairs) -> Tensor:
        """Log-probability of each choice under each possible user, differentiable; shape (B, P, S)."""
        margins, log_router = self.read(pairs)
        tilts = self.log_spread.exp() * self.points
        total, weight = tilted_sums(torch.sigmoid(margins), log_router, tilts)
        probability = total / weight
        return probability.clamp_min(torch.finfo(probability.dtype).tiny).log()

    def encode(self, pairs: ReplyPairs) -> Posterior:
        """Belief about each user's log-weights relative to the average user.

        Args:
            pairs: Of B users, with lifted features (B, P, 2 K).

        Returns:
            Mean (B, K), covariance (B, K, K) and, as weights (B, K), the belief over heads.

        Raises:
            ShapeError: Pairs that were not built from lifted features.
        """
        belief = belief_over_kinds(self.log_likelihood, self._log_prior(), pairs)
        return gaussian_belief(belief, self.log_spread.exp() * self.points, belief @ self._head_shares())

    def head_weights(self, posterior: Posterior, log_router: Tensor) -> Tensor:
        """What each head counts for each user at given prompts.

        The router's weight times how much likelier the user's pairs made the head; for a posterior without
        weights (set by hand), the softmax at its mean.

        Args:
            posterior: Of B users.
            log_router: The router's log-weights. Shape (B, T, K).

        Returns:
            Shape (B, T, K), rows sum to 1; the router's own weights without pairs.
        """
        if posterior.weights is None:
            return torch.softmax(log_router + posterior.mean[:, None], dim=-1)
        start = self._head_shares().mean(0)
        return torch.softmax(log_router + (posterior.weights / start).log()[:, None], dim=-1)

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
        """Probability that each user prefers the first of two replies.

        Args:
            posterior: Of B users.
            asked: T pairs of each user, with lifted features (B, T, 2 K).

        Returns:
            Shape (B, T), in 0..1.

        Raises:
            ShapeError: Pairs that were not built from lifted features.
        """
        margins, log_router = self.read(asked)
        return (self.head_weights(posterior, log_router) * torch.sigmoid(margins)).sum(-1)

    def save(self, folder: Path, name: str = "mixture_of_rewards") -> None:
        """Write `name`.safetensors and `name`.json into `folder`."""
        sizes = {
            "n_features": self.n_features,
            "n_heads": self.n_heads,
            "prompt_dim": self.prompt_dim,
            "hidden": len(self.router_shift),
            "points": len(self.points),
        }
        save_artefact(folder, name, kind="mixture of rewards", tensors=self.state_dict(), facts=sizes)

    @classmethod
    def load(cls, folder: Path, name: str = "mixture_of_rewards") -> "MixtureOfRewards":
        """The profile that `save` wrote, on the CPU.

        Raises:
            DataError: The files are missing, damaged, or of sizes that do not fit one another.
        """
        tensors, facts = load_artefact(folder, name, kind="mixture of rewards")
        sizes = {key: facts[key] for key in ("n_features", "n_heads", "prompt_dim", "hidden", "points")}
        profile = cls(**sizes)
        try:
            profile.load_state_dict(tensors)
        except RuntimeError as err:
            raise DataError(
                f"`{folder / name}.safetensors` must hold a mixture of {sizes['n_heads']} heads over "
                f"{sizes['n_features']} features, as {name}.json says; it does not. Train it again."
            ) from err
        return profile

    def _log_prior(self) -> Tensor:
        """Every possible user is as likely as any other. Shape (S,)."""
        return self.points.new_full((len(self.points),), 1.0 / len(self.points)).log()

    def _head_shares(self) -> Tensor:
        """What each possible user gives each head at an average prompt. Shape (S, K)."""
        return torch.softmax(self.average.log() + self.log_spread.exp() * self.points, dim=-1)
