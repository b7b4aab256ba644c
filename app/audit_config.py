"""What an audit of a simulator is made of: files of both sides, and how to read and judge them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import ConfigError, option_error
from simulators.faithfulness.limits import Limits
from simulators.types import SUCCESS_LEVEL


class AuditConfig(BaseModel):
    """Settings of one audit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Files of the simulated side: dialogues, interactions, and predictions in one file at most.
    simulated: tuple[str, ...] = Field(min_length=1)
    # Files of the real side: dialogues or interactions.
    log: tuple[str, ...] = ()
    # Names of columns in the tables, by our names.
    columns: dict[str, str] = {}
    # The deepest level; levels are whole numbers from 0.
    max_level: int = Field(default=4, ge=1)
    # Level from which a reaction counts as acceptance.
    accept_level: int = Field(default=SUCCESS_LEVEL, ge=1)
    # Every random draw follows from it.
    seed: int = Field(default=0, ge=0)
    # What measures are held to.
    limits: Limits = Limits()


def build_audit_config(options: Mapping[str, Any], limits: Sequence[str]) -> AuditConfig:
    """The settings, checked.

    Args:
        options: By field; None stands for the default.
        limits: Limits in place of the defaults, each NAME=NUMBER.

    Raises:
        ConfigError: An option or a limit does not fit.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        config = AuditConfig(**given, limits=_read_limits(limits))
    except ValidationError as err:
        raise option_error(err, given, command="audit") from err
    if config.accept_level > config.max_level:
        raise ConfigError(
            f"--accept-level must be at most --max-level ({config.max_level}); got {config.accept_level}. "
            "Lower the one or raise the other."
        )
    for path in (*config.simulated, *config.log):
        if not Path(path).is_file():
            raise ConfigError(f"Files to audit must exist; got {path}, which is no file. Correct the path.")
    return config


def _read_limits(texts: Sequence[str]) -> Limits:
    found: dict[str, float] = {}
    for text in texts:
        name, equals, number = (part.strip() for part in text.partition("="))
        if not equals or name not in Limits.model_fields:
            raise ConfigError(
                f"--limit must read NAME=NUMBER; got {text}. Names are {', '.join(Limits.model_fields)}."
            )
        try:
            found[name] = float(number)
        except ValueError as err:
            raise ConfigError(
                f"--limit {name} must be a number; got {number!r}. Write for example 0.1."
            ) from err
    try:
        return Limits.model_validate(found)
    except ValidationError as err:
        first = err.errors()[0]
        name = str(first["loc"][0])
        raise ConfigError(
            f"--limit {name} must fit: {first['msg']}; got {found[name]:g}. Choose another."
        ) from err
