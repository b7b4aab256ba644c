"""Stages "talk-N" and "learn-N": learners talk with the agent, short turns are rewritten, everything is updated."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from app.config import RunConfig
from app.files import read_json, read_tensors, write_arrays, write_json
from app.pipeline.context import RunContext
from app.pipeline.pairs import pool_pairs
from app.pipeline.policy import load_policy, policy_config
from app.pipeline.preferences import load_comparisons
from app.pipeline.profiles import load_profile, pool_features, reply_features
from app.pipeline.replies import load_replies
from persona.data.comparisons import context_pairs
from persona.policy.conditioned import ConditionedPolicy
from persona.recipes.policy import PreferencePairs, train_policy
from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition, ReplyPairs
from recsys.columns import ITEM, LEVEL, TIMESTAMP, USER
from recsys.models.gnolr import Gnolr
from recsys.recipes.gnolr import update as update_gnolr
from recsys.types import histories_from_log
from simulators.agent import Recommender
from simulators.chat.model import ChatModel
from simulators.recipes.rewriting import (
    RewritingConfig,
    SteeredRewriter,
    felt_by,
    rewrite_turns,
    short_turns,
)
from simulators.rollout import rollout
from simulators.transcripts import dialogue_from_json, dialogue_to_json
from simulators.types import Dialogue
from simulators.users.film_viewers import FilmViewers

_REPLAY = 2
_STEPS_SHARE = 0.5


class Lessons(NamedTuple):
    """What one round of talking brought.

    dialogues: Every dialogue of the round.
    pairs: For each accepted rewrite: row of its dialogue, conversation, rewrite, original (raw).
    """

    dialogues: list[Dialogue]
    pairs: list[tuple[int, list[dict[str, str]], str, str]]


def viewers_of(run: RunContext, chat: ChatModel | None = None) -> FilmViewers:
    """The simulated users of this run, who speak through `chat`, or through the base model if None."""
    return FilmViewers(
        run.world.oracle, load_replies(run).scale, chat or run.chat, max_turns=run.config.turns
    )


def agent_of(
    run: RunContext,
    policy: ConditionedPolicy,
    retriever: Gnolr,
    *,
    attempts: int = 3,
    keep_tokens: bool = False,
) -> Recommender:
    """The recommender of this run."""
    return Recommender(
        run.world.catalogue,
        retriever,
        policy,
        temperature=run.config.temperature,
        max_new_tokens=run.config.reply_tokens,
        attempts=attempts,
        keep_tokens=keep_tokens,
    )


def stage_before(number: int) -> tuple[str, str]:
    """Names of the stages that left the policy and the retriever which round `number` starts from."""
    return ("policy", "retrieval") if number == 1 else (f"learn-{number - 1}", f"learn-{number - 1}")


def needed_stages(config: RunConfig) -> tuple[str, ...]:
    """The stages, in the order of a run, whose files a conversation needs."""
    last = dict.fromkeys(stage_before(config.rounds + 1))
    return ("retrieval", "replies", "preferences", *last)


def talk(run: RunContext, out: Path, *, number: int) -> None:
    """One round of dialogues with learners, and the rewriting of the turns that fell short."""
    policy_stage, retrieval_stage = stage_before(number)
    policy = load_policy(run, policy_stage)
    agent = agent_of(run, policy, load_retriever(run, retrieval_stage))
    viewers = viewers_of(run)
    users = round_users(run, number)
    condition = learner_condition(run, users, number)
    histories = histories_from_log(known_log(run, number - 1), users, len(run.world.catalogue))
    config, seed = RewritingConfig(), run.seed(f"talk {number}")
    dialogues = rollout(
        users.tolist(), agent, viewers, histories=histories, condition=condition, seed=seed,
        progress=lambda done: run.tell(done, 2 * len(users)),
    )  # fmt: skip
    short = short_turns(dialogues, agent, config.threshold)
    accepted = rewrite_turns(
        short, SteeredRewriter(agent), condition, config, gates=[felt_by(viewers, seed=seed)], seed=seed
    )
    pairs = [(r.short.row, r.short.prompt, r.reply.raw, r.short.turn.reply.raw) for r in accepted]
    write_json(
        out / "talk.json",
        {
            "dialogues": [dialogue_to_json(d) for d in dialogues],
            "pairs": pairs,
            "fell_short": len(short),
            "threshold": config.threshold,
        },
    )
    write_arrays(
        out / "condition.safetensors", {"latent": condition.latent, "direction": condition.direction}
    )


def learn(run: RunContext, out: Path, *, number: int) -> None:
    """Train the policy on the accepted rewrites, the retriever on the interactions, and keep the comparisons."""
    policy_stage, retrieval_stage = stage_before(number)
    lessons = load_lessons(run, number)
    policy = load_policy(run, policy_stage)
    rng = run.rng(f"learn {number}")
    if lessons.pairs:
        _train_on_rewrites(run, policy, lessons, number, rng)
    policy.save(out / "policy")
    log = known_log(run, number)
    log = log[~log[USER].isin(run.groups.unseen)]
    gnolr = load_retriever(run, retrieval_stage)
    update_gnolr(gnolr, log, seed=run.seed(f"gnolr {number}")).save(out / "gnolr")
    write_arrays(out / "comparisons.safetensors", _compare_rewrites(run, policy, lessons))


def load_retriever(run: RunContext, stage: str) -> Gnolr:
    """The retriever that a stage left."""
    return Gnolr.load(run.stage(stage) / "gnolr", device=run.device)


def known_log(run: RunContext, rounds: int) -> pd.DataFrame:
    """The world's log and what the first `rounds` rounds of talking added; the latest level of a pair counts."""
    parts = [run.world.log]
    for number in range(1, rounds + 1):
        parts.append(interactions(load_lessons(run, number).dialogues, parts[-1]))
    return pd.concat(parts, ignore_index=True).drop_duplicates([USER, ITEM], keep="last")


