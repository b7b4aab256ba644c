"""The leak detector: what a split, the other logs and the features tell models of the rows they are measured on."""

from recsys.data.leaks.detect import find_leaks
from recsys.data.leaks.findings import Leak, LeakKind, Severity, refuse_leaks

__all__ = ["Leak", "LeakKind", "Severity", "find_leaks", "refuse_leaks"]
