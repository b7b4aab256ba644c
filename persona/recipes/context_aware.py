"""The context-aware preference model: a reward told its criterion, and users found among criteria.

Follows Pitis et al. (2024), with these departures:

1. The criterion, the reply and the prompt are given as features of any frozen model; the criterion makes the
   weights over the reply's features. The paper fine-tunes one language model that reads all three as text.
2. Each comparison says by which criterion it was judged: the "user" of a row of the table is a row of the
   matrix of criteria. The number of steps is chosen on held-out criteria, so on how well the reward obeys
   criteria that it has not seen.
3. The criterion's probability p(z) does not depend on the prompt. It is fitted to users by EM; the paper asks
   a language model for it.
4. A user's belief over candidates is updated by what the user chose; a share of choices, found on held-out
   users, is taken to follow none of them.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from persona.data.comparisons import ComparisonTable, context_pairs
from persona.data.splits import hold_out_users
from persona.errors import DataError, ShapeError
from persona.profiles.criteria import CriteriaProfile
from persona.profiles.kinds import belief_over_kinds
from persona.recipes.held_out import held_out_surprise
from persona.rewards.context_aware import ContextAwareReward

Report = Callable[[dict[str, float]], None]

LAPSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6)
EM_ITERATIONS = 50
LEAST_PRIOR = 1e-4
"""No candidate becomes less likely than this before anything is known about a user."""


class ContextAwareConfig(BaseModel):
    """Settings of `train_context_aware`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # How many of the last feature columns describe the prompt.
    prompt_dim: int = Field(default=0, ge=0)
    # Units of the hidden layer over criterion and prompt; 0 leaves the weights linear in both.
    hidden: int = Field(default=64, ge=0)
    # Most optimiser steps; held-out criteria may choose fewer.
    steps: int = Field(default=600, ge=1)
    # Optimiser steps between two looks at the held-out criteria.
    check_every: int = Field(default=50, ge=1)
    # Pairs in a step.
    batch: int = Field(default=256, ge=1)
    # AdamW's step size.
    learning_rate: float = Field(default=5e-3, gt=0)
    # AdamW's weight decay.
    weight_decay: float = Field(default=0.1, ge=0)
    # Share of the criteria that choose the number of steps.
    held_out_share: float = Field(default=0.2, gt=0, lt=1)


