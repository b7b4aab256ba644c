"""One model's part in a comparison: settings chosen on the validation, trained for every seed, asked once on the test.

Every contestant gets the same number of trials. All learn from train alone; at the test they may look at what is
known by then, which is how they would be served.
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel

from recsys.metrics import exact_level_nll
from recsys.recipes.contest_data import Contest, Round
from recsys.recipes.tune import Space, tune, validation_ndcg
from recsys.types import Floats, Ints, Retriever

LIST_SCORE = "NDCG@10 on the validation"
CHANCE_SCORE = "log-likelihood of a validation row, in nats"

Tell = Callable[[int, int], None]


class Job(NamedTuple):
    """How one training is done.

    seed: Of its draws.
    device: Where tensors live, such as "cpu".
    """

    seed: int
    device: str


class Contestant(NamedTuple):
    """A way to make a retriever.

    space: Default settings and what may be drawn around them.
    train: From train, settings and a job to a model.
    is_random: Whether the seed matters.
    ready: Brings a model up to date with what is known at the test, without training.
    foretell: P(level >= 1..C) of a round's rows, for models that know it. Returns shape (N, C).
    """

    space: Space[Any]
    train: Callable[[Contest, Any, Job], Retriever]
    is_random: bool = True
    ready: Callable[[Any, Contest], Any] | None = None
    foretell: Callable[[Any, Round], Floats] | None = None


class Foreteller(NamedTuple):
    """A way to make a model that foretells levels row by row and brings no items.

    train: From train and a job to a model; it chooses its own settings on the validation.
    settings: What it chose, as JSON can hold it.
    foretell: P(level >= 1..C) of a round's rows. Returns shape (N, C).
    ready: As for a `Contestant`.
    is_random: Whether the seed matters.
    """

    train: Callable[[Contest, Job], Any]
    settings: Callable[[Any], dict[str, Any]]
    foretell: Callable[[Any, Round], Floats]
    ready: Callable[[Any, Contest], Any]
    is_random: bool = False


class Entry(NamedTuple):
    """What one model did. S seeds, B test users, N test rows.

    model: Of the first seed, as trained; None where there is none to keep.
    settings: Those chosen.
    trials: A row a trial: its settings, score, seconds and error.
    score: On the validation, of the first seed.
    score_name: What the score is; the higher the better.
    lists: Ranked items of every test user; None where it does not rank. Shape (S, B, k).
    probabilities: P(level >= 1..C) of every test row; None where it has none. Shape (S, N, C).
    train_seconds: CPU seconds of each seed's training.
    answer_seconds: Wall seconds of each seed's answers to the test.
    """

    model: Any
    settings: dict[str, Any]
    trials: list[dict[str, Any]]
    score: float
    score_name: str
    lists: Ints | None
    probabilities: NDArray[np.float32] | None
    train_seconds: list[float]
    answer_seconds: list[float]


class _Keeper:
    """Trains for `tune`, and keeps the model with the best score, so that it need not be trained again."""

    def __init__(self, train: Callable[[BaseModel], Retriever], score: Callable[[Retriever], float]) -> None:
        self._train, self._score = train, score
        self._seconds = 0.0
        self.best, self.seconds = -np.inf, 0.0
        self.model: Retriever | None = None

    def train(self, config: BaseModel) -> Retriever:
        began = time.process_time()
        model = self._train(config)
        self._seconds = time.process_time() - began
        return model

    def score(self, model: Retriever) -> float:
        found = self._score(model)
        # As in `tune`, the first of equal scores stays.
        if found > self.best:
            self.best, self.model, self.seconds = found, model, self._seconds
        return found


def enter(
    contest: Contest,
    contestant: Contestant,
    *,
    k: int,
    trials: int,
    seeds: tuple[int, ...],
    device: str = "cpu",
    tell: Tell | None = None,
) -> Entry:
    """Let one model compete.

    Args:
        contest: Data and split.
        contestant: The model.
        k: Length of the lists.
        trials: Settings tried on the validation, 1 or more; 1 takes the defaults.
        seeds: Of the trainings, the first of the trials too. A model without randomness takes the first alone.
        device: Where tensors live.
        tell: Called with the steps done and their total, a step being a trial or a training.

    Returns:
        Everything that the figures need.

    Raises:
        RecsysError: Every trial failed.
        MissingDependency: The model needs a package that is not installed.
    """
    seeds = seeds if contestant.is_random else seeds[:1]
    # A model that leaves nothing to choose has one trial.
    total = (trials if contestant.space.ranges else 1) + len(seeds) - 1
    done = 0

    def train(config: BaseModel, seed: int = seeds[0]) -> Retriever:
        nonlocal done
        if tell is not None:
            tell(done, total)
        done += 1
        return contestant.train(contest, config, Job(seed, device))

    validation = contest.validation
    score = validation_ndcg(
        validation.known,
        validation.target,
        relevant_level=contest.relevant_level,
        users=validation.users,
        times=validation.times,
    )
    keeper = _Keeper(train, score)
    tuned = tune(keeper.train, contestant.space, trials=trials, seed=seeds[0], score=keeper.score)
    models, seconds = [keeper.model], [keeper.seconds]
    lists, probabilities, answers = [], [], []
    for place, seed in enumerate(seeds):
        if place:
            began = time.process_time()
            models.append(train(tuned.config, seed))
            seconds.append(time.process_time() - began)
        began = time.perf_counter()
        ready: Any = models[-1] if contestant.ready is None else contestant.ready(models[-1], contest)
        test = contest.test
        lists.append(ready.search(test.known, k, users=test.users, times=test.times).items)
        answers.append(time.perf_counter() - began)
        if contestant.foretell is not None and contest.can_foretell:
            probabilities.append(contestant.foretell(ready, test))
    return Entry(
        models[0],
        tuned.config.model_dump(mode="json"),
        _plain_rows(tuned.trials),
        keeper.best,
        LIST_SCORE,
        np.stack(lists),
        np.stack(probabilities) if probabilities else None,
        seconds,
        answers,
    )


def _plain_rows(trials: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON can hold them: numbers of Python's own, None for a score that there is not."""
    plain = trials.astype(object).to_dict("records")
    return [
        {
            str(name): None if isinstance(value, float) and math.isnan(value) else value
            for name, value in row.items()
        }
        for row in plain
    ]


