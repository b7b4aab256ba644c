"""Stages "before" and "after": unseen users talk with the untrained and the trained agent, under the same luck."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.files import read_json, write_json
from app.pipeline.context import RunContext
from app.pipeline.policy import load_policy
from app.pipeline.preferences import load_comparisons, user_latents
from app.pipeline.profiles import load_profile, pool_features
from app.pipeline.replies import base_policy, load_replies
from app.pipeline.rounds import agent_of, load_retriever, stage_before, viewers_of
from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition
from recsys.significance import bootstrap_interval, paired_difference
from simulators.agent import Recommender
from simulators.rehearsal import goodhart_gap, outcome_of
from simulators.rollout import rollout
from simulators.transcripts import dialogue_from_json, dialogue_to_json
from simulators.types import Dialogue

MEASURES = {"satisfaction": "satisfaction", "utility": "utility", "success_rate": "success", "turns": "turns"}
"""Names in the report, and the fields of `Outcome` that they tell."""


def talk_before(run: RunContext, out: Path) -> None:
    """The base model and the first retriever; every user is the average user."""
    agent = agent_of(run, base_policy(run), load_retriever(run, "retrieval"))
    _talk(run, out, agent, None)


def talk_after(run: RunContext, out: Path) -> None:
    """The trained policy under each user's own posterior, and the last retriever."""
    policy_stage, retrieval_stage = stage_before(run.config.rounds + 1)
    agent = agent_of(run, load_policy(run, policy_stage), load_retriever(run, retrieval_stage))
    _talk(run, out, agent, unseen_condition(run, run.config.shots))


def unseen_condition(run: RunContext, shots: int) -> Condition:
    """What `shots` comparisons tell of each unseen user."""
    context, features = load_comparisons(run).context, pool_features(run, load_replies(run))
    latent = user_latents(load_profile(run), context, features, run.groups.unseen, shots)
    return Condition.of_latent(latent, direction_dim=len(ATTRIBUTES))


def load_dialogues(run: RunContext, stage: str) -> list[Dialogue]:
    """The dialogues of a finished stage, in the order of the unseen users."""
    return [dialogue_from_json(saved) for saved in read_json(run.stage(stage) / "dialogues.json")]


def measure_dialogues(run: RunContext) -> dict[str, object]:
    """Satisfaction, true utility, success and turns before and after, and the gap between rating and utility.

    The gap is that of `simulators.rehearsal.goodhart_gap`.
    """
    values = {
        stage: outcome_of(load_dialogues(run, stage), viewers_of(run), seed=run.seed("unseen dialogues"))
        for stage in ("before", "after")
    }
    report: dict[str, object] = {}
    for name, field in MEASURES.items():
        seed = run.seed(f"dialogue {name}")
        before, after = (getattr(values[stage], field) for stage in ("before", "after"))
        report[name] = {
            "before": bootstrap_interval(before, seed=seed).to_report(),
            "after": bootstrap_interval(after, seed=seed).to_report(),
            "gain": paired_difference(after, before, seed=seed).to_report(),
        }
    gap = goodhart_gap(values["before"], values["after"], seed=run.seed("goodhart"))
    report["goodhart_gap"] = gap.to_report()
    for stage in ("before", "after"):
        report[f"satisfaction_by_turn_{stage}"] = _by_turn(load_dialogues(run, stage), run.config.turns)
    return report


def _talk(run: RunContext, out: Path, agent: Recommender, condition: Condition | None) -> None:
    users = run.groups.unseen.tolist()
    dialogues = rollout(
        users,
        agent,
        viewers_of(run),
        histories=run.unseen_histories[0],
        condition=condition,
        seed=run.seed("unseen dialogues"),
        progress=lambda done: run.tell(done, len(users)),
    )
    write_json(out / "dialogues.json", [dialogue_to_json(d) for d in dialogues])


def _by_turn(dialogues: Sequence[Dialogue], turns: int) -> list[dict[str, float]]:
    """Mean satisfaction at each turn, of the dialogues that got that far."""
    rows = []
    for index in range(turns):
        stars = [d.turns[index].feedback.satisfaction for d in dialogues if len(d.turns) > index]
        if stars:
            rows.append({"turn": index + 1, "satisfaction": float(np.mean(stars)), "n": len(stars)})
    return rows
