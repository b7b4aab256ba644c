"""`persona train`: the policy of a finished run learns from dialogues with simulated users, judged by others.

OUT/manifest.json        what the training was made with, written first
OUT/stages/train/        the trained policy, and what judges and rounds brought
OUT/training.json        the figures with their intervals
OUT/answers.sqlite       what endpoints answered, so that a stopped training pays for nothing twice

The run that it starts from is read and never changed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.agents import TRAINING, agent_from, hash_agent, hash_run, retriever_of, save_agent
from app.casting import NEEDS_TARGETS, judge_of, users_of
from app.chat_config import model_of
from app.chats import Chats, hash_chats
from app.errors import ConfigError
from app.files import read_json, write_json
from app.pipeline.context import RunContext
from app.pipeline.pairs import pool_pairs
from app.pipeline.replies import load_replies
from app.quiet import quiet_libraries
from app.rehearsing import Guests, invite_learners, invite_unseen, with_targets
from app.stages import Stage, StageView, run_stages
from app.store import RunStore
from app.train_config import TrainConfig
from app.trained import open_run
from persona.recipes.imitation import ImitationConfig
from persona.recipes.policy import PolicyConfig, PreferencePairs
from recsys.significance import paired_difference
from simulators.agent import Recommender
from simulators.chat.model import ChatModel
from simulators.judge import JudgeConfig, PairwiseJudge, Verdict, position_bias
from simulators.protocols import SimulatedUser
from simulators.recipes.ecpo import EcpoConfig, train_ecpo
from simulators.recipes.judged import JudgedTraining
from simulators.recipes.multi_turn import MultiTurnConfig, train_multi_turn
from simulators.recipes.rewriting import (
    ChatRewriter,
    Gate,
    Rewriter,
    RewritingConfig,
    SteeredRewriter,
    felt_by,
    judged_by,
)
from simulators.recipes.trajectories import TrajectoryConfig
from simulators.rehearsal import Outcome, Rehearsal, goodhart_gap

MEASURES = ("satisfaction", "utility", "success", "turns")
_DECIDED_BY_CHAT = frozenset({"ailo", "persona-prompt"})
_POLICY = "policy"
_JUDGED = frozenset({"judge", "both"})


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
        ConfigError: The judges are those who train, the gate's is who rewrites, the run has too few users, there are no
            true personas of them, or no agent `start`.
        EndpointError: An endpoint does not answer, or its budget is spent; its answers are kept for --resume.
    """
    quiet_libraries()
    _refuse_own_judges(config)
    _refuse_own_gate(config)
    run = open_run(Path(config.run), "choices", "policy")
    learners = _invited(run, config.users, invite_learners(run, config.learners, seed=config.seed))
    judging = _invited(run, config.judges, invite_unseen(run, config.judging, seed=config.seed))
    rewriters = () if config.rewriter == _POLICY else (config.rewriter,)
    chat_files = hash_chats(config.chat, config.judges_chat, config.gate_chat, *rewriters)
    started = {f"start/{file}": h for file, h in hash_agent(run, config.start).items()}
    hashes = hash_run(run) | started | chat_files | {"method": method}
    with RunStore.open(out, config, hashes, resume=resume, device=run.device) as store:

        def work(view: StageView) -> None:
            agent = agent_from(run, config.start, keep_tokens=method != "ecpo")
            retriever = retriever_of(run, config.start)
            with Chats(config, run, out) as chats:
                users = _cast(run, config, config.users, learners, chats.of(config.chat))
                judges = _judges(run, config, judging, chats)
                watched = _watched(run, config, learners, users)
                report = _teller(view)
                lesson = _Lesson(run, config, agent, users, learners, judges, watched, chats, report, [])
                result = METHODS[method](lesson)
            save_agent(agent, retriever, view.folder)
            write_json(view.folder / "result.json", _to_json(result) | _gate_bias(lesson.verdicts))

        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            run_stages(store, [Stage(TRAINING, f"Training by {method}", work)], progress)
        saved = read_json(store.stage_folder(TRAINING) / "result.json")
        report = {"manifest": store.manifest, "method": method, **summarise(saved, seed=config.seed)}
        write_json(out / "training.json", report)
    _show(report, console)
    return out / "training.json"


