import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recsys.data.bandit import BanditLog, bandit_log_from_frame
from recsys.errors import InteractionError, ShapeError


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "shown": ["b", "a", "c", "b"],
            "click": [0, 1, 0, 1],
            "chance": [0.5, 0.25, 1.0, 0.125],
            "slot": [3, 1, 1, 3],
            "age": [20.0, 30.0, 40.0, 50.0],
            "town": ["x", "y", "x", "x"],
            "person": ["p", "q", "p", "r"],
        }
    )


def read(table: pd.DataFrame, **change: Any) -> BanditLog:
    settings: dict[str, Any] = {
        "action": "shown",
        "reward": "click",
        "propensity": "chance",
        "position": "slot",
        "context": ["age", "town"],
        "cluster": "person",
    }
    return bandit_log_from_frame(table, **(settings | change))


def test_a_table_becomes_numbers() -> None:
    log = read(frame())
    assert log.actions.tolist() == [1, 0, 2, 1] and log.n_actions == 3
    assert log.positions.tolist() == [1, 0, 0, 1] and log.n_positions == 2
    assert log.rewards.tolist() == [0, 1, 0, 1] and log.propensities.tolist() == [0.5, 0.25, 1.0, 0.125]
    assert log.context.tolist() == [[20, 1, 0], [30, 0, 1], [40, 1, 0], [50, 1, 0]]
    assert log.clusters is not None and log.clusters.tolist() == [0, 1, 0, 2]


def test_given_ids_decide_the_numbering() -> None:
    log = read(frame(), action_ids=["c", "z", "b", "a"], position_ids=[1, 2, 3])
    assert log.actions.tolist() == [2, 3, 0, 2] and log.n_actions == 4
    assert log.positions.tolist() == [2, 0, 0, 2] and log.n_positions == 3


def test_without_slots_context_and_clusters_the_log_is_still_whole() -> None:
    log = read(frame(), position=None, context=(), cluster=None)
    assert log.n_positions == 1 and log.context.shape == (4, 0) and log.clusters is None


def test_a_part_keeps_numbers_and_features() -> None:
    whole = read(frame(), action_features=np.eye(3))
    part = whole.select(np.array([3, 1]))
    assert part.actions.tolist() == [1, 0] and part.n_actions == 3 and part.action_features is not None
    assert part.clusters is not None and part.clusters.tolist() == [2, 1] and part.context[0, 0] == 50
    assert len(whole.select(whole.rewards == 0)) == 2


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("chance", 0.0, r"`propensities` must lie above 0 and at most 1; got 0\.0 in row 2 \(1 rows of 4\)"),
        ("chance", 1.5, r"above 0 and at most 1; got 1\.5 in row 2"),
        ("chance", np.nan, r"`chance` must hold finite numbers; got nan in row 2"),
        ("click", "many", r"`click` must hold finite numbers; got many in row 2"),
        ("click", np.inf, r"`click` must hold finite numbers; got inf in row 2"),
        ("age", np.nan, r"`age` must hold finite numbers; got nan in row 2"),
        ("shown", None, r"`shown` must be known in every row; got (None|nan) in row 2"),
    ],
)
def test_a_wrong_cell_is_named_by_its_row(column: str, value: object, match: str) -> None:
    table = frame()
    cells = [value if row == 2 else cell for row, cell in enumerate(table[column].tolist())]
    table[column] = pd.Series(cells)
    with pytest.raises(InteractionError, match=match):
        read(table, context=["age"])


def test_unknown_ids_and_columns_are_refused() -> None:
    with pytest.raises(InteractionError, match=r"`shown` must be one of the 2 ids given; got c in row 2"):
        read(frame(), action_ids=["a", "b"])
    with pytest.raises(InteractionError, match=r"ids of `shown` must differ; got \['a'\] again"):
        read(frame(), action_ids=["a", "a", "b", "c"])
    with pytest.raises(InteractionError, match=r"\['when'\] are missing from \['shown', 'click'"):
        read(frame(), context=["when"])


def test_an_identifier_is_no_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.data.bandit.MOST_CATEGORIES", 2)
    with pytest.raises(InteractionError, match="at most 2 distinct values; got 3 in `person`"):
        read(frame(), context=["person"])


def test_arrays_that_do_not_fit_are_refused() -> None:
    whole = np.zeros(2, dtype=np.int64)
    parts: dict[str, Any] = {
        "actions": whole,
        "rewards": np.zeros(2),
        "propensities": np.ones(2),
        "positions": whole,
    }

    def make(**change: Any) -> BanditLog:
        return BanditLog(**({**parts, "context": np.zeros((2, 0)), "n_actions": 2} | change))

    assert len(make()) == 2
    with pytest.raises(ShapeError, match=re.escape("'rewards': (3,)")):
        make(rewards=np.zeros(3))
    with pytest.raises(ShapeError, match=re.escape("'actions': (0,)")):
        make(**{name: part[:0] for name, part in parts.items()}, context=np.zeros((0, 1)))
    with pytest.raises(InteractionError, match=r"`actions` must lie in 0\.\.1; got 2 in row 1"):
        make(actions=np.array([0, 2]))
    with pytest.raises(InteractionError, match=r"`positions` must lie in 0\.\.0; got -1 in row 0"):
        make(positions=np.array([-1, 0]))
    with pytest.raises(InteractionError, match=r"`rewards` must be finite; got nan in row 1"):
        make(rewards=np.array([0, np.nan]))
    with pytest.raises(InteractionError, match=r"`context` must be finite; got \[inf\] in row 0"):
        make(context=np.array([[np.inf], [0.0]]))
    with pytest.raises(ShapeError, match=re.escape("each of 2 actions; got shape (3, 1)")):
        make(action_features=np.zeros((3, 1)))
    with pytest.raises(InteractionError, match=r"`action_features` must be finite; got \[nan\] in row 1"):
        make(action_features=np.array([[0.0], [np.nan]]))
