"""Training GNOLR on a log of impressions, from nothing or from an earlier model.

Each step takes whole users, about `batch_rows` impressions of them. Their histories are summed once; every
impression is then scored against its user's history, and its item's statistics, without itself. Where negatives are
wanted, the same users meet sampled items that they were never shown, weighted to count as so many level-0 rows an
impression, by one matrix product; thresholds and statistics are those of that mix, and undone by calibration.

Departures from the paper are listed in `recsys.models.gnolr`. `PAPER` takes them back.
"""

import math
from dataclasses import asdict
from typing import cast

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor

from recsys.columns import ITEM, LEVEL, USER
from recsys.data.interactions import check_log
from recsys.data.shards import UserShards
from recsys.errors import ShapeError
from recsys.features import FeatureTable
from recsys.models.calibration import Calibration, fit_calibration
from recsys.models.gnolr import Gnolr
from recsys.models.known import Known
from recsys.models.ordinal import thresholds_from_counts
from recsys.models.towers import Towers, TowerSizes, towers_like
from recsys.recipes.gnolr_config import GnolrConfig, Structure
from recsys.recipes.gnolr_rows import Examples, Source
from recsys.recipes.gnolr_steps import Catalogue, judged_parts
from recsys.recipes.gnolr_training import Report, Training

__all__ = ["PAPER", "GnolrConfig", "train", "update"]

# Settings of the paper's own model: cosines alone with one fixed weight, users by features (make the id one of
# them), impressions alone.
PAPER = {
    "history": False,
    "biases": False,
    "gamma": 2.5,
    "hidden": 128,
    "negatives": 0.0,
    "weight_decay": 0.0,
}


def train(
    log: pd.DataFrame | UserShards,
    *,
    n_items: int,
    seed: int,
    config: GnolrConfig | None = None,
    item_features: FeatureTable | None = None,
    user_features: FeatureTable | None = None,
    validation: pd.DataFrame | None = None,
    start: Gnolr | None = None,
    report: Report | None = None,
    device: str = "cpu",
    accelerator: Accelerator | None = None,
) -> Gnolr:
    """A GNOLR model of the log; the epoch with the lowest validation loss is kept.

    Args:
        log: Interaction log, checked here; each of its users is a training example with the rest of the own rows as
            history. Or one cut into files by `recsys.data.shards.write_shards`, of which one is in memory at a time.
        n_items: Size I of the catalogue.
        seed: Draws first weights, validation users, the order of users and negatives.
        config: None takes the defaults.
        item_features: One row an item. With `start`, that model's own are used.
        user_features: One row a user id.
        validation: Later rows to stop and to calibrate by, foretold from the log; None keeps some users for it.
        start: Earlier model to go on from; see `update`.
        report: Called after every epoch with epoch, train_loss and validation_loss, in nats an impression.
        device: Where to train and serve.
        accelerator: Shares each epoch's steps among the processes of `accelerate launch`, and sets the precision of
            matrix products. None is one process in float32.

    Returns:
        The trained model. Same arguments on CPU, same bits.

    Raises:
        InteractionError: The log is not usable.
        ShapeError: Features do not fit the catalogue or the users.
    """
    settings = GnolrConfig() if config is None else config
    items = FeatureTable.empty(n_items) if item_features is None else item_features
    users = FeatureTable.empty(0) if user_features is None else user_features
    if start is not None:
        items = start.known.item_features
    _check_features(items, n_items)
    rng = np.random.default_rng(seed)
    source = Source.of(
        log, n_items, settings.levels, users, settings.validation_users if validation is None else 0.0, rng
    )
    counts = source.count_levels()
    known = Known(items, users, counts, settings.negatives)
    towers = _towers(start, settings, known, seed).to(device)
    catalogue = Catalogue(known, torch.device(device))

    judges = (
        source.judges if validation is None else _later(source, validation, n_items, settings.levels, users)
    )
    rows_per_user = float(counts.sum()) / max(1, source.count_users())
    Training(towers, settings, catalogue, accelerator, rows_per_user).fit(source, judges, rng, report)
    _forget_unseen_items(towers, counts)
    calibration = _calibrate(towers, judges, source, catalogue, settings)
    return Gnolr(towers, calibration, known, retrieve_level=settings.retrieve_level)


