"""`profiles.json` and what stands beside it, from what the finished methods left.

But for times, `profiles.json` is a pure function of the data, the arguments and the stages' files, so a comparison that
was stopped and resumed ends with the same one.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from app.errors import StoreError
from app.files import PARTIAL, move_folder, read_json, write_atomically, write_json
from app.fit_config import FitConfig
from app.fit_data import Prepared, Trial, whole_scale
from app.fit_html import render_fit
from app.fit_measures import measure_methods
from app.fit_methods import find_method
from app.fit_scores import FACTS, FAILED, KEPT, Scores, lens_pairs, read_scores, stage_name
from app.fit_terminal import print_fit
from app.profile_features import prompt_text, scores_of_pair
from app.profile_methods import POOLED
from app.store import RECORD, RunStore
from persona.data.duplicates import prompt_overlap
from persona.diagnostics import probe_dimensions
from persona.errors import DataError
from persona.features import probe_attributes

PROFILES_JSON, PROFILES_HTML, PROFILES, POOL_JSON = "profiles.json", "profiles.html", "profiles", "pool.json"
Report = dict[str, Any]


def write_fit(
    store: RunStore,
    prepared: Prepared,
    trials: Mapping[int, Trial],
    config: FitConfig,
    names: Sequence[str],
    *,
    console: Console,
) -> Path:
    """Measure what the methods left, write the report and the profiles, and print the tables.

    Args:
        store: The comparison's folder, every stage finished.
        prepared: The data.
        trials: The splits by seed.
        config: The comparison's choices.
        names: The methods in the order of the tables.
        console: Where the tables go.

    Returns:
        The path of `profiles.html`.

    Raises:
        StoreError: A stage's file is damaged, or the folder cannot be written.
    """
    report = assemble(store, prepared, trials, config, names)
    _keep_profiles(store, prepared, config, report["order"])
    page = store.folder / PROFILES_HTML
    write_json(store.folder / PROFILES_JSON, report)
    write_atomically(page, render_fit(report).encode())
    print_fit(console, report)
    console.print(f"Report: {page}", markup=False, soft_wrap=True)
    return page


def assemble(
    store: RunStore,
    prepared: Prepared,
    trials: Mapping[int, Trial],
    config: FitConfig,
    names: Sequence[str],
) -> Report:
    """Every figure, as JSON can hold it: data, split, features, order, methods, comparisons, best, left_out, timing."""
    left_out, scores, facts = [], {}, {}
    for name in names:
        reason = _failure(store, name, [*config.seeds, KEPT])
        if reason is not None:
            left_out.append({"method": name, "reason": reason})
            continue
        found = [read_scores(store.stage_folder(stage_name(name, seed))) for seed in config.seeds]
        scores[name], facts[name] = [part for part, _ in found], [own for _, own in found]
    figures, comparisons, best = measure_methods(scores, config.context, seed=config.seed)
    methods = {
        name: {
            **figures[name],
            "title": find_method(name).title,
            "source": find_method(name).source,
            "latent_dim": facts[name][0]["latent_dim"],
            "active_units": [own["active_units"] for own in facts[name]],
            "ranking": _ranking([own["ranking"] for own in facts[name] if "ranking" in own]),
        }
        for name in scores
    }
    split = _describe_split(prepared, trials, scores[POOLED], config)
    return {
        **prepared.facts,
        "split": split,
        "features": _describe_features(prepared, trials[config.seed], config),
        "context_sizes": list(config.context),
        "order": list(methods),
        "methods": methods,
        "comparisons": comparisons,
        "best": best,
        "map": _portrait(prepared, scores[best["name"]][0]),
        "left_out": left_out,
        "cut_replies": max(
            (own.get("cut_replies", 0) for parts in facts.values() for own in parts), default=0
        ),
        "timing": _timing(store, facts, config),
        "manifest": store.manifest,
    }


def _ranking(by_seed: Sequence[Report]) -> dict[str, float | None] | None:
    """How a policy itself ranks replies, a mean over splits; None for methods that have no policy."""
    if not by_seed:
        return None
    return {
        name: None if by_seed[0][name] is None else float(np.mean([part[name] for part in by_seed]))
        for name in by_seed[0]
    }


def _failure(store: RunStore, name: str, parts: Sequence[int | str]) -> str | None:
    for part in parts:
        found = read_json(store.stage_folder(stage_name(name, part)) / FACTS)
        if FAILED in found:
            return str(found[FAILED])
    return None


def _describe_split(
    prepared: Prepared, trials: Mapping[int, Trial], pooled: Sequence[Scores], config: FitConfig
) -> Report:
    parts = {
        str(seed): {
            name: {
                "comparisons": len(part),
                "users": len(part.user_ids),
                "prompts": len(np.unique(part.prompts)),
            }
            for name, part in trial.split._asdict().items()
        }
        for seed, trial in trials.items()
    }
    shown = np.concatenate([part.shown for part in pooled], axis=1).mean(1)
    overlap = prompt_overlap(trials[config.seed].split, prepared.indexed.prompts)
    return {
        "parts": parts,
        "overlap": {
            "targets": overlap.targets,
            "near_training": overlap.near_training,
            "near_context": overlap.near_context,
        },
        "measured_users": len(np.unique(np.concatenate([part.users for part in pooled]))),
        "shown": {f"k{size}": float(value) for size, value in zip(config.context, shown, strict=True)},
    }


def _describe_features(prepared: Prepared, trial: Trial, config: FitConfig) -> Report:
    named, matrix = prepared.named, trial.scale.matrix(prepared.raw, prepared.indexed.reply_prompts)
    read = probe_attributes(matrix, named.values, seed=config.seed, names=named.names) if named.names else {}
    return {
        "names": list(config.features),
        "columns": trial.scale.replies.dim,
        "attribute_r2": {name: value if np.isfinite(value) else None for name, value in read.items()},
        "attribute_thirds": {
            name: _thirds(matrix, named.values[:, [place]], name, config.seed)
            for place, name in enumerate(named.names)
        },
    }


def _thirds(states: Tensor, values: NDArray[np.float64], name: str, seed: int) -> dict[str, float] | None:
    """How often the third of an attribute is read right; None for one that has no three parts, such as a rare word."""
    try:
        return probe_dimensions(states.cpu(), values, names=[name], seed=seed)[name]
    except DataError:
        return None


def _portrait(prepared: Prepared, scores: Scores) -> Report:
    """Where the best method's beliefs about the users of the first split lie, and what each user wants most."""
    names, wishes = prepared.named.names, scores.wishes
    strongest = np.abs(wishes).argmax(1) if len(names) else np.zeros(len(wishes), dtype=np.int64)
    return {
        "users": [prepared.indexed.user_ids[row] for row in scores.users],
        "place": scores.place.tolist(),
        "attributes": list(names),
        "strongest": [names[place] for place in strongest] if len(names) else [],
        "wants_more": [bool(wishes[row, place] > 0) for row, place in enumerate(strongest)]
        if len(names)
        else [],
    }


