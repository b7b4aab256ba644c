"""Comparisons of replies: reading, checking, splitting by user and by prompt, gathering batches."""

from persona.data.comparisons import (
    ComparisonTable,
    Episodes,
    PaddedRows,
    context_pairs,
    gather_pairs,
    rows_of_users,
    sample_episodes,
)
from persona.data.reader import IndexedComparisons, check_comparisons, index_comparisons, read_comparisons
from persona.data.splits import PreferenceSplit, hold_out_users, split_users_and_prompts

__all__ = [
    "ComparisonTable",
    "Episodes",
    "IndexedComparisons",
    "PaddedRows",
    "PreferenceSplit",
    "check_comparisons",
    "context_pairs",
    "gather_pairs",
    "hold_out_users",
    "index_comparisons",
    "read_comparisons",
    "rows_of_users",
    "sample_episodes",
    "split_users_and_prompts",
]
