"""Variational preference learning with a network as encoder: the mended form, and the published one as `PAPER`.

Follows Poddar et al. (2024). The default departs from it in these points:

1. The encoder is symmetric: swapped choices turn the belief to the opposite side, every comparison adds evidence, and
   no comparisons leave the prior, all by construction. All users of a batch are encoded in one pass.
2. Bounds on mean and variance are soft, so that no gradient is cut off; z has one scale in training and use.
3. The head is bilinear, and the expected log-likelihood under the belief is integrated instead of sampled. The FiLM
   head takes one reparametrised draw for each user and step.
4. Head and evidence start from the leading directions of hierarchical Bayes (`warm_start`), and the encoder also
   learns from fictitious users: latents drawn from the prior, who choose by the present reward among pairs that real
   users met. There are as many as wanted, where an encoder trained on a few hundred real users learns them by heart.
5. The weight of the KL rises once with the optimiser's step; free nats and the dropout of the average user's reward
   are options against collapse, and so is the swap guidance of Swap-guided Preference Learning (2026, arXiv
   2603.12595), which costs nothing here because a symmetric encoder mirrors by construction.
6. Contexts have a random size from 0 up; targets come from prompts that are not in the context.
7. Held-out users choose the number of steps, and the final model is trained for that long on all users.

`PAPER` keeps the published networks, sizes, clamps, the radius of z in training alone, the bound with a single draw
and a single target, the annealing and the settings of its released scripts; of the points above it takes 6, since the
tables hold no other contexts, and the features are those given, not the last states of a language model that is
trained along.
"""

from collections.abc import Callable, Iterator
from typing import Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from persona.data.comparisons import ComparisonTable, gather_pairs, sample_episodes
from persona.objectives.elbo import (
    anneal_beta,
    cyclical_beta,
    expected_log_sigmoid,
    negative_elbo_loss,
    standard_normal_kl,
)
from persona.objectives.swap_guidance import swap_guidance_loss
from persona.profiles.amortised import AmortisedProfile, EncoderName, HeadName
from persona.profiles.hierarchical_bayes import fit_hierarchical_bayes
from persona.profiles.latent import LatentProfile
from persona.profiles.reward_heads import BilinearHead, ConcatHead
from persona.profiles.set_encoders import Belief, SymmetricEncoder
from persona.recipes.held_out import check_users, least_surprised, part_users
from persona.types import ReplyPairs

Report = Callable[[dict[str, float]], None]

CLIP_NORM = 1.0
"""Largest norm of a gradient."""
STARTED_RATE = 0.05
"""Step size, against that of the networks, of what starts from hierarchical Bayes and is near its best already."""


class AmortisedConfig(BaseModel):
    """Settings of `train_amortised`; the defaults suit a few hundred users with a few dozen comparisons each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Size Z of a user's latent.
    latent_dim: int = Field(default=8, ge=1)
    # Set encoder: deep_sets, attention, or concat as published.
    encoder: EncoderName = "attention"
    # Reward head: bilinear, film, or concat as published.
    head: HeadName = "bilinear"
    # Width of the networks.
    hidden: int = Field(default=64, ge=1)
    # Points of z over which a nonlinear head is averaged in use; even, 0 uses the mean alone.
    draws: int = Field(default=16, ge=0, multiple_of=2)
    # Start head and encoder from the leading directions of hierarchical Bayes.
    warm_start: bool = True
    # Largest context in training, in pairs.
    max_context: int = Field(default=16, ge=1)
    # Most targets of one user in a step.
    max_targets: int = Field(default=16, ge=1)
    # Users in a step.
    users_per_step: int = Field(default=64, ge=1)
    # Most optimiser steps; held-out users may choose fewer.
    steps: int = Field(default=300, ge=0)
    # Optimiser steps between two looks at the held-out users.
    check_every: int = Field(default=50, ge=1)
    # AdamW's step size.
    learning_rate: float = Field(default=2e-3, gt=0)
    # AdamW's decay of the weights.
    weight_decay: float = Field(default=1e-2, ge=0)
    # Weight of the KL, 1 being the bound itself.
    beta: float = Field(default=0.1, ge=0)
    # Optimiser steps until the KL has its full weight.
    warmup_steps: int = Field(default=100, ge=0)
    # Optimiser steps of one cycle of the published annealing, in place of the warm-up; 0 is none.
    cycle_steps: int = Field(default=0, ge=0)
    # Nats that a belief may leave its prior for nothing.
    free_nats: float = Field(default=1.0, ge=0)
    # Weight of the swap guidance.
    guidance: float = Field(default=0.0, ge=0)
    # Chance that a user's targets are predicted without the average user's reward, in training.
    base_dropout: float = Field(default=0.0, ge=0, le=1)
    # Weight of the encoder's loss on fictitious users, whose latents are known because they were drawn; it needs a
    # head that has started warm.
    fictitious: float = Field(default=4.0, ge=0)
    # Put z on the sphere of radius sqrt(Z) in training, and not in use, as published.
    training_radius: bool = False
    # Share of the training users that choose the number of steps; 0 takes all steps.
    held_out_share: float = Field(default=0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _starts_warm_where_it_can(self) -> Self:
        published = "concat" in (self.encoder, self.head)
        if (self.warm_start and published) or (self.fictitious > 0 and not self.warm_start):
            raise ValueError(
                "`warm_start` needs a symmetric encoder with a bilinear or film head, and `fictitious` needs "
                f"`warm_start`; got encoder {self.encoder}, head {self.head}, warm_start {self.warm_start} and "
                f"fictitious {self.fictitious:g}. Set `warm_start` to false and `fictitious` to 0."
            )
        return self


PAPER = AmortisedConfig(
    latent_dim=512,
    encoder="concat",
    head="concat",
    hidden=512,
    draws=0,
    warm_start=False,
    fictitious=0.0,
    max_context=8,
    max_targets=1,
    users_per_step=32,
    steps=1000,
    learning_rate=1e-4,
    weight_decay=1e-3,
    beta=1e-4,
    warmup_steps=0,
    cycle_steps=10_000,
    free_nats=0.0,
    training_radius=True,
    held_out_share=0.0,
)
"""Variational preference learning as published and released; see the module's text for what is not."""


