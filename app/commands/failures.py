"""What a person sees when a command cannot do what it was told."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from app.errors import AppError
from app.terminal import plain
from persona.errors import PersonaError
from recsys.errors import RecsysError
from simulators.errors import SimulatorError

_EXIT_BAD_INPUT = 2


@contextmanager
def one_line_errors(context: typer.Context) -> Iterator[None]:
    """Turn what the packages raise on purpose into one line and exit code 2; with --debug let it through.

    Args:
        context: Of the command that runs.

    Raises:
        Exit: In place of the error.
    """
    try:
        yield
    except (AppError, PersonaError, RecsysError, SimulatorError) as err:
        if context.find_root().params["debug"]:
            raise
        typer.echo(f"persona: {plain(' '.join(str(err).split()))}", err=True)
        raise typer.Exit(_EXIT_BAD_INPUT) from err
