import numpy as np
import pytest
from scipy.sparse import csr_array

from recsys.types import Histories


@pytest.fixture
def small_histories() -> Histories:
    """Six users by 30 items, levels 0..3; the last user has no history."""
    rng = np.random.default_rng(5)
    stored = rng.integers(1, 5, size=(6, 30)) * (rng.random((6, 30)) < 0.3)
    stored[-1] = 0
    return csr_array(stored.astype(np.float32))
