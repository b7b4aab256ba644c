"""Cutting a log into what may be learned from, what settings are chosen on, and what is kept for measuring.

`split_by_time` is the default of the product; the others are there for comparison with published protocols.
"""

from recsys.data.splits.parts import Holdout, Known, Split, TimeOrder
from recsys.data.splits.shuffled import split_as_given, split_at_random, split_users
from recsys.data.splits.temporal import split_by_time, split_leave_last_out, split_per_user_by_time

__all__ = [
    "Holdout",
    "Known",
    "Split",
    "TimeOrder",
    "split_as_given",
    "split_at_random",
    "split_by_time",
    "split_leave_last_out",
    "split_per_user_by_time",
    "split_users",
]