def train_amortised(
    table: ComparisonTable,
    features: Tensor,
    config: AmortisedConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> AmortisedProfile:
    """An amortised profile trained on the users of `table`, on the device of `features`.

    Args:
        table: Comparisons of training users alone.
        features: Features of every reply. Shape (N, D), float32.
        config: Settings.
        seed: Draws weights, held-out users, batches, contexts, targets and latents; one seed gives one result.
        report: Gets a dictionary of figures: `step`, `held_out_log_loss` while the number of steps is chosen, then
            `step`, `loss`, `kl` of the final training.

    Raises:
        DataError: Fewer than four users.
    """
    check_users(table)
    report = report or _ignore
    steps = config.steps
    if config.held_out_share > 0 and steps > 0:
        kept, asked = part_users(table, config.held_out_share, seed=seed)
        tried = _start(kept, features, config, seed)
        training = _optimise(tried, kept, features, config, steps=steps, seed=seed)
        steps = least_surprised(
            tried, training, asked, features, config, last=steps, seed=seed, report=report
        ).steps
    profile = _start(table, features, config, seed)
    for figures in _optimise(profile, table, features, config, steps=steps, seed=seed):
        report(figures)
    return profile.eval()


@torch.no_grad()
def _start(table: ComparisonTable, features: Tensor, config: AmortisedConfig, seed: int) -> AmortisedProfile:
    profile = AmortisedProfile(
        features.shape[1],
        config.latent_dim,
        encoder=config.encoder,
        head=config.head,
        hidden=config.hidden,
        draws=config.draws,
        seed=seed,
    )
    head, encoder = profile.head, profile.encoder
    if config.warm_start and not isinstance(head, ConcatHead) and isinstance(encoder, SymmetricEncoder):
        population = fit_hierarchical_bayes(table, features, seed=seed)
        leading = LatentProfile.from_population(population, config.latent_dim, seed=seed)
        head.pooled.copy_(leading.pooled)
        head.weight.copy_(leading.head)
        encoder.evidence.copy_(leading.head)
    return profile.to(features.device)


def _optimise(
    profile: AmortisedProfile,
    table: ComparisonTable,
    features: Tensor,
    config: AmortisedConfig,
    *,
    steps: int,
    seed: int,
) -> Iterator[dict[str, float]]:
    """Train `profile` in place, giving the figures of each optimiser step after it."""
    rng, noise = np.random.default_rng((seed, 1)), torch.Generator().manual_seed(seed)
    users = table.user_ids
    optimiser = torch.optim.AdamW(
        _parameter_groups(profile, config), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    for step in range(1, steps + 1):
        batch = rng.choice(users, size=min(config.users_per_step, len(users)), replace=False)
        episodes = sample_episodes(
            table, batch, max_context=config.max_context, max_targets=config.max_targets, rng=rng
        )
        context = gather_pairs(table, features, episodes.context)
        target = gather_pairs(table, features, episodes.target)
        belief = profile.belief(context)
        kl = standard_normal_kl(*belief)
        likelihood = _log_likelihood(profile, belief, target, config, noise)
        beta = _beta(config, step)
        loss = negative_elbo_loss(likelihood, target.mask, kl, beta=beta, free_nats=config.free_nats).mean()
        if config.fictitious > 0:
            loss = loss + config.fictitious * _fictitious_loss(profile, context, noise)
        if config.guidance > 0:
            loss = loss + config.guidance * _guidance(profile, belief, context)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(profile.parameters(), CLIP_NORM)
        optimiser.step()
        yield {"step": step, "loss": loss.item(), "kl": kl.mean().item()}


def _parameter_groups(profile: AmortisedProfile, config: AmortisedConfig) -> list[dict[str, object]]:
    """The linear maps that start from hierarchical Bayes apart, with a smaller step and no decay; all others."""
    started = [
        weights
        for name, weights in profile.named_parameters()
        if config.warm_start and name in {"head.pooled", "head.weight", "encoder.evidence"}
    ]
    known = {id(weights) for weights in started}
    others = [weights for weights in profile.parameters() if id(weights) not in known]
    rate = STARTED_RATE * config.learning_rate
    return [{"params": others}, {"params": started, "lr": rate, "weight_decay": 0.0}]


def _beta(config: AmortisedConfig, step: int) -> float:
    if config.cycle_steps:
        return cyclical_beta(config.beta, step=step - 1, period=config.cycle_steps)
    return anneal_beta(config.beta, step=step, warmup_steps=config.warmup_steps)


def _log_likelihood(
    profile: AmortisedProfile,
    belief: Belief,
    target: ReplyPairs,
    config: AmortisedConfig,
    noise: torch.Generator,
) -> Tensor:
    """Expected log-probability (B, T) of the targets: integrated for a bilinear head, else by one draw of z."""
    mean, log_variance = belief
    head = profile.head
    base = head.base(target.chosen) - head.base(target.rejected)
    if config.base_dropout > 0:
        base = base * (torch.rand(len(mean), 1, generator=noise) >= config.base_dropout).to(mean)
    if isinstance(head, BilinearHead) and not config.training_radius:
        seen = target.difference @ head.weight.T
        variance = torch.einsum("btz,bz->bt", seen.square(), log_variance.exp())
        return expected_log_sigmoid(base + torch.einsum("btz,bz->bt", seen, mean), variance)
    drawn = torch.randn(mean.shape, generator=noise).to(mean)
    z = mean + drawn * torch.exp(0.5 * log_variance)
    if config.training_radius:
        z = normalize(z, dim=-1) * z.shape[1] ** 0.5
    return logsigmoid(base + head.personal(target.chosen, z) - head.personal(target.rejected, z))


def _fictitious_loss(profile: AmortisedProfile, context: ReplyPairs, noise: torch.Generator) -> Tensor:
    """Surprise, a latent dimension, of the encoder at the latents of users who never were.

    z is drawn from the prior and chooses, by the present reward, among the very pairs that real users met.
    """
    with torch.no_grad():
        z = torch.randn(len(context.mask), profile.latent_dim, generator=noise).to(context.chosen)
        odds = profile.reward(context.chosen, z) - profile.reward(context.rejected, z)
        keeps = (torch.rand(odds.shape, generator=noise).to(odds) < torch.sigmoid(odds))[..., None]
        shown = ReplyPairs(
            torch.where(keeps, context.chosen, context.rejected),
            torch.where(keeps, context.rejected, context.chosen),
            context.mask,
        )
    mean, log_variance = profile.belief(shown)
    return 0.5 * (log_variance + (z - mean).square() * torch.exp(-log_variance)).mean()


def _guidance(profile: AmortisedProfile, belief: Belief, context: ReplyPairs) -> Tensor:
    """Mean over the users who show something: without pairs there is no opposite user."""
    with torch.no_grad():
        opposite = profile.belief(context.swapped)
    shows = context.mask.any(1).to(belief[0])
    return (swap_guidance_loss(*belief, *opposite) * shows).sum() / shows.sum().clamp_min(1.0)


def _ignore(figures: dict[str, float]) -> None:
    """Take a report and do nothing with it."""
