"""Logged bandits whose truth is known, and slow twins of what is computed from them.

`BanditWorld`: contexts, a logistic reward that depends on context and action together, a logging policy that already
leans towards good actions, and a target policy that leans elsewhere. `SlatePages`: a page world small enough to list
every page as often as the logging policy shows it, so that an average over the log is an expectation.
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.special import expit, softmax

from recsys.data.bandit import BanditLog, Values

ACTIONS, FEATURES, SLOTS = 5, 3, 2


class BanditWorld(NamedTuple):
    """What logs are drawn from. Weights have a row an action and a column a feature."""

    levels: Values
    reward_slopes: Values
    logging_slopes: Values
    target_slopes: Values
    slot_effect: Values
    is_uniform: bool

    def means(self, context: Values, slots: np.ndarray) -> Values:
        """Expected reward of every action. Shape (N, A)."""
        found: Values = expit(self.levels + context @ self.reward_slopes.T + self.slot_effect[slots][:, None])
        return found

    def logging(self, context: Values) -> Values:
        """The logging policy. Shape (N, A)."""
        if self.is_uniform:
            return np.full((len(context), ACTIONS), 1 / ACTIONS)
        return 0.8 * np.asarray(softmax(context @ self.logging_slopes.T, axis=1)) + 0.2 / ACTIONS

    def target(self, context: Values) -> Values:
        """The target policy. Shape (N, A)."""
        return 0.9 * np.asarray(softmax(context @ self.target_slopes.T, axis=1)) + 0.1 / ACTIONS

    def true_value(self, rows: int = 400_000) -> float:
        """Mean reward of the target policy, by summing over actions in fresh contexts."""
        context, slots = _traffic(rows, np.random.default_rng(2**31))
        return float((self.target(context) * self.means(context, slots)).sum(axis=1).mean())

    def draw(self, rows: int, seed: int) -> tuple[BanditLog, Values]:
        """A log of the logging policy, and the target policy's distribution in its rows."""
        rng = np.random.default_rng(seed)
        context, slots = _traffic(rows, rng)
        logging = self.logging(context)
        actions = (logging.cumsum(axis=1) < rng.random(rows)[:, None]).sum(axis=1).clip(0, ACTIONS - 1)
        place = np.arange(rows)
        rewards = (rng.random(rows) < self.means(context, slots)[place, actions]).astype(np.float64)
        log = BanditLog(actions, rewards, logging[place, actions], slots, context, ACTIONS, SLOTS)
        return log, self.target(context)


def make_world(seed: int = 0, *, is_uniform: bool = False) -> BanditWorld:
    """A world where logging and target policy disagree, and rewards hang on action and context together."""
    rng = np.random.default_rng(seed)
    reward = rng.normal(size=(ACTIONS, FEATURES))
    return BanditWorld(
        levels=rng.normal(-0.5, 0.5, ACTIONS),
        reward_slopes=reward,
        logging_slopes=0.8 * reward + 0.3 * rng.normal(size=(ACTIONS, FEATURES)),
        target_slopes=-0.5 * reward + 0.3 * rng.normal(size=(ACTIONS, FEATURES)),
        slot_effect=np.array([0.3, -0.3]),
        is_uniform=is_uniform,
    )


def _traffic(rows: int, rng: np.random.Generator) -> tuple[Values, np.ndarray]:
    return rng.normal(size=(rows, FEATURES)), rng.integers(SLOTS, size=rows)


def random_log(
    seed: int, rows: int = 60, actions: int = 4, *, clusters: int | None = None
) -> tuple[BanditLog, Values]:
    """Numbers without a world behind them: any propensities from 1e-6 up, any distributions, some zeros."""
    rng = np.random.default_rng(seed)
    dist = rng.random((rows, actions)) ** 4 * (rng.random((rows, actions)) < 0.7)
    dist[:, 0] += 1e-12
    log = BanditLog(
        rng.integers(actions, size=rows),
        np.round(rng.normal(size=rows), 3),
        10.0 ** -rng.uniform(0, 6, size=rows),
        rng.integers(2, size=rows),
        rng.normal(size=(rows, 2)),
        actions,
        2,
        None if clusters is None else rng.integers(clusters, size=rows),
    )
    return log, dist / dist.sum(axis=1, keepdims=True)


def replay_slowly(log: BanditLog, dist: Values, rng: np.random.Generator) -> float:
    """Mean reward of the rows where an action drawn from the policy is the one logged."""
    kept = []
    for row in range(len(log)):
        shown = rng.choice(log.n_actions, p=dist[row])
        if shown == log.actions[row]:
            kept.append(float(log.rewards[row]))
    return sum(kept) / len(kept)


class SlatePages(NamedTuple):
    """Every page of 2 slots and 3 items, once for each 1/total of its chance under the logging policy.

    pages: Items by slot. Shape (S, 2).
    logging: Probability by first and second item. Shape (3, 3).
    target: The same of the target policy.
    """

    pages: np.ndarray
    logging: Values
    target: Values


def list_pages(*, slots_are_independent: bool = False) -> SlatePages:
    """The page world; independent slots make both policies products of their marginals."""
    if slots_are_independent:
        shares = np.outer([1, 2, 5], [3, 4, 1])
        target = np.outer([0.5, 0.2, 0.3], [0.1, 0.6, 0.3])
    else:
        shares = np.array([[4, 1, 7], [2, 9, 3], [5, 8, 1]])
        target = np.array([[0.05, 0.2, 0.1], [0.25, 0.05, 0.05], [0.1, 0.0, 0.2]])
    pages = [page for page in product(range(3), repeat=2) for _ in range(shares[page])]
    return SlatePages(np.array(pages), shares / shares.sum(), target)


def value_slowly(chances: Values, reward: Callable[[int, int], tuple[float, float]]) -> float:
    """Expected sum of rewards of a policy, one page at a time."""
    return sum(float(chances[page]) * sum(reward(*page)) for page in product(range(3), repeat=2))
