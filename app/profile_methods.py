"""The methods over features that `persona fit` compares and runs are made with, by the names that people type.

To add one: a line in `METHODS` that says how to fit it, and its loader in `app.profile_files.LOADERS`. Those that read
texts stand in `app.fit_text_methods`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from app.errors import ConfigError
from app.profile_features import Reads
from persona.data.comparisons import ComparisonTable
from persona.profiles import Profile
from persona.profiles.hierarchical_bayes import fit_hierarchical_bayes, fit_length_rule
from persona.profiles.pooled import fit_pooled
from persona.recipes.amortised import PAPER, AmortisedConfig, train_amortised
from persona.recipes.general_preference import GeneralPreferenceConfig, train_general_preference
from persona.recipes.inferred_direction import InferredDirectionConfig, train_inferred_direction
from persona.recipes.latent import LatentConfig, train_latent
from persona.recipes.logistic import fit_logistic
from persona.recipes.mixture_of_rewards import MixtureOfRewardsConfig, train_mixture_of_rewards
from persona.recipes.pal import PalConfig, train_pal
from persona.recipes.particles import fit_particles
from persona.recipes.prompt_weights import PromptWeightsConfig, train_prompt_weights
from persona.recipes.reward_features import RewardFeaturesConfig, train_reward_features

POOLED = "pooled"
"""The method that the others are compared with; it always takes part."""


class Contexts(NamedTuple):
    """The criteria by which comparisons were judged.

    texts: Z criteria.
    rows: Criterion of each comparison, -1 where none is named. Shape (M,).
    features: Of the criteria's texts. Shape (Z, C).
    """

    texts: tuple[str, ...]
    rows: NDArray[np.int64]
    features: Tensor


class Material(NamedTuple):
    """What a method learns from.

    table: Comparisons of training users alone.
    features: Features of every reply; for methods that read prompts, the prompt's features are the last columns.
        Shape (N, D).
    seed: Of the training.
    prompt_dim: Number of those last columns; 0 for methods that do not read prompts.
    length_column: Column that holds the length of a reply; None where the features have none.
    objectives: Names of the columns, for methods that read attributes.
    contexts: Criteria of the comparisons of `table`; None where the data name none.
    """

    table: ComparisonTable
    features: Tensor
    seed: int
    prompt_dim: int = 0
    length_column: int | None = None
    objectives: tuple[str, ...] = ()
    contexts: Contexts | None = None


class Method(NamedTuple):
    """A way to fit a profile.

    title: As tables and plots call it.
    fit: From material to a fitted profile.
    source: Where it comes from.
    reads: What its features are.
    """

    title: str
    fit: Callable[[Material], Profile]
    source: str
    reads: Reads = "replies"


def _fit_length(material: Material) -> Profile:
    if material.length_column is None:
        raise ConfigError(
            "The method `length` must have the length among the features; got none. Add surface to --features."
        )
    return fit_length_rule(material.table, material.features, material.length_column, seed=material.seed)


def _train_vpl(material: Material) -> Profile:
    size = min(LatentConfig().latent_dim, material.features.shape[1])
    config = LatentConfig(latent_dim=size)
    return train_latent(material.table, material.features, config, seed=material.seed)


METHODS: Mapping[str, Method] = {
    POOLED: Method(
        "one model for everybody",
        lambda m: fit_pooled(m.table, m.features, seed=m.seed),
        "Bradley & Terry 1952",
    ),
    "length": Method("length alone, per user", _fit_length, "baseline"),
    "logistic": Method(
        "logistic regression, per user",
        lambda m: fit_logistic(m.table, m.features, seed=m.seed),
        "baseline",
    ),
    "hierarchical": Method(
        "hierarchical Bayes",
        lambda m: fit_hierarchical_bayes(m.table, m.features, seed=m.seed),
        "Gaussian population by EM",
    ),
    "particles": Method(
        "training users as particles",
        lambda m: fit_particles(m.table, m.features, seed=m.seed),
        "Bayes' rule over known users",
    ),
    "reward-features": Method(
        "reward features",
        lambda m: train_reward_features(m.table, m.features, RewardFeaturesConfig(), seed=m.seed),
        "Barreto et al. 2025",
    ),
    "vpl": Method("VPL, closed-form posterior", _train_vpl, "Poddar et al. 2024"),
    "vpl-amortised": Method(
        "VPL, network as encoder",
        lambda m: train_amortised(m.table, m.features, AmortisedConfig(), seed=m.seed),
        "Poddar et al. 2024",
    ),
    "vpl-paper": Method(
        "VPL as published",
        lambda m: train_amortised(m.table, m.features, PAPER, seed=m.seed),
        "Poddar et al. 2024",
    ),
    "pal": Method(
        "PAL, ideal points",
        lambda m: train_pal(m.table, m.features, PalConfig(), seed=m.seed),
        "Chen et al. 2025",
    ),
    "pal-prompt": Method(
        "PAL, prompt cosines",
        lambda m: train_pal(
            m.table,
            m.features,
            PalConfig(form="prompt cosines", prompt_dim=m.prompt_dim),
            seed=m.seed,
        ),
        "Chen et al. 2025",
        "replies and prompts",
    ),
    "gpm": Method(
        "general preference model",
        lambda m: train_general_preference(m.table, m.features, GeneralPreferenceConfig(), seed=m.seed),
        "Zhang et al. 2025",
    ),
    "micro": Method(
        "MiCRo, mixture of rewards",
        lambda m: train_mixture_of_rewards(
            m.table, m.features, MixtureOfRewardsConfig(prompt_dim=m.prompt_dim), seed=m.seed
        ),
        "Shen et al. 2025",
        "replies and prompts",
    ),
    "direction": Method(
        "direction over named attributes",
        lambda m: train_inferred_direction(
            m.table, m.features, InferredDirectionConfig(names=m.objectives), seed=m.seed
        ),
        "after Wang et al. 2024",
        "attributes",
    ),
    "pro": Method(
        "PRO, prompt weights over named attributes",
        lambda m: train_prompt_weights(
            m.table,
            m.features,
            PromptWeightsConfig(objectives=len(m.objectives), prompt_dim=m.prompt_dim),
            seed=m.seed,
        ),
        "PRO 2025",
        "attributes and prompts",
    ),
}
