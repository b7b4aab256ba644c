"""Stage "policy": one LoRA learns to follow latents and directions, from pairs of the base model's own replies.

The pairs are labelled by what was learned, never by the oracle: for a latent, by the latent profile's reward; for a
direction, by the measured attributes. Of the replies to one prompt the best and the worst under a condition form a
pair (the choice of directional preference alignment's rejection sampling, used for DPO).
"""

from pathlib import Path

import numpy as np
import torch

from app.pipeline.context import RunContext
from app.pipeline.preferences import load_comparisons, load_profile
from app.pipeline.replies import ReplyPool, base_policy, load_replies
from persona.data.comparisons import context_pairs
from persona.policy.conditioned import ConditionedPolicy
from persona.profiles.direction import decorrelation
from persona.recipes.policy import PolicyConfig, PreferencePairs, train_policy
from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition

_BOTH_SHARE = 0.2
_MOST_SHOTS = 16


def train_first_policy(run: RunContext, out: Path) -> None:
    """Train the gate and the LoRA from scratch."""
    pool = load_replies(run)
    policy = base_policy(run)
    count = run.config.policy_steps * run.config.pairs_per_step
    pairs = pool_pairs(run, policy, pool, count, run.rng("policy pairs"))
    train_policy(
        policy,
        pairs,
        policy_config(run, run.config.policy_steps),
        seed=run.seed("policy training"),
        report=lambda row: run.tell(int(row["step"]) + 1, run.config.policy_steps),
    )
    policy.save(out / "policy")


def policy_config(run: RunContext, steps: int) -> PolicyConfig:
    """Settings of policy training for this run."""
    return PolicyConfig(steps=steps, pairs_per_step=run.config.pairs_per_step, beta=run.config.beta)


def load_policy(run: RunContext, stage: str) -> ConditionedPolicy:
    """The policy that a stage left."""
    return ConditionedPolicy.load(run.stage(stage) / "policy", run.language_model)


def pool_pairs(
    run: RunContext, policy: ConditionedPolicy, pool: ReplyPool, count: int, rng: np.random.Generator
) -> PreferencePairs:
    """Pairs from the pool's training prompts under random learners' latents, random directions, or both."""
    condition = _draw_conditions(run, pool, count, rng)
    per_prompt = len(pool.replies) // len(pool.prompts)
    prompts = rng.choice(np.flatnonzero(pool.is_train), count)
    options = prompts[:, None] * per_prompt + np.arange(per_prompt)
    scores = score_options(run, pool, options, condition)
    best, worst = options[np.arange(count), scores.argmax(1)], options[np.arange(count), scores.argmin(1)]
    return PreferencePairs.from_replies(
        policy,
        [pool.prompts[i] for i in prompts],
        [pool.replies[i].raw for i in best],
        [pool.replies[i].raw for i in worst],
        condition,
    )


def score_options(run: RunContext, pool: ReplyPool, options: np.ndarray, condition: Condition) -> np.ndarray:
    """Learned worth of replies under each row's condition, latent and direction each in its own units.

    Args:
        run: The run.
        pool: Where the replies are.
        options: Rows of the replies to score. Shape (B, K).
        condition: One row a row of `options`.

    Returns:
        Shape (B, K).
    """
    profile = load_profile(run)
    with torch.inference_mode():
        latent = profile.reward(pool.features[torch.from_numpy(options)], condition.latent)
    has_latent = condition.latent.abs().sum(1, keepdim=True) > 0
    latent = torch.where(has_latent, latent / latent.std().clamp_min(1e-6), 0.0)
    # Whitened, so that a slider for one attribute does not ask for those that come along with it.
    measured = torch.from_numpy(pool.attributes).float()
    white = measured @ decorrelation(measured[torch.from_numpy(pool.is_train[pool.prompt_of])])
    direction = (white[torch.from_numpy(options)] * condition.direction[:, None]).sum(-1)
    return (latent + direction).numpy()


def _draw_conditions(run: RunContext, pool: ReplyPool, count: int, rng: np.random.Generator) -> Condition:
    """Latents of learners from 1.._MOST_SHOTS comparisons, and directions over the sphere and its axes."""
    users = rng.choice(run.groups.learners, count)
    table = load_comparisons(run).train
    profile = load_profile(run)
    pairs = context_pairs(table, profile.lift(pool.features), users, _MOST_SHOTS, rng)
    shown = torch.from_numpy(rng.integers(1, _MOST_SHOTS + 1, count))
    mask = pairs.mask & (torch.arange(_MOST_SHOTS) < shown[:, None])
    with torch.inference_mode():
        latent = profile.encode(pairs._replace(difference=pairs.difference * mask[..., None], mask=mask)).mean
    sphere = rng.normal(size=(count, len(ATTRIBUTES)))
    axes = np.eye(len(ATTRIBUTES))[rng.integers(len(ATTRIBUTES), size=count)] * rng.choice(
        (-1, 1), (count, 1)
    )
    drawn = np.where(rng.random((count, 1)) < 0.5, sphere, axes)
    direction = torch.from_numpy(drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).float()
    kind = torch.from_numpy(rng.random(count))[:, None]
    only_latent, only_direction = kind < (1 - _BOTH_SHARE) / 2, kind > (1 + _BOTH_SHARE) / 2
    return Condition(
        torch.where(only_direction, 0.0, latent), torch.where(only_latent, 0.0, direction), (None,) * count
    )
