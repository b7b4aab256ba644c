"""`persona train`: the policy of a finished run learns from dialogues with simulated users, judged by others.

OUT/manifest.json        what the training was made with, written first
OUT/stages/train/        the trained policy, and what judges and rounds brought
OUT/training.json        the figures with their intervals

The run that it starts from is read and never changed.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.files import read_json, write_json
from app.pipeline.context import RunContext
from app.pipeline.pairs import pool_pairs
from app.pipeline.replies import load_replies
from app.quiet import quiet_libraries
from app.rehearsing import Guests, agent_from, hash_run, invite_learners, invite_unseen, users_of
from app.stages import Stage, StageView, run_stages
from app.store import RunStore
from app.train_config import TrainConfig
from app.trained import open_run
from persona.recipes.imitation import ImitationConfig
from persona.recipes.policy import PolicyConfig, PreferencePairs
from recsys.significance import paired_difference
from simulators.agent import Recommender
from simulators.recipes.ecpo import EcpoConfig, train_ecpo
from simulators.recipes.judged import JudgedTraining
from simulators.recipes.multi_turn import MultiTurnConfig, train_multi_turn
from simulators.recipes.rewriting import RewritingConfig
from simulators.recipes.trajectories import TrajectoryConfig
from simulators.rehearsal import Outcome, Rehearsal, goodhart_gap

MEASURES = ("satisfaction", "utility", "success", "turns")
_STAGE = "train"


def train(method: str, config: TrainConfig, out: Path, *, resume: bool, console: Console) -> Path:
    """Train, judge and write `training.json`.

    Args:
        method: A name in `METHODS`.
        config: The training's choices.
        out: Its folder.
        resume: Whether `out` may hold a stopped training of the same choices.
        console: Where progress and the table are shown.

    Returns:
        The path of `training.json`.

    Raises:
        StoreError: There is no finished run where the configuration says.
        ConfigError: The run has too few users.
    """
    quiet_libraries()
    run = open_run(Path(config.run), "choices", "policy")
    learners = invite_learners(run, config.learners, seed=config.seed)
    judging = invite_unseen(run, config.judging, seed=config.seed)
    hashes = hash_run(run) | {"method": method}
    with RunStore.open(out, config, hashes, resume=resume, device=run.device) as store:

        def work(view: StageView) -> None:
            agent = agent_from(run, config.start, keep_tokens=method != "ecpo")
            judges = Rehearsal(
                users_of(run, config.judges),
                judging.users.tolist(),
                judging.histories,
                judging.condition,
                run.seed(f"judges {config.seed}"),
            )
            result = METHODS[method](run, config, agent, learners, judges, view)
            agent.policy.save(view.folder / "policy")
            write_json(view.folder / "result.json", _to_json(result))

        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            run_stages(store, [Stage(_STAGE, f"Training by {method}", work)], progress)
        saved = read_json(store.stage_folder(_STAGE) / "result.json")
        report = {"manifest": store.manifest, "method": method, **summarise(saved, seed=config.seed)}
        write_json(out / "training.json", report)
    _show(report, console)
    return out / "training.json"


def summarise(saved: Mapping[str, Any], *, seed: int) -> dict[str, Any]:
    """What judges felt at the end against the beginning, and what each round brought.

    Args:
        saved: As a training's `result.json` holds it.
        seed: Of the intervals.
    """
    outcomes = [
        Outcome(*(np.asarray(row[name], np.float64) for name in MEASURES)) for row in saved["outcomes"]
    ]
    first, last = outcomes[0], outcomes[-1]
    return {
        "judges": {
            name: {
                "before": float(getattr(first, name).mean()),
                "after": float(getattr(last, name).mean()),
                "gain": paired_difference(getattr(last, name), getattr(first, name), seed=seed).to_report(),
            }
            for name in MEASURES
        },
        "goodhart_gap": goodhart_gap(first, last, seed=seed).to_report(),
        "rounds": saved["rounds"],
        "stopped": saved["stopped"],
    }


def _train_ecpo(
    run: RunContext,
    config: TrainConfig,
    agent: Recommender,
    learners: Guests,
    judges: Rehearsal,
    view: StageView,
) -> JudgedTraining:
    settings = EcpoConfig(
        plans=config.plans,
        imitation=_imitation(config),
        rounds=config.rounds,
        confirmation=config.confirmation,
        rewriting=RewritingConfig(threshold=config.threshold, candidates=config.candidates),
        policy=PolicyConfig(
            steps=config.steps,
            pairs_per_step=config.pairs_per_step,
            beta=config.beta,
            sft_weight=config.sft_weight,
            lora_lr=config.lora_lr,
            gate_lr=config.gate_lr,
            drop_condition=0.0,
        ),
    )
    return train_ecpo(
        agent,
        users_of(run, config.users),
        learners.users.tolist(),
        settings,
        histories=learners.histories,
        condition=learners.condition,
        seed=run.seed(f"training {config.seed}"),
        gates=None if config.gate == "felt" else lambda _: [],
        judges=judges,
        replay=_replay(run, agent, config),
        report=_teller(view, config),
    )


def _replay(run: RunContext, agent: Recommender, config: TrainConfig) -> PreferencePairs | None:
    """Pairs of the run's pool, labelled by what it learned of its users; None for none."""
    if not config.replay:
        return None
    rng = run.rng(f"replay {config.seed}")
    return pool_pairs(run, agent.policy, load_replies(run), config.replay, rng)


