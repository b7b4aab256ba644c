"""The fitted choice models on real people's later ratings (MovieLens 100K) and likes (ReDial)."""

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2

from benchmarks.mirror_choice import by_user, versus
from benchmarks.mirror_prompt import LIKE_WORDS, prompted_levels
from persona.policy.language_model import load_language_model
from recsys.columns import ITEM, LEVEL, TIMESTAMP, USER
from recsys.metrics.calibration import calibration_error
from recsys.metrics.discrimination import grouped_auc
from recsys.significance import bootstrap_interval
from simulators.mirror import (
    ChoiceScenes,
    LevelModel,
    fit_choices,
    fit_levels,
    option_covariates,
    sampled_scenes,
)
from simulators.mirror.selection import (
    Setting,
    fit_best_levels,
    level_probabilities,
    log_losses,
    split_by_user,
)
from simulators.types import LEVELS
from simulators.world import Catalogue, item_mean_levels, level_of_stars, read_movielens
from simulators.world.catalogue import FILM_COLUMNS

Values = NDArray[np.float64]
N_OPTIONS = 5
DECILES = 10
LIKED_STARS_LEVEL = 3  # four stars
LEAST_FILMS = 10
MOST_SCENES = 8000
PROMPTED_USERS, PROMPTED_ROWS = 400, 4


def measure_movielens(folder: Path, *, iterations: int) -> dict[str, object]:
    """Later ratings of every user with five or more, then choices among five films."""
    data = read_movielens(folder)
    log = pd.DataFrame(
        {
            USER: data.ratings["user"].to_numpy(np.int64),
            ITEM: data.ratings["item"].to_numpy(np.int64),
            LEVEL: level_of_stars(data.ratings["stars"].to_numpy(np.float64)),
            TIMESTAMP: data.ratings["timestamp"].to_numpy(np.int64),
        }
    ).sort_values([USER, TIMESTAMP, ITEM], kind="stable", ignore_index=True)
    early, later = split_by_user(log, 0.8)
    n_users, n_items = len(data.user_ids), len(data.catalogue)
    features = data.catalogue.features.astype(np.float64)
    model, chosen, tried = fit_best_levels(early, features, n_users=n_users, iterations=iterations, seed=0)
    told = level_probabilities(model, later)
    means = item_mean_levels(early, later[ITEM], n_items=n_items)
    fame = popularity_levels(early, later[ITEM].to_numpy(), n_items=n_items, n_levels=5)
    reached = later[LEVEL].to_numpy()
    return {
        "setting": {**chosen._asdict(), "tried": {str(s): loss for s, loss in tried.items()}},
        "nll_by_user": {
            name: float(by_user(log_losses(p, later), later).mean())
            for name, p in (("model", told), ("item_mean", means), ("popularity", fame))
        },
        "against_item_mean": versus(told, means, later, LIKED_STARS_LEVEL),
        "against_popularity": versus(told, fame, later, LIKED_STARS_LEVEL),
        "against_prompt": _against_prompt(told, early, later, data.catalogue, LEVELS, LIKED_STARS_LEVEL),
        "ece": [calibration_error(np.clip(told[:, k:].sum(axis=1), 0, 1), reached >= k) for k in range(1, 5)],
        "choices": _measure_choices(log, early, features, chosen, 5),
    }


def _against_prompt(
    told: Values,
    early: pd.DataFrame,
    later: pd.DataFrame,
    catalogue: Catalogue,
    words: Sequence[str],
    level: int,
) -> dict[str, object]:
    """The fitted model against the unfitted persona prompt, on a few later rows of some users drawn evenly."""
    order = np.random.default_rng(0).permutation(len(later))
    place = later.iloc[order].groupby(USER).cumcount().sort_index().to_numpy()
    users = np.random.default_rng(1).permutation(later[USER].unique())[:PROMPTED_USERS]
    some = np.flatnonzero((place < PROMPTED_ROWS) & later[USER].isin(users).to_numpy())
    rows = later.iloc[some].reset_index(drop=True)
    prompted = prompted_levels(load_language_model("nano", device="cpu"), early, rows, catalogue, words)
    base = np.bincount(early[LEVEL], minlength=len(words)) / len(early)
    mended = prompted * (base / prompted.mean(axis=0))
    mended /= mended.sum(axis=1, keepdims=True)
    happened, users_of = rows[LEVEL].to_numpy() >= level, rows[USER].to_numpy(np.int64)
    return {
        "rows": len(rows),
        "users": int(rows[USER].nunique()),
        "nll_by_user": {
            name: float(by_user(log_losses(p, rows), rows).mean())
            for name, p in (
                ("model", told[some]),
                ("prompt", prompted),
                # Fitted after all, in one number a level: how much of the prompt's loss is its habit of words.
                ("prompt_with_base_rates", mended),
            )
        },
        "prompt_levels": prompted.mean(axis=0).tolist(),
        "prompt_auc_within_users": grouped_auc(prompted[:, level:].sum(axis=1), happened, users_of).mean,
        **versus(told[some], prompted, rows, level),
    }


