"""Stage "policy": one LoRA learns to follow latents and directions, from pairs of the base model's own replies."""

from pathlib import Path

from app.pipeline.context import RunContext
from app.pipeline.pairs import pool_pairs
from app.pipeline.profiles import latent_size
from app.pipeline.replies import base_policy, load_replies
from persona.policy.conditioned import ConditionedPolicy
from persona.recipes.policy import PolicyConfig, train_policy


def train_first_policy(run: RunContext, out: Path) -> None:
    """Train the gate and the LoRA from scratch."""
    steps = run.config.policy_steps
    policy = base_policy(run, latent_size(run))
    count = steps * run.config.pairs_per_step
    pairs = pool_pairs(run, policy, load_replies(run), count, run.rng("policy pairs"))
    train_policy(
        policy,
        pairs,
        policy_config(run, steps),
        seed=run.seed("policy training"),
        report=lambda row: run.tell(int(row["step"]) + 1, steps),
    )
    policy.save(out / "policy")


def policy_config(run: RunContext, steps: int) -> PolicyConfig:
    """Settings of policy training for this run."""
    return PolicyConfig(
        steps=steps,
        pairs_per_step=run.config.pairs_per_step,
        beta=run.config.beta,
        sft_weight=run.config.sft_weight,
        lora_lr=run.config.lora_lr,
        gate_lr=run.config.gate_lr,
    )


def load_policy(run: RunContext, stage: str) -> ConditionedPolicy:
    """The policy that a stage left."""
    return ConditionedPolicy.load(run.stage(stage) / "policy", run.language_model)
