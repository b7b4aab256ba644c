"""Every method that `persona fit` compares: those over features and those that read texts."""

from app.errors import ConfigError
from app.fit_contexts import CONTEXT_METHODS
from app.fit_text_methods import TEXT_METHODS, TextMethod
from app.profile_methods import METHODS, POOLED, Method


def method_names() -> list[str]:
    """The names that people type."""
    return [*METHODS, *CONTEXT_METHODS, *TEXT_METHODS]


def feature_method(name: str) -> Method:
    """The method over features of that name, which `check_methods` has let pass."""
    return CONTEXT_METHODS[name] if name in CONTEXT_METHODS else METHODS[name]


def find_method(name: str) -> Method | TextMethod:
    """The method of that name, which `check_methods` has let pass."""
    return TEXT_METHODS[name] if name in TEXT_METHODS else feature_method(name)


def check_methods(names: tuple[str, ...]) -> tuple[str, ...]:
    """The methods to fit, with the average user's model first if nobody named it.

    Raises:
        ConfigError: There is no such method.
    """
    known = method_names()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"--methods must be among {', '.join(known)}; got {', '.join(unknown[:3])}. Correct the names."
        )
    return names if POOLED in names else (POOLED, *names)


def read_texts(names: tuple[str, ...]) -> bool:
    """Whether any of these methods reads texts, for which a language model must be there."""
    return any(name in TEXT_METHODS for name in names)
