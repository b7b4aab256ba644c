"""Expectation confirmation preference optimisation (ECPO): users' own reasons turn short turns into training pairs.

After Feng et al. (2025), "Expectation Confirmation Preference Optimization for Multi-Turn Conversational
Recommendation Agent" (arXiv 2506.14302): simulator-guided planning (imitate what succeeded), forward expectation
confirmation (which turns fell short, and why), backward derivation (write these anew), preference optimisation against
the model that planning left. Departures, each with its reason:

1. A rewrite is accepted only through gates: simulated users, met again at the same turn under the same random numbers,
   rate it higher, and so does an independent judge where one is given; the published code trusts the rewriter.
2. The rewriter may be the policy itself (`SteeredRewriter`), so that no larger model is needed: steered away from the
   user's complaint where there is one (AILO users give reasons in words instead, which only `ChatRewriter` reads), or
   simply drawn again, the default of `persona train`. What is derived from the reason is then which turns are tried,
   and the gate does the rest: rejection sampling at short turns. The published form is `ChatRewriter`. The planner's
   teacher is the policy itself likewise.
3. Only wording that the user saw is scored; retrieval steps never become the rejected side of a pair.
4. The last turn of a dialogue is rated and used like every other.
5. Users who failed, or whose dialogue broke off, stay in the denominator.
6. Talking and learning may alternate for several rounds; each round's reference is the policy that it began with. Users
   whom training never met judge every round, and the run stops where they are pleased without being served.
7. A part of the pairs may be others' (`replay`), so that a policy that can do more than talk forgets nothing.
8. A turn falls short by its satisfaction, which for AILO users is the mean of three scores; the published code reads
   expression alone, as `AiloConfig.satisfaction_from` can have it (`ailo_satisfaction=expression`).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array

from persona.policy.conditioned import ConditionedPolicy
from persona.recipes.imitation import ImitationConfig, imitate
from persona.recipes.policy import PolicyConfig, PreferencePairs, steps_for, train_policy
from persona.types import Condition
from simulators.agent import Recommender
from simulators.protocols import SimulatedUser
from simulators.randomness import keyed_seeds
from simulators.recipes.judged import Figures, JudgedTraining, Report, train_in_rounds, with_total
from simulators.recipes.rewriting import (
    Gate,
    Rewriter,
    RewritingConfig,
    RewrittenTurn,
    SteeredRewriter,
    felt_by,
    rewrite_turns,
    short_turns,
    turns_by_chance,
)
from simulators.rehearsal import Rehearsal
from simulators.rollout import rollout
from simulators.types import Dialogue, StopReason

_PLAN, _TALK, _LEARN, _CHANCE = range(4)


class EcpoConfig(BaseModel):
    """Settings of `train_ecpo`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Dialogues of each learner whose successes are imitated first; 0 leaves planning out.
    plans: int = Field(default=1, ge=0)
    # How they are imitated.
    imitation: ImitationConfig = ImitationConfig()
    # Rounds of talking, rewriting and learning; 0 stops after planning.
    rounds: int = Field(default=1, ge=0)
    # Dialogues of each learner in a round, each under luck of its own: more tell more about the same users.
    talks: int = Field(default=2, ge=1)
    # Whether turns are chosen by their user's rating and rewritten by its reasons; otherwise by chance, and blindly.
    confirmation: bool = True
    # Which turns, and how many tries.
    rewriting: RewritingConfig = RewritingConfig()
    # Passes over a round's pairs, which set the number of steps; None takes that of `policy`. Few pairs seen often are
    # learned by heart.
    epochs: float | None = Field(default=3.0, gt=0)
    # How pairs are learned; the reference knows each pair's user, so by default no condition is withheld.
    policy: PolicyConfig = PolicyConfig(drop_condition=0.0)


