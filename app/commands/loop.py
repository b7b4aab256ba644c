"""The loop against simulated users: to run it, to train its language model, to look at what came out."""

from pathlib import Path
from typing import Annotated

import typer

from app.commands.failures import one_line_errors
from app.commands.settings import split_settings

_AGENT = Annotated[
    str,
    typer.Option(metavar="NAME", help="Who answers: base, policy, last, or the folder of a `persona train`."),
]


def run(
    context: typer.Context,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG.toml|KEY=VALUE", help="At most one TOML file, and fields that override it."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/CATALOGUE-seedSEED if not given.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a stopped run in the same folder.")
    ] = False,
) -> None:
    """Run the whole loop: world, profiles, policy, dialogues, retrieval, and the report."""
    with one_line_errors(context):
        from app.config import load_config

        path, overrides = split_settings(settings or [])
        config = load_config(path, overrides)
        # Bad input is told above, before the seconds that torch takes to import.
        from app.run import run_pipeline
        from app.terminal import PlainConsole

        folder = out or Path("runs", f"{Path(config.catalogue).resolve().name}-seed{config.seed}")
        run_pipeline(config, out=folder, resume=resume, console=PlainConsole())


def pretrain(
    context: typer.Context,
    dialogues: Annotated[Path, typer.Option(help="Folder of dialogues in JSON lines.")],
    out: Annotated[Path, typer.Option(help="Folder for the trained model.")],
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop after so many minutes.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Stop after so many tokens.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Every random draw follows from it.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a stopped training in the same folder.")
    ] = False,
) -> None:
    """Train the embedded language model from world text and openly licensed dialogues."""
    with one_line_errors(context):
        from app.pretrain import main as train

        train(dialogues, out, minutes=minutes, tokens=tokens, seed=seed, resume=resume)


def chat(
    context: typer.Context,
    run_dir: Annotated[Path, typer.Option("--run", metavar="DIR", help="Folder of a finished run.")],
    agent: _AGENT = "last",
) -> None:
    """Talk to the trained policy in the terminal; sliders are set as /brevity 0.8."""
    with one_line_errors(context):
        from app.chat import chat as talk
        from app.terminal import PlainConsole

        talk(run_dir, agent=agent, console=PlainConsole())


def report(
    context: typer.Context,
    run_dir: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a finished run.")],
) -> None:
    """Write report.json and report.html of a finished run anew, and print the summary."""
    with one_line_errors(context):
        from app.report import write_report
        from app.terminal import PlainConsole

        write_report(run_dir, console=PlainConsole())


def demo(
    context: typer.Context,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            "--run", metavar="DIR", help="Folder of a finished run; the newest in runs/ if not given."
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 7860,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is seen from this machine alone.")
    ] = ("127.0.0.1"),
    agent: _AGENT = "last",
) -> None:
    """Open the demo in the browser: sliders, a chat with recommendations, and teaching by choices."""
    with one_line_errors(context):
        from app.demo.server import launch

        launch(run_dir, host=host, port=port, agent=agent)
