"""How a latent bends a reward: bilinear, by FiLM, or by concatenation as published.

Each head gives the average user's linear reward (`base`) apart from what the latent adds (`personal`), so that
training can withhold the first and force the second to predict.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from persona.profiles.set_encoders import SLOPE, seeded_linear


class BilinearHead(nn.Module):
    """base = m . y, personal = z . W y: the log-odds of a pair are Gaussian under a Gaussian z.

    Attributes:
        pooled: m. Shape (D,).
        weight: W. Shape (Z, D).
    """

    def __init__(self, n_features: int, latent_dim: int, *, rng: torch.Generator) -> None:
        super().__init__()
        self.pooled = nn.Parameter(torch.zeros(n_features))
        self.weight = nn.Parameter(0.3 * torch.randn(latent_dim, n_features, generator=rng) / n_features**0.5)

    def base(self, features: Tensor) -> Tensor:
        """The average user's reward. Shape (B, T) or (T,)."""
        return features @ self.pooled

    def personal(self, features: Tensor, z: Tensor) -> Tensor:
        """What z (B, Z) adds. Shape (B, T)."""
        added: Tensor = (features @ (z @ self.weight)[..., None])[..., 0]
        return added


class FilmHead(nn.Module):
    """base = m . y, personal = z . W y + v . tanh(gamma(z) * A y + beta(z)): tastes need not be linear in features.

    gamma = 1 + tanh(G z) / 2 scales and beta = tanh(B z) / 2 shifts the hidden units; at z = 0 neither does anything.
    The bilinear head is the part without v, which starts small.

    Attributes:
        pooled: m. Shape (D,).
        weight: W. Shape (Z, D).

    Source: Perez et al. (2018), "FiLM: Visual Reasoning with a General Conditioning Layer"; the bounds of gamma and
    beta from Swap-guided Preference Learning (2026), arXiv 2603.12595.
    """

    def __init__(self, n_features: int, latent_dim: int, *, hidden: int, rng: torch.Generator) -> None:
        super().__init__()
        self.pooled = nn.Parameter(torch.zeros(n_features))
        self.weight = nn.Parameter(0.3 * torch.randn(latent_dim, n_features, generator=rng) / n_features**0.5)
        self.inner = seeded_linear(n_features, hidden, rng)
        self.bend = seeded_linear(latent_dim, 2 * hidden, rng, bias=False)
        self.outer = seeded_linear(hidden, 1, rng, bias=False)
        with torch.no_grad():
            self.outer.weight.mul_(0.1)

    def base(self, features: Tensor) -> Tensor:
        """The average user's linear reward. Shape (B, T) or (T,)."""
        return features @ self.pooled

    def personal(self, features: Tensor, z: Tensor) -> Tensor:
        """What z (B, Z) adds. Shape (B, T)."""
        gamma, beta = (0.5 * torch.tanh(self.bend(z)))[:, None].chunk(2, dim=-1)
        bent: Tensor = self.outer(torch.tanh((1.0 + gamma) * self.inner(features) + beta))[..., 0]
        linear: Tensor = (features @ (z @ self.weight)[..., None])[..., 0]
        return linear + bent


class ConcatHead(nn.Module):
    """The published decoder: an MLP on the reply's features followed by the latent; no base.

    Source: Poddar et al. (2024), section 4.1.
    """

    def __init__(self, n_features: int, latent_dim: int, *, hidden: int, rng: torch.Generator) -> None:
        super().__init__()
        self.inner = seeded_linear(n_features + latent_dim, hidden, rng)
        self.middle = seeded_linear(hidden, hidden, rng)
        self.outer = seeded_linear(hidden, 1, rng)

    def base(self, features: Tensor) -> Tensor:
        """Zero: the latent's network knows no average user. Shape (B, T) or (T,)."""
        return features.new_zeros(features.shape[:-1])

    def personal(self, features: Tensor, z: Tensor) -> Tensor:
        """The whole reward. Shape (B, T)."""
        size = features.shape[-1]
        # The first layer of [y, z] is one matrix product for y and one for z, which is not repeated for each reply.
        of_reply = features @ self.inner.weight[:, :size].T
        of_user = z @ self.inner.weight[:, size:].T + self.inner.bias
        first = leaky_relu(of_reply + of_user[:, None], SLOPE)
        reward: Tensor = self.outer(leaky_relu(self.middle(first), SLOPE))[..., 0]
        return reward
