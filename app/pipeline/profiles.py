"""Which profile a run learns, what it reads, and what it finds replies worth: any personal method of `persona fit`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.pipeline.context import RunContext
from app.pipeline.replies import ReplyPool, feature_blocks, load_featurizer
from app.profile_files import load_profile as load_any
from app.profile_files import save_profile as save_any
from app.profile_methods import METHODS, Material
from persona.data.comparisons import ComparisonTable
from persona.features import LENGTH_COLUMN, Featurizer, surface_features
from persona.policy.conditioned import ConditionedPolicy
from persona.profiles import Profile
from persona.profiles.latent import LatentProfile
from persona.profiles.particles import Particles
from persona.recipes.latent import LatentConfig, train_latent
from persona.rewards.attributes import ATTRIBUTES, measure_attributes
from persona.rewards.win_probability import win_probability
from persona.types import Conversation, Posterior, ReplyPairs

VPL = "vpl"
"""The profile whose latent has the size that the configuration asks for."""


def fit_profile(run: RunContext, pool: ReplyPool, table: ComparisonTable, *, seed: int) -> Profile:
    """The profile that the run asks for, fitted to learners' choices.

    Args:
        run: Names the profile.
        pool: The replies.
        table: Learners' comparisons.
        seed: Of the training.
    """
    features = pool_features(run, pool)
    if run.config.profile == VPL:
        return train_latent(table, features, LatentConfig(latent_dim=run.config.latent_dim), seed=seed)
    method = METHODS[run.config.profile]
    asked = features.shape[1] - (len(ATTRIBUTES) if _reads_attributes(run) else pool.features.shape[1])
    material = Material(table, features, seed, asked, LENGTH_COLUMN, ATTRIBUTES)
    return method.fit(material)


def save_profile(run: RunContext, profile: Profile, folder: Path) -> None:
    """Write a fitted profile into its stage's folder."""
    if run.config.profile == VPL and isinstance(profile, LatentProfile):
        profile.save(folder)
    else:
        save_any(profile, folder)


def load_profile(run: RunContext) -> Profile:
    """The fitted profile of the run."""
    folder = run.stage("preferences")
    return LatentProfile.load(folder) if run.config.profile == VPL else load_any(folder)


def latent_size(run: RunContext) -> int:
    """Size Z of the latents that the policy is conditioned on; what was asked for until a profile is fitted."""
    if run.config.profile == VPL or not run.stage("preferences").is_dir():
        return run.config.latent_dim
    return load_profile(run).latent_dim


def pool_features(run: RunContext, pool: ReplyPool) -> Tensor:
    """What the run's profile reads of every reply of the pool. Shape (N, D)."""
    own = torch.from_numpy(pool.attributes).float() if _reads_attributes(run) else pool.features
    if not _reads_prompts(run):
        return own
    return torch.cat([own, _prompt_features(pool, pool.prompts)[torch.from_numpy(pool.prompt_of)]], dim=1)


def reply_features(
    run: RunContext,
    pool: ReplyPool,
    policy: ConditionedPolicy,
    conversations: Sequence[Conversation],
    raw: Sequence[str],
) -> Tensor:
    """The same of other replies.

    Args:
        run: Names the profile.
        pool: Whose scales hold.
        policy: Reads hidden states.
        conversations: What each reply answers.
        raw: The replies, slots unfilled. N texts.
    """
    if _reads_attributes(run):
        own = torch.from_numpy(pool.scale(measure_attributes(raw))).float()
    else:
        featurizer = load_featurizer(run)
        if not raw:
            own = torch.zeros(0, featurizer.dim)
        else:
            own = featurizer.transform(feature_blocks(raw, policy.hidden_states(conversations, raw)))
    if not _reads_prompts(run):
        return own
    return torch.cat([own, _prompt_features(pool, conversations)], dim=1)


@dataclass(frozen=True, slots=True)
class ReadsColumns:
    """A profile that reads some columns of a wider matrix, so that profiles of different features meet in one table.

    Attributes:
        profile: The profile itself.
        columns: Which columns it reads.
    """

    profile: Profile
    columns: slice

    @property
    def latent_dim(self) -> int:
        """That of the profile."""
        return self.profile.latent_dim

    def lift(self, features: Tensor) -> Tensor:
        """The profile's lifted features of its columns."""
        return self.profile.lift(features[..., self.columns])

    def encode(self, pairs: ReplyPairs) -> Posterior:
        """The profile's belief; pairs are lifted."""
        return self.profile.encode(pairs)

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
        """The profile's prediction; pairs are lifted."""
        return self.profile.predict(posterior, asked)


def side_by_side(
    run: RunContext, pool: ReplyPool, profiles: Mapping[str, Profile], name: str
) -> tuple[dict[str, Profile], Tensor]:
    """Profiles over one matrix: those over the pool's features, and the run's own, which may read other ones.

    Args:
        run: Names the profile.
        pool: The replies.
        profiles: By name.
        name: Of the run's own.

    Returns:
        The profiles, wrapped where they must be, and the matrix that they read. Shape (N, D).
    """
    own = pool_features(run, pool)
    if own is pool.features:
        return dict(profiles), own
    width = pool.features.shape[1]
    wrapped: dict[str, Profile] = {
        key: ReadsColumns(profile, slice(width, None) if key == name else slice(width))
        for key, profile in profiles.items()
    }
    return wrapped, torch.cat([pool.features, own], dim=1)


def rewards(profile: Profile, latent: Tensor, features: Tensor) -> Tensor:
    """What each of K replies to one prompt is worth to the user of its row.

    A profile without a reward of its own gives the probability of winning against the other replies of the row.

    Args:
        profile: Fitted.
        latent: Shape (B, Z).
        features: What the profile reads of the replies. Shape (B, K, D).

    Returns:
        Shape (B, K).
    """
    if isinstance(profile, LatentProfile):
        return profile.reward(features, latent)
    if isinstance(profile, Particles):
        belief = profile.belief_at(latent)
    else:
        certain = 1e-6 * torch.eye(latent.shape[1]).expand(len(latent), -1, -1)
        belief = Posterior(latent, certain)
    return win_probability(profile, belief, profile.lift(features))


def _reads_attributes(run: RunContext) -> bool:
    return METHODS[run.config.profile].reads.startswith("attributes")


def _reads_prompts(run: RunContext) -> bool:
    return METHODS[run.config.profile].reads.endswith("prompts")


def _prompt_features(pool: ReplyPool, conversations: Sequence[Conversation]) -> Tensor:
    """Counts over what the user said last, standardised by the pool's training prompts. Shape (N, E)."""
    known = [prompt for prompt, train in zip(pool.prompts, pool.is_train, strict=True) if train]
    scale = Featurizer.fit({"surface": torch.from_numpy(_counts(known))})
    if not conversations:
        return torch.zeros(0, scale.dim)
    return scale.transform({"surface": torch.from_numpy(_counts(conversations))})


def _counts(conversations: Sequence[Conversation]) -> NDArray[np.float32]:
    return surface_features([str(messages[-1]["content"]) for messages in conversations])
