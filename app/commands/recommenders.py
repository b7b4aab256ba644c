"""Recommenders on a log of your own: to compare them, to serve them, to judge a policy from a log."""

from pathlib import Path
from typing import Annotated

import typer

from app.commands.failures import one_line_errors
from app.errors import ConfigError


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
    with one_line_errors(context):
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
        from app.evaluate import evaluate as run_evaluation
        from app.terminal import PlainConsole

        run_evaluation(config, out, resume=resume, console=PlainConsole())


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
    with one_line_errors(context):
        from app.evaluation_config import split_list
        from app.recommend import Wish, read_ids
        from app.recommend import recommend as serve
        from app.terminal import PlainConsole

        if strangers not in {"refuse", "popular"}:
            raise ConfigError(f"--strangers must be refuse or popular; got {strangers}. Choose one.")
        named = (split_list(users) or ()) + (() if users_file is None else read_ids(users_file))
        wish = Wish(
            named, split_list(items) or (), k, exclude_seen, level, allow, deny,
            "popular" if strangers == "popular" else "refuse",
        )  # fmt: skip
        serve(folder, wish, out=out, device=device, console=PlainConsole())


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
    with one_line_errors(context):
        levels = _read_levels(level or [])
        from app.ope import evaluate_log
        from app.terminal import PlainConsole

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
            console=PlainConsole(),
            **chosen,
        )


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
