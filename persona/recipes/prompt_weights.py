"""PRO: learn which objectives a prompt asks for, from preferred replies as published or from score gaps.

Follows Liu et al. (2025), with these departures:

1. By default the weights maximise the Bradley-Terry likelihood of score gaps, with a Dirichlet prior. The
   published target looks at the preferred reply's levels and turns the weights around where an objective
   matters because replies do badly on it. `published=True` is that target, with its KL.
2. The published form says nothing about how sure a choice is; its scale is fitted afterwards, by the
   likelihood of the same training pairs, so that both forms predict probabilities.
3. The adapter is a small network over given prompt features, not a fine-tuned XLM-RoBERTa.
4. Scores are standardised over the replies of the training pairs.
5. Users: log-weights of one's own are added to the adapter's. The gap form is trained on the pool first, then
   on users: by the probability of all pairs of a user, averaged over possible users, which also finds how far
   users spread. A pool of different tastes looks noisy and even; a user in it need not be.
6. The prior's concentration, both numbers of steps, and last a factor on the spread and one on the scale are
   chosen on held-out users. The published form gets its users by these two factors alone.
"""

import copy
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from persona.data.comparisons import ComparisonTable, gather_pairs, rows_of_users
from persona.objectives.preferred_scores import preferred_score_loss
from persona.objectives.reward_gaps import reward_gap_loss
from persona.profiles.kinds import marginal_surprise
from persona.profiles.prompt_weights import PromptWeights, describe_weights
from persona.recipes.descent import descend
from persona.recipes.held_out import (
    check_users,
    held_out_surprise,
    least_surprised,
    look_steps,
    part_users,
)

Report = Callable[[dict[str, float]], None]

