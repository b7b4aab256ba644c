"""What rehearsals with a finished run need: the run itself, its agent, simulated users, and what is known of them.

The run is read and never changed.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from app.errors import ConfigError
from app.manifest import hash_files
from app.pipeline.context import Ints, RunContext
from app.pipeline.conversations import unseen_condition
from app.pipeline.policy import load_policy
from app.pipeline.preferences import load_comparisons
from app.pipeline.profiles import latent_size
from app.pipeline.replies import base_policy, load_replies
from app.pipeline.rounds import (
    agent_of,
    known_log,
    learner_condition,
    load_lessons,
    load_retriever,
    stage_before,
    viewers_of,
)
from app.trained import needed_stages
from persona.types import Condition
from recsys.types import histories_from_log
from simulators.agent import Recommender
from simulators.mirror import LevelModel, Manners, Wording, fit_levels
from simulators.mirror.wording import LEAST_TURNS
from simulators.protocols import SimulatedUser
from simulators.users.mirror import MirrorUsers


class Guests(NamedTuple):
    """Users who are invited to talk.

    users: Their rows in the population, sorted. Shape (N,).
    histories: What the agent knows of their past. Shape (N, I).
    condition: What the policy knows of them, N rows.
    """

    users: Ints
    histories: csr_array
    condition: Condition


def hash_run(run: RunContext) -> dict[str, str]:
    """SHA-256 of what a rehearsal takes from the run: its users, policies and retrievers, by file."""
    talks = ("talk-1",) if run.config.rounds else ()
    stages = dict.fromkeys((*needed_stages(run.config), "choices", "policy", *talks))
    return {f"{stage}/{name}": h for stage in stages for name, h in hash_files(run.stage(stage)).items()}


def agent_from(run: RunContext, start: str, *, keep_tokens: bool = False) -> Recommender:
    """The run's agent with its "base" model, its first "policy", or its "last" one.

    The first two go with the first retriever. Whole dialogues are learned from the tokens of the moment, if kept.
    """
    policy_stage, retrieval_stage = stage_before(run.config.rounds + 1 if start == "last" else 1)
    policy = base_policy(run, latent_size(run)) if start == "base" else load_policy(run, policy_stage)
    return agent_of(run, policy, load_retriever(run, retrieval_stage), keep_tokens=keep_tokens)


def users_of(run: RunContext, kind: str) -> SimulatedUser:
    """The run's simulated users: "viewers" of its world, who know the truth, or "learned" ones.

    The learned ones know what the run logged, what its learners chose between replies and how they rated the
    dialogues of its first round, and nothing of the truth.
    """
    if kind == "viewers":
        return viewers_of(run)
    pool, world = load_replies(run), run.world
    model = fit_levels(
        known_log(run, 0), world.catalogue.features, n_users=world.n_users, seed=run.seed("learned users")
    )
    manners = Manners.fit(
        load_comparisons(run).train,
        pool.attributes,
        pool.scale,
        n_users=world.n_users,
        seed=run.seed("learned manners"),
    )
    wording = _fit_wording(run, model, manners)
    return MirrorUsers(
        model, world.catalogue, run.chat, manners=manners, wording=wording, max_turns=run.config.turns
    )


def _fit_wording(run: RunContext, model: LevelModel, manners: Manners) -> Wording:
    """As the run's first dialogues with its learners tell; assumed where these are too few, or none."""
    dialogues = load_lessons(run, 1).dialogues if run.config.rounds else []
    if sum(len(dialogue.turns) for dialogue in dialogues) < LEAST_TURNS:
        return Wording()
    return Wording.fit(model, manners, dialogues)


def invite_learners(run: RunContext, count: int, *, seed: int) -> Guests:
    """Some of the users whom the run learned from, at random.

    Raises:
        ConfigError: There are not so many.
    """
    users = _draw(run.groups.learners, count, "learners", np.random.default_rng((seed, 0)))
    histories = histories_from_log(known_log(run, 0), users, len(run.world.catalogue))
    return Guests(users, histories, learner_condition(run, users, 1))


def invite_unseen(run: RunContext, count: int, *, seed: int) -> Guests:
    """Some of the users whom the run never trained on, at random.

    Raises:
        ConfigError: There are not so many.
    """
    users = _draw(run.groups.unseen, count, "unseen users", np.random.default_rng((seed, 1)))
    places = np.searchsorted(run.groups.unseen, users)
    known = unseen_condition(run, run.config.shots).select(places.tolist())
    return Guests(users, run.unseen_histories[0][places], known)


def _draw(users: Ints, count: int, name: str, rng: np.random.Generator) -> Ints:
    if count > len(users):
        raise ConfigError(
            f"A rehearsal must ask for at most the {len(users)} {name} of the run; got {count}. Lower the number, or "
            "make a run with more."
        )
    return np.sort(rng.permutation(users)[:count])
