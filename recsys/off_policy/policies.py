"""Target policies to evaluate: plain ones, fitted ones, another log's, and one from a file.

Each returns the probability of every action in every row of the log that it is to be evaluated on, at the row's own
slot. A fitted policy takes the log it learns from as its first argument; that must hold other rows.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax

from recsys.data.bandit import BanditLog, Values
from recsys.errors import PolicyError, ShapeError
from recsys.off_policy.reward_model import RewardConfig, fit_rewards


def uniform_policy(log: BanditLog) -> Values:
    """Every action equally often. Shape (N, A)."""
    return np.full((len(log), log.n_actions), 1 / log.n_actions)


def popular_policy(
    fitted_on: BanditLog, log: BanditLog, *, epsilon: float = 0.1, prior_rows: float = 100.0
) -> Values:
    """The action of the highest mean reward, with a share of exploration.

    Args:
        fitted_on: Rows that the means are taken from, other than those of `log`. Means lean towards the overall mean
            by `prior_rows` rows; equal means go to the smaller number.
        log: N rows.
        epsilon: Share of choices spread over all actions, 0..1.
        prior_rows: 0 or more.

    Returns:
        Shape (N, A).

    Raises:
        PolicyError: `epsilon` is no share, or the logs differ in actions.
    """
    if not 0 <= epsilon <= 1:
        raise PolicyError(f"`epsilon` must lie in 0..1; got {epsilon}. Take 0.1.")
    _check_actions(fitted_on, log)
    rows = np.bincount(fitted_on.actions, minlength=log.n_actions)
    earned = np.bincount(fitted_on.actions, weights=fitted_on.rewards, minlength=log.n_actions)
    below = rows + prior_rows
    overall = float(fitted_on.rewards.mean())
    means = np.divide(earned + prior_rows * overall, below, out=np.full(len(below), overall), where=below > 0)
    dist = np.full(log.n_actions, epsilon / log.n_actions)
    dist[int(means.argmax())] += 1 - epsilon
    return np.tile(dist, (len(log), 1))


def logged_policy(other: BanditLog, log: BanditLog) -> Values:
    """How often another log shows each action in each slot, whatever the context.

    Args:
        other: The log of the policy in question, with actions and slots numbered as in `log`.
        log: N rows.

    Returns:
        Shape (N, A).

    Raises:
        PolicyError: The logs differ in actions or slots, or `other` lacks a slot of `log`.
    """
    _check_actions(other, log)
    counts = np.zeros((log.n_positions, log.n_actions))
    np.add.at(counts, (other.positions, other.actions), 1.0)
    rows = counts.sum(axis=1)
    empty = sorted({int(slot) for slot in np.unique(log.positions) if rows[slot] == 0})
    if empty:
        raise PolicyError(
            f"The other log must hold every slot of this one; it lacks {empty[:3]}. Take a longer log."
        )
    shares: Values = counts / np.maximum(rows, 1)[:, None]
    return shares[log.positions]


def softmax_policy(
    fitted_on: BanditLog, log: BanditLog, *, config: RewardConfig | None = None, temperature: float = 1.0
) -> Values:
    """Actions in proportion to exp(score / temperature), with scores of a regression of reward on context.

    Args:
        fitted_on: Rows that the regression learns from, other than those of `log`.
        log: N rows with the same columns of context.
        config: Settings of the regression; with `interactions` off all contexts rank the actions alike. None turns
            it on.
        temperature: Above 0; small values always show the best.

    Returns:
        Shape (N, A).

    Raises:
        PolicyError: `temperature` is not above 0, or the logs differ in actions, slots or context.
    """
    if temperature <= 0:
        raise PolicyError(f"`temperature` must be above 0; got {temperature}. Take 1.")
    _check_actions(fitted_on, log)
    if fitted_on.context.shape[1] != log.context.shape[1]:
        raise PolicyError(
            f"Both logs must have the same context; got {fitted_on.context.shape[1]} and {log.context.shape[1]} "
            "columns. Cut both from one log."
        )
    model = fit_rewards(fitted_on, config or RewardConfig(interactions=True))
    chances: Values = softmax(model.scores(log) / temperature, axis=1)
    return chances


def read_policy(path: Path, log: BanditLog) -> Values:
    """A policy from a file of probabilities, one row for each row of the log, in its order.

    Args:
        path: `.npy` of shape (N, A) or (N, A, K), or `.csv` or `.parquet` with A columns in the order of the actions.
        log: N rows.

    Returns:
        As the file has it; `evaluate_policy` checks that rows are distributions.

    Raises:
        PolicyError: The file is missing, unreadable, or of another kind.
        ShapeError: Its shape does not fit the log.
    """
    readers: dict[str, Callable[[Path], pd.DataFrame | np.ndarray]] = {
        ".npy": _read_npy,
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
    }
    if path.suffix not in readers:
        raise PolicyError(
            f"A policy file must end in {', '.join(readers)}; got {path.name!r}. Save it as one of these."
        )
    try:
        dist = np.asarray(readers[path.suffix](path), dtype=np.float64)
    except (OSError, ValueError, TypeError) as err:
        raise PolicyError(
            f"{path} must be a readable table of probabilities; got: {err}. Save it again."
        ) from err
    shapes = ((len(log), log.n_actions), (len(log), log.n_actions, log.n_positions))
    if dist.shape not in shapes:
        raise ShapeError(
            f"{path.name} must have shape {shapes[0]} or {shapes[1]}; got {dist.shape}. "
            "Write one row for each row of the log, without an index column."
        )
    return dist


def _read_npy(path: Path) -> np.ndarray:
    found: np.ndarray = np.load(path, allow_pickle=False)
    return found


def _check_actions(first: BanditLog, log: BanditLog) -> None:
    got, wanted = (first.n_actions, first.n_positions), (log.n_actions, log.n_positions)
    if got != wanted:
        raise PolicyError(
            f"Both logs must number the same actions and slots; got {got[0]} actions in {got[1]} slots and "
            f"{wanted[0]} in {wanted[1]}. Give both the same `action_ids` and `position_ids`."
        )
