"""What this process holds, and how it gives back what it has freed."""

import ctypes
import resource
import sys


def peak_rss_mb() -> float:
    """The most memory that this process has held so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def give_back_memory() -> None:
    """Return freed memory to the system.

    glibc keeps blocks below 32 MiB for reuse, which after training is more than all that still lives: 1.3 GB with nano.
    Other C libraries have no such call, and nothing is done.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
