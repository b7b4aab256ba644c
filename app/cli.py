"""The `persona` command. Each subcommand imports its work when called, so that `--help` answers at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from app.errors import AppError, ConfigError
from persona.errors import PersonaError
from recsys.errors import RecsysError
from simulators.errors import SimulatorError

_EXIT_BAD_INPUT = 2

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


@contextmanager
def _one_line_errors(context: typer.Context) -> Iterator[None]:
    """Turn what the packages raise on purpose into one line and exit code 2; with --debug let it through."""
    try:
        yield
    except (AppError, PersonaError, RecsysError, SimulatorError) as err:
        if context.find_root().params["debug"]:
            raise
        typer.echo(f"persona: {' '.join(str(err).split())}", err=True)
        raise typer.Exit(_EXIT_BAD_INPUT) from err


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


@app.command()
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
    with _one_line_errors(context):
        from app.config import load_config

        path, overrides = _split_settings(settings or [])
        config = load_config(path, overrides)
        # Bad input is told above, before the seconds that torch takes to import.
        from rich.console import Console

        from app.run import run_pipeline

        folder = out or Path("runs", f"{Path(config.catalogue).resolve().name}-seed{config.seed}")
        run_pipeline(config, out=folder, resume=resume, console=Console())


@app.command()
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
    with _one_line_errors(context):
        from app.pretrain import main as train

        train(dialogues, out, minutes=minutes, tokens=tokens, seed=seed, resume=resume)


@app.command()
def chat(
    context: typer.Context,
    run_dir: Annotated[Path, typer.Option("--run", metavar="DIR", help="Folder of a finished run.")],
) -> None:
    """Talk to the trained policy in the terminal; sliders are set as /brevity 0.8."""
    with _one_line_errors(context):
        from app.chat import chat as talk

        talk(run_dir)


@app.command()
def report(
    context: typer.Context,
    run_dir: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a finished run.")],
) -> None:
    """Write report.json and report.html of a finished run anew, and print the summary."""
    with _one_line_errors(context):
        from rich.console import Console

        from app.report import write_report

        write_report(run_dir, console=Console())


@app.command()
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
) -> None:
    """Open the demo in the browser: sliders, a chat with recommendations, and teaching by choices."""
    with _one_line_errors(context):
        from app.demo.server import launch

        launch(run_dir, host=host, port=port)


@app.command()
def evaluate(
    context: typer.Context,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Folder of a known format, or a CSV, TSV or Parquet log.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the report, the models and the retriever.")],
    models: Annotated[
        str | None,
        typer.Option(
            help="Among popularity, recent, itemknn, ease, ials, bpr, sasrec, gnolr, gnolr-impressions, nolr, and "
            "rates, logistic, trees, which foretell levels alone; if not given, all that are usual and fit."
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="temporal, per-user, leave-last-out, random, users or given.")
    ] = "temporal",
    levels: Annotated[
        str | None, typer.Option(help="Steps from shallow to deep, or cut-points of ratings: 1,3,4,5.")
    ] = None,
    relevant: Annotated[
        str | None, typer.Option(help="Level from which an item counts, by name or number; the second.")
    ] = None,
    k: Annotated[str, typer.Option(help="List lengths; models are compared at the first.")] = "10,20",
    tune: Annotated[
        int, typer.Option(min=1, help="Settings that each model may try on the validation; 1: defaults.")
    ] = 1,
    seeds: Annotated[str, typer.Option(help="Of the trainings; the first also draws trials.")] = "0",
    test: Annotated[str | None, typer.Option(help="File of the test part, for --split given.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Names of columns: user_id=visitor,item_id=product,...")
    ] = None,
    users: Annotated[str | None, typer.Option(help="Table of what is known of users.")] = None,
    items: Annotated[str | None, typer.Option(help="Table of what is known of items.")] = None,
    core: Annotated[
        int, typer.Option(min=0, help="Least items of each user and users of each item; 0: all.")
    ] = 0,
    test_share: Annotated[float, typer.Option(help="Share of the rows, or users, that is the test.")] = 0.1,
    validation_share: Annotated[float, typer.Option(help="The same of the validation.")] = 0.1,
    split_seed: Annotated[int, typer.Option(min=0, help="Draws the split where it is random.")] = 0,
    allow_leaks: Annotated[
        bool, typer.Option("--allow-leaks", help="Go on in spite of leaks; the report is marked.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a stopped evaluation in the same folder.")
    ] = False,
) -> None:
    """Compare recommenders on your log: the right split, no leak, strong baselines, intervals, a retriever."""
    with _one_line_errors(context):
        from app.evaluation_config import build_config, split_list, split_numbers, split_pairs

        config = build_config(
            {
                "data": data,
                "test": test,
                "users": users,
                "items": items,
                "columns": split_pairs("--columns", columns),
                "levels": split_list(levels),
                "relevant": relevant,
                "core": core,
                "split": split,
                "test_share": test_share,
                "validation_share": validation_share,
                "split_seed": split_seed,
                "models": split_list(models),
                "k": split_numbers("--k", k),
                "tune": tune,
                "seeds": split_numbers("--seeds", seeds),
                "allow_leaks": allow_leaks,
                "device": device,
            }
        )
        # Bad input is told above, before the seconds that torch takes to import.
        from rich.console import Console

        from app.evaluate import evaluate as run_evaluation

        run_evaluation(config, out, resume=resume, console=Console())


@app.command()
def recommend(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of an evaluation, or of its retriever.")
    ],
    users: Annotated[str | None, typer.Option(help="Ids of users: 12,57.")] = None,
    users_file: Annotated[Path | None, typer.Option(help="File of ids of users, one a line.")] = None,
    items: Annotated[
        str | None, typer.Option(help="Ids of items that a stranger wanted: served by them alone.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Length of the lists.")] = 20,
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen/--include-seen", help="Whether to leave out what was seen.")
    ] = True,
    level: Annotated[
        str | None, typer.Option(help="Level to rank by, by name or number; the model's own aim.")
    ] = None,
    allow: Annotated[Path | None, typer.Option(help="File of the only item ids to offer.")] = None,
    deny: Annotated[Path | None, typer.Option(help="File of item ids not to offer.")] = None,
    strangers: Annotated[
        str, typer.Option(help="Unknown users: refuse, or popular (served as someone without a history).")
    ] = "refuse",
    out: Annotated[Path | None, typer.Option(help="File to write: .csv, .json or .parquet.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Bring items to users, known or strangers, with the retriever of an evaluation."""
    with _one_line_errors(context):
        from rich.console import Console

        from app.evaluation_config import split_list
        from app.recommend import Wish, read_ids
        from app.recommend import recommend as serve

        if strangers not in {"refuse", "popular"}:
            raise ConfigError(f"--strangers must be refuse or popular; got {strangers}. Choose one.")
        named = (split_list(users) or ()) + (() if users_file is None else read_ids(users_file))
        wish = Wish(
            named, split_list(items) or (), k, exclude_seen, level, allow, deny,
            "popular" if strangers == "popular" else "refuse",
        )  # fmt: skip
        serve(folder, wish, out=out, device=device, console=Console())


