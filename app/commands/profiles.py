"""Profiles of people on comparisons of your own: to learn them, and to read somebody with them."""

from pathlib import Path
from typing import Annotated

import typer

from app.commands.failures import one_line_errors


def fit(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="File of user_id, prompt, chosen, rejected, or a data set of the field."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the report and the profiles.")],
    methods: Annotated[
        str | None,
        typer.Option(
            help="Among pooled, length, logistic, hierarchical, particles, reward-features, vpl, vpl-amortised, "
            "vpl-paper (in minutes), pal, pal-prompt, gpm, micro, direction and pro (which read scores of the data), "
            "context-aware (which reads a column context), and, through a language model, in minutes, fspo, "
            "in-context-prompt, user-tokens."
        ),
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="Side by side: surface, relation, encoder=MODEL, states=MODEL.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Each draws a split of its own, and the training.")] = "0,1,2",
    known: Annotated[
        str, typer.Option("--context", help="Comparisons known of a user; compared at the last.")
    ] = "0,1,2,4,8,16",
    test_users: Annotated[float, typer.Option(help="Share of users never trained on.")] = 0.25,
    target_prompts: Annotated[float, typer.Option(help="Share of prompts kept for what is foretold.")] = 0.25,
    context_prompts: Annotated[
        float, typer.Option(help="Share of prompts kept for what unseen users show; 0: those of training.")
    ] = 0.25,
    group_near_duplicates: Annotated[
        bool,
        typer.Option("--group-near-duplicates", help="Keep prompts that nearly repeat one another together."),
    ] = False,
    steps: Annotated[
        int | None, typer.Option(help="Training steps of methods that train a language model; 150.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Language model of such methods: nano, an id or a folder; nano.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Names of columns: user_id=annotator,chosen=better,...")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a stopped comparison in the same folder.")
    ] = False,
) -> None:
    """Learn how far personalisation helps on your comparisons, and which method serves your users best."""
    with one_line_errors(context):
        from app.evaluation_config import split_list, split_numbers, split_pairs
        from app.fit_config import build_fit_config

        config = build_fit_config(
            {
                "data": data,
                "columns": split_pairs("--columns", columns),
                "methods": split_list(methods),
                "features": split_list(features),
                "seeds": split_numbers("--seeds", seeds),
                "context": split_numbers("--context", known),
                "test_users": test_users,
                "target_prompts": target_prompts,
                "context_prompts": context_prompts,
                "group_near_duplicates": group_near_duplicates,
                "steps": steps,
                "model": model,
                "device": device,
            }
        )
        # Bad input is told above, before the seconds that torch takes to import.
        from app.fit import fit as compare
        from app.terminal import PlainConsole

        compare(config, out, resume=resume, console=PlainConsole())


def whois(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `persona fit` made.")],
    comparisons: Annotated[Path, typer.Option(help="File of what the user chose, as for `persona fit`.")],
    user: Annotated[
        str | None, typer.Option(help="Whose rows to read, where the file has several users.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Which profile; the best of the comparison.")] = None,
    questions: Annotated[
        Path | None, typer.Option(help="File of pairs to ask about; those of the comparison if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")] = False,
) -> None:
    """Tell who a user is: what they want, how sure that is, which choices told most, and what to ask next."""
    with one_line_errors(context):
        from app.terminal import PlainConsole
        from app.whois import Ask, tell_user

        tell_user(folder, Ask(comparisons, user, method, questions, as_json), console=PlainConsole())
