"""MiCRo: learn several rewards and a router, from pairs alone as published or from who made them.

Follows Shen et al. (2025), with these departures:

1. By default the heads are trained on users: the marginal probability of all pairs of a user, averaged over
   possible users. The published first stage sees pairs without users; where users' tastes cancel out in the
   pool and the prompt does not tell them apart, it cannot find the heads at all. `published=True` is that
   stage.
2. Trained on users, heads start as the population's mean plus and minus its leading directions (hierarchical
   Bayes), so that no head starts idle. The published stage starts at random.
3. A new user's weights come from Bayes' rule over log-weights (see the profile), not from gradient steps on
   the router. The published second stage (Hedge targets, cross-entropy) is `adapt_router`; the spread of
   log-weights among users plays the part of its temperature, and held-out users choose it.
4. Features of replies and prompts are given, from any frozen model; the router reads the prompt's and not a
   further context text, unless that is among them.
5. How long to train is chosen on held-out users; the final model is then trained that long on all of them.
"""

import copy
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from persona.data.comparisons import ComparisonTable, gather_pairs, rows_of_users
from persona.objectives.hedge import hedge_loss, hedge_target
from persona.objectives.mixture_of_rewards import mixture_of_rewards_loss
from persona.profiles.hierarchical_bayes import fit_hierarchical_bayes
from persona.profiles.kinds import marginal_surprise
from persona.profiles.mixture_of_rewards import MixtureOfRewards
from persona.recipes.descent import descend
from persona.recipes.held_out import check_users, held_out_surprise, least_surprised, part_users
from persona.types import ReplyPairs

Report = Callable[[dict[str, float]], None]

SPREAD_FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
"""Candidates for the spread of log-weights, in units of the trained one."""

CLIP_NORM = 1.0
"""Largest norm of a gradient."""

WARMUP_SHARE = 0.05
"""Share of the most steps that it takes to reach the full step size."""

HEAD_REACH = 3.0
"""Deviations of the population between its mean and a starting head."""


