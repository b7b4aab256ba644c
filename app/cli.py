"""The `persona` command. Each subcommand imports its work when called, so that `--help` answers at once."""

from typing import Annotated

import typer

from app.commands import loop, profiles, recommenders, simulators

_IN_ORDER = (
    loop.run,
    loop.pretrain,
    loop.chat,
    loop.report,
    loop.demo,
    recommenders.evaluate,
    recommenders.recommend,
    recommenders.ope,
    profiles.fit,
    profiles.whois,
    simulators.simulate,
    simulators.train,
    simulators.audit,
)

app = typer.Typer(
    name="persona",
    help="Personalise a language model and a recommender, and rehearse both against simulated users.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the console script."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        from persona import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that come before the subcommand; they act through the context and their callbacks."""


for _command in _IN_ORDER:
    app.command()(_command)

if __name__ == "__main__":
    main()