def train_ecpo(
    agent: Recommender,
    users: SimulatedUser,
    learners: Sequence[int],
    config: EcpoConfig,
    *,
    histories: csr_array,
    condition: Condition,
    seed: int,
    rewriter: Rewriter | None = None,
    gates: Callable[[int], Sequence[Gate]] | None = None,
    judges: Rehearsal | None = None,
    trained_with: Rehearsal | None = None,
    replay: PreferencePairs | None = None,
    report: Report | None = None,
) -> JudgedTraining:
    """Train the agent's policy in place on dialogues with simulated users.

    Args:
        agent: Its policy is trained.
        users: The simulated users that it trains with.
        learners: Rows of N of them.
        config: Settings.
        histories: What the agent knows of their past. Shape (N, I).
        condition: What the policy knows of them, N rows.
        seed: Draws everything; on the CPU one seed gives the same bits.
        rewriter: Writes short turns anew; the policy itself, steered, if None. Without confirmation it gets no reason.
        gates: From the seed of a round's dialogues to the gates of its rewrites; the same users met again if None. A
            function that gives none trusts the rewriter.
        judges: Users whom training never meets.
        trained_with: Some of the learners, to be heard beside the judges; see `train_in_rounds`.
        replay: Other pairs to be learned beside each round's; measured against the policy that each round begins with.
        report: Gets the figures of every training step, and of every round at its end.

    Returns:
        What the judges felt, and of each round `short` (turns tried), `accepted` (rewrites) and the training's last
        `loss`, `accuracy` and `margin`, which a round without accepted rewrites lacks.
    """
    told = report or _ignore

    def talk(luck: int) -> list[Dialogue]:
        return rollout(learners, agent, users, histories=histories, condition=condition, seed=luck)

    def plan() -> bool:
        plans = [talk(_seed(seed, _PLAN, number)) for number in range(config.plans)]
        return learn_plans(agent, plans, condition, config.imitation, seed=_seed(seed, _PLAN)) > 0

    def teach(number: int) -> Figures:
        writer = rewriter or SteeredRewriter(agent)
        rewritten, short = [], 0
        for again in range(config.talks):
            luck = _seed(seed, _TALK, number * config.talks + again)
            checks = [felt_by(users, seed=luck)] if gates is None else gates(luck)
            kept, tried = _rewrite(talk(luck), agent, writer, condition, config, gates=checks, seed=luck)
            rewritten += kept
            short += tried
        figures = {"short": float(short), "accepted": float(len(rewritten))}
        if not rewritten:
            return figures
        pairs = pairs_of(agent.policy, rewritten, condition, replay=replay)
        settings, learn = config.policy, _seed(seed, _LEARN, number)
        if config.epochs is not None:
            steps = steps_for(len(pairs), config.epochs, settings.pairs_per_step)
            settings = settings.model_copy(update={"steps": steps})
        counted = with_total(told, settings.steps)
        last = train_policy(agent.policy, pairs, settings, seed=learn, report=counted)[-1]
        return figures | {name: last[name] for name in ("loss", "accuracy", "margin")}

    return train_in_rounds(
        agent, plan, teach, config.rounds, judges=judges, trained_with=trained_with, report=told
    )


def learn_plans(
    agent: Recommender,
    plans: Sequence[Sequence[Dialogue]],
    condition: Condition,
    config: ImitationConfig,
    *,
    seed: int,
) -> int:
    """Simulator-guided planning: imitate every reply of the dialogues that ended with an item accepted.

    Args:
        agent: Its policy is trained.
        plans: Dialogues of the N learners, once or several times.
        condition: What the policy knew of them, N rows.
        config: Settings of the imitation.
        seed: Draws its batches.

    Returns:
        Number of replies that were imitated; 0 if no dialogue succeeded, and nothing was changed.
    """
    owner, prompts, replies = [], [], []
    for dialogues in plans:
        for row, dialogue in enumerate(dialogues):
            if dialogue.stop is StopReason.ACCEPTED:
                for index, turn in enumerate(dialogue.turns):
                    owner.append(row)
                    prompts.append(agent.prompt(dialogue.before(index), turn.user, turn.card))
                    replies.append(turn.reply.raw)
    if owner:
        known = condition.select(owner)
        rows = agent.policy.encode_replies(prompts, replies, known)
        imitate(agent.policy, rows, known, config, np.random.default_rng(seed))
    return len(owner)


def pairs_of(
    policy: ConditionedPolicy,
    rewritten: Sequence[RewrittenTurn],
    condition: Condition,
    *,
    replay: PreferencePairs | None = None,
) -> PreferencePairs:
    """Every accepted rewrite over the reply that it replaces, measured against the policy as it stands.

    Args:
        policy: To be trained next.
        rewritten: Accepted rewrites.
        condition: What the policy knew of each dialogue's user; rows as `ShortTurn.row` counts them.
        replay: Other pairs to be learned beside them.
    """
    pairs = PreferencePairs.from_replies(
        policy,
        [turn.short.prompt for turn in rewritten],
        [turn.reply.raw for turn in rewritten],
        [turn.short.turn.reply.raw for turn in rewritten],
        condition.select([turn.short.row for turn in rewritten]),
    )
    if replay is not None:
        pairs = PreferencePairs(
            [*pairs.chosen, *replay.chosen],
            [*pairs.rejected, *replay.rejected],
            Condition.concatenate([pairs.condition, replay.condition]),
        )
    return pairs.against(policy)


def _rewrite(
    dialogues: Sequence[Dialogue],
    agent: Recommender,
    rewriter: Rewriter,
    condition: Condition,
    config: EcpoConfig,
    *,
    gates: Sequence[Gate],
    seed: int,
) -> tuple[list[RewrittenTurn], int]:
    """Accepted rewrites of one round, and how many turns were tried."""
    turns = short_turns(dialogues, agent, config.rewriting.threshold)
    if not config.confirmation:
        chance = _seed(seed, _CHANCE)
        turns = [turn.blind() for turn in turns_by_chance(dialogues, agent, len(turns), seed=chance)]
    return (
        rewrite_turns(turns, rewriter, condition, config.rewriting, gates=gates, seed=seed),
        len(turns),
    )


def _seed(seed: int, *keys: int) -> int:
    return int(keyed_seeds(seed, *keys)[0])


def _ignore(figures: Mapping[str, float]) -> None:
    """Take a report and do nothing with it."""
