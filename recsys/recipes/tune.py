"""Choosing every model's settings by the same number of trials of random search, on validation rows alone.

Random search (Bergstra and Bengio, JMLR 2012) treats models with many settings and with few alike, which is what an
equal budget asks for. The first trial is the model's default, so tuning never ends below it on the validation. The
test part of a split is no argument of anything here.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel

from recsys.errors import MissingDependency, RecsysError
from recsys.metrics.ranking import ndcg_at_k
from recsys.recipes.als import IAlsConfig
from recsys.recipes.bpr import BprConfig
from recsys.recipes.ease import EaseConfig
from recsys.recipes.item_knn import ItemKnnConfig
from recsys.recipes.popularity import PopularityConfig
from recsys.recipes.sasrec import SasRecConfig
from recsys.types import Histories, Ints, Retriever, relevant_items

Config = TypeVar("Config", bound=BaseModel)
Score: TypeAlias = Callable[[Retriever], float]


class LogUniform(NamedTuple):
    """A number whose logarithm is uniform, rounded to four digits. 0 < low < high."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """One value."""
        return float(f"{math.exp(rng.uniform(math.log(self.low), math.log(self.high))):.4g}")


class Integer(NamedTuple):
    """A whole number, both ends included, each as likely or, with `log`, each octave as likely. 1 <= low < high."""

    low: int
    high: int
    log: bool = False

    def draw(self, rng: np.random.Generator) -> int:
        """One value."""
        if self.log:
            return int(math.exp(rng.uniform(math.log(self.low), math.log(self.high + 1))))
        return int(rng.integers(self.low, self.high, endpoint=True))


class Choice(NamedTuple):
    """One of a few values, each as likely."""

    options: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        """One value."""
        return self.options[int(rng.integers(len(self.options)))]


Range: TypeAlias = LogUniform | Integer | Choice


class Space(NamedTuple, Generic[Config]):
    """Where a model's settings are looked for.

    default: What the first trial takes, and what every other starts from: set the levels of the log here, by
        `space._replace(default=...)`.
    ranges: By name of the field. Empty where there is nothing to choose; such a model has one trial.
    """

    default: Config
    ranges: Mapping[str, Range]


class Tuned(NamedTuple, Generic[Config]):
    """What tuning found.

    config: Of the trial with the highest score, the first of equal ones.
    trials: One row a trial in order: trial, each field of the space, score (NaN where it failed), seconds, and error
        (empty, or the sentence of what went wrong).
    """

    config: Config
    trials: pd.DataFrame


SPACES: dict[str, Space[Any]] = {
    "popularity": Space(PopularityConfig(), {}),
    "recent_popularity": Space(
        PopularityConfig(half_life_days=30.0), {"half_life_days": LogUniform(1, 1000)}
    ),
    "item_knn": Space(
        ItemKnnConfig(),
        {
            "neighbours": Integer(5, 1000, log=True),
            "shrink": LogUniform(0.1, 1000),
            "weighting": Choice(("wanted", "graded")),
        },
    ),
    "ease": Space(
        EaseConfig(l2=(300.0,), weightings=("wanted",)),
        {"l2": LogUniform(10, 5000), "weightings": Choice(("wanted", "graded"))},
    ),
    "ials": Space(
        IAlsConfig(),
        {
            "factors": Choice((32, 64, 128, 256)),
            "regularization": LogUniform(0.001, 0.1),
            "unobserved": LogUniform(0.02, 1.0),
            "weighting": Choice(("wanted", "graded")),
        },
    ),
    "bpr": Space(
        BprConfig(),
        {
            "factors": Choice((32, 64, 128)),
            "learning_rate": LogUniform(0.001, 0.05),
            "regularization": LogUniform(0.0001, 0.1),
            "iterations": Integer(20, 200, log=True),
        },
    ),
    "sasrec": Space(
        SasRecConfig(),
        {
            "width": Choice((32, 64, 128)),
            "blocks": Integer(1, 3),
            "length": Choice((50, 100, 200)),
            "dropout": Choice((0.1, 0.2, 0.3, 0.5)),
            "learning_rate": LogUniform(0.0003, 0.003),
        },
    ),
}


def tune(
    train_fn: Callable[[Config], Retriever], space: Space[Config], *, trials: int, seed: int, score: Score
) -> Tuned[Config]:
    """The best of `trials` settings: the default, then random ones.

    A trial that this package refuses (as when a loss is no longer finite), that fails in linear algebra, or whose
    score is not finite, is recorded and passed over.

    Args:
        train_fn: From settings to a model trained on the training part.
        space: Default and ranges; see `SPACES`.
        trials: Number of settings tried, 1 or more; the same for every model of a comparison.
        seed: Of the draws. Same seed, same settings, whatever the scores.
        score: Of a trained model on the validation, the higher the better; see `validation_ndcg`.

    Raises:
        RecsysError: `trials` is below 1, the space names no field of its config, or every trial failed.
        MissingDependency: The model needs a package that is not installed.
    """
    if trials < 1:
        raise RecsysError(f"`trials` must be at least 1; got {trials}. 1 takes the defaults.")
    unknown = sorted(set(space.ranges) - set(type(space.default).model_fields))
    if unknown:
        raise RecsysError(
            f"A space must name fields of {type(space.default).__name__}; got {unknown[:3]}. Correct the names."
        )
    rng = np.random.default_rng(seed)
    tried = [space.default]
    while space.ranges and len(tried) < trials:
        tried.append(_draw(space, rng))
    rows = [_try(train_fn, config, score) for config in tried]
    scores = np.array([row["score"] for row in rows])
    if np.isnan(scores).all():
        raise RecsysError(
            f"One of the {len(rows)} trials must succeed; got none, the first with: {rows[0]['error']} "
            "Correct the default settings."
        )
    table = pd.DataFrame(
        [
            {"trial": number, **{name: getattr(config, name) for name in space.ranges}, **row}
            for number, (config, row) in enumerate(zip(tried, rows, strict=True))
        ]
    )
    return Tuned(tried[int(np.nanargmax(scores))], table)


def validation_ndcg(
    known: Histories,
    target: Histories,
    *,
    relevant_level: int,
    users: Ints | None = None,
    times: Histories | None = None,
) -> Score:
    """NDCG@10 over the full catalogue, as a score for `tune`; NaN where no user has a relevant item.

    Args:
        known: What may be known of the validation's users. Shape (B, I).
        target: What is to be found, the same users. Shape (B, I).
        relevant_level: Level from which a target counts.
        users: Their rows in the training table, -1 for others. Shape (B,).
        times: When each entry of `known` happened. Shape (B, I).
    """
    relevant = relevant_items(target, relevant_level)

    def score(model: Retriever) -> float:
        found = ndcg_at_k(model.search(known, 10, users=users, times=times).items, relevant, 10)
        return float(found.values.mean()) if len(found.values) else math.nan

    return score


def _draw(space: Space[Config], rng: np.random.Generator) -> Config:
    """The default with every field of the space drawn anew, checked by the config itself."""
    drawn = {name: space.ranges[name].draw(rng) for name in sorted(space.ranges)}
    return type(space.default).model_validate({**space.default.model_dump(), **drawn})


def _try(train_fn: Callable[[Config], Retriever], config: Config, score: Score) -> dict[str, Any]:
    """Score, seconds and error of one trial."""
    start = time.perf_counter()
    found, error = math.nan, ""
    try:
        found = score(train_fn(config))
    except MissingDependency:
        raise
    except (RecsysError, ArithmeticError, torch.linalg.LinAlgError) as err:  # type: ignore[attr-defined]
        error = str(err)
    if not error and not math.isfinite(found):
        error = f"The score must be finite; got {found}."
        found = math.nan
    return {"score": found, "seconds": time.perf_counter() - start, "error": error}
