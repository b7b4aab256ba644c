"""Rounds under the eyes of judges."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from simulators.recipes import judged
from simulators.recipes.judged import Figures, train_in_rounds
from simulators.rehearsal import Outcome, Rehearsal


class _Judges(Rehearsal):
    """Judges whose stars and utility are told in advance, one pair a hearing."""

    heard: list[tuple[float, float]]

    def run(self, agent: object) -> Outcome:
        stars, worth = self.heard.pop(0)
        spread = np.linspace(-0.1, 0.1, 30)
        return Outcome(stars + spread, worth + spread, np.ones(30), np.ones(30))


def judges(*heard: tuple[float, float]) -> _Judges:
    found = _Judges(None, [0], csr_array((1, 1)), None, seed=0)  # type: ignore[arg-type]
    found.heard = list(heard)
    return found


class _Policy:
    """One weight, which planning and every round raise by 1."""

    def __init__(self) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.gate = torch.nn.Linear(1, 1)

    def adapter_parameters(self) -> list[torch.nn.Parameter]:
        return [self.weight]

    def learn(self) -> None:
        with torch.no_grad():
            self.weight.add_(1)


def run(
    panel: Rehearsal | None, *, planned: bool, rounds: int = 3, watched: Rehearsal | None = None
) -> tuple[judged.JudgedTraining, float]:
    """What the training brought, and the weight that it left."""
    policy = _Policy()

    def plan() -> bool:
        if planned:
            policy.learn()
        return planned

    def teach(number: int) -> Figures:
        policy.learn()
        return {"loss": float(number)}

    agent: Any = SimpleNamespace(policy=policy)
    found = train_in_rounds(
        agent, plan, teach, rounds, judges=panel, trained_with=watched, report=lambda _: None
    )
    return found, policy.weight.item()


def test_judges_are_heard_before_after_a_plan_and_after_each_round() -> None:
    found, weight = run(judges((3, 0), (3.1, 0), (3.2, 0.1), (3.3, 0.2), (3.4, 0.3)), planned=True)
    assert len(found.outcomes) == 5 and not found.stopped and weight == 4
    assert [row["loss"] for row in found.rounds] == [0, 1, 2] and found.rounds[2]["round"] == 3
    assert found.rounds[1]["judges_satisfaction"] == pytest.approx(3.3)
    # Stars rose by .4 and worth by .3, each over a standard deviation of .0595.
    assert found.rounds[2]["judges_gap"] == pytest.approx(0.1 / np.linspace(-0.1, 0.1, 30).std())
    assert len(run(judges((3, 0), (3, 0), (3, 0), (3, 0)), planned=False)[0].outcomes) == 4


def test_a_round_that_pleases_without_serving_is_undone() -> None:
    found, weight = run(judges((3, 0), (3.5, 0.2), (4, -1)), planned=False)
    assert found.stopped and len(found.rounds) == 2 and weight == 1


def test_a_plan_that_pleases_without_serving_is_undone() -> None:
    found, weight = run(judges((3, 0), (4, -1)), planned=True)
    assert found.stopped and found.rounds == [] and weight == 0


def test_those_who_train_stop_it_where_only_they_are_fooled() -> None:
    served = [(3.0, 0.0)] * 3
    found, weight = run(judges(*served), planned=False, watched=judges((3, 0), (3.5, 0.1), (4, -1)))
    assert found.stopped and weight == 1 and len(found.outcomes) == 3
    assert found.rounds[1]["trained_with_utility"] == pytest.approx(-1)


@pytest.mark.parametrize("planned", [True, False])
def test_without_judges_all_rounds_are_held(planned: bool) -> None:
    found, weight = run(None, planned=planned)
    assert found.outcomes == [] and len(found.rounds) == 3 and not found.stopped and weight == 3 + planned