SPREAD_FACTORS = (0.25, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Candidates for the spread of log-weights, in units of the trained one (1 if it was not trained)."""

SCALE_FACTORS = (0.8, 1.0, 1.25, 1.6, 2.0)
"""Candidates for the scale, in units of the trained one."""

SCALE_STEPS = 60


class PromptWeightsConfig(BaseModel):
    """Settings of `train_prompt_weights`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Number K of objectives: the first columns of the features are their scores.
    objectives: int = Field(ge=2)
    # How many of the last feature columns describe the prompt; together with the objectives, all of them.
    prompt_dim: int = Field(default=0, ge=0)
    # Units of the adapter's hidden layer; 0 leaves it linear.
    hidden: int = Field(default=32, ge=0)
    # Points that stand for possible users; even, at least 4 an objective.
    points: int = Field(default=1024, ge=8)
    # Learn from the levels of preferred replies, as published, instead of from gaps.
    published: bool = False
    # Temperature of the published target.
    temperature: float = Field(default=0.1, gt=0)
    # Candidates for the Dirichlet prior of the gap form; 1 is none.
    concentrations: tuple[float, ...] = Field(default=(1.0, 1.03, 1.1), min_length=1)
    # Most optimiser steps; held-out users may choose fewer.
    steps: int = Field(default=300, ge=1)
    # Most optimiser steps on users after those on the pool, in the gap form; held-out users may choose fewer.
    user_steps: int = Field(default=150, ge=0)
    # Users in such a step.
    users_per_step: int = Field(default=32, ge=1)
    # Most pairs of one user in such a step.
    pairs_per_user: int = Field(default=32, ge=1)
    # Optimiser steps between two looks at the held-out users.
    check_every: int = Field(default=25, ge=1)
    # Pairs in a step.
    batch: int = Field(default=512, ge=1)
    # AdamW's step size.
    learning_rate: float = Field(default=1e-2, gt=0)
    # AdamW's weight decay.
    weight_decay: float = Field(default=0.01, ge=0)
    # Largest context when held-out users are asked, in pairs.
    max_context: int = Field(default=12, ge=1)
    # Share of the training users that choose steps, prior, spread and scale.
    held_out_share: float = Field(default=0.2, gt=0, lt=1)


def train_prompt_weights(
    table: ComparisonTable,
    features: Tensor,
    config: PromptWeightsConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> PromptWeights:
    """An adapter trained on the pairs of `table`, with the spread of its users, on the device of `features`.

    Args:
        table: Comparisons of training users alone; ties are left out.
        features: K objective scores of every reply, then its prompt's features. Shape (N, K + prompt_dim).
        config: Settings.
        seed: Draws held-out users, start and batches; one seed gives one result.
        report: Gets `concentration` and `step`, or `user_step`, with `held_out_log_loss` while choosing; `step`
            or `user_step` with `loss` in the final training; then `spread` and `scale`.

    Raises:
        DataError: Fewer than four users.
    """
    table = table.without_ties()
    check_users(table)
    report = report or _ignore
    kept, asked = part_users(table, config.held_out_share, seed=seed)
    pooled, concentration, steps = _choose_training(kept, asked, features, config, seed=seed, report=report)
    user_steps = 0 if config.published else config.user_steps
    training = _optimise_users(pooled, kept, features, config, concentration, steps=user_steps, seed=seed)
    best = least_surprised(
        pooled, training, asked, features, config,
        last=user_steps, seed=seed, report=report, name="user_step",
    )  # fmt: skip
    factors = _choose_factors(best.profile, asked, features, config, seed)
    profile = _start(table, features, config, seed)
    for figures in _optimise(profile, table, features, config, concentration, steps=steps, seed=seed):
        report(figures)
    _fit_scale(profile, table, features, config)
    for figures in _optimise_users(
        profile, table, features, config, concentration, steps=best.steps, seed=seed
    ):
        report(figures)
    profile = _tilt(profile, *factors)
    report({"spread": profile.log_spread.exp().item(), "scale": profile.log_scale.exp().item()})
    return profile.eval()


def _choose_training(
    kept: ComparisonTable,
    asked: ComparisonTable,
    features: Tensor,
    config: PromptWeightsConfig,
    *,
    seed: int,
    report: Report,
) -> tuple[PromptWeights, float, int]:
    """The adapter, prior and number of steps that held-out users' choices are likeliest under, on average."""
    candidates = (1.0,) if config.published else config.concentrations
    looks: list[tuple[float, PromptWeights, float, int]] = []
    for concentration in candidates:
        profile = _start(kept, features, config, seed)
        training = _optimise(profile, kept, features, config, concentration, steps=config.steps, seed=seed)
        for step in look_steps(training, every=config.check_every, last=config.steps):
            tried = copy.deepcopy(profile)
            _fit_scale(tried, kept, features, config)
            loss = describe_weights(tried, asked, features).log_loss
            report({"concentration": concentration, "step": step, "held_out_log_loss": loss})
            looks.append((loss, tried, concentration, step))
    return min(looks, key=lambda look: look[0])[1:]


def _start(table: ComparisonTable, features: Tensor, config: PromptWeightsConfig, seed: int) -> PromptWeights:
    profile = PromptWeights(
        config.objectives,
        prompt_dim=config.prompt_dim,
        hidden=config.hidden,
        points=config.points,
        seed=seed,
    ).to(features.device)
    rows = torch.from_numpy(np.concatenate([table.chosen, table.rejected])).to(features.device)
    scores = features[rows, : config.objectives]
    profile.score_mean.copy_(scores.mean(0))
    profile.score_deviation.copy_(scores.std(0).clamp_min(1e-6))
    return profile


def _optimise(
    profile: PromptWeights,
    table: ComparisonTable,
    features: Tensor,
    config: PromptWeightsConfig,
    concentration: float,
    *,
    steps: int,
    seed: int,
) -> Iterator[dict[str, float]]:
    """Train `profile` in place on the pool, giving the figures of each optimiser step after it."""
    rng = np.random.default_rng((seed, 1))
    k = config.objectives

    def batch_loss() -> Tensor:
        rows = rng.choice(len(table), size=min(config.batch, len(table)), replace=False)
        chosen, rejected = _sides(profile, table.select(rows), features)
        if config.published:
            return preferred_score_loss(chosen[:, k:], chosen[:, :k], temperature=config.temperature).mean()
        gaps = (chosen - rejected)[:, :k]
        scale = profile.log_scale.exp()
        return reward_gap_loss(chosen[:, k:], gaps, scale, concentration=concentration).mean()

    return descend(
        profile, batch_loss, steps=steps, learning_rate=config.learning_rate, weight_decay=config.weight_decay
    )


def _optimise_users(
    profile: PromptWeights,
    table: ComparisonTable,
    features: Tensor,
    config: PromptWeightsConfig,
    concentration: float,
    *,
    steps: int,
    seed: int,
) -> Iterator[dict[str, float]]:
    """Train `profile` in place on all pairs of each user at once, giving the figures of each step."""
    rng = np.random.default_rng((seed, 3))
    everyone = table.user_ids

    def batch_loss() -> Tensor:
        users = rng.choice(everyone, size=min(config.users_per_step, len(everyone)), replace=False)
        rows = rows_of_users(table, users, config.pairs_per_user, rng)
        pairs = gather_pairs(table, profile.lift(features), rows)
        surprise = marginal_surprise(profile.log_likelihood(pairs), pairs.mask)
        log_weights = profile.read(pairs)[1][pairs.mask]
        return surprise - (concentration - 1.0) * log_weights.mean()

    return descend(
        profile,
        batch_loss,
        steps=steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        name="user_step",
    )


def _fit_scale(
    profile: PromptWeights, table: ComparisonTable, features: Tensor, config: PromptWeightsConfig
) -> None:
    """Give published weights the scale that makes the training choices likeliest, by Newton's method."""
    if not config.published:
        return
    with torch.no_grad():
        chosen, rejected = _sides(profile, table, features)
        k = config.objectives
        gain = (chosen[:, k:].exp() * (chosen - rejected)[:, :k]).sum(-1).double()
        scale = gain.new_ones(())
        for _ in range(SCALE_STEPS):
            p = torch.sigmoid(scale * gain)
            step = (gain * (1 - p)).sum() / (gain.square() * p * (1 - p)).sum().clamp_min(1e-9)
            scale = (scale + step.clamp(-1.0, 1.0)).clamp_min(1e-3)
        profile.log_scale.copy_(scale.log())


def _sides(profile: PromptWeights, table: ComparisonTable, features: Tensor) -> tuple[Tensor, Tensor]:
    """Lifted features of the chosen and the rejected replies of a table. Shapes (M, 2 K)."""
    chosen, rejected = (torch.from_numpy(rows).to(features.device) for rows in (table.chosen, table.rejected))
    return profile.lift(features[chosen]), profile.lift(features[rejected])


def _choose_factors(
    profile: PromptWeights,
    table: ComparisonTable,
    features: Tensor,
    config: PromptWeightsConfig,
    seed: int,
) -> tuple[float, float]:
    """Factors on spread and scale under which held-out users' targets are likeliest."""
    losses = {
        (spread, scale): held_out_surprise(
            _tilt(profile, spread, scale), table, features, max_context=config.max_context, seed=seed
        )
        for spread in SPREAD_FACTORS
        for scale in SCALE_FACTORS
    }
    return min(losses, key=lambda pair: losses[pair])


@torch.no_grad()
def _tilt(profile: PromptWeights, spread: float, scale: float) -> PromptWeights:
    tilted = copy.deepcopy(profile)
    tilted.log_spread.add_(math.log(spread))
    tilted.log_scale.add_(math.log(scale))
    return tilted


def _ignore(figures: dict[str, float]) -> None:
    """Take a report and do nothing with it."""
