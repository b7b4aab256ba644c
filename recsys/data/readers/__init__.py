"""Readers of published data sets and of plain tables, each from a path to a `recsys.data.dataset.Dataset`.

`read_dataset` finds the format out. Every reader checks what it reads and names the file and line of what is wrong.
"""

from recsys.columns import IS_TEST
from recsys.data.readers.adjacency import read_adjacency
from recsys.data.readers.ali_ccp import read_ali_ccp
from recsys.data.readers.aliexpress import read_aliexpress
from recsys.data.readers.detect import DETECTORS, read_dataset, read_split
from recsys.data.readers.kuairand import read_kuairand
from recsys.data.readers.levels import (
    ContradictionPolicy,
    Levels,
    levels_from_events,
    levels_from_flags,
    levels_from_ratings,
)
from recsys.data.readers.movielens import read_movielens
from recsys.data.readers.open_bandit import read_bandit_log, read_open_bandit
from recsys.data.readers.parquet import iter_parquet_logs
from recsys.data.readers.recbole import read_recbole
from recsys.data.readers.retailrocket import read_retailrocket
from recsys.data.readers.table import read_table

__all__ = [
    "DETECTORS",
    "IS_TEST",
    "ContradictionPolicy",
    "Levels",
    "iter_parquet_logs",
    "levels_from_events",
    "levels_from_flags",
    "levels_from_ratings",
    "read_adjacency",
    "read_ali_ccp",
    "read_aliexpress",
    "read_bandit_log",
    "read_dataset",
    "read_kuairand",
    "read_movielens",
    "read_open_bandit",
    "read_recbole",
    "read_retailrocket",
    "read_split",
    "read_table",
]
