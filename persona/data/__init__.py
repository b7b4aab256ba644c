"""Preferences over replies: reading, checking, splitting by user and by prompt, gathering batches, simulating."""

from persona.data.comparisons import (
    ComparisonTable,
    Episodes,
    PaddedRows,
    context_pairs,
    gather_pairs,
    rows_of_users,
    sample_episodes,
)
from persona.data.duplicates import (
    NearDuplicates,
    PromptOverlap,
    find_near_duplicates,
    group_duplicates,
    prompt_groups,
    prompt_overlap,
)
from persona.data.indexed import IndexedComparisons, index_comparisons
from persona.data.preferences import Preferences
from persona.data.reader import check_comparisons, read_comparisons
from persona.data.readers import Answers, ReadOptions, preferences_from_frame, read_answers, read_preferences
from persona.data.report import DataReport, Dropped
from persona.data.simulated import SimulatedUsers, simulate_users
from persona.data.splits import PreferenceSplit, hold_out_users, split_users_and_prompts
from persona.data.synthetic import FAMILIES, PreferenceFamily, Size

__all__ = [
    "FAMILIES",
    "Answers",
    "ComparisonTable",
    "DataReport",
    "Dropped",
    "Episodes",
    "IndexedComparisons",
    "NearDuplicates",
    "PaddedRows",
    "PreferenceFamily",
    "PreferenceSplit",
    "Preferences",
    "PromptOverlap",
    "ReadOptions",
    "SimulatedUsers",
    "Size",
    "check_comparisons",
    "context_pairs",
    "find_near_duplicates",
    "gather_pairs",
    "group_duplicates",
    "hold_out_users",
    "index_comparisons",
    "preferences_from_frame",
    "prompt_groups",
    "prompt_overlap",
    "read_answers",
    "read_comparisons",
    "read_preferences",
    "rows_of_users",
    "sample_episodes",
    "simulate_users",
    "split_users_and_prompts",
]
