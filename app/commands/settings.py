"""How a command takes its choices: at most one TOML file, and key=value."""

from pathlib import Path

from app.errors import ConfigError


def split_settings(settings: list[str]) -> tuple[Path | None, list[str]]:
    """The configuration file, if one is named, and the overrides.

    Raises:
        ConfigError: There are two files, or something that is neither.
    """
    paths = [text for text in settings if "=" not in text]
    if len(paths) > 1 or any(not text.endswith(".toml") for text in paths):
        raise ConfigError(
            f"Arguments must be at most one CONFIG.toml, and key=value; got {', '.join(paths)}. "
            "Write for example `persona run my.toml seed=1`."
        )
    return (Path(paths[0]) if paths else None), [text for text in settings if "=" in text]
