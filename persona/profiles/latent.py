"""The latent profile: a small Gaussian latent for each user, and a reward that it bends.

reward(y, z) = m . g(y) + z . W g(y), with g(y) the reply's features (lifted by a few learned ones if asked
for). The encoder is not a second network: it is the posterior of z under the same reward and a prior N(0, I),
so it reads any number of comparisons in any order, is unsure when it has seen few, and moves the opposite way
when a lone pair is swapped. Training lives in `persona.recipes.latent`.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from persona.artefacts import load_artefact, save_artefact
from persona.errors import DataError, ShapeError
from persona.profiles.hierarchical_bayes import HierarchicalBayes
from persona.profiles.laplace import logistic_posterior, predictive_probability, project_posterior
from persona.types import Posterior, ReplyPairs


class LatentProfile(nn.Module):
    """A user-conditional reward over reply features, with its own posterior as encoder.

    Without hidden units `lift` is the identity, and differences of plain features may be passed everywhere.

    Args:
        n_features: Features of a reply D.
        latent_dim: Size of a user's latent Z.
        hidden: Learned tanh features added to the given ones; 0 keeps the reward linear.
        seed: Draws the hidden units and a small start of the head.

    Attributes:
        pooled: Average user's weights m. Shape (D + hidden,).
        head: How the latent bends them, W. Shape (Z, D + hidden).
    """

    def __init__(self, n_features: int, latent_dim: int, *, hidden: int = 0, seed: int = 0) -> None:
        """Start with a small random head and no reward for the average user."""
        super().__init__()
        if min(n_features, latent_dim) < 1 or hidden < 0:
            raise ShapeError(
                "`n_features` and `latent_dim` must be at least 1 and `hidden` at least 0; got "
                f"{n_features}, {latent_dim} and {hidden}. Choose sizes of at least that."
            )
        rng = torch.Generator().manual_seed(seed)
        width = n_features + hidden
        self.pooled = nn.Parameter(torch.zeros(width))
        self.head = nn.Parameter(0.1 * torch.randn(latent_dim, width, generator=rng) / width**0.5)
        self.hidden_weight = nn.Parameter(torch.randn(hidden, n_features, generator=rng) / n_features**0.5)

    @classmethod
    def from_population(
        cls, population: HierarchicalBayes, latent_dim: int, *, hidden: int = 0, seed: int = 0
    ) -> "LatentProfile":
        """Start where hierarchical Bayes ends: its mean, and the directions in which its users differ most.

        With S = V diag(s) V^T, the head is diag(sqrt(s)) V^T cut to the largest `latent_dim` values; a head
        of full size gives hierarchical Bayes itself. Learned features start without weight.
        """
        profile = cls(len(population.mean), latent_dim, hidden=hidden, seed=seed)
        values, vectors = torch.linalg.eigh(population.covariance.double().cpu())
        kept = min(latent_dim, len(values))
        order = values.argsort(descending=True)[:kept]
        directions = _fix_signs((vectors[:, order] * values[order].clamp_min(0).sqrt()).T).float()
        with torch.no_grad():
            profile.pooled[: len(population.mean)] = population.mean
            profile.head[:kept, : len(population.mean)] = directions
            profile.head[:kept, len(population.mean) :] = 0.0
        return profile

    @property
    def n_features(self) -> int:
        """Features of a reply D, before the lift."""
        return self.hidden_weight.shape[1]

    @property
    def latent_dim(self) -> int:
        """Size of a user's latent Z."""
        return self.head.shape[0]

    def lift(self, features: Tensor) -> Tensor:
        """The given features with the learned ones after them.

        Args:
            features: Shape (..., D), float.

        Returns:
            Shape (..., D + hidden); `features` itself without hidden units.

        Raises:
            ShapeError: Another number of features.
        """
        if features.shape[-1] != self.n_features:
            raise ShapeError(
                f"`features` must have {self.n_features} columns, as the profile was made for; got "
                f"{features.shape[-1]}. Use the same featurizer."
            )
        if not len(self.hidden_weight):
            return features
        return torch.cat([features, torch.tanh(features @ self.hidden_weight.T)], dim=-1)

    def encode(self, pairs: ReplyPairs) -> Posterior:
        """Belief about each user after a context, differentiable in the weights.

        Args:
            pairs: Of B users, with lifted features (B, P, D + hidden).

        Returns:
            Mean (B, Z) and covariance (B, Z, Z); without pairs the prior N(0, I), which is the average user.

        Raises:
            ShapeError: Features of another width.
        """
        difference = self._difference(pairs)
        return logistic_posterior(difference @ self.head.T, difference @ self.pooled, pairs.mask)

    def reward(self, features: Tensor, z: Tensor) -> Tensor:
        """What each reply is worth to the user of its row, in logits up to a constant.

        Args:
            features: Plain features of T replies for each row, or of the same T replies for all. Shape (B, T,
                D) or (T, D), float.
            z: Latents; zero is the average user. Shape (B, Z).

        Returns:
            Shape (B, T).
        """
        weights = self.pooled + z @ self.head
        return (self.lift(features) @ weights[..., None])[..., 0]

    def log_odds(self, posterior: Posterior, asked: ReplyPairs) -> tuple[Tensor, Tensor]:
        """Mean and variance, under the belief, of the log-odds of preferring the first of two replies.

        Args:
            posterior: Of B users.
            asked: T pairs of each user, with lifted features (B, T, D + hidden).

        Returns:
            Two tensors of shape (B, T).

        Raises:
            ShapeError: Features of another width.
        """
        difference = self._difference(asked)
        mean, variance = project_posterior(posterior, difference @ self.head.T)
        return difference @ self.pooled + mean, variance

    def joint_log_odds(self, posterior: Posterior, asked: ReplyPairs) -> tuple[Tensor, Tensor]:
        """As `log_odds`, with the covariance (B, T, T) between pairs in place of their variances."""
        difference = self._difference(asked)
        seen = difference @ self.head.T
        mean = difference @ self.pooled + torch.einsum("btz,bz->bt", seen, posterior.mean)
        return mean, seen @ posterior.covariance @ seen.mT

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
        """Probability that each user prefers the first reply, `asked` as in `log_odds`; shape (B, T)."""
        return predictive_probability(*self.log_odds(posterior, asked))

    @torch.no_grad()
    def align(self, pairs: ReplyPairs) -> None:
        """Turn the latent onto the axes along which these users' posterior means vary, widest first.

        A rotation of z with the head turned alike leaves every prediction as it is, because the prior is
        round. After it, the first coordinates are the ones to plot, and an unused one is seen to be unused.
        """
        mean = self.encode(pairs).mean.double()
        centred = mean - mean.mean(0)
        rotation = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1).T.to(self.head)
        self.head.copy_(_fix_signs(rotation @ self.head))

    def save(self, folder: Path, name: str = "latent_profile") -> None:
        """Write `name`.safetensors and `name`.json into `folder`."""
        sizes = {
            "n_features": self.n_features,
            "latent_dim": self.latent_dim,
            "hidden": len(self.hidden_weight),
        }
        save_artefact(folder, name, kind="latent profile", tensors=self.state_dict(), facts=sizes)

    @classmethod
    def load(cls, folder: Path, name: str = "latent_profile") -> "LatentProfile":
        """The profile that `save` wrote, on the CPU.

        Raises:
            DataError: The files are missing, damaged, or of sizes that do not fit one another.
        """
        tensors, facts = load_artefact(folder, name, kind="latent profile")
        profile = cls(facts["n_features"], facts["latent_dim"], hidden=facts["hidden"])
        try:
            profile.load_state_dict(tensors)
        except RuntimeError as err:
            raise DataError(
                f"`{folder / name}.safetensors` must hold a profile of {facts['n_features']} features and "
                f"{facts['latent_dim']} latents, as {name}.json says; it does not. Train it again."
            ) from err
        return profile

    def _difference(self, pairs: ReplyPairs) -> Tensor:
        if pairs.chosen.shape[-1] != len(self.pooled):
            raise ShapeError(
                f"Pairs must have {len(self.pooled)} columns, those of lifted features; got "
                f"{pairs.chosen.shape[-1]}. Build them from `profile.lift(features)`."
            )
        return pairs.difference


def _fix_signs(rows: Tensor) -> Tensor:
    """`rows` with the largest entry of each made positive: an axis has no sign of its own."""
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return torch.where(largest < 0, -rows, rows)
