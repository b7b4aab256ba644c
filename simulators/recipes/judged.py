"""Training in rounds under the eyes of judges whom it never meets."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from simulators.protocols import Agent
from simulators.rehearsal import Outcome, Rehearsal, pleased_but_not_served

Figures: TypeAlias = dict[str, float]
Report: TypeAlias = Callable[[Mapping[str, float]], None]


class JudgedTraining(NamedTuple):
    """What a training brought.

    outcomes: How the judges fared: before, after planning where there was any, and after each round; empty without
        judges.
    rounds: Figures of each round.
    stopped: Whether judges were pleased without being served, and the run was stopped for it.
    """

    outcomes: list[Outcome]
    rounds: list[Figures]
    stopped: bool


def with_total(report: Report, steps: int) -> Report:
    """The same report, which also says in `steps` how many steps there will be."""
    return lambda figures: report({**figures, "steps": float(steps)})


def train_in_rounds(
    agent: Agent,
    plan: Callable[[], bool],
    teach: Callable[[int], Figures],
    rounds: int,
    *,
    judges: Rehearsal | None,
    report: Report,
) -> JudgedTraining:
    """Plan, then teach round after round; judges are heard before, after planning, and after each round.

    Args:
        agent: Whom the judges talk with.
        plan: Trains it before the rounds; says whether there was anything to learn.
        teach: From the number of a round, from 0, to its figures; trains the agent in place.
        rounds: Number of rounds.
        judges: Users whom training never meets. A round after which they are more satisfied than at first, and worse
            off, is the last.
        report: Gets the figures of every round.
    """
    outcomes = [judges.run(agent)] if judges else []
    if plan() and judges:
        outcomes.append(judges.run(agent))
    found: list[Figures] = []
    for number in range(rounds):
        figures = {"round": float(number + 1), **teach(number)}
        found.append(figures)
        report(figures)
        if judges:
            outcomes.append(judges.run(agent))
            if pleased_but_not_served(outcomes[0], outcomes[-1], seed=judges.seed):
                return JudgedTraining(outcomes, found, stopped=True)
    return JudgedTraining(outcomes, found, stopped=False)
