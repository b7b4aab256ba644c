import numpy as np
import pytest

from recsys.errors import RecsysError
from recsys.metrics import exact_level_nll
from recsys.models.popularity import Popularity
from recsys.recipes import ease, item_knn
from recsys.recipes.contest import Contestant, Job, enter, enter_foreteller, with_levels
from recsys.recipes.contest_data import Contest
from recsys.recipes.contest_models import ITEM_RATES, baseline, gnolr_contestant
from recsys.recipes.popularity import PopularityConfig
from recsys.recipes.tune import SPACES, LogUniform, Space
from recsys.types import Histories, Retriever
from tests.helpers.contest_world import make_contest

FAST = {"epochs": 2, "width": 4, "embedding": 4, "negative_items": 8}


@pytest.fixture(name="contest", scope="module")
def a_contest() -> Contest:
    return make_contest()


def test_lists_are_those_of_the_model_trained_on_train_and_asked_with_the_tests_histories(
    contest: Contest,
) -> None:
    entry = enter(contest, baseline(item_knn.train, SPACES["item_knn"], contest), k=7, trials=1, seeds=(0, 1))
    config = with_levels(SPACES["item_knn"], levels=3, relevant_level=1).default
    alone = item_knn.train(contest.train, seed=0, config=config).search(contest.test.known, 7)
    assert entry.lists is not None
    assert entry.lists.tolist() == [alone.items.tolist()]  # one seed, as nothing is drawn
    assert entry.settings["relevant_level"] == 1 and entry.settings["levels"] == 3
    assert entry.probabilities is None


def test_every_model_gets_its_trials_and_keeps_the_best(contest: Contest) -> None:
    steps: list[tuple[int, int]] = []
    entry = enter(
        contest,
        baseline(ease.train, SPACES["ease"], contest),
        k=5,
        trials=4,
        seeds=(3,),
        tell=lambda done, total: steps.append((done, total)),
    )
    assert len(entry.trials) == 4
    assert entry.score == max(row["score"] for row in entry.trials)
    assert steps == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_the_kept_model_is_the_one_that_the_best_settings_make(contest: Contest) -> None:
    contestant = baseline(ease.train, SPACES["ease"], contest)
    entry = enter(contest, contestant, k=5, trials=4, seeds=(3,))
    anew = contestant.train(contest, ease.EaseConfig.model_validate(entry.settings), Job(3, "cpu"))
    assert entry.lists is not None
    assert entry.lists[0].tolist() == anew.search(contest.test.known, 5).items.tolist()


def test_a_model_that_draws_is_trained_for_each_seed(contest: Contest) -> None:
    seen: list[int] = []

    def train(contest: Contest, config: PopularityConfig, job: Job) -> Retriever:
        seen.append(job.seed)
        rng = np.random.default_rng(job.seed)
        shuffled = contest.train[:, rng.permutation(contest.n_items)]
        return Popularity.fit(Histories(shuffled), levels=config.levels)

    contestant = Contestant(with_levels(Space(PopularityConfig(), {}), levels=3), train)
    entry = enter(contest, contestant, k=5, trials=9, seeds=(4, 5, 6))
    assert seen == [4, 5, 6]  # without anything to choose there is one trial
    assert entry.lists is not None and entry.lists.shape == (3, len(contest.test.users), 5)
    assert len(entry.train_seconds) == len(entry.answer_seconds) == 3
    assert not np.array_equal(entry.lists[0], entry.lists[1])


def test_gnolr_ranks_and_foretells_and_the_same_seed_gives_the_same_bits(contest: Contest) -> None:
    contestant = gnolr_contestant(contest, **FAST)
    first, again = (enter(contest, contestant, k=5, trials=1, seeds=(0,)) for _ in range(2))
    assert first.probabilities is not None and again.probabilities is not None
    assert first.probabilities.shape == (1, len(contest.test.rows), 3)
    assert np.array_equal(first.probabilities, again.probabilities)
    assert first.lists is not None and again.lists is not None
    assert np.array_equal(first.lists, again.lists)
    assert (np.diff(first.probabilities, axis=2) < 0).all()


def test_gnolr_is_brought_up_to_date_at_the_test_without_training(contest: Contest) -> None:
    contestant = gnolr_contestant(contest, **FAST)
    entry = enter(contest, contestant, k=5, trials=1, seeds=(0,))
    assert int(entry.model.known.item_counts.sum()) == contest.train.nnz
    assert contestant.ready is not None
    ready = contestant.ready(entry.model, contest)
    assert int(ready.known.item_counts.sum()) == contest.up_to_date.nnz
    assert ready.towers is entry.model.towers


def test_a_foreteller_is_scored_by_its_likelihood_on_the_validation(contest: Contest) -> None:
    entry = enter_foreteller(contest, ITEM_RATES, seeds=(0, 1))
    chances = entry.model.foretell(contest.validation.items)
    assert entry.score == -exact_level_nll(chances, contest.validation.levels)
    assert entry.lists is None
    assert entry.probabilities is not None and entry.probabilities.shape == (1, len(contest.test.rows), 3)


def test_a_space_whose_levels_do_not_fit_the_config_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        with_levels(SPACES["ease"], levels=0)


def test_a_model_that_always_fails_says_why(contest: Contest) -> None:
    def train(contest: Contest, config: PopularityConfig, job: Job) -> Retriever:
        raise RecsysError(f"`half_life_days` {config.half_life_days} is no good.")

    space = Space(PopularityConfig(half_life_days=2.0), {"half_life_days": LogUniform(1, 3)})
    with pytest.raises(RecsysError, match=r"got none, the first with: `half_life_days` 2\.0 is no good"):
        enter(contest, Contestant(space, train), k=5, trials=2, seeds=(0,))
