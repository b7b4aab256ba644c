"""What a person sees when a command cannot do what it was told."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer

from app.errors import AppError
from app.terminal import plain
from persona.errors import PersonaError
from recsys.errors import RecsysError
from simulators.errors import SimulatorError

_EXIT_BAD_INPUT = 2


@contextmanager
def one_line_errors(context: typer.Context) -> Iterator[None]:
    """Turn what the packages raise or warn of on purpose into one line, and errors into exit code 2.

    With --debug both come through as Python tells them.

    Args:
        context: Of the command that runs.

    Raises:
        Exit: In place of the error.
    """
    debug = context.find_root().params["debug"]
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.showwarning = _say
            yield
    except (AppError, PersonaError, RecsysError, SimulatorError) as err:
        if debug:
            raise
        typer.echo(f"persona: {plain(' '.join(str(err).split()))}", err=True)
        raise typer.Exit(_EXIT_BAD_INPUT) from err


def _say(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning in one line where it is meant for the user; where it is not, as Python tells it."""
    if issubclass(category, UserWarning):
        typer.echo(f"persona: {plain(' '.join(str(message).split()))}", err=True)
    else:
        typer.echo(
            warnings.formatwarning(message, category, filename, lineno, line),
            file=file or sys.stderr,
            nl=False,
        )
