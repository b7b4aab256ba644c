"""`persona run`: the whole loop, from a world to a report, as a list of stages that a stopped run takes up again."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from app.config import RunConfig
from app.pipeline.context import RunContext
from app.pipeline.conversations import talk_after, talk_before
from app.pipeline.latent_map import draw_map
from app.pipeline.measure import measure_run
from app.pipeline.policy import train_first_policy
from app.pipeline.preferences import ask_users, learn_preferences
from app.pipeline.replies import sample_replies
from app.pipeline.retrieval import train_retrieval
from app.pipeline.rounds import learn, talk
from app.pipeline.world import describe_world
from app.quiet import quiet_libraries
from app.report import write_report
from app.stages import Stage, StageView, run_stages
from app.store import RunStore

Work = Callable[[RunContext, Path], None]


def run_pipeline(config: RunConfig, out: Path, *, resume: bool, console: Console) -> Path:
    """Run every stage that is not finished yet and write the report.

    Args:
        config: The run's choices.
        out: The run's folder.
        resume: Whether `out` may hold an unfinished run of the same configuration.
        console: Where progress and the summary are shown.

    Returns:
        The path of `report.html`.
    """
    quiet_libraries()
    run = RunContext(config, out)
    # Bad input shows here, before the folder belongs to it.
    run.check_input()
    with RunStore.open(out, config, run.data_hashes(), resume=resume, device=run.device) as store:
        stages = [Stage(name, title, _bind(run, work)) for name, title, work in _plan(config)]
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=console) as progress:
            run_stages(store, stages, progress)
        return write_report(out, console=console)


def _plan(config: RunConfig) -> list[tuple[str, str, Work]]:
    """Name, title and work of every stage, in order."""
    rounds: list[tuple[str, str, Work]] = []
    for number in range(1, config.rounds + 1):
        rounds += [
            (
                f"talk-{number}",
                f"Round {number}: talking, rewriting short turns",
                partial(talk, number=number),
            ),
            (
                f"learn-{number}",
                f"Round {number}: policy, posteriors, retriever",
                partial(learn, number=number),
            ),
        ]
    return [
        ("world", "Opening the world", describe_world),
        ("retrieval", "Training and measuring retrieval", train_retrieval),
        ("replies", "Sampling replies of the base model", sample_replies),
        ("choices", "Users choose between replies", ask_users),
        ("preferences", "Learning what users prefer", learn_preferences),
        ("before", "Unseen users talk with the untrained agent", talk_before),
        ("policy", "Training the conditioned policy", train_first_policy),
        *rounds,
        ("after", "Unseen users talk with the trained agent", talk_after),
        ("measure", "Measuring on unseen users and prompts", measure_run),
        ("map", "Mapping the unseen users, sampling dialogues", draw_map),
    ]


def _bind(run: RunContext, work: Work) -> Callable[[StageView], None]:
    def function(view: StageView) -> None:
        run.tell = view.advance
        work(run, view.folder)

    return function