class MixtureOfRewardsConfig(BaseModel):
    """Settings of `train_mixture_of_rewards`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Number K of heads, at least 2.
    heads: int = Field(default=16, ge=2)
    # How many of the last feature columns describe the prompt.
    prompt_dim: int = Field(default=0, ge=0)
    # Units of the router's hidden layer.
    hidden: int = Field(default=128, ge=1)
    # Points that stand for possible users; even, at least 4 a head.
    points: int = Field(default=1024, ge=8)
    # Train on pairs without users, as published.
    published: bool = False
    # Most optimiser steps; held-out users may choose fewer.
    steps: int = Field(default=200, ge=0)
    # Optimiser steps between two looks at the held-out users.
    check_every: int = Field(default=20, ge=1)
    # Users in a step, or pairs if published.
    batch: int = Field(default=32, ge=1)
    # Most pairs of one user in a step.
    pairs_per_user: int = Field(default=32, ge=1)
    # AdamW's step size.
    learning_rate: float = Field(default=1e-2, gt=0)
    # AdamW's weight decay.
    weight_decay: float = Field(default=0.01, ge=0)
    # Weight of the router's negative entropy in the published loss.
    balance: float = Field(default=0.5, ge=0)
    # Largest context when held-out users are asked, in pairs.
    max_context: int = Field(default=12, ge=1)
    # Share of the training users that choose the steps and the spread.
    held_out_share: float = Field(default=0.2, gt=0, lt=1)


def train_mixture_of_rewards(
    table: ComparisonTable,
    features: Tensor,
    config: MixtureOfRewardsConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> MixtureOfRewards:
    """A mixture of rewards trained on the users of `table`, on the device of `features`.

    Args:
        table: Comparisons of training users alone; ties are left out.
        features: Features of every reply, the last `prompt_dim` columns its prompt's. Shape (N, D), float32.
        config: Settings.
        seed: Draws held-out users, starts and batches; one seed gives one result.
        report: Gets `step`, `held_out_log_loss` while choosing, then `spread`, then `step`, `loss`.

    Raises:
        DataError: Fewer than four users.
    """
    table = table.without_ties()
    check_users(table)
    report = report or _ignore
    kept, asked = part_users(table, config.held_out_share, seed=seed)
    profile = _start(kept, features, config, seed)
    training = _optimise(profile, kept, features, config, steps=config.steps, seed=seed)
    best = least_surprised(
        profile, training, asked, features, config, last=config.steps, seed=seed, report=report
    )
    factor = _choose_spread(best.profile, asked, features, config, seed)
    final = _start(table, features, config, seed)
    for figures in _optimise(final, table, features, config, steps=best.steps, seed=seed):
        report(figures)
    _finish(final, table, features)
    with torch.no_grad():
        final.log_spread.add_(math.log(factor))
    report({"spread": final.log_spread.exp().item()})
    return final.eval()


def adapt_router(
    profile: MixtureOfRewards,
    table: ComparisonTable,
    features: Tensor,
    *,
    temperature: float = 1e-3,
    epochs: int = 10,
    batch: int = 32,
    learning_rate: float = 2e-3,
    seed: int,
) -> MixtureOfRewards:
    """A copy whose router has learned from a few pairs which head each prompt asks for; heads stay.

    The published second stage: targets are computed once an epoch, with the router as it is then.

    Args:
        profile: Trained heads and router.
        table: Pairs of the situation to adapt to; ties are left out.
        features: As in training. Shape (N, D).
        temperature: Of the Hedge targets; the paper uses 1e-3 and 1e-4.
        epochs: Passes over the pairs.
        batch: Pairs in a step.
        learning_rate: Adam's step size.
        seed: Orders the pairs.
    """
    table = table.without_ties()
    adapted = copy.deepcopy(profile).train()
    router = [weights for name, weights in adapted.named_parameters() if name.startswith("router")]
    optimiser = torch.optim.Adam(router, lr=learning_rate)
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        with torch.no_grad():
            margins, log_router = _single_pairs(adapted, table, features)
            target = hedge_target(log_router, margins, temperature=temperature)
        for rows in torch.from_numpy(rng.permutation(len(table))).split(batch):
            _, log_router = _single_pairs(adapted, table.select(rows.numpy()), features)
            loss = hedge_loss(log_router, target[rows]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    _finish(adapted, table, features)
    return adapted.eval()


def _start(
    table: ComparisonTable, features: Tensor, config: MixtureOfRewardsConfig, seed: int
) -> MixtureOfRewards:
    profile = MixtureOfRewards(
        features.shape[1],
        config.heads,
        prompt_dim=config.prompt_dim,
        hidden=config.hidden,
        points=config.points,
        seed=seed,
    ).to(features.device)
    if not config.published:
        replies = features[:, : features.shape[1] - config.prompt_dim]
        population = fit_hierarchical_bayes(table, replies, seed=seed)
        values, vectors = torch.linalg.eigh(population.covariance.double())
        axes = (vectors * values.clamp_min(0).sqrt()).T.flip(0)[: config.heads // 2].float()
        # Opposite heads: a user who leans to one of a pair likes that direction, to the other dislikes it.
        with torch.no_grad():
            profile.heads.copy_(population.mean + 0.1 * profile.heads)
            profile.heads[: len(axes)] += HEAD_REACH * axes
            profile.heads[len(axes) : 2 * len(axes)] -= HEAD_REACH * axes
    _finish(profile, table, features)
    return profile


def _optimise(
    profile: MixtureOfRewards,
    table: ComparisonTable,
    features: Tensor,
    config: MixtureOfRewardsConfig,
    *,
    steps: int,
    seed: int,
) -> Iterator[dict[str, float]]:
    """Train `profile` in place, giving the figures of each optimiser step after it."""
    rng = np.random.default_rng((seed, 1))
    batch_loss = _published_loss if config.published else _user_loss
    for figures in descend(
        profile,
        lambda: batch_loss(profile, table, features, config, rng),
        steps=steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_steps=max(1, round(WARMUP_SHARE * config.steps)),
        clip_norm=CLIP_NORM,
    ):
        if figures["step"] % config.check_every == 0 or figures["step"] == steps:
            _finish(profile, table, features)
        yield figures


def _published_loss(
    profile: MixtureOfRewards,
    table: ComparisonTable,
    features: Tensor,
    config: MixtureOfRewardsConfig,
    rng: np.random.Generator,
) -> Tensor:
    rows = rng.choice(len(table), size=min(config.batch, len(table)), replace=False)
    margins, log_router = _single_pairs(profile, table.select(rows), features)
    return mixture_of_rewards_loss(log_router, margins, balance=config.balance).mean()


def _user_loss(
    profile: MixtureOfRewards,
    table: ComparisonTable,
    features: Tensor,
    config: MixtureOfRewardsConfig,
    rng: np.random.Generator,
) -> Tensor:
    """Nats a pair of the users' choices, each user's probability averaged over all possible users."""
    users = rng.choice(table.user_ids, size=min(config.batch, len(table.user_ids)), replace=False)
    rows = rows_of_users(table, users, config.pairs_per_user, rng)
    pairs = gather_pairs(table, profile.lift(features), rows)
    return marginal_surprise(profile.log_likelihood(pairs), pairs.mask)


def _single_pairs(
    profile: MixtureOfRewards, table: ComparisonTable, features: Tensor
) -> tuple[Tensor, Tensor]:
    """Margins and router log-weights (M, K) of all pairs of a table."""
    chosen, rejected = (torch.from_numpy(rows).to(features.device) for rows in (table.chosen, table.rejected))
    lifted = ReplyPairs(
        profile.lift(features[chosen])[:, None],
        profile.lift(features[rejected])[:, None],
        torch.ones(len(table), 1, dtype=torch.bool, device=features.device),
    )
    margins, log_router = profile.read(lifted)
    return margins[:, 0], log_router[:, 0]


@torch.no_grad()
def _finish(profile: MixtureOfRewards, table: ComparisonTable, features: Tensor) -> None:
    """Keep the router's mean weights over the table's pairs, which the belief over heads starts from."""
    _, log_router = _single_pairs(profile, table, features)
    profile.average.copy_(torch.softmax(log_router, dim=-1).mean(0).clamp_min(1e-6))


def _choose_spread(
    profile: MixtureOfRewards,
    table: ComparisonTable,
    features: Tensor,
    config: MixtureOfRewardsConfig,
    seed: int,
) -> float:
    """The factor on the spread under which held-out users' choices are likeliest."""
    losses = {}
    for factor in SPREAD_FACTORS:
        tried = copy.deepcopy(profile)
        with torch.no_grad():
            tried.log_spread.add_(math.log(factor))
        losses[factor] = held_out_surprise(tried, table, features, max_context=config.max_context, seed=seed)
    return min(losses, key=lambda factor: losses[factor])


def _ignore(figures: dict[str, float]) -> None:
    """Take a report and do nothing with it."""