def _train_multi_turn(
    run: RunContext,
    config: TrainConfig,
    agent: Recommender,
    learners: Guests,
    judges: Rehearsal,
    view: StageView,
    *,
    paired: bool,
) -> JudgedTraining:
    settings = MultiTurnConfig(
        plans=config.plans,
        imitation=_imitation(config),
        rounds=config.rounds,
        attempts=config.attempts,
        paired=paired,
        learning=TrajectoryConfig(
            steps=config.steps,
            examples_per_step=config.pairs_per_step,
            beta=config.beta,
            lora_lr=config.lora_lr,
            gate_lr=config.gate_lr,
        ),
    )
    return train_multi_turn(
        agent,
        users_of(run, config.users),
        learners.users.tolist(),
        settings,
        histories=learners.histories,
        condition=learners.condition,
        seed=run.seed(f"training {config.seed}"),
        judges=judges,
        report=_teller(view, config),
    )


METHODS: Mapping[str, Callable[..., JudgedTraining]] = {
    "ecpo": _train_ecpo,
    "mtdpo": partial(_train_multi_turn, paired=True),
    "mtkto": partial(_train_multi_turn, paired=False),
}
"""Recipes by the name that people type."""


def _imitation(config: TrainConfig) -> ImitationConfig:
    return ImitationConfig(
        steps=config.plan_steps,
        rows_per_step=config.pairs_per_step,
        lora_lr=config.lora_lr,
        gate_lr=config.gate_lr,
    )


def _teller(view: StageView, config: TrainConfig) -> Callable[[Mapping[str, float]], None]:
    return lambda row: view.advance(int(row["step"]) + 1, config.steps) if "step" in row else None


def _to_json(result: JudgedTraining) -> dict[str, Any]:
    return {
        "outcomes": [{name: getattr(o, name).tolist() for name in MEASURES} for o in result.outcomes],
        "rounds": result.rounds,
        "stopped": result.stopped,
    }


def _show(report: Mapping[str, Any], console: Console) -> None:
    table = Table("judged by users never met", "before", "after", "gain", "95 % interval")
    for name, row in report["judges"].items():
        gain = row["gain"]
        low, high = gain["ci95"]
        table.add_row(
            name,
            f"{row['before']:.3f}",
            f"{row['after']:.3f}",
            f"{gain['value']:+.3f}",
            f"{low:+.3f} to {high:+.3f}",
        )
    console.print(table)
    if report["stopped"]:
        console.print("Stopped: the judges were pleased without being served.")
