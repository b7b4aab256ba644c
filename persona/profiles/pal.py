"""PAL: users as mixtures of K prototypes, in a learned space of ideal points or of prompts and replies.

A scorer gives each reply K scores, one under each prototype; a user is a point w of the simplex, and a reply is worth
w . scores to that user. Two scorers are published:

- Ideal points (PAL-A): the user's point is u = sum_k w_k p_k, and the nearer reply is preferred, by squared distance:
  |f(y2) - u|^2 - |f(y1) - u|^2. Squared, because the terms in |u|^2 cancel between two replies and what is left is
  linear in w: f . u enters once for each prototype. By plain distance, as published, it is not.
- Prompts (PAL-B): g_k(x) is what prototype k wants of a reply to prompt x, and the score is scale * cos(f(y), g_k(x)),
  mixed by w.

Being linear in w, both make a new user's weights a convex problem: see `persona.profiles.simplex`. Training lives in
`persona.recipes.pal`.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from persona.artefacts import load_artefact, save_artefact
from persona.errors import DataError, ShapeError
from persona.profiles.laplace import predictive_probability
from persona.profiles.simplex import mixing_weights, project_weights, simplex_posterior
from persona.types import Posterior, ReplyPairs

START_CONCENTRATION = 10.0


class IdealPoints(nn.Module):
    """Scores by nearness: 2 f(y) . p_k - |f(y)|^2, which is -|f(y) - p_k|^2 but for what all replies share.

    Kept as embedding e(y) = f(y) / sqrt(curvature) and points q_k = p_k sqrt(curvature): as the curvature goes to 0,
    prototypes go far out and tastes become linear, with every number in the usual range.

    Args:
        n_features: Features of a reply R.
        kinds: Prototypes K.
        embed_dim: Size E of the space.
        hidden: Learned tanh features added to the given ones.
        seed: Draws the start.

    Attributes:
        embed: e, from features and learned ones. Shape (E, R + hidden).
        points: q. Shape (K, E).
        log_curvature: Logarithm of the curvature. Shape ().
    """

    def __init__(
        self, n_features: int, kinds: int, embed_dim: int, *, hidden: int = 0, seed: int = 0
    ) -> None:
        """Start with small random weights and a curvature of 1/10."""
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.hidden_weight = nn.Parameter(torch.randn(hidden, n_features, generator=rng) / n_features**0.5)
        self.embed = nn.Parameter(_small(embed_dim, n_features + hidden, rng))
        self.points = nn.Parameter(torch.randn(kinds, embed_dim, generator=rng))
        self.log_curvature = nn.Parameter(torch.tensor(0.1).log())

    @property
    def prototypes(self) -> Tensor:
        """p_k, in the space of `locate`. Shape (K, E)."""
        return self.points * torch.exp(-0.5 * self.log_curvature)

    def locate(self, features: Tensor) -> Tensor:
        """f(y), the reply's own point. Shape (..., E)."""
        return self._embed(features) * torch.exp(0.5 * self.log_curvature)

    def forward(self, features: Tensor) -> Tensor:
        """Score of each reply (..., R) under each prototype, in logits up to a constant of the prototype."""
        embedded = self._embed(features)
        curved = embedded.square().sum(-1, keepdim=True) * self.log_curvature.exp()
        return 2.0 * embedded @ self.points.T - curved

    def _embed(self, features: Tensor) -> Tensor:
        return _with_hidden(features, self.hidden_weight) @ self.embed.T