@app.command()
def ope(
    context: typer.Context,
    log: Annotated[
        Path, typer.Argument(metavar="LOG", help="Open Bandit file or folder, or a CSV or Parquet log.")
    ],
    policy: Annotated[
        str, typer.Option(help="uniform, popular, logistic, logged:PATH, or a file of probabilities.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for ope.json and ope.html.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Every random draw follows from it.")] = 0,
    estimator: Annotated[
        list[str] | None,
        typer.Option("--estimator", help="One to use; may be given again. All if not given."),
    ] = None,
    level: Annotated[
        list[str] | None, typer.Option("--level", metavar="NAME=NUMBER", help="Shrinkage of an estimator.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Column whose rows are drawn together, such as a user.")
    ] = None,
    actions: Annotated[
        int | None, typer.Option(min=1, help="Number of actions, if the log lacks some.")
    ] = None,
    fit_share: Annotated[
        float, typer.Option(help="Earliest share of the log that popular and logistic learn from.")
    ] = 0.5,
) -> None:
    """Tell from the log of one policy what another would have earned."""
    with _one_line_errors(context):
        levels = _read_levels(level or [])
        from rich.console import Console

        from app.ope import evaluate_log

        chosen = {} if estimator is None else {"estimators": estimator}
        evaluate_log(
            log,
            policy=policy,
            out=out,
            seed=seed,
            levels=levels or None,
            cluster=cluster,
            n_actions=actions,
            fit_share=fit_share,
            console=Console(),
            **chosen,
        )


@app.command()
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
            "vpl-paper, pal, pal-prompt, gpm, micro, direction, pro."
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
    columns: Annotated[
        str | None, typer.Option(help="Names of columns: user_id=annotator,chosen=better,...")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a stopped comparison in the same folder.")
    ] = False,
) -> None:
    """Learn how far personalisation helps on your comparisons, and which method serves your users best."""
    with _one_line_errors(context):
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
                "device": device,
            }
        )
        # Bad input is told above, before the seconds that torch takes to import.
        from rich.console import Console

        from app.fit import fit as compare

        compare(config, out, resume=resume, console=Console())


@app.command()
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
    with _one_line_errors(context):
        from rich.console import Console

        from app.whois import Ask, tell_user

        tell_user(folder, Ask(comparisons, user, method, questions, as_json), console=Console())


def _read_levels(texts: list[str]) -> dict[str, float]:
    """Numbers by the name of an estimator."""
    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            found[name] = float(number)
        except ValueError as err:
            raise ConfigError(
                f"--level must read NAME=NUMBER; got {text}. Write for example dros=10."
            ) from err
    return found


def _split_settings(settings: list[str]) -> tuple[Path | None, list[str]]:
    """The configuration file, if one is named, and the overrides."""
    paths = [text for text in settings if "=" not in text]
    if len(paths) > 1 or any(not text.endswith(".toml") for text in paths):
        raise ConfigError(
            f"Arguments must be at most one CONFIG.toml, and key=value; got {', '.join(paths)}. "
            "Write for example `persona run my.toml seed=1`."
        )
    return (Path(paths[0]) if paths else None), [text for text in settings if "=" in text]


if __name__ == "__main__":
    main()
