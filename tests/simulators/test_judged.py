"""Rounds under the eyes of judges."""

import numpy as np
import pytest
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


def run(panel: Rehearsal | None, *, planned: bool, rounds: int = 3) -> judged.JudgedTraining:
    def teach(number: int) -> Figures:
        return {"loss": float(number)}

    return train_in_rounds(
        None,  # type: ignore[arg-type]
        lambda: planned,
        teach,
        rounds,
        judges=panel,
        report=lambda _: None,
    )


def test_judges_are_heard_before_after_a_plan_and_after_each_round() -> None:
    found = run(judges((3, 0), (3.1, 0), (3.2, 0.1), (3.3, 0.2), (3.4, 0.3)), planned=True)
    assert len(found.outcomes) == 5 and not found.stopped
    assert found.rounds == [{"round": n + 1.0, "loss": float(n)} for n in range(3)]
    assert len(run(judges((3, 0), (3, 0), (3, 0), (3, 0)), planned=False).outcomes) == 4


def test_a_round_that_pleases_without_serving_is_the_last() -> None:
    found = run(judges((3, 0), (3.5, 0.2), (4, -1)), planned=False)
    assert found.stopped and len(found.rounds) == 2


@pytest.mark.parametrize("planned", [True, False])
def test_without_judges_all_rounds_are_held(planned: bool) -> None:
    found = run(None, planned=planned)
    assert found.outcomes == [] and len(found.rounds) == 3 and not found.stopped
