"""Multi-turn DPO and KTO against simulated users: talk several times, keep what ended well, learn, and again.

The loop of Xiong et al. (2024), arXiv 2409.02392, around the losses of `simulators.recipes.trajectories`, whose
departures hold here too. The policy first imitates its own successes, as in `simulators.recipes.ecpo`, so that the
recipes can be compared.
"""

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array

from persona.recipes.imitation import ImitationConfig
from persona.recipes.policy import steps_for
from persona.types import Condition
from simulators.agent import Recommender
from simulators.protocols import SimulatedUser
from simulators.randomness import keyed_seeds
from simulators.recipes.ecpo import learn_plans
from simulators.recipes.judged import Figures, JudgedTraining, Report, train_in_rounds, with_total
from simulators.recipes.trajectories import TrajectoryConfig, train_on_outcomes, train_on_pairs
from simulators.recipes.trajectory_pairs import label_trajectories, pair_trajectories
from simulators.rehearsal import Rehearsal
from simulators.rollout import rollout
from simulators.types import Dialogue, StopReason

_PLAN, _TALK, _LEARN = range(3)


class MultiTurnConfig(BaseModel):
    """Settings of `train_multi_turn`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Dialogues of each learner whose successes are imitated first; 0 leaves planning out.
    plans: int = Field(default=1, ge=0)
    # How they are imitated.
    imitation: ImitationConfig = ImitationConfig()
    # Rounds of talking and learning.
    rounds: int = Field(default=1, ge=0)
    # Dialogues of each learner in a round, all under the same luck of its own.
    attempts: int = Field(default=4, ge=2)
    # Whether successes are raised over failures of the same user (M-DPO), or each by itself (M-KTO).
    paired: bool = True
    # Passes over a round's pairs, or dialogues, which set the number of steps; None takes that of `learning`.
    epochs: float | None = Field(default=3.0, gt=0)
    # How they are learned.
    learning: TrajectoryConfig = TrajectoryConfig()


def train_multi_turn(
    agent: Recommender,
    users: SimulatedUser,
    learners: Sequence[int],
    config: MultiTurnConfig,
    *,
    histories: csr_array,
    condition: Condition,
    seed: int,
    judges: Rehearsal | None = None,
    trained_with: Rehearsal | None = None,
    report: Report | None = None,
) -> JudgedTraining:
    """Train the agent's policy in place on dialogues with simulated users.

    Args:
        agent: Its policy is trained; it must keep the tokens of its replies.
        users: The simulated users that it trains with.
        learners: Rows of N of them.
        config: Settings.
        histories: What the agent knows of their past. Shape (N, I).
        condition: What the policy knows of them, N rows.
        seed: Draws everything; on the CPU one seed gives the same bits.
        judges: Users whom training never meets.
        trained_with: Some of the learners, to be heard beside the judges; see `train_in_rounds`.
        report: Gets the figures of every training step, and of every round at its end.

    Returns:
        What the judges felt, and of each round `accepted` (share of the dialogues) and the training's last `loss` and
        `margin`, which a round without both successes and failures lacks; the margin is that of the last step which
        saw both.

    Raises:
        RolloutError: The agent does not keep tokens.
    """
    told = report or _ignore

    def talk(luck: int, attempt: int) -> list[Dialogue]:
        return rollout(
            learners, agent, users, histories=histories, condition=condition, seed=luck, attempt=attempt
        )

    def plan() -> bool:
        luck = _seed(seed, _PLAN)
        plans = [talk(luck, attempt) for attempt in range(config.plans)]
        return learn_plans(agent, plans, condition, config.imitation, seed=luck) > 0

    def teach(number: int) -> Figures:
        luck = _seed(seed, _TALK, number)
        attempts = [talk(luck, attempt) for attempt in range(config.attempts)]
        stops = [dialogue.stop for dialogues in attempts for dialogue in dialogues]
        figures = {"accepted": stops.count(StopReason.ACCEPTED) / len(stops)}
        if not _tells_apart(attempts, config.paired):
            return figures
        learn = _seed(seed, _LEARN, number)
        if config.paired:
            pairs = pair_trajectories(attempts, condition, seed=luck)
            settings = _settings(config, len(pairs))
            counted = with_total(told, settings.steps)
            steps = train_on_pairs(agent.policy, pairs, settings, seed=learn, report=counted)
        else:
            examples = label_trajectories(attempts, condition)
            settings = _settings(config, len(examples))
            counted = with_total(told, settings.steps)
            steps = train_on_outcomes(agent.policy, examples, settings, seed=learn, report=counted)
        margins = [step["margin"] for step in steps if not math.isnan(step["margin"])]
        return figures | {"loss": steps[-1]["loss"]} | ({"margin": margins[-1]} if margins else {})

    return train_in_rounds(
        agent, plan, teach, config.rounds, judges=judges, trained_with=trained_with, report=told
    )


def _settings(config: MultiTurnConfig, examples: int) -> TrajectoryConfig:
    """How so many examples are learned."""
    if config.epochs is None:
        return config.learning
    steps = steps_for(examples, config.epochs, config.learning.examples_per_step)
    return config.learning.model_copy(update={"steps": steps})


def _tells_apart(attempts: Sequence[Sequence[Dialogue]], paired: bool) -> bool:
    """Whether some user, or for single dialogues anybody, both accepted and left."""
    usable = [
        {
            d.stop is StopReason.ACCEPTED
            for d in dialogues
            if d.turns and d.stop is not StopReason.MODEL_FAILED
        }
        for dialogues in zip(*attempts, strict=True)
    ]
    return any(len(kinds) == 2 for kinds in usable) if paired else len(set().union(*usable)) == 2


def _seed(seed: int, *keys: int) -> int:
    return int(keyed_seeds(seed, *keys)[0])


def _ignore(figures: object) -> None:
    """Take a report and do nothing with it."""