def _refuse_own_judges(config: TrainConfig) -> None:
    """Refuse judges who decide as those do who are trained with: a policy that fools the one fools the other."""
    families = {kind.removesuffix("-five-calls") for kind in (config.users, config.judges)}
    chats = {model_of(config.chat), model_of(config.judges_chat)}
    if len(families) == 1 and (len(chats) == 1 or not families <= _DECIDED_BY_CHAT):
        raise ConfigError(
            f"`judges` must be of another kind than `users`; got {config.judges} and {config.users}. Choose another "
            f"kind{', or another `judges_chat`' if families <= _DECIDED_BY_CHAT else ''}."
        )


def _refuse_own_gate(config: TrainConfig) -> None:
    """Refuse a judge at the gate who wrote what it judges, or who decides for the users that are met again there."""
    own = {model_of(config.rewriter)}
    if config.users.removesuffix("-five-calls") in _DECIDED_BY_CHAT:
        own.add(model_of(config.chat))
    if config.gate in _JUDGED and model_of(config.gate_chat) in own:
        raise ConfigError(
            f"`gate_chat` must be another model than rewrites or decides for the users; got {config.gate_chat} for "
            "both. Name another."
        )


def _invited(run: RunContext, kind: str, guests: Guests) -> Guests:
    """The guests, after one item each where their kind is after one."""
    if kind not in NEEDS_TARGETS:
        return guests
    return with_targets(run, guests, seed=run.seed("targets"))


def _cast(run: RunContext, config: TrainConfig, kind: str, guests: Guests, chat: ChatModel) -> SimulatedUser:
    return users_of(
        run, kind, guests, chat, personas=config.personas, ailo_satisfaction=config.ailo_satisfaction
    )


def _judges(run: RunContext, config: TrainConfig, guests: Guests, chats: Chats) -> Rehearsal:
    chat = chats.of(config.judges_chat)
    users = _cast(run, config, config.judges, guests, chat)
    return Rehearsal(
        users,
        guests.users.tolist(),
        guests.histories,
        guests.condition,
        run.seed(f"judges {config.seed}"),
        worth=judge_of(run, config.judges, users),
    )


def _watched(
    run: RunContext, config: TrainConfig, learners: Guests, users: SimulatedUser
) -> Rehearsal | None:
    """Some of the learners, those of the lowest numbers, which mean nothing."""
    count = min(config.watched, len(learners.users))
    if count < 2:
        return None
    return Rehearsal(
        users,
        learners.users[:count].tolist(),
        learners.histories[:count],
        learners.condition.select(range(count)),
        run.seed(f"watched {config.seed}"),
        worth=judge_of(run, config.users, users),
    )


def summarise(saved: Mapping[str, Any], *, seed: int) -> dict[str, Any]:
    """What judges felt at the end against the beginning, and what each round brought.

    Args:
        saved: As a training's `result.json` holds it.
        seed: Of the intervals.
    """
    outcomes = [
        Outcome(*(np.asarray(row[name], np.float64) for name in MEASURES)) for row in saved["outcomes"]
    ]
    # Where training was stopped, the policy is the one before the last hearing.
    first, last = outcomes[0], outcomes[-2 if saved["stopped"] else -1]
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
        "gate_bias": saved["gate_bias"],
    }


class _Lesson(NamedTuple):
    """What every recipe takes."""

    run: RunContext
    config: TrainConfig
    agent: Recommender
    users: SimulatedUser
    learners: Guests
    judges: Rehearsal
    watched: Rehearsal | None
    chats: Chats
    report: Callable[[Mapping[str, float]], None]
    verdicts: list[Verdict]

    def shared(self) -> dict[str, Any]:
        """The arguments by name that all recipes have in common."""
        return {
            "histories": self.learners.histories,
            "condition": self.learners.condition,
            "seed": self.run.seed(f"training {self.config.seed}"),
            "judges": self.judges,
            "trained_with": self.watched,
            "report": self.report,
        }


