"""Keyed random numbers."""

import numpy as np

from simulators.randomness import keyed_seeds, keyed_uniforms


def test_a_number_depends_on_its_keys_alone() -> None:
    users = np.arange(50)
    together = keyed_uniforms(7, users, 3)
    alone = np.asarray([keyed_uniforms(7, user, 3) for user in users])
    assert (together == alone).all()
    assert (keyed_uniforms(7, users[::-1], 3)[::-1] == together).all()


def test_different_keys_and_seeds_give_different_numbers() -> None:
    grid = keyed_uniforms(0, np.arange(200)[:, None], np.arange(200))
    assert grid.shape == (200, 200)
    assert len(np.unique(grid)) == grid.size
    assert not (keyed_uniforms(1, np.arange(9)) == keyed_uniforms(2, np.arange(9))).any()


def test_numbers_are_uniform_and_uncorrelated() -> None:
    grid = keyed_uniforms(3, np.arange(1000)[:, None], np.arange(100))
    counts, _ = np.histogram(grid, bins=20, range=(0, 1))
    expected = grid.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 45  # chi-squared, 19 degrees of freedom: 0.07 %
    assert abs(np.corrcoef(grid[:, 0], grid[:, 1])[0, 1]) < 0.1


def test_seeds_fit_numpy_and_torch() -> None:
    seeds = keyed_seeds(5, np.arange(4), 1)
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
