"""The methods of `persona fit` that read texts through a language model, and how they come back from disk.

They have no latent, so a run of the whole loop, whose policy is conditioned on latents, cannot use them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from app.errors import StoreError
from app.files import read_json, write_json
from app.fit_texts import Reader, load_base, most_tokens
from persona.data.comparisons import ComparisonTable
from persona.policy.language_model import LanguageModel
from persona.profiles.few_shot import KIND as FEW_SHOT
from persona.profiles.few_shot import FewShotProfile, Reference
from persona.profiles.shots import ShotFormat
from persona.profiles.texts import TextProfile
from persona.profiles.user_tokens import KIND as USER_TOKENS
from persona.profiles.user_tokens import UserTokenPolicy
from persona.recipes.few_shot import FewShotConfig, train_few_shot, untrained_few_shot
from persona.recipes.user_tokens import UserPairs, UserTokensConfig, train_user_tokens

CARD = "text_profile.json"
"""Says of which kind a profile over texts is, and which model it was trained on."""

_SHOTS = (0, 1, 2, 4, 8)
# Tokens of the template around a shot's two replies.
_AROUND = 32
_TOKEN_STEPS = 8
Load = Callable[[Path, LanguageModel], TextProfile]


class TextMaterial(NamedTuple):
    """What a method over texts learns from.

    table: Comparisons of training users alone.
    reader: Texts and the language model.
    features: Features of every reply, from whose population users are imagined. Shape (N, D).
    seed: Of the training.
    steps: Optimiser steps.
    advance: Told the steps done and their total.
    """

    table: ComparisonTable
    reader: Reader
    features: Tensor
    seed: int
    steps: int
    advance: Callable[[int, int], None]


class TextMethod(NamedTuple):
    """A way to fit a profile over texts.

    title: As tables and plots call it.
    fit: From material to a fitted profile.
    source: Where it comes from.
    beta: DPO's pull towards the reference in its training, for the ranking that could be reached; None if untrained.
    """

    title: str
    fit: Callable[[TextMaterial], TextProfile]
    source: str
    beta: float | None


# As the few-shot benchmark trains; imagined users show clear choices first, and real ones take over.
_FEW_SHOT = FewShotConfig(
    shots=_SHOTS,
    imagined=0.7,
    clear_shots=0.2,
    clear_questions=0.85,
    options=4,
    beta=0.1,
    learning_rate=1.5e-3,
    warmup=0.03,
    reference=Reference.NO_SHOTS,
)
_TOKENS = UserTokensConfig(beta=0.1)


def _few_shot_config(reader: Reader, **settings: float) -> FewShotConfig:
    shot_format = ShotFormat(room=2 * most_tokens(reader.language_model) + _AROUND)
    return _FEW_SHOT.model_copy(update={"shot_format": shot_format, **settings})


def _fit_few_shot(material: TextMaterial) -> TextProfile:
    config = _few_shot_config(material.reader, steps=material.steps)
    return train_few_shot(
        material.table,
        material.reader.texts,
        material.reader.language_model,
        config,
        seed=material.seed,
        features=material.features.cpu(),
        report=lambda figures: material.advance(int(figures["step"]), material.steps),
    )


def _fit_in_context(material: TextMaterial) -> TextProfile:
    reader = material.reader
    config = _few_shot_config(reader, held_out_share=0.3)
    return untrained_few_shot(material.table, reader.texts, reader.language_model, config, seed=material.seed)


def _fit_user_tokens(material: TextMaterial) -> TextProfile:
    reader, table = material.reader, material.table
    users = np.searchsorted(table.user_ids, table.users)
    asked = [reader.texts.prompts[row] for row in table.prompts]
    sides = [
        [
            reader.language_model.encode_reply(prompt, reader.texts.replies[row])
            for prompt, row in zip(asked, rows, strict=True)
        ]
        for rows in (table.chosen, table.rejected)
    ]
    policy = train_user_tokens(
        UserPairs(users, *sides),
        reader.language_model,
        _TOKENS.model_copy(update={"steps": material.steps}),
        seed=material.seed,
        report=lambda figures: material.advance(int(figures["step"]), material.steps),
    )
    policy.adapt_steps = _TOKEN_STEPS
    return policy


TEXT_METHODS: Mapping[str, TextMethod] = {
    "fspo": TextMethod(
        "FSPO, a policy that reads choices", _fit_few_shot, "Singh et al. 2025", _FEW_SHOT.beta
    ),
    "in-context-prompt": TextMethod(
        "choices in the prompt, untrained", _fit_in_context, "baseline of Singh et al. 2025", None
    ),
    "user-tokens": TextMethod("P-RLHF, soft user tokens", _fit_user_tokens, "Li et al. 2024", _TOKENS.beta),
}

_LOADERS: Mapping[str, tuple[type[Any], Load]] = {
    FEW_SHOT: (FewShotProfile, FewShotProfile.load),
    USER_TOKENS: (UserTokenPolicy, UserTokenPolicy.load),
}


def save_text_profile(profile: TextProfile, folder: Path, *, model: str) -> None:
    """Write a profile over texts, and beside it which kind it is and the model that it was trained on.

    Args:
        profile: Of a kind that `load_text_profile` knows.
        folder: Where it goes.
        model: Name of the base model.
    """
    kind = next(kind for kind, (own, _) in _LOADERS.items() if isinstance(profile, own))
    profile.save(folder)
    write_json(folder / CARD, {"kind": kind, "model": model})


def load_text_profile(folder: Path, *, device: str = "auto") -> tuple[TextProfile, LanguageModel]:
    """The profile that `save_text_profile` wrote, and its base model.

    Raises:
        StoreError: There is none in the folder, or it is of a kind that this version does not know.
        DataError, ModelError: The files are damaged, or the base model is another one.
    """
    card = read_json(folder / CARD) if (folder / CARD).is_file() else None
    if not isinstance(card, dict) or card.get("kind") not in _LOADERS or "model" not in card:
        raise StoreError(
            f"A folder of a profile over texts must hold {CARD} with a kind among {', '.join(_LOADERS)} and a model; "
            f"got {card} in {folder}. Fit the profiles again."
        )
    model = load_base(str(card["model"]), device)
    return _LOADERS[card["kind"]][1](folder, model), model
