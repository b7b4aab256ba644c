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


class CacheError(SimulatorError, ValueError):
    """A response cache that cannot be read from or written to."""


class ChatError(SimulatorError, ValueError):
    """Arguments that a chat model cannot be asked with."""


class EndpointError(SimulatorError, ValueError):
    """An endpoint that cannot be asked at all, or settings that it cannot be asked with."""


class MissingDependency(SimulatorError, ImportError):
    """An optional package that is not installed.

    Args:
        package: Name of the package.
        needed_for: What asks for it, as a noun.
        install: The command that brings it.
    """

    def __init__(self, package: str, *, needed_for: str, install: str) -> None:
        super().__init__(f"`{package}` must be installed for {needed_for}; it is not. Run `{install}`.")


class MirrorError(SimulatorError, ValueError):
    """A log, scene or rationale that a model of choices cannot be learned from or asked about."""


class PersonaError(SimulatorError, ValueError):
    """Personas that are malformed, or that do not fit the users that are asked for."""


class FaithfulnessError(SimulatorError, ValueError):
    """Simulated or real behaviour that cannot be compared as it is."""


class RolloutError(SimulatorError, ValueError):
    """Arguments that a rollout, a session or an environment cannot be run with."""


class ContractError(SimulatorError, AssertionError):
    """An implementation that breaks a promise of its protocol."""


class DialogueStoreError(SimulatorError, ValueError):
    """A folder of dialogues that is damaged, in use, or of another run."""


class JudgeError(SimulatorError, ValueError):
    """Texts that cannot be compared, or verdicts that say too little."""
