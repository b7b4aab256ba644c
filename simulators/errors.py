"""Everything that this package raises on purpose. Each message says what must hold, what was got, what to do."""


class SimulatorError(Exception):
    """Root of this package's errors."""


class CatalogueError(SimulatorError, ValueError):
    """A catalogue folder that is missing, malformed or empty."""


class WorldError(SimulatorError, ValueError):
    """Arguments that a simulated world cannot be built from or asked about."""


class UnknownUserError(SimulatorError, KeyError):
    """A user id that the population does not hold."""

    def __str__(self) -> str:
        """The plain sentence; `KeyError` would quote it."""
        return str(self.args[0])
