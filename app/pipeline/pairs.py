"""Preference pairs from the pool of the base model's own replies, labelled by what was learned, never by the oracle.

Three kinds of condition, each with its own label:

- a latent: of the replies to a prompt, the one that the profile rates best over the one it rates worst;
- a direction: any reply over the one farthest from it, under the direction that the reply itself points in. So a
  slider's place means an amount, not only a sign, and every reply is a perfect example of its own direction;
- both: best over worst by the sum of the profile's reward and the projection on the direction.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.pipeline.context import RunContext
from app.pipeline.preferences import load_comparisons
from app.pipeline.profiles import load_profile, pool_features, rewards
from app.pipeline.replies import ReplyPool
from persona.data.comparisons import context_pairs
from persona.policy.conditioned import ConditionedPolicy
from persona.profiles.direction import decorrelation
from persona.recipes.policy import PreferencePairs
from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition

FULL_SLIDER = 2.0
"""Standard deviations of an attribute that a slider at its end asks for."""

_MOST_SHOTS = 16
_AXES = (1, 2, len(ATTRIBUTES))
_KINDS = ("latent", "direction", "both")
_SHARES = (0.4, 0.45, 0.15)


def pool_pairs(
    run: RunContext, policy: ConditionedPolicy, pool: ReplyPool, count: int, rng: np.random.Generator
) -> PreferencePairs:
    """About `count` pairs on training prompts; draws in which both sides would be the same reply are left out."""
    per_prompt = len(pool.replies) // len(pool.prompts)
    prompts = rng.choice(np.flatnonzero(pool.is_train), count)
    options = prompts[:, None] * per_prompt + np.arange(per_prompt)
    kind = rng.choice(len(_KINDS), count, p=_SHARES)
    white = whitened_attributes(pool)
    latent = _draw_latents(run, pool, count, rng) * torch.from_numpy(kind != 1).float()[:, None]
    direction = _draw_directions(count, rng) * torch.from_numpy(kind == 2).float()[:, None]

    rewarded = _standardised(run, pool, options, latent)
    rewarded += np.einsum("bka,ba->bk", white[options], direction.numpy())
    best, worst = rewarded.argmax(1), rewarded.argmin(1)

    own = rng.integers(per_prompt, size=count)
    asked = _asked_of(white[options[np.arange(count), own]], rng)
    distance = (((white[options] - FULL_SLIDER * asked[:, None]) * (asked[:, None] != 0)) ** 2).sum(-1)
    hindsight = kind == 1
    rows = np.arange(count)
    chosen = options[rows, np.where(hindsight, own, best)]
    rejected = options[rows, np.where(hindsight, distance.argmax(1), worst)]
    direction = torch.where(torch.from_numpy(hindsight)[:, None], torch.from_numpy(asked).float(), direction)

    kept = np.flatnonzero(
        [pool.replies[a].raw != pool.replies[b].raw for a, b in zip(chosen, rejected, strict=True)]
    )
    return PreferencePairs.from_replies(
        policy,
        [pool.prompts[i] for i in prompts[kept]],
        [pool.replies[i].raw for i in chosen[kept]],
        [pool.replies[i].raw for i in rejected[kept]],
        Condition(latent, direction, (None,) * count).select(kept.tolist()),
    )


def whitened_attributes(pool: ReplyPool) -> NDArray[np.float64]:
    """Attributes of all replies without their correlation, so that one slider does not ask for others. (N, A)."""
    measured = torch.from_numpy(pool.attributes).float()
    matrix = decorrelation(measured[torch.from_numpy(pool.is_train[pool.prompt_of])])
    return (measured @ matrix).double().numpy()


def _asked_of(white: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """The direction that each reply points in, cut to its one, two or all strongest axes; shape (B, A)."""
    strength = np.abs(white) + 0.5 * rng.random(white.shape)
    rank = np.argsort(np.argsort(-strength, axis=1), axis=1)
    asked = np.where(rank < rng.choice(_AXES, len(white))[:, None], white / FULL_SLIDER, 0.0)
    return np.asarray(asked / np.maximum(np.linalg.norm(asked, axis=1, keepdims=True), 1.0))


def _standardised(
    run: RunContext, pool: ReplyPool, options: NDArray[np.int64], latent: Tensor
) -> NDArray[np.float64]:
    """The profile's reward of each option in its own standard deviations; zeros for absent latents. (B, K)."""
    with torch.inference_mode():
        reward = rewards(load_profile(run), latent, pool_features(run, pool)[torch.from_numpy(options)])
    present = latent.ne(0).any(1, keepdim=True)
    return torch.where(present, reward / reward.std().clamp_min(1e-6), 0.0).double().numpy()


def _draw_latents(run: RunContext, pool: ReplyPool, count: int, rng: np.random.Generator) -> Tensor:
    """Posterior means of random learners from 1 to `_MOST_SHOTS` of their comparisons. Shape (B, Z)."""
    profile = load_profile(run)
    users = rng.choice(run.groups.learners, count)
    lifted = profile.lift(pool_features(run, pool))
    pairs = context_pairs(load_comparisons(run).train, lifted, users, _MOST_SHOTS, rng)
    shown = torch.from_numpy(rng.integers(1, _MOST_SHOTS + 1, count))
    mask = pairs.mask & (torch.arange(_MOST_SHOTS) < shown[:, None])
    with torch.inference_mode():
        return profile.encode(pairs.keep(mask)).mean


def _draw_directions(count: int, rng: np.random.Generator) -> Tensor:
    """Unit vectors, even over the sphere. Shape (B, A)."""
    drawn = rng.normal(size=(count, len(ATTRIBUTES)))
    return torch.from_numpy(drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).float()
