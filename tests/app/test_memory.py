import ctypes
import os
from pathlib import Path

import numpy as np
import pytest

from app.memory import give_back_memory, peak_rss_mb

STATM = Path("/proc/self/statm")


def held_mb() -> float:
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def test_the_peak_is_no_less_than_what_is_held() -> None:
    held = held_mb() if STATM.exists() else 10
    assert held / 2 < peak_rss_mb() < 100_000  # the system counts both in steps


@pytest.mark.skipif(
    not (STATM.exists() and hasattr(ctypes.CDLL(None), "malloc_trim")), reason="glibc on Linux alone"
)
def test_freed_blocks_go_back_even_where_others_between_them_live() -> None:
    blocks = [np.ones(2**13) for _ in range(4096)]  # 64 KiB each: small enough to come from the heap
    full = held_mb()
    kept = blocks[::16]
    del blocks
    before = held_mb()
    give_back_memory()
    assert before > full - 64, "freed blocks were to stay, so that there is something to give back"
    assert held_mb() < full - 128
    assert all(block[0] == 1.0 for block in kept)
