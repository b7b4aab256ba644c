"""How each model enters a comparison: its settings' space fitted to the log, its training, and what it is asked."""

from collections.abc import Callable
from typing import Any

from recsys.models.gnolr import Gnolr
from recsys.models.pointwise import AdditiveLogistic, BoostedTrees, ItemRates, Rows
from recsys.models.popularity import Popularity
from recsys.recipes import gnolr, popularity
from recsys.recipes.contest import Contestant, Foreteller, Job, with_levels
from recsys.recipes.contest_data import Contest, Round
from recsys.recipes.gnolr import GnolrConfig
from recsys.recipes.tune import SPACES, Choice, LogUniform, Space
from recsys.types import Floats, Retriever

GNOLR_SPACE = Space(
    GnolrConfig(),
    {
        "learning_rate": LogUniform(0.001, 0.01),
        "weight_decay": LogUniform(0.3, 10.0),
        "width": Choice((16, 32, 64)),
        "item_prior_rows": LogUniform(1.0, 50.0),
        "history_dropout": Choice((0.1, 0.3, 0.5)),
    },
)


def baseline(
    train: Callable[..., Retriever], space: Space[Any], contest: Contest, *, is_random: bool = False
) -> Contestant:
    """A model that learns from histories.

    Args:
        train: A recipe's `train(histories, *, seed, config, times, device)`.
        space: From `recsys.recipes.tune.SPACES`.
        contest: Says which levels the log has and which is wanted.
        is_random: Whether the seed matters.
    """

    def run(contest: Contest, config: Any, job: Job) -> Retriever:
        return train(
            contest.train, seed=job.seed, config=config, times=contest.train_times, device=job.device
        )

    fitted = with_levels(space, levels=contest.levels, relevant_level=contest.relevant_level)
    return Contestant(fitted, run, is_random)


def gnolr_contestant(contest: Contest, **settings: Any) -> Contestant:
    """GNOLR, which also foretells the level of every row.

    It is stopped and calibrated by the validation rows where those follow train, else by some of train's own users.
    At the test its statistics are brought up to date; its weights stay.

    Args:
        contest: Says which levels the log has and which is wanted.
        settings: Fields of `GnolrConfig` that differ from its defaults, such as negatives=0.
    """
    space = with_levels(GNOLR_SPACE, levels=contest.levels, retrieve_level=contest.relevant_level, **settings)
    return Contestant(space, _train_gnolr, True, _bring_up_to_date, _foretell)


def _train_gnolr(contest: Contest, config: GnolrConfig, job: Job) -> Gnolr:
    return gnolr.train(
        contest.split.train,
        n_items=contest.n_items,
        seed=job.seed,
        config=config,
        item_features=contest.item_features,
        user_features=contest.user_features,
        validation=contest.split.validation.target if contest.validation_is_later else None,
        device=job.device,
    )


def popularity_contestant(contest: Contest) -> Contestant:
    """Popularity, which at the test counts all rows that may be known by then, as GNOLR's statistics do."""
    return baseline(popularity.train, SPACES["popularity"], contest)._replace(ready=_count_anew)


def _count_anew(model: Popularity, contest: Contest) -> Popularity:
    anew = Popularity.fit(contest.up_to_date, levels=contest.levels)
    return Popularity(anew.counts, model.level_weights)


def _bring_up_to_date(model: Gnolr, contest: Contest) -> Gnolr:
    return model.refreshed(contest.up_to_date)


def _foretell(model: Gnolr, asked: Round) -> Floats:
    logits = model.pair_logits(asked.known, asked.rows, asked.items, users=asked.users)
    found: Floats = logits.sigmoid().cpu().numpy()
    return found


def _validation_rows(contest: Contest) -> Rows:
    judged = contest.validation
    return Rows(judged.users[judged.rows], judged.items, judged.levels)


def _train_rates(contest: Contest, job: Job) -> ItemRates:
    del job
    return ItemRates.fit(
        Rows.of(contest.split.train),
        _validation_rows(contest),
        n_items=contest.n_items,
        levels=contest.levels,
    )


def _train_logistic(contest: Contest, job: Job) -> AdditiveLogistic:
    del job
    return AdditiveLogistic.fit(
        Rows.of(contest.split.train),
        _validation_rows(contest),
        levels=contest.levels,
        users=contest.user_features,
        items=contest.item_features,
    )


def _train_trees(contest: Contest, job: Job) -> BoostedTrees:
    return BoostedTrees.fit(
        Rows.of(contest.split.train),
        _validation_rows(contest),
        shape=(len(contest.dataset.users), contest.n_items),
        levels=contest.levels,
        seed=job.seed,
    )


# Statistics are brought up to date at the test, as those of GNOLR are; the regression's weights stay.
ITEM_RATES = Foreteller(
    _train_rates,
    lambda model: {"prior_rows": model.prior_rows},
    lambda model, asked: model.foretell(asked.items),
    lambda model, contest: model.refreshed(Rows.of_histories(contest.up_to_date)),
)
ADDITIVE_LOGISTIC = Foreteller(
    _train_logistic,
    lambda model: {"ridge": model.ridge},
    lambda model, asked: model.foretell(asked.users[asked.rows], asked.items),
    lambda model, contest: model,
)
BOOSTED_TREES = Foreteller(
    _train_trees,
    lambda model: {"trees": [held and held[1] for held in model.trees]},
    lambda model, asked: model.foretell(asked.users[asked.rows], asked.items),
    lambda model, contest: model.refreshed(Rows.of_histories(contest.up_to_date)),
    is_random=True,
)
