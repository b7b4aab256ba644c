"""Interaction logs: checks, filters, splits, and what leaks from one part of a split into another."""

from recsys.data.filters import describe, k_core
from recsys.data.interactions import check_log, merge_repeats
from recsys.data.leaks import Leak, find_leaks, refuse_leaks
from recsys.data.splits import (
    Holdout,
    Split,
    split_as_given,
    split_at_random,
    split_by_time,
    split_leave_last_out,
    split_per_user_by_time,
    split_users,
)

__all__ = [
    "Holdout",
    "Leak",
    "Split",
    "check_log",
    "describe",
    "find_leaks",
    "k_core",
    "merge_repeats",
    "refuse_leaks",
    "split_as_given",
    "split_at_random",
    "split_by_time",
    "split_leave_last_out",
    "split_per_user_by_time",
    "split_users",
]
