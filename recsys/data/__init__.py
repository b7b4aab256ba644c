"""Interaction logs: checks and splits."""

from recsys.data.interactions import check_log, merge_repeats
from recsys.data.splits import Split, split_by_time, split_per_user_by_time

__all__ = ["Split", "check_log", "merge_repeats", "split_by_time", "split_per_user_by_time"]
