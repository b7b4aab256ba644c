"""Inferred directions: learn from training users how directions over objectives vary, to read new users quickly.

DPA (Wang et al., 2024) has each user set a direction by hand. Departures:

1. The direction is inferred from comparisons, by Bayes' rule under Bradley-Terry choices; the published method has
   no inference.
2. Objectives are whitened among replies to one prompt before directions are spoken of, because published objectives
   go together (correlations of .6 to .7) and a direction over them as they are would say mostly "good".
3. How directions vary is either learned (mean and covariance by EM) or taken as even over the sphere with one of a
   few spreads; held-out users choose, and the choice is then fitted to all training users.
4. Directions are not held within 45 degrees of one objective, as the published arithmetic prompt is: the learned
   mean says where users are.
"""

from collections.abc import Callable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from persona.data.comparisons import ComparisonTable, gather_pairs, sample_episodes
from persona.data.splits import hold_out_users
from persona.profiles.hierarchical_bayes import HierarchicalBayes, fit_hierarchical_bayes
from persona.profiles.inferred_direction import InferredDirection, whiten_within_prompts

Report = Callable[[dict[str, float]], None]

HELD_OUT_REPEATS = 4
"""Episodes drawn for each held-out user."""


class InferredDirectionConfig(BaseModel):
    """Settings of `train_inferred_direction`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Names of the objectives, one a feature; empty numbers them from 1.
    names: tuple[str, ...] = ()
    # Candidate standard deviations of a weight when every direction is as likely, in logits.
    spreads: tuple[float, ...] = Field(default=(0.5, 1.0, 2.0, 4.0), min_length=1)
    # EM iterations of the learned population.
    em_iterations: int = Field(default=30, ge=1)
    # Largest context of held-out users, in pairs.
    max_context: int = Field(default=16, ge=1)
    # Share of the training users that choose.
    held_out_share: float = Field(default=0.2, gt=0, lt=1)


def train_inferred_direction(
    table: ComparisonTable,
    features: Tensor,
    config: InferredDirectionConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> InferredDirection:
    """A direction profile for the users of `table` and others like them.

    Args:
        table: Comparisons of training users alone.
        features: Objective scores of every reply. Shape (N, A), float32.
        config: Settings.
        seed: Draws held-out users and their episodes; one seed gives one result.
        report: Gets `spread` (0 for the learned population) and `held_out_log_loss` of each candidate.

    Raises:
        DataError: Fewer than three users, or an objective that does not vary within prompts.
        ShapeError: There is not one name for each objective.
    """
    names = config.names or tuple(f"objective_{place + 1}" for place in range(features.shape[1]))
    stay, _ = hold_out_users(table, config.held_out_share, np.random.default_rng(seed))
    kept = np.isin(table.users, stay)
    candidates = (0.0, *config.spreads)
    losses = []
    for spread in candidates:
        profile = _fit(table.select(kept), features, names, spread, config, seed)
        losses.append(_held_out_loss(profile, table.select(~kept), features, config, seed))
        if report is not None:
            report({"spread": spread, "held_out_log_loss": losses[-1]})
    return _fit(table, features, names, candidates[int(np.argmin(losses))], config, seed)


def _fit(
    table: ComparisonTable,
    features: Tensor,
    names: tuple[str, ...],
    spread: float,
    config: InferredDirectionConfig,
    seed: int,
) -> InferredDirection:
    replies, first = np.unique(np.concatenate([table.chosen, table.rejected]), return_index=True)
    prompts = np.tile(table.prompts, 2)[first]
    known = features[torch.from_numpy(replies).to(features.device)]
    matrix = whiten_within_prompts(known, torch.from_numpy(prompts).to(features.device))
    if spread:
        size = features.shape[1]
        population = HierarchicalBayes(matrix.new_zeros(size), spread * torch.eye(size).to(matrix))
    else:
        white = features @ matrix
        population = fit_hierarchical_bayes(table, white, seed=seed, iterations=config.em_iterations)
    return InferredDirection(names, matrix, population)


def _held_out_loss(
    profile: InferredDirection,
    table: ComparisonTable,
    features: Tensor,
    config: InferredDirectionConfig,
    seed: int,
) -> float:
    """Mean negative log-probability of held-out users' targets, over the same episodes at every call."""
    rng = np.random.default_rng((seed, 2))
    users = np.tile(table.user_ids, HELD_OUT_REPEATS)
    episodes = sample_episodes(table, users, max_context=config.max_context, max_targets=len(table), rng=rng)
    lifted = profile.lift(features)
    target = gather_pairs(table, lifted, episodes.target)
    posterior = profile.encode(gather_pairs(table, lifted, episodes.context))
    probability = profile.predict(posterior, target)[target.mask]
    return -probability.clamp_min(torch.finfo(probability.dtype).tiny).log().mean().item()
