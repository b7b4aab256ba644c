"""Networks that read a user's comparisons as a set: a Gaussian belief, all users of a batch in one pass.

Both give the mean and the logarithms of the variances of a diagonal Gaussian, each (B, Z); without comparisons they
give exactly N(0, I). They differ in what they promise by construction and in what they must learn.
"""

import math
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, scaled_dot_product_attention

from persona.types import ReplyPairs

Belief: TypeAlias = tuple[Tensor, Tensor]

SLOPE = 0.2
"""Of the leaky rectifier, as published."""
LARGEST_MEAN = 6.0
LARGEST_LOG_PRECISION = 6.0
"""Soft bounds: they are approached, never reached, and no gradient is cut off on the way."""


def seeded_linear(inputs: int, outputs: int, rng: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """A linear layer with torch's own distribution of first weights, drawn from `rng` instead of global state."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
    bound = 1.0 / math.sqrt(inputs)
    with torch.no_grad():
        for weights in layer.parameters():
            weights.uniform_(-bound, bound, generator=rng)
    return layer


class SymmetricEncoder(nn.Module):
    """Deep sets, with or without attention, in which every comparison adds evidence.

    A pair with difference d and sum s of its replies has evidence u = E d. Its token t(d, s), which may look at the
    user's other tokens, says how much of the evidence to believe and what to add:
    precision = 1 + sum of u^2 sigmoid(b), mean = sum of (u sigmoid(a) + c) / precision, where a and b are the even
    and c the odd parts of linear maps of t under swapping all of the user's pairs. So swapped choices turn the mean
    to the opposite side and leave the variance, more comparisons never make the belief less sure, and no comparisons
    leave the prior. As first drawn it is one Newton step of the posterior of a reward z . E y, its curvature cut to
    the diagonal.

    Args:
        n_features: Features of a reply D.
        latent_dim: Z.
        hidden: Width of the tokens; a multiple of `heads`.
        attention: Let tokens look at one another, through one layer with a residual and a token of nothing.
        rng: Draws the first weights.

    Attributes:
        evidence: E. Shape (Z, D).
    """

    def __init__(
        self, n_features: int, latent_dim: int, *, hidden: int, attention: bool, rng: torch.Generator
    ) -> None:
        super().__init__()
        self.evidence = nn.Parameter(torch.randn(latent_dim, n_features, generator=rng) / n_features**0.5)
        self.inner = seeded_linear(2 * n_features, hidden, rng)
        self.outer = seeded_linear(hidden, hidden, rng)
        self.mix = seeded_linear(hidden, 3 * hidden, rng, bias=False) if attention else None
        self.judge = seeded_linear(hidden, 3 * latent_dim, rng)
        with torch.no_grad():
            # sigmoid(0) = 1/2 of the evidence and a quarter of its square: the logistic slope and curvature at 0.
            self.judge.weight.zero_()
            self.judge.bias.copy_(torch.tensor([0.0, -math.log(3.0), 0.0]).repeat_interleave(latent_dim))

    def forward(self, pairs: ReplyPairs) -> Belief:
        """Mean and log-variances after each user's pairs (B, P, D)."""
        mask = pairs.mask[..., None]
        difference = torch.where(mask, pairs.difference, 0.0)
        total = torch.where(mask, pairs.chosen + pairs.rejected, 0.0)
        # The first layer of both ways round is two matrix products, not four: only the difference changes sign.
        size = difference.shape[-1]
        odd = difference @ self.inner.weight[:, :size].T
        even = total @ self.inner.weight[:, size:].T + self.inner.bias
        tokens = self._tokens(torch.cat([even + odd, even - odd]), pairs.mask.repeat(2, 1))
        forth, back = self.judge(tokens).chunk(2)
        believed, sharpness, _ = (0.5 * (forth + back)).chunk(3, dim=-1)
        extra = 0.5 * (forth - back).chunk(3, dim=-1)[2]
        evidence = difference @ self.evidence.T
        gained = (evidence.square() * torch.sigmoid(sharpness)).sum(1)
        moved = torch.where(mask, evidence * torch.sigmoid(believed) + extra, 0.0).sum(1)
        mean = LARGEST_MEAN * torch.tanh(moved / (1.0 + gained) / LARGEST_MEAN)
        return mean, -LARGEST_LOG_PRECISION * torch.tanh(gained.log1p() / LARGEST_LOG_PRECISION)

    def _tokens(self, first: Tensor, mask: Tensor) -> Tensor:
        tokens = torch.tanh(self.outer(torch.tanh(first)))
        if self.mix is None:
            return tokens
        parts = self.mix(tokens)[:, None].chunk(3, dim=-1)
        # A first token of zeros is always there to be looked at, so that an empty row has a softmax.
        nothing = tokens.new_zeros(len(tokens), 1, 1, tokens.shape[2])
        query, key, value = parts[0], *(torch.cat([nothing, part], dim=2) for part in parts[1:])
        seen = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)[:, None, None]
        looked: Tensor = scaled_dot_product_attention(query, key, value, attn_mask=seen)[:, 0]
        return tokens + looked


class ConcatEncoder(nn.Module):
    """The published encoder, for all users at once where the released code loops over them.

    An MLP on the chosen features followed by the rejected ones, one head of self-attention without residual or
    norm, the mean over the set, and two linear maps to mean and log-variances, both clamped to [-1, 1]. The order of
    the pair carries the choice; what a swap means has to be learned.

    Args:
        n_features: Features of a reply D.
        latent_dim: Z.
        hidden: Width of the MLP.
        rng: Draws the first weights.

    Source: Poddar et al. (2024), section 4.1, and the description of the released code.
    """

    def __init__(self, n_features: int, latent_dim: int, *, hidden: int, rng: torch.Generator) -> None:
        super().__init__()
        self.inner = seeded_linear(2 * n_features, hidden, rng)
        self.outer = seeded_linear(hidden, hidden, rng)
        self.token = seeded_linear(hidden, latent_dim, rng)
        self.query = seeded_linear(latent_dim, latent_dim, rng)
        self.key = seeded_linear(latent_dim, latent_dim, rng)
        self.value = seeded_linear(latent_dim, latent_dim, rng)
        self.mean = seeded_linear(latent_dim, latent_dim, rng)
        self.log_variance = seeded_linear(latent_dim, latent_dim, rng)

    def forward(self, pairs: ReplyPairs) -> Belief:
        """Mean and log-variances after each user's pairs (B, P, D)."""
        mask = pairs.mask[..., None]
        both = torch.where(mask, torch.cat([pairs.chosen, pairs.rejected], dim=-1), 0.0)
        tokens = self.token(leaky_relu(self.outer(leaky_relu(self.inner(both), SLOPE)), SLOPE))
        alike = self.query(tokens) @ self.key(tokens).mT / math.sqrt(tokens.shape[2])
        # A finite floor instead of minus infinity: an empty row, dropped below, must not become NaN.
        weights = alike.masked_fill(~pairs.mask[:, None], torch.finfo(alike.dtype).min).softmax(-1)
        count = pairs.mask.sum(1, keepdim=True)
        pooled = torch.where(mask, weights @ self.value(tokens), 0.0).sum(1) / count.clamp_min(1)
        some = count > 0
        # Differs from the paper, which has no empty contexts: they leave the prior.
        return (
            torch.where(some, self.mean(pooled).clamp(-1.0, 1.0), 0.0),
            torch.where(some, self.log_variance(pooled).clamp(-1.0, 1.0), 0.0),
        )
