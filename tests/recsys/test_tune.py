import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ConfigDict
from scipy.sparse import csr_array

from recsys.errors import MissingDependency, RecsysError
from recsys.models.popularity import Popularity
from recsys.recipes import ease, item_knn, popularity
from recsys.recipes.tune import SPACES, Choice, Integer, LogUniform, Space, tune, validation_ndcg
from recsys.types import Histories, Retriever


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: float = 1.0
    size: int = 3


SPACE = Space(Settings(), {"rate": LogUniform(0.01, 100.0), "size": Integer(1, 9)})


class Carrier(Popularity):
    """A model that only carries its settings to the score."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(torch.zeros(1, 2))
        self.settings = settings


def nearness(model: Retriever) -> float:
    """Highest at a rate of 7."""
    assert isinstance(model, Carrier)
    return -abs(math.log(model.settings.rate / 7.0))


def test_the_best_trial_wins_and_the_first_is_the_default() -> None:
    found = tune(Carrier, SPACE, trials=30, seed=0, score=nearness)
    assert len(found.trials) == 30
    assert found.trials[["rate", "size"]].iloc[0].tolist() == [1.0, 3]
    best = found.trials.iloc[int(found.trials["score"].to_numpy().argmax())]
    assert (found.config.rate, found.config.size) == (best["rate"], best["size"])
    assert 4 < found.config.rate < 12
    assert (found.trials["error"] == "").all() and (found.trials["seconds"] >= 0).all()


def test_draws_depend_on_the_seed_and_on_nothing_else() -> None:
    first = tune(Carrier, SPACE, trials=8, seed=5, score=nearness).trials
    again = tune(Carrier, SPACE, trials=8, seed=5, score=lambda model: 0.0).trials
    other = tune(Carrier, SPACE, trials=8, seed=6, score=nearness).trials
    longer = tune(Carrier, SPACE, trials=9, seed=5, score=nearness).trials
    drawn = ["rate", "size"]
    assert first[drawn].equals(again[drawn]) and first[drawn].equals(longer[drawn][:8])
    assert not first[drawn].equals(other[drawn])


def test_equal_scores_keep_the_default() -> None:
    assert tune(Carrier, SPACE, trials=5, seed=0, score=lambda model: 0.5).config == Settings()


def test_a_failing_trial_is_recorded_and_passed_over() -> None:
    def fragile(settings: Settings) -> Retriever:
        if settings.rate > 1.0:
            raise RecsysError(f"rate {settings.rate}")
        return Carrier(settings)

    def sometimes_nan(model: Retriever) -> float:
        assert isinstance(model, Carrier)
        return math.nan if model.settings.size > 5 else nearness(model)

    trials = tune(fragile, SPACE, trials=40, seed=0, score=sometimes_nan).trials
    refused, undefined = trials["rate"] > 1.0, (trials["rate"] <= 1.0) & (trials["size"] > 5)
    assert refused.any() and undefined.any()
    assert (trials["score"].isna() == (refused | undefined)).all()
    assert trials.loc[refused, "error"].tolist() == [f"rate {rate}" for rate in trials.loc[refused, "rate"]]
    assert (trials.loc[undefined, "error"] == "The score must be finite; got nan.").all()


def test_a_singular_matrix_is_a_failed_trial() -> None:
    def singular(settings: Settings) -> Retriever:
        if settings != Settings():
            torch.linalg.cholesky(-torch.eye(2))
        return Carrier(settings)

    trials = tune(singular, SPACE, trials=3, seed=0, score=nearness).trials
    assert trials["score"].isna().tolist() == [False, True, True]
    assert "not positive-definite" in str(trials["error"][1])


def test_a_space_without_ranges_has_one_trial() -> None:
    found = tune(Carrier, Space(Settings(), {}), trials=50, seed=0, score=nearness)
    assert found.config == Settings() and len(found.trials) == 1


def test_what_cannot_be_tuned_is_refused() -> None:
    def never(settings: Settings) -> Retriever:
        raise RecsysError(f"no {settings.rate}")

    def missing(settings: Settings) -> Retriever:
        raise MissingDependency("implicit", needed_for="this", install="pip install it")

    with pytest.raises(RecsysError, match="`trials` must be at least 1; got 0"):
        tune(Carrier, SPACE, trials=0, seed=0, score=nearness)
    with pytest.raises(RecsysError, match=r"fields of Settings; got \['rte'\]"):
        tune(Carrier, Space(Settings(), {"rte": Choice((1,))}), trials=2, seed=0, score=nearness)
    with pytest.raises(
        RecsysError, match=r"One of the 4 trials must succeed; got none, the first with: no 1\.0"
    ):
        tune(never, SPACE, trials=4, seed=0, score=nearness)
    with pytest.raises(MissingDependency, match="`implicit` must be installed for this"):
        tune(missing, SPACE, trials=4, seed=0, score=nearness)


def test_ranges_are_drawn_evenly_over_their_whole_width() -> None:
    rng = np.random.default_rng(0)
    rates = np.log10([LogUniform(0.01, 100.0).draw(rng) for _ in range(4000)])
    assert rates.min() > -2.01 and rates.max() < 2.01 and abs(rates.mean()) < 0.06
    sizes = np.bincount([Integer(2, 5).draw(rng) for _ in range(4000)])
    assert sizes[:2].tolist() == [0, 0] and (np.abs(sizes[2:] - 1000) < 120).all() and len(sizes) == 6
    octaves = np.array([Integer(1, 255, log=True).draw(rng) for _ in range(4000)])
    assert octaves.min() == 1 and octaves.max() <= 255
    assert (np.abs(np.bincount(np.log2(octaves).astype(int)) - 500) < 90).all()


@pytest.mark.parametrize("name", SPACES)
def test_every_declared_space_draws_configs_that_its_model_takes(name: str) -> None:
    space = SPACES[name]
    tried: list[BaseModel] = []

    def remember(config: BaseModel) -> Retriever:
        tried.append(config)
        return Carrier(Settings())

    tune(remember, space, trials=60, seed=1, score=lambda model: 0.0)
    assert all(isinstance(config, type(space.default)) for config in tried)
    assert len(tried) == (60 if space.ranges else 1)
    for field in space.ranges:
        assert len({getattr(config, field) for config in tried}) > 1


def test_a_drawn_ease_has_one_penalty_and_one_weighting() -> None:
    seen: list[ease.EaseConfig] = []

    def remember(config: ease.EaseConfig) -> Retriever:
        seen.append(config)
        return Carrier(Settings())

    tune(remember, SPACES["ease"], trials=10, seed=0, score=lambda model: 0.0)
    assert all(len(config.l2) == 1 and len(config.weightings) == 1 for config in seen)


def test_the_score_is_the_ndcg_of_unseen_targets() -> None:
    known = csr_array(np.array([[2, 0, 0, 0], [0, 0, 2, 0], [2, 0, 0, 0]], dtype=np.float32))
    target = csr_array(np.array([[0, 2, 0, 2], [2, 0, 0, 0], [0, 1, 0, 0]], dtype=np.float32))
    model = Popularity(torch.tensor([[0.0, 4.0], [0.0, 3.0], [0.0, 2.0], [0.0, 1.0]]))
    # Lists 1, 2, 3 against {1, 3}; 0, 1, 3 against {0}; the third user has nothing relevant.
    first = (1 + 1 / np.log2(4)) / (1 + 1 / np.log2(3))
    score = validation_ndcg(known, target, relevant_level=1)
    assert score(model) == pytest.approx((first + 1.0) / 2)
    assert math.isnan(validation_ndcg(known, target, relevant_level=2)(model))


def test_the_score_passes_users_and_times_on(small_histories: Histories) -> None:
    passed = []

    class Listening(Popularity):
        def search(self, histories, k, **options):  # type: ignore[no-untyped-def]
            passed.append((options["users"], options["times"]))
            return super().search(histories, k)

    users = np.arange(6)
    score = validation_ndcg(
        small_histories, small_histories, relevant_level=1, users=users, times=small_histories
    )
    score(Listening(torch.zeros(30, 5)))
    assert passed == [(users, small_histories)]


@pytest.mark.integration
def test_tuning_finds_the_neighbourhood_that_the_data_hides() -> None:
    """Items come in groups of four taken together, so few neighbours and a low penalty must win on the validation."""
    rng = np.random.default_rng(0)
    groups = np.argsort(rng.random((300, 25)), axis=1)[:, :3]
    taken = (rng.random((300, 100)) < 0.01) | (np.arange(100) // 4 == groups[..., None]).any(axis=1)
    is_hidden = rng.random(taken.shape) < 0.25
    known = csr_array(np.where(taken & ~is_hidden, 2, 0).astype(np.float32))
    target = csr_array(np.where(taken & is_hidden, 2, 0).astype(np.float32))
    score = validation_ndcg(known, target, relevant_level=1)
    found = {}
    for name, recipe in {"popularity": popularity, "item_knn": item_knn, "ease": ease}.items():
        space = SPACES[name]
        space = space._replace(default=space.default.model_copy(update={"levels": 1, "relevant_level": 1}))

        def fit(config: Any, train_fn: Callable[..., Retriever] = recipe.train) -> Retriever:
            return train_fn(known, seed=0, config=config)

        tuned = tune(fit, space, trials=8, seed=0, score=score)
        found[name] = tuned.trials["score"].max()
        assert found[name] >= tuned.trials["score"][0]
    assert found["item_knn"] > 0.6 and found["ease"] > 0.6 > 0.2 > found["popularity"]
