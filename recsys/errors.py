"""Everything that this package raises on purpose. Each message says what must hold, what was got, what to do."""


class RecsysError(Exception):
    """Root of this package's errors."""


class ShapeError(RecsysError, ValueError):
    """Arrays whose shapes do not fit one another."""


class InteractionError(RecsysError, ValueError):
    """An interaction log that cannot be used as it is."""


class DataFileError(RecsysError, ValueError):
    """A data file that is missing, or that does not hold what its format says."""


class OrdinalError(RecsysError, ValueError):
    """Levels or thresholds that are not ordered as they must be."""


class ContractError(RecsysError, ValueError):
    """A model that breaks a promise which every model of its kind makes."""


class ArtefactError(RecsysError, ValueError):
    """A saved model that is missing, damaged or of another kind."""


class LeakError(RecsysError, ValueError):
    """A split whose training part knows something of its test part."""


class PolicyError(RecsysError, ValueError):
    """A target policy, or a setting of its off-policy evaluation, that cannot be used."""


class MissingDependency(RecsysError, ImportError):
    """An optional package that is not installed.

    Args:
        package: Name of the package.
        needed_for: What asks for it, as a noun.
        install: The command that brings it.
    """

    def __init__(self, package: str, *, needed_for: str, install: str) -> None:
        super().__init__(f"`{package}` must be installed for {needed_for}; it is not. Run `{install}`.")