def popularity_levels(log: pd.DataFrame, items: NDArray[np.int64], *, n_items: int, n_levels: int) -> Values:
    """The popularity rule: distribution of levels among items of like popularity. Shape (B, K)."""
    counts = np.bincount(log[ITEM], minlength=n_items)
    edges = np.quantile(counts[log[ITEM]], np.linspace(0, 1, DECILES + 1)[1:-1])
    decile = np.searchsorted(edges, counts)
    seen = np.bincount(decile[log[ITEM]] * n_levels + log[LEVEL], minlength=DECILES * n_levels)
    table = seen.reshape(DECILES, n_levels) + 1.0
    return np.asarray((table / table.sum(axis=1, keepdims=True))[decile[items]])


def _measure_choices(
    log: pd.DataFrame, early: pd.DataFrame, features: Values, setting: Setting, n_levels: int
) -> dict[str, object]:
    """Which of five films a user came to next; the choice model's weights come from the last fifth of the early rows.

    The others are drawn as often as users came to them early, so that popularity alone tells little.
    """
    n_items, n_users = len(features), int(log[USER].max()) + 1
    first, _ = split_by_user(early, 0.8)
    weights = np.bincount(first[ITEM], minlength=n_items).astype(np.float64) + 1.0
    train = _scenes_after(early, first, n_items, weights, seed=1)
    test = _scenes_after(log, early, n_items, weights, seed=2)
    taste = _taste_of_choices(first, features, n_users, n_levels, setting)
    told = option_covariates(taste, train)
    model = fit_choices(*told, train.chosen, train.users, n_users=n_users)
    famous = fit_choices(told[0][..., 3:], told[1], train.chosen, train.users, n_users=n_users)
    covariates, available = option_covariates(
        _taste_of_choices(early, features, n_users, n_levels, setting), test
    )
    mine = model.probabilities(covariates, available, test.users)
    theirs = famous.probabilities(covariates[..., 3:], available, test.users)
    return {
        "scenes": len(test),
        "weights": dict(zip(("taste", "doubt", "position", "popularity"), model.theta.tolist(), strict=True)),
        "position": {"value": model.effect(2).value, "ci95": model.effect(2).interval},
        **_scores(mine, theirs, test),
        "slots": slot_accuracy(mine, test.chosen),
    }


def _taste_of_choices(
    log: pd.DataFrame, features: Values, n_users: int, n_levels: int, setting: Setting
) -> LevelModel:
    """Taste as what a user came to tells it, and as the levels themselves do."""
    return fit_levels(
        log, features, n_users=n_users, n_levels=n_levels, iterations=20, seed=0, **setting._asdict()
    )


def _scenes_after(
    log: pd.DataFrame, before: pd.DataFrame, n_items: int, weights: Values, *, seed: int
) -> ChoiceScenes:
    """Scenes of rows that came after the `before` rows of their users, at most `MOST_SCENES` drawn evenly."""
    scenes = sampled_scenes(log, n_items=n_items, n_options=N_OPTIONS, weights=weights, seed=seed)
    last = before.groupby(USER)[TIMESTAMP].max()
    after = scenes.times > last.reindex(scenes.users).to_numpy()
    kept = np.flatnonzero(after)
    rng = np.random.default_rng(seed)
    return scenes.take(np.sort(rng.permutation(kept)[:MOST_SCENES]))


def _scores(mine: Values, theirs: Values, scenes: ChoiceScenes) -> dict[str, object]:
    rows = np.arange(len(scenes))
    users = pd.Series(scenes.users)
    own, other = (p[rows, scenes.chosen] for p in (mine, theirs))
    gain = pd.Series(np.log(other) - np.log(own)).groupby(users.to_numpy()).mean().to_numpy()
    return {
        "nll": float(-np.log(own).mean()),
        "popularity_nll": float(-np.log(other).mean()),
        "uniform_nll": float(np.log(N_OPTIONS)),
        "nll_against_popularity": bootstrap_interval(gain, seed=0).to_report(),
        "expected_accuracy": float(own.mean()),
        "top_1": float((mine.argmax(axis=1) == scenes.chosen).mean()),
    }