def update(
    model: Gnolr,
    log: pd.DataFrame | UserShards,
    *,
    seed: int,
    config: GnolrConfig | None = None,
    user_features: FeatureTable | None = None,
    report: Report | None = None,
) -> Gnolr:
    """The model trained on, from its present weights, on a log that has grown or changed.

    Base rates, thresholds and statistics are taken anew from the log, so pass old and new rows together (see
    `merge_repeats`) unless the old ones are to be forgotten. The given model is left as it is. `Gnolr.refreshed`
    takes new rows into the statistics alone, in no time.

    Args:
        model: Where to start.
        log: Interaction log over the same catalogue.
        seed: As for `train`.
        config: None takes 3 epochs of the defaults at the model's own levels and aim. Sizes are the model's.
        user_features: One row a user id; None takes the model's own.
        report: As for `train`.

    Returns:
        A new model.

    Raises:
        InteractionError: The log is not usable.
        ShapeError: `user_features` is not as in the first training, or `config` has other levels.
    """
    held = model.towers.sizes
    settings = config or GnolrConfig(
        levels=model.levels,
        parents=held.parents,
        retrieve_level=model.retrieve_level,
        structure=cast(Structure, held.structure),
        biases=held.biases,
        gamma=float(model.towers.gamma()[0]) if held.is_gamma_fixed else None,
        negatives=model.known.extra_ignored,
        epochs=3,
    )
    return train(
        log,
        n_items=model.n_items,
        seed=seed,
        config=settings,
        user_features=model.known.user_features if user_features is None else user_features,
        start=model,
        report=report,
        device=str(model.device),
    )


def _calibrate(
    towers: Towers, judges: list[Examples], source: Source, catalogue: Catalogue, config: GnolrConfig
) -> Calibration:
    """Scales and thresholds that suit impressions, without sampled rows, best."""
    towers.eval()
    chosen = judges or list(source.blocks(np.random.default_rng(0)))
    parts, levels = judged_parts(towers, chosen, catalogue, config, counted=not judges)
    ceilings = towers.ceilings().detach()
    gamma = towers.gamma().detach()
    bias = (ceilings - gamma) / 2 if config.biases else torch.zeros_like(gamma)
    most = torch.stack([gamma, bias, bias])
    start = Calibration(torch.ones(3, device=catalogue.device), towers.thresholds.detach())
    return fit_calibration(
        parts, levels, start, towers.tree, towers.mixing, most, keeps_ranking=config.negatives > 0
    )


def _later(
    source: Source, validation: pd.DataFrame, n_items: int, levels: int, features: FeatureTable
) -> list[Examples]:
    """Validation rows, each foretold from its user's training rows."""
    checked = check_log(validation, n_items, max_level=levels)
    users = np.unique(checked[USER].to_numpy())
    histories = source.histories_of(users)
    rows = pd.Index(users).get_indexer(pd.Index(checked[USER].to_numpy())).astype(np.int64)
    return [
        Examples.of_targets(
            histories, features.take(users), rows, checked[ITEM].to_numpy(), checked[LEVEL].to_numpy()
        )
    ]


def _check_features(items: FeatureTable, n_items: int) -> None:
    if len(items) != n_items:
        raise ShapeError(
            f"`item_features` must have one row for each of the {n_items} items; got {len(items)} rows. "
            "Give a row of zeros to an item that nothing is known about."
        )


def _towers(start: Gnolr | None, config: GnolrConfig, known: Known, seed: int) -> Towers:
    """Fresh towers, or a trainable copy of the ones to start from, at the thresholds and rates of this log."""
    tree = config.tree
    total = known.item_counts.sum(0)
    thresholds = thresholds_from_counts(total, tree, extra_ignored=config.negatives)
    rates = torch.sigmoid(-thresholds)
    sizes = TowerSizes(
        len(known.item_features),
        tree.parents,
        config.structure,
        config.embedding,
        config.width,
        config.hidden,
        *known.item_features.widths,
        *known.user_features.widths,
        config.history,
        config.biases,
        config.item_prior_rows,
        config.user_prior_rows,
        config.gamma is not None,
    )
    rng = torch.Generator().manual_seed(seed)
    if start is None:
        return Towers(
            sizes,
            thresholds,
            rates,
            rng,
            gamma=config.gamma,
            # Sampled rows push the logits of what was shown up by about the logarithm of their number.
            stretch=math.log1p(config.negatives),
            learn_thresholds=config.learn_thresholds,
        )
    held = start.towers.sizes
    got = (sizes.parents, sizes.items, sizes.user_sparse, sizes.user_dense)
    if got != (held.parents, held.items, held.user_sparse, held.user_dense):
        raise ShapeError(
            f"The model to go on from has {held.levels} levels, {held.items} items and {held.user_sparse} + "
            f"{held.user_dense} user features; got {sizes.levels}, {sizes.items} and {sizes.user_sparse} + "
            f"{sizes.user_dense}. Train a new model instead."
        )
    fresh = Towers(held, thresholds, rates, rng, gamma=config.gamma, learn_thresholds=config.learn_thresholds)
    of_the_log = ("rates", "first_thresholds", "gaps_raw")
    weights = {name: value for name, value in start.towers.state_dict().items() if name not in of_the_log}
    copy = towers_like(asdict(held), {**fresh.state_dict(), **weights})
    for name, weight in copy.named_parameters():
        weight.requires_grad_(dict(fresh.named_parameters())[name].requires_grad)
    return copy


@torch.no_grad()
def _forget_unseen_items(towers: Towers, counts: Tensor) -> None:
    """An item that training never met is what its features say, not what its first random weights were."""
    unseen = counts.sum(1) == 0
    towers.item_id[unseen] = 0.0
    towers.item_bias[unseen] = 0.0