def _train_ecpo(lesson: _Lesson) -> JudgedTraining:
    config, agent = lesson.config, lesson.agent
    settings = EcpoConfig(
        plans=config.plans,
        imitation=_imitation(config),
        rounds=config.rounds,
        talks=config.talks,
        epochs=config.epochs,
        confirmation=config.confirmation,
        rewriting=RewritingConfig(threshold=config.threshold, candidates=config.candidates),
        policy=PolicyConfig(
            pairs_per_step=config.pairs_per_step,
            beta=config.beta,
            sft_weight=config.sft_weight,
            lora_lr=config.lora_lr,
            gate_lr=config.gate_lr,
            drop_condition=0.0,
        ),
    )
    rewriter: Rewriter = SteeredRewriter(agent, config.steer)
    if config.rewriter != _POLICY:
        rewriter = ChatRewriter(lesson.chats.of(config.rewriter), slots=agent.policy.slots)
    return train_ecpo(
        agent,
        lesson.users,
        lesson.learners.users.tolist(),
        settings,
        rewriter=rewriter,
        gates=_gates(lesson),
        replay=_replay(lesson.run, agent, config),
        **lesson.shared(),
    )


def _gates(lesson: _Lesson) -> Callable[[int], Sequence[Gate]]:
    """From the seed of a round's dialogues to what its rewrites must pass."""
    config = lesson.config
    judge = None
    if config.gate in _JUDGED:
        # One vote is the likeliest; several must be drawn to differ.
        heat = 0.7 if config.gate_votes > 1 else 0.0
        asked = JudgeConfig(samples=config.gate_votes, own_answer=config.gate_own_answer, temperature=heat)
        judge = PairwiseJudge(lesson.chats.of(config.gate_chat), asked)

    def gates(luck: int) -> list[Gate]:
        felt = [felt_by(lesson.users, seed=luck)] if config.gate in {"felt", "both"} else []
        return felt + ([judged_by(judge, seed=luck, heard=lesson.verdicts)] if judge else [])

    return gates


def _replay(run: RunContext, agent: Recommender, config: TrainConfig) -> PreferencePairs | None:
    """Pairs of the run's pool, labelled by what it learned of its users; None for none."""
    if not config.replay:
        return None
    rng = run.rng(f"replay {config.seed}")
    return pool_pairs(run, agent.policy, load_replies(run), config.replay, rng)


def _train_multi_turn(lesson: _Lesson, *, paired: bool) -> JudgedTraining:
    config = lesson.config
    settings = MultiTurnConfig(
        plans=config.plans,
        imitation=_imitation(config),
        rounds=config.rounds,
        attempts=config.attempts,
        paired=paired,
        epochs=config.epochs,
        learning=TrajectoryConfig(
            examples_per_step=config.pairs_per_step,
            beta=config.beta,
            lora_lr=config.lora_lr,
            gate_lr=config.gate_lr,
        ),
    )
    users = lesson.learners.users.tolist()
    return train_multi_turn(lesson.agent, lesson.users, users, settings, **lesson.shared())


METHODS: Mapping[str, Callable[[_Lesson], JudgedTraining]] = {
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


def _teller(view: StageView) -> Callable[[Mapping[str, float]], None]:
    """Keeps every row of figures, one JSON object a line, and shows how far the training is."""

    def tell(row: Mapping[str, float]) -> None:
        known = {name: value if np.isfinite(value) else None for name, value in row.items()}
        with (view.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(known) + "\n")
        if "step" in row:
            view.advance(int(row["step"]) + 1, int(row["steps"]))

    return tell


def _to_json(result: JudgedTraining) -> dict[str, Any]:
    return {
        "outcomes": [{name: getattr(o, name).tolist() for name in MEASURES} for o in result.outcomes],
        "rounds": result.rounds,
        "stopped": result.stopped,
    }


def _gate_bias(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """How far the judge at the gate favours what it is shown first; None where it compared too little."""
    compared = [verdict for verdict in verdicts if not np.isnan(verdict.preference)]
    return {"gate_bias": position_bias(compared)._asdict() if len(compared) > 1 else None}


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
    for figures in report["rounds"]:
        console.print(", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items()))
    if report["stopped"]:
        console.print("Stopped: users were pleased without being served. The policy is the one before.")