class PromptCosines(nn.Module):
    """Scores by direction: scale * cos(f(y), g_k(x)), with x the prompt's features, the last columns of a row.

    Args:
        n_features: Features of a reply R, without the prompt's.
        kinds: Prototypes K.
        embed_dim: Size E of the common space.
        prompt_dim: Features of a prompt; with 0 what a prototype wants is the same for all prompts.
        hidden: Learned tanh features added to the reply's given ones.
        seed: Draws the start.

    Attributes:
        embed: Of f, from features and learned ones. Shape (E, R + hidden).
        embed_bias: Of f. Shape (E,).
        wants: What each prototype wants whatever the prompt, the constant of g. Shape (K, E).
        project: How g bends with the prompt. Shape (K, E, prompt_dim).
        log_scale: Logarithm of the scale. Shape ().
    """

    def __init__(
        self,
        n_features: int,
        kinds: int,
        embed_dim: int,
        *,
        prompt_dim: int = 0,
        hidden: int = 0,
        seed: int = 0,
    ) -> None:
        """Start with random directions, a little of the prompt in each, and the published scale, 1 / 0.07."""
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.hidden_weight = nn.Parameter(torch.randn(hidden, n_features, generator=rng) / n_features**0.5)
        self.embed = nn.Parameter(_small(embed_dim, n_features + hidden, rng))
        self.embed_bias = nn.Parameter(torch.zeros(embed_dim))
        self.wants = nn.Parameter(torch.randn(kinds, embed_dim, generator=rng))
        self.project = nn.Parameter(0.1 * torch.randn(kinds, embed_dim, prompt_dim, generator=rng))
        self.log_scale = nn.Parameter(torch.tensor(1.0 / 0.07).log())

    def forward(self, features: Tensor) -> Tensor:
        """Score of each reply (..., R + prompt_dim) under each prototype, in logits. Shape (..., K)."""
        prompt_dim = self.project.shape[2]
        reply, prompt = features.split([features.shape[-1] - prompt_dim, prompt_dim], dim=-1)
        embedded = _with_hidden(reply, self.hidden_weight) @ self.embed.T + self.embed_bias
        wanted = self.wants + torch.einsum("...x,kex->...ke", prompt, self.project)
        cosines = torch.einsum("...e,...ke->...k", normalize(embedded, dim=-1), normalize(wanted, dim=-1))
        return self.log_scale.exp() * cosines


