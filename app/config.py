"""What one run does, said once: the fields, their units and ranges, and how a file and `key=value` set them.

Precedence: the defaults below, then the TOML file, then `key=value` on the command line. To add a field,
write it here with the comment above it, and in `configs/default.toml`; a test holds the two together. Each
field is checked by itself here; what two fields must hold together is checked by the stage that uses them.
"""

import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.errors import ConfigError

Settings = TypeVar("Settings", bound=BaseModel)

_COMMAND_LINE = "on the command line"


class RunConfig(BaseModel):
    """Every choice of one run; a run's folder belongs to exactly one of these."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # "film-world" for the invented catalogue, or a folder that holds a MovieLens data set.
    catalogue: Annotated[str, Field(min_length=1)] = "film-world"
    # "nano" for the embedded language model, or the path or id of any Hugging Face causal language model.
    model: Annotated[str, Field(min_length=1)] = "nano"
    # Where tensors live: "auto" (CUDA where there is a GPU), "cpu", "cuda" or "cuda:1".
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")] = "auto"
    # Every random draw follows from this one number, 0 or more.
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    # Films to invent, at least 50; a MovieLens folder brings its own.
    films: Annotated[int, Field(ge=50)] = 2400
    # Users in the world, at least 40; of a MovieLens folder, at most as many as it holds.
    users: Annotated[int, Field(ge=40)] = 2000
    # Films shown to each user before the run, as the interaction log that retrieval learns from; 10 or more.
    impressions: Annotated[int, Field(ge=10)] = 120
    # Users whose comparisons of replies are learned from, at least 10.
    learners: Annotated[int, Field(ge=10)] = 400
    # Users kept for measuring alone, never trained on; at least 10.
    unseen_users: Annotated[int, Field(ge=10)] = 200
    # Comparisons of replies that each learner makes, at least 2.
    comparisons: Annotated[int, Field(ge=2)] = 40
    # Questions of users that the pool of replies answers, at least 8; a quarter of them are for measuring alone.
    prompts: Annotated[int, Field(ge=8)] = 512
    # Replies of the base model to each of them, at least 2.
    replies_per_prompt: Annotated[int, Field(ge=2)] = 6
    # Comparisons known of a user when the policy answers (the k of the report's headline), 0 or more.
    shots: Annotated[int, Field(ge=0)] = 8

    # Rounds of talking, rewriting and training, at least 1.
    rounds: Annotated[int, Field(ge=1)] = 2
    # Dialogues a round, one user each, at least 2.
    dialogues: Annotated[int, Field(ge=2)] = 128
    # Turns of a dialogue at most, at least 1.
    turns: Annotated[int, Field(ge=1, le=50)] = 5

    # Which profile learns users from their comparisons: a personal method of `persona fit`.
    profile: Literal[
        "vpl",
        "vpl-amortised",
        "vpl-paper",
        "hierarchical",
        "particles",
        "reward-features",
        "logistic",
        "length",
        "pal",
        "pal-prompt",
        "gpm",
        "micro",
        "direction",
        "pro",
    ] = "vpl"
    # Size Z of a user's latent, for the profile vpl; others have a size of their own.
    latent_dim: Annotated[int, Field(ge=1, le=256)] = 8
    # Rank r of the one LoRA that every user shares.
    rank: Annotated[int, Field(ge=1, le=256)] = 8
    # Optimiser steps of the first policy training, at least 1; each round takes half as many.
    policy_steps: Annotated[int, Field(ge=1)] = 160
    # Preference pairs in a step, at least 1.
    pairs_per_step: Annotated[int, Field(ge=1)] = 16
    # How strongly DPO holds the policy to the base model, in 1/nat, above 0.
    beta: Annotated[float, Field(gt=0)] = 0.1
    # Weight of the preferred reply's own likelihood beside DPO, which keeps replies fluent; 0 or more.
    sft_weight: Annotated[float, Field(ge=0)] = 1.0
    # Peak learning rate of the LoRA, above 0.
    lora_lr: Annotated[float, Field(gt=0)] = 2e-3
    # Peak learning rate of the gate, above 0.
    gate_lr: Annotated[float, Field(gt=0)] = 1e-2

    # Tokens of a reply at most, at least 4.
    reply_tokens: Annotated[int, Field(ge=4, le=2048)] = 72
    # Sampling temperature of replies; 0 takes the likeliest token.
    temperature: Annotated[float, Field(ge=0, le=5)] = 0.7


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run that a file and `key=value` overrides describe; see `load_settings`.

    Example:
        >>> load_config(None, ["users=500", "beta=2e-1"]).beta
        0.2
    """
    return load_settings(RunConfig, path, overrides)


def load_settings(kind: type[Settings], path: Path | None = None, overrides: Sequence[str] = ()) -> Settings:
    """The settings that a file and `key=value` overrides describe.

    Args:
        kind: The model whose fields they are.
        path: A TOML file of top-level keys, or None for the defaults.
        overrides: Texts such as `users=500`, parsed by the type of their field; the last of a key counts.

    Returns:
        The checked configuration.

    Raises:
        ConfigError: The file cannot be read or is not TOML, an override is not `key=value`, a key is unknown,
            or a value is of the wrong type or out of range or does not fit another, or one that must be given is not.
    """
    values = {} if path is None else _read_toml(path)
    origin = dict.fromkeys(values, f"in {path}")
    for text in overrides:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ConfigError(f"An override must read key=value; got {text!r}. Write for example `seed=1`.")
        values[key] = value
        origin[key] = _COMMAND_LINE
    found = {key: _checked(kind, key, values[key], where) for key, where in origin.items()}
    lacking = [name for name, field in kind.model_fields.items() if field.is_required() and name not in found]
    if lacking:
        raise ConfigError(
            f"`{lacking[0]}` must be given; got nothing. Set it in the file or as {lacking[0]}=VALUE."
        )
    try:
        return kind(**found)
    except ValidationError as err:
        # Each fits its field, so they do not fit together; the model says so in a whole sentence.
        raise ConfigError(_told(err)) from err


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as err:
        raise ConfigError(
            f"A configuration must be a readable TOML file; got {path} ({err.strerror}). Check the path."
        ) from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(
            f"A configuration must be TOML in UTF-8; got {path}, which is not ({err}). Correct it there."
        ) from err


def _checked(kind: type[BaseModel], key: str, value: object, where: str) -> Any:
    """The value in its field's type: command-line text is parsed, a file's value must have the type."""
    known = list(kind.model_fields)
    if key not in known:
        near = get_close_matches(key, known, n=1, cutoff=0.5)
        remedy = f"Did you mean `{near[0]}`?" if near else f"The keys are {', '.join(known)}."
        raise ConfigError(f"Every key must be one that a run knows; got `{key}` {where}. {remedy}")
    field = kind.model_fields[key]
    form: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    try:
        # The field by itself: others may have to be given, and are looked at on their own.
        return TypeAdapter(form, config=kind.model_config).validate_python(
            value, strict=where != _COMMAND_LINE
        )
    except ValidationError as err:
        # What may hold a secret by mistake is not shown.
        got = repr(value) if field.repr else "something else"
        raise ConfigError(
            f"`{key}` must fit its field ({_told(err)}); got {got} {where}. Change it there."
        ) from err


def _told(err: ValidationError) -> str:
    return str(err.errors()[0]["msg"]).removeprefix("Value error, ")
