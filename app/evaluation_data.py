"""From the files of an evaluation to the contest: read, made tidy, cut, looked through for leaks."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from app.errors import ConfigError
from app.evaluation_config import EvaluationConfig, find_level
from app.manifest import hash_files
from app.wiring import SPLITS
from recsys.columns import ITEM, USER
from recsys.data import Split, describe, find_leaks, refuse_leaks
from recsys.data.dataset import Dataset
from recsys.data.leaks import Severity
from recsys.data.readers import IS_TEST, read_dataset, read_split
from recsys.recipes.contest_data import Contest, prepare_contest, tidy_dataset

NEED_TIMES = ("temporal", "per-user", "leave-last-out")


class Prepared(NamedTuple):
    """Everything that is settled before any model is trained.

    contest: Data and split.
    facts: For the report: data, split and leaks, as JSON can hold them.
    """

    contest: Contest
    facts: dict[str, Any]


def prepare(config: EvaluationConfig) -> Prepared:
    """Read the data and make the contest.

    Args:
        config: Says what to read and how to cut it.

    Raises:
        ConfigError: The split needs what the data lack, or there is no such level.
        DataFileError: A file is missing or does not hold what it should.
        OrdinalError: `levels` do not fit the data.
        InteractionError: The log cannot be used, or a part has nothing to be found.
        LeakError: The split leaks, and leaks are not allowed.
    """
    source = _read(config)
    is_given = config.split == "given"
    if is_given and IS_TEST not in source.log.columns:
        raise ConfigError(
            f"The split `given` needs a source that marks its test rows, or --test FILE; got {config.data} alone. "
            "Name the file, or choose another --split."
        )
    if config.split in NEED_TIMES and not source.has_times:
        raise ConfigError(
            f"The split `{config.split}` needs times; {config.data} has none. Name their column "
            "(--columns timestamp=NAME), or take --split random, users or given."
        )
    tidied = tidy_dataset(source, core=config.core, part=IS_TEST if is_given else None)
    dataset = tidied.dataset
    relevant = find_level(dataset.level_names, config.relevant)
    split = SPLITS[config.split](dataset.log, config)
    events = _events(source, dataset)
    leaks = find_leaks(split, dataset=dataset, relevant_level=relevant, events=events)
    if not config.allow_leaks:
        refuse_leaks(leaks)
    contest = prepare_contest(dataset, split, relevant_level=relevant)
    facts = {
        "data": {
            "name": dataset.name,
            "rows": len(dataset.log),
            "users": len(dataset.users),
            "items": len(dataset.items),
            "levels": list(dataset.level_names),
            "relevant_level": relevant,
            "has_times": dataset.has_times,
            "features": {
                side: {name: str(kind) for name, kind in entities.kinds.items()}
                for side, entities in (("users", dataset.users), ("items", dataset.items))
            },
            "merged": tidied.merged,
            "notes": [*dataset.notes, *tidied.notes],
        },
        "split": _describe_split(config, split, contest),
        "leaks": {
            "findings": [
                {**asdict(leak), "kind": str(leak.kind), "severity": str(leak.severity)} for leak in leaks
            ],
            "overridden": any(leak.severity is Severity.LEAK for leak in leaks),
        },
    }
    return Prepared(contest, facts)


def hash_inputs(config: EvaluationConfig) -> dict[str, str]:
    """SHA-256 of every file that the evaluation reads, by what it is for and its name.

    Args:
        config: Names the files.

    Raises:
        ConfigError: A file or folder is missing.
        StoreError: A file cannot be read.
    """
    found = {}
    for part in ("data", "test", "users", "items"):
        named = getattr(config, part)
        if named is None:
            continue
        if not Path(named).exists():
            what = "DATA" if part == "data" else f"--{part}"
            raise ConfigError(
                f"{what} must be a file or a folder; got {named}, which is none. Check the path."
            )
        found.update({f"{part}: {name}": value for name, value in hash_files(Path(named)).items()})
    return found


def _read(config: EvaluationConfig) -> Dataset:
    data, levels, columns = Path(config.data), config.levels, config.columns
    users, items = (None if name is None else Path(name) for name in (config.users, config.items))
    if config.test is not None:
        return read_split(data, Path(config.test), levels=levels, columns=columns, users=users, items=items)
    return read_dataset(data, levels=levels, columns=columns, users=users, items=items)


def _events(source: Dataset, dataset: Dataset) -> pd.DataFrame | None:
    """The rows of the source under the ids of the tidy log, -1 where it dropped the user or item.

    None where nothing was merged or dropped.
    """
    if len(source.log) == len(dataset.log):
        return None
    places = {
        column: tidy.ids.get_indexer(raw.ids)[source.log[column].to_numpy()]
        for column, tidy, raw in (
            (USER, dataset.users, source.users),
            (ITEM, dataset.items, source.items),
        )
    }
    return source.log.assign(**places)


def _describe_split(config: EvaluationConfig, split: Split, contest: Contest) -> dict[str, Any]:
    test = contest.test
    return {
        "name": config.split,
        "protocol": split.protocol,
        "order": str(split.order),
        "parts": {name: dict(counts._asdict()) for name, counts in describe(split).items()},
        "test_users": len(test.users),
        "candidates": contest.n_items,
        "out_of_reach": {"validation": contest.validation.out_of_reach, "test": test.out_of_reach},
    }
