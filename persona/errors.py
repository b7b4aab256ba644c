"""Everything that this package raises on purpose. Each message says what must hold, what was got, what to do."""


class PersonaError(Exception):
    """Root of this package's errors."""


class ShapeError(PersonaError, ValueError):
    """Arrays whose shapes do not fit one another."""


class DataError(PersonaError, ValueError):
    """Input rows that cannot be used as they are."""


class ModelError(PersonaError, ValueError):
    """A language model folder or id that cannot be loaded or does not fit."""


class ContractError(PersonaError, AssertionError):
    """An implementation that breaks a promise of its contract; raised by the checks."""


class MissingDependency(PersonaError, ImportError):
    """An optional package that a feature needs is not installed."""

    def __init__(self, package: str, *, needed_for: str, install: str) -> None:
        """Name the package, what it is for, and the command that installs it."""
        super().__init__(
            f"{needed_for} needs the package `{package}`, which is not installed. Run `{install}`."
        )
