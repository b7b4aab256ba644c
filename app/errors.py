"""What this package raises on purpose; each message says what must hold, what was got, what to do."""


class AppError(Exception):
    """Root of this package's errors."""


class ConfigError(AppError, ValueError):
    """A configuration file or `key=value` that cannot be used."""


class StoreError(AppError, RuntimeError):
    """A run's folder, or a file in it, that cannot be read, written or gone on with."""


class TalkError(AppError, ValueError):
    """Something a person typed or pressed in a conversation that cannot be answered."""