def round_users(run: RunContext, number: int) -> np.ndarray:
    """The learners who talk in this round: half of them new, half those whose last dialogues taught something."""
    order = run.rng("round users").permutation(run.groups.learners)
    first = (number - 1) * (run.config.dialogues // 2)
    places = (np.arange(run.config.dialogues) + first) % len(order)
    return np.asarray(order[np.unique(places)])


def load_lessons(run: RunContext, number: int) -> Lessons:
    """What a finished round of talking brought."""
    saved = read_json(run.stage(f"talk-{number}") / "talk.json")
    return Lessons([dialogue_from_json(d) for d in saved["dialogues"]], saved["pairs"])


def learner_condition(run: RunContext, users: np.ndarray, number: int) -> Condition:
    """Latents of learners from their first `shots` comparisons and all that rewrites taught in earlier rounds."""
    pool, profile = load_replies(run), load_profile(run)
    lifted = profile.lift(pool_features(run, pool))
    base = context_pairs(load_comparisons(run).train, lifted, users, run.config.shots)
    parts = [base, *(_rewrite_pairs(run, users, earlier) for earlier in range(1, number))]
    with torch.inference_mode():
        latent = profile.encode(ReplyPairs.join(parts)).mean
    return Condition.of_latent(latent, direction_dim=len(ATTRIBUTES))


def interactions(dialogues: Sequence[Dialogue], log: pd.DataFrame) -> pd.DataFrame:
    """The items met in dialogues as rows of a log, later than everything in `log`."""
    rows = [(d.user, t.card.item, t.feedback.level, i) for d in dialogues for i, t in enumerate(d.turns)]
    frame = pd.DataFrame(rows, columns=[USER, ITEM, LEVEL, TIMESTAMP], dtype=np.int64)
    frame[TIMESTAMP] += int(log[TIMESTAMP].max()) + 1
    return frame


def _train_on_rewrites(
    run: RunContext, policy: ConditionedPolicy, lessons: Lessons, number: int, rng: np.random.Generator
) -> None:
    known = read_tensors(run.stage(f"talk-{number}") / "condition.safetensors")
    everyone = Condition(known["latent"], known["direction"], (None,) * len(known["latent"]))
    rows, conversations, chosen, rejected = zip(*lessons.pairs, strict=True)
    rewrites = PreferencePairs.from_replies(policy, conversations, chosen, rejected, everyone.select(rows))
    steps = max(1, round(_STEPS_SHARE * run.config.policy_steps))
    # Pairs of the pool are replayed beside the rewrites, so that sliders and latents are not forgotten.
    replay = max(_REPLAY * len(rewrites), 4 * run.config.pairs_per_step)
    replayed = pool_pairs(run, policy, load_replies(run), replay, rng)
    pairs = PreferencePairs(
        [*rewrites.chosen, *replayed.chosen],
        [*rewrites.rejected, *replayed.rejected],
        Condition.concatenate([rewrites.condition, replayed.condition]),
    )
    train_policy(
        policy,
        pairs,
        policy_config(run, steps),
        seed=run.seed(f"learn {number} training"),
        report=lambda row: run.tell(int(row["step"]) + 1, steps),
    )


def _compare_rewrites(
    run: RunContext, policy: ConditionedPolicy, lessons: Lessons
) -> dict[str, torch.Tensor]:
    """Every accepted rewrite as a comparison of its user: whose, and the features of rewrite and original."""
    conversations, pool = [pair[1] for pair in lessons.pairs], load_replies(run)
    users = torch.tensor([lessons.dialogues[pair[0]].user for pair in lessons.pairs], dtype=torch.int64)
    rewrites, originals = [pair[2] for pair in lessons.pairs], [pair[3] for pair in lessons.pairs]
    chosen, rejected = (
        reply_features(run, pool, policy, conversations, raw) for raw in (rewrites, originals)
    )
    return {"users": users, "chosen": chosen, "rejected": rejected}


def _rewrite_pairs(run: RunContext, users: np.ndarray, number: int) -> ReplyPairs:
    """The comparisons that round `number` brought about `users`, padded."""
    saved = read_tensors(run.stage(f"learn-{number}") / "comparisons.safetensors")
    match = saved["users"] == torch.from_numpy(users)[:, None]
    width = int(match.sum(1).max()) if match.numel() else 0
    order = torch.argsort((~match).int(), dim=1, stable=True)[:, :width]
    mask = torch.gather(match, 1, order)
    lift = load_profile(run).lift
    return ReplyPairs(lift(saved["chosen"][order]), lift(saved["rejected"][order]), mask).keep(mask)
