"""Logs of bandit feedback: what was shown, with which probability, and what it earned.

Off-policy evaluation divides by the logged probabilities, so one wrong row can own the answer. Every `BanditLog` is
therefore checked when it is made, and each complaint names the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.errors import InteractionError, ShapeError
from recsys.types import Bools, Ints

Values: TypeAlias = NDArray[np.float64]

MOST_CATEGORIES = 1000
"""A text column with more distinct values than this is an identifier, not context."""


@dataclass(frozen=True, slots=True, eq=False)
class BanditLog:
    """Rounds of a logging policy, one action a row; checked when made.

    Attributes:
        actions: What was shown, 0..A-1. Shape (N,), int64.
        rewards: What it earned, such as 1 for a click; larger is better. Shape (N,), float64.
        propensities: Probability with which the logging policy showed that action there, above 0, at most 1.
            Shape (N,), float64.
        positions: Slot of the page, 0..K-1. Shape (N,), int64.
        context: What was known before the choice, F numbers a row; F may be 0. Shape (N, F), float64.
        n_actions: Number A of actions that could be shown.
        n_positions: Number K of slots.
        clusters: Whose row it is, where rows of one user must be drawn together. Shape (N,), int64.
        action_features: G numbers known of each action. Shape (A, G), float64.

    Raises:
        ShapeError: Arrays differ in length, or there is no row.
        InteractionError: A value is not finite, a propensity lies outside (0, 1], or an action, position or cluster
            is unknown.
    """

    actions: Ints
    rewards: Values
    propensities: Values
    positions: Ints
    context: Values
    n_actions: int
    n_positions: int = 1
    clusters: Ints | None = None
    action_features: Values | None = None

    def __post_init__(self) -> None:
        """Check everything once."""
        _check_shapes(self)
        refuse_rows(~np.isfinite(self.rewards), self.rewards, "`rewards` must be finite", "Drop the rows")
        known = (self.propensities > 0) & (self.propensities <= 1)
        refuse_rows(
            ~known,
            self.propensities,
            "`propensities` must lie above 0 and at most 1",
            "Log the probability of the shown action itself, or drop the rows",
        )
        for name, ids, count in (
            ("actions", self.actions, self.n_actions),
            ("positions", self.positions, self.n_positions),
        ):
            refuse_rows(
                (ids < 0) | (ids >= count), ids, f"`{name}` must lie in 0..{count - 1}", f"Raise `n_{name}`"
            )
        refuse_rows(
            np.any(~np.isfinite(self.context), axis=1),
            self.context,
            "`context` must be finite",
            "Fill missing values, or drop the rows",
        )
        if self.action_features is not None:
            refuse_rows(
                np.any(~np.isfinite(self.action_features), axis=1),
                self.action_features,
                "`action_features` must be finite",
                "Fill missing values",
            )

    def __len__(self) -> int:
        """Number N of rows."""
        return len(self.actions)

    def select(self, rows: Ints | Bools) -> "BanditLog":
        """The log of some rows only, in the order asked for; actions and positions keep their numbers."""
        return BanditLog(
            self.actions[rows],
            self.rewards[rows],
            self.propensities[rows],
            self.positions[rows],
            self.context[rows],
            self.n_actions,
            self.n_positions,
            None if self.clusters is None else self.clusters[rows],
            self.action_features,
        )


def bandit_log_from_frame(
    frame: pd.DataFrame,
    *,
    action: str = "action",
    reward: str = "reward",
    propensity: str = "propensity",
    position: str | None = None,
    context: Sequence[str] = (),
    cluster: str | None = None,
    action_ids: Sequence[object] | None = None,
    position_ids: Sequence[object] | None = None,
    action_features: Values | None = None,
) -> BanditLog:
    """A checked log out of any table with one shown action a row.

    Args:
        frame: The table. Rows are counted from 0 in what is said about them.
        action: Column of what was shown.
        reward: Column of what it earned, numbers.
        propensity: Column of the probability of the shown action.
        position: Column of the slot; None for one slot.
        context: Columns known before the choice. Numbers are taken as they are, anything else becomes one column a
            distinct value.
        cluster: Column of the user, or None where each row stands for itself.
        action_ids: Every action that could be shown, in the order that a target policy counts them; None counts the
            log's own in ascending order.
        position_ids: Every slot, in order; None counts the log's own in ascending order.
        action_features: Numbers known of each action, in the order of `action_ids`. Shape (A, G).

    Returns:
        The log.

    Raises:
        InteractionError: A column is missing, a cell is not a number where it must be, an action or position is not
            among the given ids, or a text column holds an identifier.
        ShapeError: There is no row.
    """
    wanted = [action, reward, propensity, *context, *(name for name in (position, cluster) if name)]
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise InteractionError(
            f"The log must have the columns {wanted}; {missing} are missing from {list(frame.columns)[:12]}. "
            "Name the columns that it does have."
        )
    actions, n_actions = _number(frame[action], action_ids)
    places, n_positions = (
        (np.zeros(len(frame), dtype=np.int64), 1)
        if position is None
        else _number(frame[position], position_ids)
    )
    return BanditLog(
        actions,
        _as_numbers(frame[reward]),
        _as_numbers(frame[propensity]),
        places,
        _encode_context(frame, context),
        n_actions,
        n_positions,
        None if cluster is None else pd.factorize(frame[cluster], use_na_sentinel=False)[0].astype(np.int64),
        action_features,
    )


def refuse_rows(wrong: Bools, values: NDArray[np.generic], must: str, remedy: str) -> None:
    """Name the first rows that break a rule.

    Args:
        wrong: True for the rows that do. Shape (N,).
        values: What they hold. Shape (N,) or (N, F).
        must: The rule, as the beginning of a sentence.
        remedy: What to do, a sentence without its full stop.

    Raises:
        InteractionError: A row is wrong.
    """
    if not wrong.any():
        return
    rows = np.flatnonzero(wrong)[:3]
    got = ", ".join(f"{np.asarray(values[row]).tolist()} in row {row}" for row in rows)
    raise InteractionError(f"{must}; got {got} ({int(wrong.sum())} rows of {len(wrong)}). {remedy}.")


def _check_shapes(log: BanditLog) -> None:
    columns = {
        "actions": log.actions,
        "rewards": log.rewards,
        "propensities": log.propensities,
        "positions": log.positions,
        **({} if log.clusters is None else {"clusters": log.clusters}),
    }
    shapes = {name: column.shape for name, column in columns.items()} | {"context": log.context.shape[:1]}
    if len(set(shapes.values())) > 1 or log.actions.ndim != 1 or log.context.ndim != 2 or len(log) == 0:
        raise ShapeError(
            f"A bandit log must have one or more rows and equally long columns; got {shapes} and context of shape "
            f"{log.context.shape}. Take all columns from one table."
        )
    features = log.action_features
    if features is not None and (features.ndim != 2 or len(features) != log.n_actions):
        raise ShapeError(
            f"`action_features` must have one row for each of {log.n_actions} actions; got shape {features.shape}. "
            "Order them as the actions are numbered."
        )


def _number(column: pd.Series, ids: Sequence[object] | None) -> tuple[Ints, int]:
    """Place of each cell among `ids`, and their number."""
    if ids is None:
        codes, found = pd.factorize(column, sort=True)
        refuse_rows(
            codes < 0, column.to_numpy(), f"`{column.name}` must be known in every row", "Drop the rows"
        )
        return codes.astype(np.int64), len(found)
    index = pd.Index(np.asarray(ids))
    if not index.is_unique:
        repeated = index[index.duplicated()].unique()[:3].tolist()
        raise InteractionError(
            f"The ids of `{column.name}` must differ; got {repeated} again. Drop the repeats."
        )
    codes = index.get_indexer(pd.Index(column))
    refuse_rows(
        codes < 0,
        column.to_numpy(),
        f"`{column.name}` must be one of the {len(index)} ids given",
        "Add the missing ids, or drop the rows",
    )
    return codes.astype(np.int64), len(index)


def _as_numbers(column: pd.Series) -> Values:
    """Cells as float64; refuses what is no finite number."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    refuse_rows(
        ~np.isfinite(numbers),
        column.to_numpy(),
        f"`{column.name}` must hold finite numbers",
        "Correct or drop the rows",
    )
    return numbers


def _encode_context(frame: pd.DataFrame, names: Sequence[str]) -> Values:
    """Numbers as they are, other columns as one indicator a distinct value. Shape (N, F)."""
    parts = [np.zeros((len(frame), 0))]
    for name in names:
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column):
            parts.append(_as_numbers(column)[:, None])
            continue
        codes, found = pd.factorize(column, sort=True, use_na_sentinel=False)
        if len(found) > MOST_CATEGORIES:
            raise InteractionError(
                f"A context column of texts must have at most {MOST_CATEGORIES} distinct values; got {len(found)} in "
                f"`{name}`. Leave it out of `context`, or group its values."
            )
        parts.append(np.eye(len(found))[codes])
    return np.concatenate(parts, axis=1)