def enter_foreteller(
    contest: Contest,
    foreteller: Foreteller,
    *,
    seeds: tuple[int, ...],
    device: str = "cpu",
    tell: Tell | None = None,
) -> Entry:
    """Let a model that only foretells levels compete.

    Args:
        contest: Data and split; its rows must be such that there is something to foretell.
        foreteller: The model.
        seeds: Of the trainings; a model without randomness takes the first alone.
        device: Where tensors live.
        tell: Called with the trainings done and their total.

    Returns:
        An entry without lists.
    """
    seeds = seeds if foreteller.is_random else seeds[:1]
    models, seconds, answers, probabilities = [], [], [], []
    for done, seed in enumerate(seeds):
        if tell is not None:
            tell(done, len(seeds))
        began = time.process_time()
        models.append(foreteller.train(contest, Job(seed, device)))
        seconds.append(time.process_time() - began)
        start = time.perf_counter()
        probabilities.append(foreteller.foretell(foreteller.ready(models[-1], contest), contest.test))
        answers.append(time.perf_counter() - start)
    judged = contest.validation
    loss = exact_level_nll(foreteller.foretell(models[0], judged), judged.levels)
    settings = foreteller.settings(models[0])
    return Entry(
        models[0], settings, [], -loss, CHANCE_SCORE, None, np.stack(probabilities), seconds, answers
    )


def with_levels(space: Space[Any], **levels: Any) -> Space[Any]:
    """The space with some fields of its default set, such as the levels of the log.

    Args:
        space: Default and ranges.
        levels: Values by name of the field.
    """
    default = type(space.default).model_validate({**space.default.model_dump(), **levels})
    return space._replace(default=default)