def train_context_aware(
    table: ComparisonTable,
    features: Tensor,
    criteria: Tensor,
    config: ContextAwareConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> ContextAwareReward:
    """A reward that obeys criteria, on the device of `features`.

    Args:
        table: Comparisons; `users` holds the row of the criterion that each was judged by; ties are left out.
        features: Features of every reply, the last `prompt_dim` columns its prompt's. Shape (N, D), float32.
        criteria: Features of each criterion's text. Shape (Z, C), float32.
        config: Settings.
        seed: Draws held-out criteria, start and batches; one seed gives one result.
        report: Gets `step`, `held_out_log_loss` while choosing, then `step`, `loss` of the final training.

    Raises:
        ShapeError: A comparison names a criterion without features.
        DataError: (from the split) fewer than two criteria.
    """
    table = table.without_ties()
    if criteria.ndim != 2 or len(criteria) <= table.users.max(initial=-1):
        raise ShapeError(
            f"`criteria` must have shape (Z, C) with Z at least {table.users.max(initial=-1) + 1}, one row for "
            f"each criterion that is judged by; got {tuple(criteria.shape)}. Compute features of all criteria."
        )
    report = report or _ignore
    stay, held_out = hold_out_users(table, config.held_out_share, np.random.default_rng(seed))
    kept, asked = (table.select(np.isin(table.users, rows)) for rows in (stay, held_out))
    losses: dict[int, float] = {}
    reward = _start(features, criteria, config, seed)
    for figures in _optimise(reward, kept, features, criteria, config, steps=config.steps, seed=seed):
        step = int(figures["step"])
        if step % config.check_every == 0 or step == config.steps:
            with torch.no_grad():
                losses[step] = -logsigmoid(criterion_margins(reward, asked, features, criteria)).mean().item()
            report({"step": step, "held_out_log_loss": losses[step]})
    steps = min(losses, key=lambda step: losses[step])
    final = _start(features, criteria, config, seed)
    for figures in _optimise(final, table, features, criteria, config, steps=steps, seed=seed):
        report(figures)
    return final.eval()


def criterion_margins(
    reward: ContextAwareReward, table: ComparisonTable, features: Tensor, criteria: Tensor
) -> Tensor:
    """Reward of the chosen reply minus that of the rejected one, each by its row's criterion.

    Args:
        reward: Judges.
        table: Comparisons; `users` holds the row of the criterion.
        features: Shape (N, D).
        criteria: Shape (Z, C).

    Returns:
        Shape (M,), in logits; positive where the reward agrees with the choice.
    """
    index = [
        torch.from_numpy(rows).to(features.device) for rows in (table.chosen, table.rejected, table.users)
    ]
    judged = criteria[index[2]]
    margins: Tensor = reward(features[index[0]], judged) - reward(features[index[1]], judged)
    return margins


@torch.no_grad()
def fit_criteria_profile(
    reward: ContextAwareReward,
    criteria: Tensor,
    table: ComparisonTable,
    features: Tensor,
    *,
    seed: int,
    lapses: Sequence[float] = LAPSES,
    max_context: int = 12,
    held_out_share: float = 0.2,
) -> CriteriaProfile:
    """A profile over candidate criteria, with the prior and the lapse that suit these users.

    For each lapse the prior is fitted to most users by EM; the lapse under which the held-out users' targets
    are likeliest is kept, and its prior fitted once more to all users.

    Args:
        reward: Trained on criteria; stays as it is.
        criteria: Features of the candidates' texts. Shape (K, C).
        table: Comparisons of training users, at least two; ties are left out.
        features: As in the reward's training. Shape (N, D).
        seed: Draws held-out users and their contexts.
        lapses: Candidates, each 0 to below 1.
        max_context: Largest context when held-out users are asked, in pairs.
        held_out_share: Share of the users that choose the lapse.

    Raises:
        DataError: No candidate lapse, or fewer than two users.
    """
    if not lapses:
        raise DataError(f"`lapses` must hold at least one candidate; got none. Use {list(LAPSES)}.")
    table = table.without_ties()
    stay, held_out = hold_out_users(table, held_out_share, np.random.default_rng(seed))
    kept, asked = (table.select(np.isin(table.users, users)) for users in (stay, held_out))
    lifted = reward.each(features, criteria)
    losses = {}
    for lapse in lapses:
        profile = _fit_prior(reward, criteria, kept, lifted, lapse)
        losses[lapse] = held_out_surprise(profile, asked, features, max_context=max_context, seed=seed)
    best = min(losses, key=lambda lapse: losses[lapse])
    return _fit_prior(reward, criteria, table, lifted, best).eval()


def _start(features: Tensor, criteria: Tensor, config: ContextAwareConfig, seed: int) -> ContextAwareReward:
    reward = ContextAwareReward(
        features.shape[1], criteria.shape[1], prompt_dim=config.prompt_dim, hidden=config.hidden, seed=seed
    )
    return reward.to(features.device)


def _optimise(
    reward: ContextAwareReward,
    table: ComparisonTable,
    features: Tensor,
    criteria: Tensor,
    config: ContextAwareConfig,
    *,
    steps: int,
    seed: int,
) -> Iterator[dict[str, float]]:
    """Train `reward` in place, giving the figures of each optimiser step after it."""
    rng = np.random.default_rng((seed, 1))
    optimiser = torch.optim.AdamW(
        reward.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    for step in range(1, steps + 1):
        rows = rng.choice(len(table), size=min(config.batch, len(table)), replace=False)
        margins = criterion_margins(reward, table.select(rows), features, criteria)
        loss = -logsigmoid(margins).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield {"step": step, "loss": loss.item()}


def _fit_prior(
    reward: ContextAwareReward, criteria: Tensor, table: ComparisonTable, lifted: Tensor, lapse: float
) -> CriteriaProfile:
    """EM for the shares of the candidates among users."""
    profile = CriteriaProfile(reward, criteria, lapse=lapse).to(criteria.device)
    pairs = context_pairs(table, lifted, table.user_ids)
    for _ in range(EM_ITERATIONS):
        share = belief_over_kinds(profile.log_likelihood, profile.log_prior, pairs).mean(0)
        share = share.clamp_min(LEAST_PRIOR)
        profile.log_prior.copy_((share / share.sum()).log())
    return profile


def _ignore(figures: dict[str, float]) -> None:
    """Take a report and do nothing with it."""
