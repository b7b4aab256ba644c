"""Tastes in wording, read off choices between replies."""

import numpy as np
import pytest

from persona.data.comparisons import ComparisonTable
from persona.rewards.attributes import ATTRIBUTES, AttributeScale
from simulators.errors import MirrorError
from simulators.mirror.manner import Manners

USERS, CHOICES, REPLIES = 60, 60, 400
UNIT = AttributeScale(np.zeros(len(ATTRIBUTES)), np.ones(len(ATTRIBUTES)))


def choices(seed: int = 0) -> tuple[ComparisonTable, np.ndarray, np.ndarray]:
    """Users with known weights who choose between replies."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(0.3, 1.0, (USERS, len(ATTRIBUTES)))
    attributes = rng.normal(size=(REPLIES, len(ATTRIBUTES)))
    users = np.repeat(np.arange(USERS), CHOICES)
    first = rng.integers(REPLIES, size=len(users))
    second = (first + rng.integers(1, REPLIES, size=len(users))) % REPLIES
    gain = (weights[users] * (attributes[first] - attributes[second])).sum(1)
    likes = rng.random(len(users)) < 1 / (1 + np.exp(-gain))
    chosen, rejected = np.where(likes, first, second), np.where(likes, second, first)
    return ComparisonTable(users, first, chosen, rejected), attributes, weights


def test_weights_are_recovered_and_a_stranger_is_the_average() -> None:
    table, attributes, weights = choices()
    manners = Manners.fit(table, attributes, UNIT, n_users=USERS + 1, seed=0)
    found = manners.weights.mean
    assert np.corrcoef(found[:USERS].ravel(), weights.ravel())[0, 1] > 0.9
    np.testing.assert_allclose(found[USERS], weights.mean(0), atol=0.35)
    known, unknown = (np.trace(manners.weights.covariance[row]) for row in (0, USERS))
    assert known < 0.6 * unknown


def test_the_worth_of_replies_has_unit_spread() -> None:
    table, attributes, _ = choices()
    manners = Manners.fit(table, attributes, UNIT, n_users=USERS, seed=0)
    rows = np.repeat(np.arange(USERS), 200)
    replies = np.random.default_rng(1).normal(size=(len(rows), len(ATTRIBUTES)))
    worth = manners.contributions(manners.weights.mean[rows], replies).sum(1)
    assert worth.std() == pytest.approx(1.0, abs=0.05)


def test_other_attributes_and_users_are_refused() -> None:
    table, attributes, _ = choices()
    with pytest.raises(MirrorError, match="a column for each of brevity"):
        Manners.fit(table, attributes[:, :2], UNIT, n_users=USERS, seed=0)
    with pytest.raises(MirrorError, match=r"0\.\.9; got 59"):
        Manners.fit(table, attributes, UNIT, n_users=10, seed=0)
