"""From a file of comparisons to what methods are fitted on and measured with: read, cut by user and prompt."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from app.errors import ConfigError
from app.fit_config import FitConfig
from app.fit_contexts import number_contexts
from app.fit_objectives import usable_scores
from app.profile_features import FeatureScale, Named, RawFeatures, build_features, standardise_attributes
from app.profile_methods import Contexts, Material, Method
from persona.data import IndexedComparisons, PreferenceSplit
from persona.data import split_users_and_prompts as split_table
from persona.data.comparisons import ComparisonTable
from persona.data.duplicates import prompt_groups
from persona.data.preferences import Preferences
from persona.data.readers.detect import read_preferences
from persona.data.readers.options import ReadOptions
from persona.data.report import DataReport
from persona.features import parse_features

LEAST_USERS = 8
FEW_TEST_USERS = 30
SINGLE, AGREED, CONTROVERSIAL = 0, 1, 2


class Prepared(NamedTuple):
    """Everything that is settled before any method is fitted.

    indexed: The comparisons as arrays.
    raw: Raw features.
    named: Measured attributes of the replies.
    judged: For each comparison `SINGLE`, `AGREED` or `CONTROVERSIAL`. Shape (M,).
    facts: For the report, as JSON can hold it.
    contexts: Criteria of the comparisons, where the data name some.
    prompt_groups: Group of near duplicates of each prompt, where these are to stay together. Shape (Q,).
    """

    indexed: IndexedComparisons
    raw: RawFeatures
    named: Named
    judged: NDArray[np.int64]
    facts: dict[str, Any]
    contexts: Contexts | None = None
    prompt_groups: NDArray[np.int64] | None = None


class Trial(NamedTuple):
    """One split with features that are scaled by its training part.

    split: Who is trained on, who is measured.
    agreed: Comparisons of `split.target` whose pair several users judged alike. Shape (T,), bool.
    controversial: Those whose pair they judged differently. Shape (T,), bool.
    scale: How the features were standardised.
    """

    split: PreferenceSplit
    agreed: NDArray[np.bool_]
    controversial: NDArray[np.bool_]
    scale: FeatureScale


def prepare(config: FitConfig, cache: Path | None = None) -> Prepared:
    """Read the comparisons and measure their texts.

    Args:
        config: Says what to read and which features to build.
        cache: Folder for states of models.

    Raises:
        ConfigError: The file is missing, or there are too few users.
        DataError: The file does not hold comparisons (the message has the rows), or there are no such features.
    """
    parse_features(config.features)
    read = read_strict(config.data, columns=config.columns)
    indexed, found, objectives = read.comparisons, read.report, usable_scores(read)
    users = len(indexed.table.user_ids)
    if users < LEAST_USERS:
        raise ConfigError(
            f"DATA must hold comparisons of at least {LEAST_USERS} users, to train on some and to measure on others; "
            f"got {users} in {config.data}. Collect comparisons of more users."
        )
    raw = build_features(
        indexed.replies,
        indexed.prompts,
        indexed.reply_prompts,
        config.features,
        cache=cache,
        device=config.device,
        scores=objectives.scores,
    )
    named = standardise_attributes(raw.attributes)
    judged = judge_pairs(indexed.table)
    facts = {
        "data": _describe(indexed, judged, found),
        "constant_attributes": list(named.constant),
        "objectives": {
            "scores": [] if objectives.scores is None else list(objectives.scores.names),
            "unknown": objectives.unknown,
            "unread": objectives.reason,
        },
    }
    contexts = number_contexts(read.contexts or (), config.features, cache=cache, device=config.device)
    groups = prompt_groups(indexed.prompts) if config.group_near_duplicates else None
    return Prepared(indexed, raw, named, judged, facts, contexts, groups)


def read_strict(
    path: str | Path, *, columns: Mapping[str, str] | None = None, user: str | None = None
) -> Preferences:
    """The strict choices of a file as arrays, with scores of the replies, what it held and what was left out.

    Args:
        path: File or folder of any known layout.
        columns: The file's name of one of our columns, by ours.
        user: Name of the user where the file has none.

    Raises:
        ConfigError: There is no such file, it is empty, or ties are all that it holds.
        DataError: The file cannot be used; the message has the rows.
    """
    if not Path(path).exists():
        raise ConfigError(f"The comparisons must be a file; got {path}, which is none. Check the path.")
    if Path(path).is_file() and not Path(path).stat().st_size:
        raise ConfigError(
            f"The comparisons must hold at least one row; got none in {path}. Give a file with rows."
        )
    read = read_preferences(path, options=ReadOptions(columns=columns or {}, user=user))
    strict = read.comparisons.table.without_ties()
    if not len(strict):
        raise ConfigError(
            f"The comparisons must hold choices; got {read.report.ties} ties alone in {path}. Give choices."
        )
    kept = np.flatnonzero(~read.comparisons.table.is_tie)
    contexts = None if read.contexts is None else tuple(read.contexts[row] for row in kept)
    return replace(
        read, comparisons=replace(read.comparisons, table=strict), strength=None, contexts=contexts
    )


def judge_pairs(table: ComparisonTable) -> NDArray[np.int64]:
    """Whether the pair of each comparison was judged by several users, and alike.

    Args:
        table: All comparisons.

    Returns:
        `SINGLE` where one user alone judged the pair, `AGREED` where all chose the same reply, `CONTROVERSIAL` where
        they did not. Shape (M,).
    """
    low, high = np.minimum(table.chosen, table.rejected), np.maximum(table.chosen, table.rejected)
    _, pair = np.unique(np.stack([low, high], axis=1), axis=0, return_inverse=True)
    pair = pair.ravel()
    judges = np.unique(np.stack([pair, table.users], axis=1), axis=0)[:, 0]
    several = np.bincount(judges, minlength=pair.max(initial=-1) + 1) > 1
    share = np.bincount(pair, table.chosen == low) / np.bincount(pair)
    kind = np.where((share == 0) | (share == 1), AGREED, CONTROVERSIAL)
    return np.where(several, kind, SINGLE)[pair]


def split_trial(prepared: Prepared, config: FitConfig, seed: int) -> Trial:
    """Users and prompts set apart at random, with features scaled by what training may see.

    Args:
        prepared: The comparisons.
        config: Shares of users and prompts.
        seed: Draws the split.

    Raises:
        DataError: A part has no comparisons.
        ConfigError: Training sees one prompt alone.
    """
    table = prepared.indexed.table
    split = split_table(
        table,
        seed=seed,
        test_users=config.test_users,
        target_prompts=config.target_prompts,
        context_prompts=config.context_prompts,
        prompt_groups=prepared.prompt_groups,
    )
    judged = prepared.judged[_rows_of(split.target, table)]
    replies, prompts = (
        np.unique(np.concatenate([split.train.chosen, split.train.rejected])),
        np.unique(split.train.prompts),
    )
    if len(prompts) < 2:
        raise ConfigError(
            f"Training must see at least 2 prompts; got {len(prompts)} of {len(prepared.indexed.prompts)} in the data. "
            "Collect choices on more prompts, or lower --target-prompts and --context-prompts."
        )
    scale = FeatureScale.fit(prepared.raw, config.features, replies, prompts)
    return Trial(split, judged == AGREED, judged == CONTROVERSIAL, scale)


def whole_scale(prepared: Prepared, config: FitConfig) -> FeatureScale:
    """Scales by every reply, for the profiles that are kept."""
    everything = np.arange(len(prepared.indexed.replies)), np.arange(len(prepared.indexed.prompts))
    return FeatureScale.fit(prepared.raw, config.features, *everything)


def features_for(prepared: Prepared, scale: FeatureScale, method: Method, device: str) -> Tensor:
    """The matrix that a method reads. Shape (N, D), with the prompt's columns last where it reads them."""
    return scale.matrix(prepared.raw, prepared.indexed.reply_prompts, method.reads).to(device)


