"""Random numbers that depend on what they are for, not on who shares the batch or what was drawn before.

A dialogue that is simulated again, alone or among others, meets the same luck: the common random numbers that make
two replies to one user comparable.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def keyed_bits(seed: ArrayLike, *keys: ArrayLike) -> NDArray[np.uint64]:
    """64 random bits for every combination of the broadcast integer keys; seeds may be an array too.

    The finaliser of SplitMix64 over a running sum of the keys (Steele, Lea and Flood 2014, "Fast Splittable
    Pseudorandom Number Generators").
    """
    with np.errstate(over="ignore"):
        state = _mixed(np.asarray(seed, dtype=np.int64).astype(np.uint64) + _GOLDEN)
        for key in keys:
            state = _mixed(state ^ (np.asarray(key, dtype=np.int64).astype(np.uint64) * _GOLDEN + _GOLDEN))
    return np.asarray(state, dtype=np.uint64)


def keyed_uniforms(seed: ArrayLike, *keys: ArrayLike) -> NDArray[np.float64]:
    """One number in [0, 1) for every combination of the broadcast integer keys."""
    return (keyed_bits(seed, *keys) >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def keyed_seeds(seed: int, *keys: ArrayLike) -> list[int]:
    """One non-negative seed below 2**63 for every combination of the broadcast one-dimensional keys."""
    return [int(bits) for bits in np.atleast_1d(keyed_bits(seed, *keys) >> np.uint64(1))]


def _mixed(state: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    state = np.asarray(state, dtype=np.uint64)
    state = (state ^ (state >> np.uint64(30))) * _MIX[0]
    state = (state ^ (state >> np.uint64(27))) * _MIX[1]
    return state ^ (state >> np.uint64(31))
