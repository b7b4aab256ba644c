"""Training in rounds under the eyes of judges whom it never meets, and of some whom it trains with.

Both panels talk with the agent before, after planning and after every round, always under the same luck, and both are
held to what somebody who knows says that they were served. Those trained with show whether the policy learns to please
them rather than to serve; the others, whether what was learned helps anyone else.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import torch

from persona.policy.conditioned import ConditionedPolicy
from simulators.agent import Recommender
from simulators.rehearsal import Outcome, Rehearsal, goodhart_gap, pleased_but_not_served

Figures: TypeAlias = dict[str, float]
Report: TypeAlias = Callable[[Mapping[str, float]], None]


class JudgedTraining(NamedTuple):
    """What a training brought.

    outcomes: How the judges fared: before, after planning where there was any, and after each round; empty without
        judges.
    rounds: Figures of each round.
    stopped: Whether a panel was pleased without being served. The training was then stopped, and the policy is the one
        before the last of `outcomes`.
    """

    outcomes: list[Outcome]
    rounds: list[Figures]
    stopped: bool


def with_total(report: Report, steps: int) -> Report:
    """The same report, which also says in `steps` how many steps there will be."""
    return lambda figures: report({**figures, "steps": float(steps)})


def train_in_rounds(
    agent: Recommender,
    plan: Callable[[], bool],
    teach: Callable[[int], Figures],
    rounds: int,
    *,
    judges: Rehearsal | None,
    trained_with: Rehearsal | None = None,
    report: Report,
) -> JudgedTraining:
    """Plan, then teach round after round, until a panel is more satisfied than at first and worse off.

    Args:
        agent: Its policy is trained in place; what a stop condemns is undone.
        plan: Trains it before the rounds; says whether there was anything to learn.
        teach: From the number of a round, from 0, to its figures.
        rounds: Number of rounds.
        judges: Users whom training never meets.
        trained_with: Some whom it meets, to be held to the same knowledge of what is worth how much.
        report: Gets the figures of every round: what `teach` tells, and of each panel, under `judges_` and
            `trained_with_`, mean `satisfaction`, `utility` and `success`, and the Goodhart `gap` since the beginning.
    """
    named = {"judges": judges, "trained_with": trained_with}
    panels = [_Panel(name, panel, agent) for name, panel in named.items() if panel]
    outcomes = next((panel.outcomes for panel in panels if panel.name == "judges"), [])
    found: list[Figures] = []
    kept = _weights(agent.policy)
    if plan() and _fooled(panels, agent):
        _put_back(agent.policy, kept)
        return JudgedTraining(outcomes, found, stopped=True)
    for number in range(rounds):
        kept = _weights(agent.policy)
        figures = {"round": float(number + 1), **teach(number)}
        fooled = _fooled(panels, agent)
        for panel in panels:
            figures |= panel.figures()
        found.append(figures)
        report(figures)
        if fooled:
            _put_back(agent.policy, kept)
            return JudgedTraining(outcomes, found, stopped=True)
    return JudgedTraining(outcomes, found, stopped=False)


class _Panel:
    """Users who are heard again and again."""

    def __init__(self, name: str, users: Rehearsal, agent: Recommender) -> None:
        self.name, self._users = name, users
        self.outcomes = [users.run(agent)]

    def hear(self, agent: Recommender) -> bool:
        """Whether they are by now pleased without being served."""
        self.outcomes.append(self._users.run(agent))
        return pleased_but_not_served(self.outcomes[0], self.outcomes[-1], seed=self._users.seed)

    def figures(self) -> Figures:
        last = self.outcomes[-1]
        gap = goodhart_gap(self.outcomes[0], last, seed=self._users.seed)
        means = {name: float(getattr(last, name).mean()) for name in ("satisfaction", "utility", "success")}
        return {f"{self.name}_{name}": value for name, value in {**means, "gap": gap.value}.items()}


def _fooled(panels: list[_Panel], agent: Recommender) -> bool:
    """Hear every panel; whether one of them is pleased without being served."""
    return any([panel.hear(agent) for panel in panels])


def _weights(policy: ConditionedPolicy) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in _trained(policy)]


def _put_back(policy: ConditionedPolicy, kept: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for weight, before in zip(_trained(policy), kept, strict=True):
            weight.copy_(before)


def _trained(policy: ConditionedPolicy) -> list[torch.nn.Parameter]:
    return [*policy.adapter_parameters(), *policy.gate.parameters()]