def material_for(
    prepared: Prepared,
    table: ComparisonTable,
    features: Tensor,
    scale: FeatureScale,
    method: Method,
    *,
    seed: int,
) -> Material:
    """What a method is fitted on: a part of the table, and `features`, what it reads of every reply."""
    contexts = prepared.contexts
    if contexts is not None:
        contexts = contexts._replace(rows=contexts.rows[_rows_of(table, prepared.indexed.table)])
    return Material(
        table,
        features,
        seed,
        prompt_dim=scale.prompts.dim if method.reads.endswith("prompts") else 0,
        length_column=scale.length_column,
        objectives=scale.objectives,
        contexts=contexts,
    )


def _rows_of(part: ComparisonTable, table: ComparisonTable) -> NDArray[np.int64]:
    """A row of `table` for each comparison of `part`; of rows that say the same, any will do."""
    keys = [np.stack([t.users, t.chosen, t.rejected], axis=1) for t in (table, part)]
    _, inverse = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    inverse = inverse.ravel()
    row = np.empty(inverse.max(initial=-1) + 1, dtype=np.int64)
    row[inverse[: len(table)]] = np.arange(len(table))
    return row[inverse[len(table) :]]


def _describe(indexed: IndexedComparisons, judged: NDArray[np.int64], found: DataReport) -> dict[str, Any]:
    table = indexed.table
    per_user = np.unique(table.users, return_counts=True)[1]
    return {
        "name": found.source,
        "layout": found.layout,
        "rows": found.rows,
        "comparisons": len(table),
        "ties": found.ties,
        "contradictions": found.contradictions,
        "users": len(per_user),
        "prompts": len(np.unique(table.prompts)),
        "replies": len(np.unique(np.concatenate([table.chosen, table.rejected]))),
        "per_user": {
            "least": int(per_user.min()),
            "median": float(np.median(per_user)),
            "most": int(per_user.max()),
        },
        "users_with_one": int((per_user == 1).sum()),
        "judged": {
            "by_one_user": int((judged == SINGLE).sum()),
            "agreed": int((judged == AGREED).sum()),
            "controversial": int((judged == CONTROVERSIAL).sum()),
        },
        "dropped": [
            {"reason": part.reason, "count": part.count, "rows": list(part.rows)} for part in found.dropped
        ],
        "notes": list(found.notes),
    }