def slot_accuracy(probabilities: Values, chosen: NDArray[np.int64]) -> dict[str, object]:
    """Expected accuracy by the slot of what was chosen, and the chance of differences as large if there were none.

    The test is Wald's on the slots' means with their own variances.
    """
    own = probabilities[np.arange(len(chosen)), chosen]
    slots = [own[chosen == slot] for slot in range(N_OPTIONS)]
    means = np.array([slot.mean() for slot in slots])
    weight = np.array([len(slot) / slot.var() for slot in slots])
    centre = (weight * means).sum() / weight.sum()
    statistic = float((weight * (means - centre) ** 2).sum())
    return {"accuracy": means.tolist(), "p_value": float(chi2.sf(statistic, N_OPTIONS - 1))}


def measure_redial(folder: Path, *, iterations: int) -> dict[str, object]:
    """Which films of their last dialogues seekers liked, from earlier ones; seekers of one dialogue are strangers."""
    log, catalogue, n_users = _read_likes(folder)
    features = catalogue.features.astype(np.float64)
    early, later = _split_by_dialogue(log)
    model, chosen, tried = fit_best_levels(
        early,
        features,
        n_users=n_users,
        n_levels=2,
        iterations=iterations,
        settings=(Setting(0, False), Setting(0, True)),
        seed=0,
    )
    told = level_probabilities(model, later)
    means = item_mean_levels(early, later[ITEM], n_items=len(features), n_levels=2)
    fame = popularity_levels(early, later[ITEM].to_numpy(), n_items=len(features), n_levels=2)
    return {
        "rows": [len(early), len(later)],
        "liked": [float(early[LEVEL].mean()), float(later[LEVEL].mean())],
        "setting": {**chosen._asdict(), "tried": {str(s): loss for s, loss in tried.items()}},
        "nll": {
            name: float(log_losses(p, later).mean())
            for name, p in (("model", told), ("item_mean", means), ("popularity", fame))
        },
        "against_item_mean": versus(told, means, later, 1),
        "against_popularity": versus(told, fame, later, 1),
        "against_prompt": _against_prompt(told, early, later, catalogue, LIKE_WORDS, 1),
        "ece": calibration_error(told[:, 1], later[LEVEL].to_numpy() == 1),
        "choices": _measure_choices(log, early, features, Setting(0, True), 2),
    }


def _read_likes(folder: Path) -> tuple[pd.DataFrame, Catalogue, int]:
    """Likes by seeker and dialogue, the films, and the number of seekers."""
    with gzip.open(folder / "redial_dialogues_valid.jsonl.gz", "rt", encoding="utf-8") as lines:
        dialogues = [json.loads(line) for line in lines]
    with gzip.open(folder / "redial_films.json.gz", "rt", encoding="utf-8") as file:
        films = json.load(file)
    rows = [
        (dialogue["initiatorWorkerId"], film, answer["liked"], int(dialogue["conversationId"]))
        for dialogue in dialogues
        if isinstance(dialogue["initiatorQuestions"], dict)
        for film, answer in dialogue["initiatorQuestions"].items()
        # 2 stands for "did not say".
        if film in films and answer["liked"] in (0, 1)
    ]
    table = pd.DataFrame(rows, columns=[USER, ITEM, LEVEL, TIMESTAMP])
    table = table.sort_values([USER, TIMESTAMP], kind="stable", ignore_index=True)
    table[USER] = pd.factorize(table[USER], sort=True)[0]
    codes, names = pd.factorize(table[ITEM], sort=True)
    table[ITEM] = codes
    return table, _catalogue_of([films[name] for name in names]), int(table[USER].max()) + 1


def _catalogue_of(films: Sequence[dict[str, Any]]) -> Catalogue:
    """ReDial's films by title and genres; genres of fewer than ten films are left out."""
    common = Counter(genre for film in films for genre in film["genre"])
    genres = sorted(genre for genre, count in common.items() if count >= LEAST_FILMS)
    table = pd.DataFrame(index=range(len(films)), columns=list(FILM_COLUMNS))
    table["item_id"] = [str(row) for row in range(len(films))]
    table["title"] = [film["name"] for film in films]
    table["genres"] = [tuple(genre for genre in film["genre"] if genre in genres) for film in films]
    table["cast"] = [()] * len(films)
    table[["year", "length"]] = table[["year", "length"]].astype("Int64")
    return Catalogue.of_films(table, genres)


def _split_by_dialogue(log: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Later are the last fifth of a seeker's dialogues, at least one of two, and every fifth seeker's only one."""
    order = log.groupby(USER)[TIMESTAMP].rank("dense").to_numpy()
    count = log.groupby(USER)[TIMESTAMP].transform("nunique").to_numpy()
    is_late = np.where(count > 1, order > count - np.maximum(count // 5, 1), log[USER].to_numpy() % 5 == 0)
    return log[~is_late].reset_index(drop=True), log[is_late].reset_index(drop=True)
