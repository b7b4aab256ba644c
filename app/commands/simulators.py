"""Simulators of users: to talk with them, to train with them, and how far one may be believed."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from app.commands.failures import one_line_errors
from app.commands.settings import split_settings

Recipe: TypeAlias = Literal["ecpo", "mtdpo", "mtkto"]
"""Names of `app.train.METHODS`."""


_SETTINGS = typer.Argument(
    metavar="CONFIG.toml|KEY=VALUE",
    help="At most one TOML file, and fields that override it; run=DIR must be given.",
)


def simulate(
    context: typer.Context,
    settings: Annotated[list[str], _SETTINGS],
    out: Annotated[Path, typer.Option(help="Folder of the dialogues; a stopped simulation there goes on.")],
) -> None:
    """Let simulated users talk with a finished run's agent, and keep the dialogues.

    users=KIND: viewers, learned, ailo, ailo-five-calls, persona-prompt,
    target-holding, random or over-agreeable.

    chat=NAME speaks for them: local, the folder or id of a causal language model,
    or MODEL@URL of an OpenAI-compatible endpoint, whose key is in the environment
    variable that key_variable=NAME names.

    agent=NAME recommends: base, policy, last or the folder of a `persona train`;
    name=TEXT is what its dialogues call it, for an audit that ranks agents.

    An example is app/configs/simulate.toml.
    """
    with one_line_errors(context):
        from app.config import load_settings
        from app.simulate_config import SimulateConfig

        config = load_settings(SimulateConfig, *split_settings(settings))
        # Bad input is told above, before the seconds that torch takes to import.
        from app.simulate import simulate as talk
        from app.terminal import PlainConsole

        talk(config, out, console=PlainConsole())


def train(
    context: typer.Context,
    method: Annotated[Recipe, typer.Argument(help="The recipe.")],
    settings: Annotated[list[str], _SETTINGS],
    out: Annotated[Path, typer.Option(help="Folder of the training.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a stopped training in the same folder.")
    ] = False,
) -> None:
    """Train a finished run's policy on dialogues with simulated users, judged by others.

    users=KIND, judges=KIND and chat=NAME are as in `persona simulate`.

    For ecpo, gate=felt|judge|both|none says what a rewrite must pass;
    gate_chat=NAME and rewriter=NAME say which language models judge and rewrite.

    start=NAME is the agent to begin with, as agent= of `persona simulate`.

    An example is app/configs/train.toml.
    """
    with one_line_errors(context):
        from app.config import load_settings
        from app.train_config import TrainConfig

        config = load_settings(TrainConfig, *split_settings(settings))
        # Bad input is told above, before the seconds that torch takes to import.
        from app.terminal import PlainConsole
        from app.train import train as learn

        learn(method, config, out, resume=resume, console=PlainConsole())


def audit(
    context: typer.Context,
    simulated: Annotated[
        list[Path],
        typer.Argument(
            metavar="SIM...",
            help="Dialogues and interactions, in any number of files, and one of predictions.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for audit.json and audit.html.")],
    log: Annotated[
        list[Path] | None,
        typer.Option(help="Real dialogues or interactions in the same forms; may be given again."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Names of columns: user_id=visitor,item_id=product,...")
    ] = None,
    max_level: Annotated[int, typer.Option(min=1, help="The deepest level; levels count from 0.")] = 4,
    accept_level: Annotated[int, typer.Option(min=1, help="Level from which a reaction accepts.")] = 3,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", metavar="NAME=NUMBER", help="In place of a limit that the report names."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Every random draw follows from it.")] = 0,
) -> None:
    """Tell how far a simulator of users can be believed, and for what, from what it and real users did."""
    with one_line_errors(context):
        from app.audit_config import build_audit_config
        from app.evaluation_config import split_pairs

        config = build_audit_config(
            {
                "simulated": [str(path) for path in simulated],
                "log": [str(path) for path in log or ()],
                "columns": split_pairs("--columns", columns),
                "max_level": max_level,
                "accept_level": accept_level,
                "seed": seed,
            },
            limit or (),
        )
        # Bad input is told above, before the seconds that torch takes to import.
        from app.audit import audit as compare
        from app.terminal import PlainConsole

        compare(config, out, console=PlainConsole())
