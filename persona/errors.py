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
