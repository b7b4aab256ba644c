"""What this package raises on purpose; each message says what must hold, what was got, what to do."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # Errors are imported where nothing else is, so that `--help` stays fast.
    from pydantic import ValidationError


class AppError(Exception):
    """Root of this package's errors."""


class ConfigError(AppError, ValueError):
    """A configuration file or `key=value` that cannot be used."""


class StoreError(AppError, RuntimeError):
    """A run's folder, or a file in it, that cannot be read, written or gone on with."""


class TalkError(AppError, ValueError):
    """Something a person typed or pressed in a conversation that cannot be answered."""


def option_error(err: "ValidationError", given: Mapping[str, Any], *, command: str) -> ConfigError:
    """The error to raise for the first option that does not fit its field.

    Args:
        err: What the configuration's model says.
        given: Options by field, as they were given.
        command: Whose `--help` is named.
    """
    first = err.errors()[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    got = f"; got {given[field]!r}" if field in given else ""
    option = f"--{field.replace('_', '-')}" if field else "The options"
    return ConfigError(f"{option} must fit: {first['msg']}{got}. See `persona {command} --help`.")