class PalProfile(nn.Module):
    """Users as mixtures of prototypes, each new one placed by a convex problem.

    Lifted features are the K scores of a reply, so a user's comparisons are read with K numbers each, however many
    features there were. The latent are the mixing weights' logits, less the average user's, in units of the
    population's spread; Z = K - 1.

    Args:
        scorer: `IdealPoints` (PAL-A) or `PromptCosines` (PAL-B).

    Attributes:
        average_logits: Of the average user's weights, up to a constant. Shape (K,).
        log_concentration: Logarithm of how little users differ from the average one. Shape ().
    """

    def __init__(self, scorer: IdealPoints | PromptCosines) -> None:
        """Start with all prototypes alike in the average user."""
        super().__init__()
        self.scorer = scorer
        kinds = scorer.points.shape[0] if isinstance(scorer, IdealPoints) else scorer.wants.shape[0]
        if kinds < 2:
            raise ShapeError(
                f"`scorer` must have at least 2 prototypes; got {kinds}. Users could not differ."
            )
        self.average_logits = nn.Parameter(torch.zeros(kinds))
        self.log_concentration = nn.Parameter(torch.tensor(START_CONCENTRATION).log())

    @property
    def kinds(self) -> int:
        """Prototypes K."""
        return len(self.average_logits)

    @property
    def latent_dim(self) -> int:
        """Size of a user's latent, K - 1: weights sum to 1."""
        return self.kinds - 1

    @property
    def prompt_dim(self) -> int:
        """How many of the last columns of a row are its prompt's."""
        return 0 if isinstance(self.scorer, IdealPoints) else self.scorer.project.shape[2]

    @property
    def n_features(self) -> int:
        """Columns D of a row, the prompt's included."""
        return self.scorer.hidden_weight.shape[1] + self.prompt_dim

    def lift(self, features: Tensor) -> Tensor:
        """Score of each reply under each prototype.

        Args:
            features: Shape (..., D), float, the prompt's last.

        Returns:
            Shape (..., K), in logits; only differences between replies to one prompt mean something.

        Raises:
            ShapeError: Another number of features.
        """
        if features.shape[-1] != self.n_features:
            raise ShapeError(
                f"`features` must have {self.n_features} columns, {self.prompt_dim} of them the prompt's; got "
                f"{features.shape[-1]}. Use the same featurizer."
            )
        scores: Tensor = self.scorer(features)
        return scores

    def encode(self, pairs: ReplyPairs) -> Posterior:
        """Belief about each user's mixture after a context, differentiable in the weights.

        Args:
            pairs: Of B users, with lifted features (B, P, K).

        Returns:
            Mean (B, K - 1) and covariance (B, K - 1, K - 1); without pairs zero and the identity.

        Raises:
            ShapeError: Features of another width.
        """
        return simplex_posterior(self._difference(pairs), pairs.mask, *self._population())

    def weights(self, z: Tensor) -> Tensor:
        """Mixing weights (..., K) of users with latents z (..., K - 1); zero gives the average user's."""
        return mixing_weights(z, *self._population())

    def reward(self, features: Tensor, z: Tensor) -> Tensor:
        """What each reply is worth to the user of its row, in logits up to a constant of the row.

        Args:
            features: Plain features of T replies for each row, or of the same T replies for all. Shape (B, T, D) or
                (T, D), float.
            z: Latents; zero is the average user. Shape (B, Z).

        Returns:
            Shape (B, T).
        """
        return (self.lift(features) @ self.weights(z)[..., None])[..., 0]

    def log_odds(self, posterior: Posterior, asked: ReplyPairs) -> tuple[Tensor, Tensor]:
        """Mean and variance, under the belief, of the log-odds of preferring the first of two replies.

        Args:
            posterior: Of B users.
            asked: T pairs of each user, with lifted features (B, T, K).

        Returns:
            Two tensors of shape (B, T).

        Raises:
            ShapeError: Features of another width.
        """
        return project_weights(posterior, self._difference(asked), *self._population())

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
        """Probability that each user prefers the first reply, `asked` as in `log_odds`; shape (B, T)."""
        return predictive_probability(*self.log_odds(posterior, asked))

    def save(self, folder: Path, name: str = "pal") -> None:
        """Write `name`.safetensors and `name`.json into `folder`."""
        facts = {
            "form": "ideal points" if isinstance(self.scorer, IdealPoints) else "prompt cosines",
            "n_features": self.scorer.hidden_weight.shape[1],
            "prompt_dim": self.prompt_dim,
            "kinds": self.kinds,
            "embed_dim": self.scorer.embed.shape[0],
            "hidden": self.scorer.hidden_weight.shape[0],
        }
        save_artefact(folder, name, kind="PAL profile", tensors=self.state_dict(), facts=facts)

    @classmethod
    def load(cls, folder: Path, name: str = "pal") -> "PalProfile":
        """The profile that `save` wrote, on the CPU.

        Raises:
            DataError: The files are missing, damaged, or of sizes that do not fit one another.
        """
        tensors, facts = load_artefact(folder, name, kind="PAL profile")
        sizes = facts["n_features"], facts["kinds"], facts["embed_dim"]
        scorer: IdealPoints | PromptCosines
        if facts["form"] == "ideal points":
            scorer = IdealPoints(*sizes, hidden=facts["hidden"])
        else:
            scorer = PromptCosines(*sizes, prompt_dim=facts["prompt_dim"], hidden=facts["hidden"])
        profile = cls(scorer)
        try:
            profile.load_state_dict(tensors)
        except RuntimeError as err:
            raise DataError(
                f"`{folder / name}.safetensors` must hold {facts['kinds']} prototypes over {facts['n_features']} "
                f"features, as {name}.json says; it does not. Train it again."
            ) from err
        return profile

    def _population(self) -> tuple[Tensor, Tensor]:
        return torch.log_softmax(self.average_logits, dim=0), self.log_concentration.exp()

    def _difference(self, pairs: ReplyPairs) -> Tensor:
        if pairs.chosen.shape[-1] != self.kinds:
            raise ShapeError(
                f"Pairs must have {self.kinds} columns, those of lifted features; got {pairs.chosen.shape[-1]}. Build "
                "them from `profile.lift(features)`."
            )
        return pairs.difference


def _with_hidden(features: Tensor, hidden_weight: Tensor) -> Tensor:
    if not len(hidden_weight):
        return features
    return torch.cat([features, torch.tanh(features @ hidden_weight.T)], dim=-1)


def _small(rows: int, columns: int, rng: torch.Generator) -> Tensor:
    weights: Tensor = torch.randn(rows, columns, generator=rng) / columns**0.5
    return weights