def _timing(store: RunStore, facts: Mapping[str, Sequence[Report]], config: FitConfig) -> Report:
    parts: list[int | str] = [*config.seeds, KEPT]
    return {
        name: {
            "fit_seconds": float(np.mean([part["fit_seconds"] for part in own])),
            "new_user_ms": float(np.mean([part["new_user_ms"] for part in own])),
            "stages_seconds": sum(
                read_json(store.stage_folder(stage_name(name, part)) / RECORD)["seconds"] for part in parts
            ),
        }
        for name, own in facts.items()
    }


def _keep_profiles(store: RunStore, prepared: Prepared, config: FitConfig, names: Sequence[str]) -> None:
    """Put the profiles of all users, their features and pairs to ask about into OUT/profiles, whole or not at all."""
    final, partial = store.folder / PROFILES, store.folder / (PARTIAL + PROFILES)
    if final.exists():
        return
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for name in names:
            source = store.stage_folder(stage_name(name, KEPT))
            shutil.copytree(source, partial / name, ignore=shutil.ignore_patterns(RECORD))
        whole_scale(prepared, config).save(partial)
        write_json(partial / POOL_JSON, _pool(prepared, config))
    except OSError as err:
        raise StoreError(
            f"{final} must be writable; got {err.strerror or err}. Make room and go on with --resume."
        ) from err
    move_folder(partial, final)


def _pool(prepared: Prepared, config: FitConfig) -> Report:
    """Pairs that were judged, with their texts: what attributes are read through, and what may be asked next."""
    indexed = prepared.indexed
    pairs = lens_pairs(indexed.table, config.seed)
    scores = prepared.raw.scores
    return {
        "features": list(config.features),
        "pairs": [
            {
                "prompt": prompt_text(indexed.prompts[indexed.reply_prompts[first]]),
                "first": indexed.replies[first],
                "second": indexed.replies[second],
                "scores": scores_of_pair(scores, first, second),
            }
            for first, second in pairs
        ],
    }
