"""Variational preference learning (VPL): train a latent profile on many users' comparisons.

Follows Poddar et al. (2024), with these departures:

1. The encoder is the reward's own posterior in closed form (Laplace), not an attention network: networks
   trained from scratch do not reach the linear Bayesian model, and often collapse.
2. The bound is that of neural processes (Garnelo et al., 2018): E_q[log p(targets | z)] - KL(q || p) with q
   the belief after context and targets, p the belief after the context alone. The published bound scores the
   targets under the belief after the context; an exact belief is rightly broad there, and the cheapest way to
   be less punished for breadth is to shrink the head: from the same start it lost 3 to 6 points where this
   one stayed within half a point.
3. The head starts from the leading directions of hierarchical Bayes; how long to train is chosen on held-out
   users, with not at all among the choices, and the final model is then trained for that long on all users.
4. The expected log-likelihood is integrated over the log-odds instead of sampled, so z has one scale
   everywhere.
5. Contexts have a random size from 0 up, so that the average user (no context) is trained as well.
6. Targets come from prompts that are not in the context; nothing is drawn for ties, which the tables do not
   hold.
7. The weight of the KL follows the optimiser's step, once, upwards; no annealing and no free nats by default,
   since a belief in closed form cannot collapse unless the head does.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from persona.data.comparisons import ComparisonTable, gather_pairs, sample_episodes
from persona.errors import DataError
from persona.objectives.elbo import (
    anneal_beta,
    expected_log_sigmoid,
    gaussian_kl,
    negative_elbo_loss,
)
from persona.profiles.hierarchical_bayes import fit_hierarchical_bayes
from persona.profiles.latent import LatentProfile
from persona.recipes.held_out import least_surprised, part_users
from persona.types import ReplyPairs

Report = Callable[[dict[str, float]], None]


class LatentConfig(BaseModel):
    """Settings of `train_latent`; the defaults suit a few hundred users with a few dozen comparisons each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Size Z of a user's latent; more than the number of features is an error.
    latent_dim: int = Field(default=8, ge=1)
    # Learned tanh features beside the given ones; 0 is the linear reward.
    hidden: int = Field(default=0, ge=0)
    # Largest context in training, in pairs.
    max_context: int = Field(default=12, ge=1)
    # Most targets of one user in a step.
    max_targets: int = Field(default=16, ge=1)
    # Users in a step.
    users_per_step: int = Field(default=64, ge=1)
    # Most optimiser steps; held-out users may choose fewer.
    steps: int = Field(default=120, ge=0)
    # Optimiser steps between two looks at the held-out users.
    check_every: int = Field(default=20, ge=1)
    # Adam's step size.
    learning_rate: float = Field(default=2e-3, gt=0)
    # Weight of the KL, 1 being the bound itself.
    beta: float = Field(default=1.0, ge=0)
    # Optimiser steps until the KL has its full weight.
    warmup_steps: int = Field(default=0, ge=0)
    # Nats that a belief may leave its prior for nothing.
    free_nats: float = Field(default=0.0, ge=0)
    # Largest norm of a gradient.
    clip_norm: float = Field(default=1.0, gt=0)
    # Share of the training users that choose the number of steps.
    held_out_share: float = Field(default=0.2, gt=0, lt=1)
    # EM iterations of the hierarchical Bayes start.
    em_iterations: int = Field(default=30, ge=1)


def train_latent(
    table: ComparisonTable,
    features: Tensor,
    config: LatentConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> LatentProfile:
    """A latent profile trained on the users of `table`, on the device of `features`.

    Args:
        table: Comparisons of training users alone.
        features: Features of every reply. Shape (N, D), float32.
        config: Settings.
        seed: Draws held-out users, batches, contexts and targets; one seed gives one result.
        report: Gets a dictionary of figures: `step`, `held_out_log_loss` while the number of steps is chosen,
            then `step`, `loss`, `kl` of the final training.

    Raises:
        DataError: `latent_dim` above the number of features, or fewer than four users.
    """
    if config.latent_dim > features.shape[1] + config.hidden or len(table.user_ids) < 4:
        raise DataError(
            f"`latent_dim` must be at most the number of features ({features.shape[1] + config.hidden}) and "
            f"users at least 4; got latent_dim {config.latent_dim} and {len(table.user_ids)} users. Lower it "
            "or collect more."
        )
    report = report or _ignore
    steps = config.steps
    if steps > 0:
        kept, asked = part_users(table, config.held_out_share, seed=seed)
        tried = _start(kept, features, config, seed)
        training = _optimise(tried, kept, features, config, steps=steps, seed=seed)
        steps = least_surprised(
            tried, training, asked, features, config, last=steps, seed=seed, report=report
        ).steps
    profile = _start(table, features, config, seed)
    for figures in _optimise(profile, table, features, config, steps=steps, seed=seed):
        report(figures)
    with torch.no_grad():
        rng = np.random.default_rng(seed)
        shown = sample_episodes(table, table.user_ids, max_context=len(table), max_targets=1, rng=rng).context
        profile.align(gather_pairs(table, profile.lift(features), shown))
    return profile.eval()


def _start(table: ComparisonTable, features: Tensor, config: LatentConfig, seed: int) -> LatentProfile:
    population = fit_hierarchical_bayes(table, features, seed=seed, iterations=config.em_iterations)
    profile = LatentProfile.from_population(population, config.latent_dim, hidden=config.hidden, seed=seed)
    return profile.to(features.device)


def _optimise(
    profile: LatentProfile,
    table: ComparisonTable,
    features: Tensor,
    config: LatentConfig,
    *,
    steps: int,
    seed: int,
) -> Iterator[dict[str, float]]:
    """Train `profile` in place, giving the figures of each optimiser step after it."""
    rng = np.random.default_rng((seed, 1))
    users = table.user_ids
    optimiser = torch.optim.Adam(profile.parameters(), lr=config.learning_rate)
    for step in range(1, steps + 1):
        batch = rng.choice(users, size=min(config.users_per_step, len(users)), replace=False)
        episodes = sample_episodes(
            table, batch, max_context=config.max_context, max_targets=config.max_targets, rng=rng
        )
        lifted = profile.lift(features)
        target = gather_pairs(table, lifted, episodes.target)
        context = gather_pairs(table, lifted, episodes.context)
        prior = profile.encode(context)
        posterior = profile.encode(ReplyPairs.join([context, target]))
        likelihood = expected_log_sigmoid(*profile.log_odds(posterior, target))
        kl = gaussian_kl(posterior, prior)
        beta = anneal_beta(config.beta, step=step, warmup_steps=config.warmup_steps)
        loss = negative_elbo_loss(likelihood, target.mask, kl, beta=beta, free_nats=config.free_nats).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(profile.parameters(), config.clip_norm)
        optimiser.step()
        yield {"step": step, "loss": loss.item(), "kl": kl.mean().item()}


def _ignore(figures: dict[str, float]) -> None:
    """Take a report and do nothing with it."""
