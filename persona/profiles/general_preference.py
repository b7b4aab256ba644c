"""General preference model (GPM): preferences that no reward explains, such as cycles, made personal.

A reply is embedded in blocks of two numbers, and block b says that i beats j by a_i b_j - b_i a_j, the area between
the two: swapping the replies turns its sign, whatever the embedding, and areas can go round in a circle, A over B over
C over A, where no reward can. A block whose second number is 1 says a_i - a_j: Bradley-Terry is a special case. The
score of a pair is the sum of its blocks, each weighted by the prompt's gate and by the user:

    score(i over j | x, z) = sum_b gate_b(x) (base_b + z . head_b) (a_ib b_jb - b_ib a_jb)

It is linear in the user's latent z ~ N(0, I), so the belief about z is the closed-form one of all linear profiles.
Training lives in `persona.recipes.general_preference`.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from persona.artefacts import load_artefact, save_artefact
from persona.errors import DataError, ShapeError
from persona.profiles.laplace import logistic_posterior, predictive_probability, project_posterior
from persona.types import Posterior, ReplyPairs


def skew_products(first: Tensor, second: Tensor) -> Tensor:
    """By how much the first reply beats the second in each block: first_a second_b - first_b second_a.

    Args:
        first: Embedding, a and b of each block side by side. Shape (..., 2 * blocks), float.
        second: The other reply's, same shape.

    Returns:
        Shape (..., blocks); exactly the negative when the replies are swapped.

    Raises:
        ShapeError: The embeddings differ in shape or have an odd width.

    Example:
        >>> skew_products(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
        tensor([1.])

    Source: Zhang et al. (2025), "Beyond Bradley-Terry Models: A General Preference Model for Language Model
    Alignment", section 4.2.
    """
    if first.shape != second.shape or first.shape[-1] % 2:
        raise ShapeError(
            "Embeddings must have one shape of an even width, (..., 2 * blocks); got "
            f"{tuple(first.shape)} and {tuple(second.shape)}. Build them with `profile.lift`."
        )
    one, other = first.unflatten(-1, (-1, 2)), second.unflatten(-1, (-1, 2))
    products: Tensor = one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
    return products


class GeneralPreferenceProfile(nn.Module):
    """A user-conditional preference between two replies that needs no reward behind it.

    Lifted features are a reply's embedding, each block multiplied by the root of the prompt's gate, so that products
    of two replies to one prompt carry the gate itself.

    Args:
        n_features: Features of a reply R, without the prompt's.
        blocks: Blocks of the embedding.
        latent_dim: Size of a user's latent Z.
        prompt_dim: How many of the last columns of a row are its prompt's; 0 for gates that are always open.
        hidden: Learned tanh features added to the reply's given ones.
        seed: Draws the start.

    Attributes:
        embed: From features and learned ones to a and b of each block. Shape (2 * blocks, R + hidden).
        embed_bias: Shape (2 * blocks,).
        base: Weight of each block for the average user. Shape (blocks,).
        head: How the latent bends the weights. Shape (Z, blocks).
        gate: Logits of the gates by prompt feature. Shape (blocks, prompt_dim).
    """

    def __init__(
        self,
        n_features: int,
        blocks: int,
        latent_dim: int,
        *,
        prompt_dim: int = 0,
        hidden: int = 0,
        seed: int = 0,
    ) -> None:
        """Start with a random embedding and small random weights of its blocks."""
        super().__init__()
        if min(n_features, blocks, latent_dim) < 1 or min(prompt_dim, hidden) < 0:
            raise ShapeError(
                "`n_features`, `blocks` and `latent_dim` must be at least 1, `prompt_dim` and `hidden` at least 0; "
                f"got {n_features}, {blocks}, {latent_dim}, {prompt_dim} and {hidden}. Choose sizes of at least that."
            )
        rng = torch.Generator().manual_seed(seed)
        width = n_features + hidden
        self.hidden_weight = nn.Parameter(torch.randn(hidden, n_features, generator=rng) / n_features**0.5)
        self.embed = nn.Parameter(torch.randn(2 * blocks, width, generator=rng) / width**0.5)
        self.embed_bias = nn.Parameter(torch.zeros(2 * blocks))
        self.base = nn.Parameter(0.1 * torch.randn(blocks, generator=rng))
        self.head = nn.Parameter(0.1 * torch.randn(latent_dim, blocks, generator=rng))
        self.gate = nn.Parameter(torch.zeros(blocks, prompt_dim))

    @property
    def n_features(self) -> int:
        """Columns D of a row, the prompt's included."""
        return self.hidden_weight.shape[1] + self.prompt_dim

    @property
    def prompt_dim(self) -> int:
        """How many of the last columns of a row are its prompt's."""
        return self.gate.shape[1]

    @property
    def latent_dim(self) -> int:
        """Size of a user's latent Z."""
        return self.head.shape[0]

    @property
    def blocks(self) -> int:
        """Blocks of the embedding."""
        return len(self.base)

    def lift(self, features: Tensor) -> Tensor:
        """Embedding of each reply, with its prompt's gates in it.

        Args:
            features: Shape (..., D), float, the prompt's last.

        Returns:
            Shape (..., 2 * blocks), a and b of each block side by side.

        Raises:
            ShapeError: Another number of features.
        """
        if features.shape[-1] != self.n_features:
            raise ShapeError(
                f"`features` must have {self.n_features} columns, {self.prompt_dim} of them the prompt's; got "
                f"{features.shape[-1]}. Use the same featurizer."
            )
        reply, prompt = features.split([self.hidden_weight.shape[1], self.prompt_dim], dim=-1)
        if len(self.hidden_weight):
            reply = torch.cat([reply, torch.tanh(reply @ self.hidden_weight.T)], dim=-1)
        embedded: Tensor = reply @ self.embed.T + self.embed_bias
        if self.prompt_dim:
            embedded = embedded * self.gates(prompt).sqrt().repeat_interleave(2, dim=-1)
        return embedded

    def gates(self, prompt: Tensor) -> Tensor:
        """How much each block counts for a prompt: a softmax, times the number of blocks, so that 1 is usual.

        Args:
            prompt: Shape (..., prompt_dim), float.

        Returns:
            Shape (..., blocks), above 0, with mean 1.
        """
        return self.blocks * torch.softmax(prompt @ self.gate.T, dim=-1)

    def encode(self, pairs: ReplyPairs) -> Posterior:
        """Belief about each user after a context, differentiable in the weights.

        Args:
            pairs: Of B users, with lifted features (B, P, 2 * blocks).

        Returns:
            Mean (B, Z) and covariance (B, Z, Z); without pairs the prior N(0, I), which is the average user.

        Raises:
            ShapeError: Features of another width.
        """
        products = self._products(pairs)
        return logistic_posterior(products @ self.head.T, products @ self.base, pairs.mask)

    def score(self, first: Tensor, second: Tensor, z: Tensor) -> Tensor:
        """By how much each row's user prefers the first reply of each pair, in logits.

        Args:
            first: Plain features. Shape (B, T, D), float.
            second: Of the other replies, to the same prompts. Shape (B, T, D), float.
            z: Latents; zero is the average user. Shape (B, Z).

        Returns:
            Shape (B, T); exactly the negative when the replies are swapped.
        """
        weights = self.base + z @ self.head
        return (skew_products(self.lift(first), self.lift(second)) @ weights[..., None])[..., 0]

    def log_odds(self, posterior: Posterior, asked: ReplyPairs) -> tuple[Tensor, Tensor]:
        """Mean and variance, under the belief, of the log-odds of preferring the first of two replies.

        Args:
            posterior: Of B users.
            asked: T pairs of each user, with lifted features (B, T, 2 * blocks).

        Returns:
            Two tensors of shape (B, T).

        Raises:
            ShapeError: Features of another width.
        """
        products = self._products(asked)
        mean, variance = project_posterior(posterior, products @ self.head.T)
        return products @ self.base + mean, variance

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
        """Probability that each user prefers the first reply, `asked` as in `log_odds`; shape (B, T)."""
        return predictive_probability(*self.log_odds(posterior, asked))

    def save(self, folder: Path, name: str = "general_preference") -> None:
        """Write `name`.safetensors and `name`.json into `folder`."""
        facts = {
            "n_features": self.hidden_weight.shape[1],
            "blocks": self.blocks,
            "latent_dim": self.latent_dim,
            "prompt_dim": self.prompt_dim,
            "hidden": len(self.hidden_weight),
        }
        save_artefact(folder, name, kind="general preference profile", tensors=self.state_dict(), facts=facts)

    @classmethod
    def load(cls, folder: Path, name: str = "general_preference") -> "GeneralPreferenceProfile":
        """The profile that `save` wrote, on the CPU.

        Raises:
            DataError: The files are missing, damaged, or of sizes that do not fit one another.
        """
        tensors, facts = load_artefact(folder, name, kind="general preference profile")
        sizes = facts["n_features"], facts["blocks"], facts["latent_dim"]
        profile = cls(*sizes, prompt_dim=facts["prompt_dim"], hidden=facts["hidden"])
        try:
            profile.load_state_dict(tensors)
        except RuntimeError as err:
            raise DataError(
                f"`{folder / name}.safetensors` must hold {facts['blocks']} blocks over {facts['n_features']} "
                f"features, as {name}.json says; it does not. Train it again."
            ) from err
        return profile

    def _products(self, pairs: ReplyPairs) -> Tensor:
        if pairs.chosen.shape[-1] != len(self.embed_bias):
            raise ShapeError(
                f"Pairs must have {len(self.embed_bias)} columns, those of lifted features; got "
                f"{pairs.chosen.shape[-1]}. Build them from `profile.lift(features)`."
            )
        return skew_products(pairs.chosen, pairs.rejected)
