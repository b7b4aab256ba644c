"""Words adjust a choice model: planted weights come back, words that know nothing get none."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from simulators.errors import MirrorError
from simulators.mirror.adjustment import Adjustment, fit_adjustment

Values = NDArray[np.float64]


def drawn(
    scale: float, weight: float, *, users: int, seed: int, width: int = 4
) -> tuple[Values, Values, NDArray[np.int64], NDArray[np.int64]]:
    """Twenty scenes a user, chosen by p^scale q^weight; every other scene lacks its last option."""
    rng = np.random.default_rng(seed)
    count = 20 * users
    open_slots = np.ones((count, width), bool)
    open_slots[::2, -1] = False
    base, words = (
        softmax(np.where(open_slots, rng.normal(size=(count, width)), -np.inf), axis=1) for _ in range(2)
    )
    powers = np.where(open_slots, base**scale * np.where(open_slots, words, 1.0) ** weight, 0.0)
    chances = powers / powers.sum(axis=1, keepdims=True)
    chosen = (chances.cumsum(axis=1) < rng.random(count)[:, None]).sum(axis=1)
    return base, words, chosen, np.repeat(np.arange(users) + 7, 20)


def test_planted_scale_and_weight_come_back() -> None:
    found = fit_adjustment(*drawn(0.8, 0.5, users=150, seed=0))
    assert found.scale == pytest.approx(0.8, abs=0.12)
    assert abs(found.weight - 0.5) < 3 * found.weight_error
    assert found.weight_error < 0.1
    assert found.gain > 2 * found.gain_error > 0


def test_intervals_cover_the_planted_weight() -> None:
    inside = 0
    for seed in range(40):
        found = fit_adjustment(*drawn(1.0, 0.4, users=40, seed=seed))
        inside += abs(found.weight - 0.4) < 1.96 * found.weight_error
    # Binomial of 40 at .95: fewer than 33 has a chance below 1 in 1,000.
    assert inside >= 33


def test_words_that_know_nothing_are_left_out() -> None:
    kept = [fit_adjustment(*drawn(1.0, 0.0, users=30, seed=seed)) for seed in range(40)]
    untouched = [found for found in kept if found.weight == 0 and found.scale == 1]
    # Binomial of 40 at .95: fewer than 33 has a chance below 1 in 1,000.
    assert len(untouched) >= 33
    # What is kept by luck is small.
    assert max(found.weight for found in kept) < 0.25


def test_words_that_mislead_never_get_a_negative_weight() -> None:
    found = fit_adjustment(*drawn(1.0, -0.8, users=100, seed=0))
    assert found.weight == 0


def test_held_out_users_are_foretold_no_worse() -> None:
    for weight in (0.0, 0.6):
        base, words, chosen, users = drawn(1.0, weight, users=120, seed=3)
        fit, rest = users < 67, users >= 67
        found = fit_adjustment(base[fit], words[fit], chosen[fit], users[fit])
        rows = np.arange(len(chosen))[rest]
        gain = np.log(found.apply(base, words)[rows, chosen[rest]] / base[rows, chosen[rest]])
        by_user = gain.reshape(-1, 20).mean(axis=1)
        assert by_user.mean() >= -2 * by_user.std() / np.sqrt(len(by_user))
        assert weight == 0 or by_user.mean() > 0.05


def test_adjustment_is_the_product_of_powers() -> None:
    base, words = np.array([[0.5, 0.3, 0.2, 0.0]]), np.array([[0.2, 0.2, 0.6, 0.0]])
    powers = base[0, :3] ** 0.5 * words[0, :3] ** 2
    moved = Adjustment(0.5, 2.0).apply(base, words)
    np.testing.assert_allclose(moved[0], [*(powers / powers.sum()), 0.0])
    np.testing.assert_array_equal(Adjustment().apply(base, words), base)
    uniform = np.array([[1 / 3, 1 / 3, 1 / 3, 0.0]])
    np.testing.assert_allclose(Adjustment(1.0, 3.0).apply(base, uniform), base)


def test_what_does_not_fit_is_refused() -> None:
    half = np.full((2, 2), 0.5)
    with pytest.raises(MirrorError, match=r"same scenes and options; got \(2, 2\) and \(2, 3\)"):
        Adjustment().apply(half, np.full((2, 3), 1 / 3))
    with pytest.raises(MirrorError, match=r"sum to 1 .* got sums from 0\.8 to 1"):
        Adjustment().apply(half, half - 0.1)
    with pytest.raises(MirrorError, match=r"positive wherever `base` is; got 0 in 1 places"):
        Adjustment().apply(half, np.array([[0.5, 0.5], [1.0, 0.0]]))
    with pytest.raises(MirrorError, match=r"two users or more; got 2, 2 and 1 users"):
        fit_adjustment(half, half, [0, 1], [3, 3])
    with pytest.raises(MirrorError, match=r"`chosen` must be an option on offer.* got \[-1\]"):
        fit_adjustment(half, half, [0, -1], [3, 4])
    with pytest.raises(MirrorError, match="got an option without one"):
        fit_adjustment(np.array([[1.0, 0.0], [0.5, 0.5]]), half, [1, 1], [3, 4])
