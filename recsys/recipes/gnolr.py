"""Training GNOLR on a log of impressions, from nothing or from an earlier model.

Each step takes whole users, about `batch_rows` impressions of them. Their histories are summed once; every
impression is then scored against its user's history without itself. The same users meet sampled items that they
were never shown, weighted to count as `negatives` further level-0 rows an impression, by one matrix product.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn.functional import softplus

from recsys.columns import USER
from recsys.data.interactions import check_log
from recsys.errors import ShapeError
from recsys.models.gnolr import Gnolr, sum_steps, towers_like
from recsys.models.ordinal import (
    Calibration,
    fit_calibration,
    item_base_logits,
    nested_ordinal_loss,
    thresholds_from_counts,
)
from recsys.models.towers import Bags, Towers, TowerSizes, leave_out
from recsys.types import Floats, Histories, Ints, histories_from_log

Report = Callable[[dict[str, float]], None]


class GnolrConfig(BaseModel):
    """How to train GNOLR."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Deepest level C of the log.
    levels: int = Field(default=4, ge=1)
    # Level that retrieval aims at, 1..levels.
    retrieve_level: int = Field(default=2, ge=1)
    # Width of an item's embedding.
    embedding: int = Field(default=32, ge=1)
    # Width of each level's unit vector.
    width: int = Field(default=32, ge=1)
    # Sampled level-0 rows for each impression; 0 trains on impressions alone.
    negatives: float = Field(default=16.0, ge=0)
    # Items drawn as negatives in each step, shared by its users.
    negative_items: int = Field(default=1024, ge=1)
    # Impressions in a step, about.
    batch_rows: int = Field(default=4096, ge=1)
    # Passes over the log, at most.
    epochs: int = Field(default=20, ge=1)
    # Passes without a better validation loss before training stops.
    patience: int = Field(default=2, ge=1)
    # Adam's step size.
    learning_rate: float = Field(default=0.004, gt=0)
    # Decoupled decay of item embeddings, per unit of learning rate.
    weight_decay: float = Field(default=2.0, ge=0)
    # Share of the users kept for the validation loss; 0 trains on all for all epochs.
    validation_users: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _aim_within_levels(self) -> "GnolrConfig":
        if self.retrieve_level > self.levels:
            raise ValueError(
                f"`retrieve_level` must be at most `levels` ({self.levels}); got {self.retrieve_level}. Lower it."
            )
        return self


class _Rows(NamedTuple):
    """Users in training: their histories, which are the training rows too, and their features."""

    histories: Histories
    dense: Tensor

    def select(self, rows: Ints) -> "_Rows":
        return _Rows(self.histories[rows], self.dense[torch.from_numpy(rows)])


class _Pairs(NamedTuple):
    """The entries of some histories as training rows: user row, item and level. Shape (N,) each."""

    row: Tensor
    item: Tensor
    level: Tensor

    @classmethod
    def of(cls, histories: Histories, device: torch.device) -> "_Pairs":
        owner = np.repeat(np.arange(histories.shape[0], dtype=np.int64), np.diff(histories.indptr))
        arrays = (owner, histories.indices.astype(np.int64), histories.data.astype(np.int64) - 1)
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))


def train(
    log: pd.DataFrame,
    *,
    n_items: int,
    seed: int,
    config: GnolrConfig | None = None,
    features: Floats | None = None,
    user_features: Floats | None = None,
    start: Gnolr | None = None,
    report: Report | None = None,
    device: str = "cpu",
) -> Gnolr:
    """A GNOLR model of the log; the epoch with the lowest validation loss is kept.

    Args:
        log: Interaction log, checked here; each of its users is a training example with the rest of the own rows as
            history.
        n_items: Size I of the catalogue.
        seed: Draws first weights, validation users, the order of users and negatives.
        config: None takes the defaults.
        features: One row an item. Shape (I, F). With `start`, that model's own are used.
        user_features: One row a user id. Shape (U, G).
        start: Earlier model to go on from; see `update`.
        report: Called after every epoch with epoch, train_loss and validation_loss, in nats an impression.
        device: Where to train and serve.

    Returns:
        The trained model. Same arguments on CPU, same bits.

    Raises:
        InteractionError: The log is not usable.
        ShapeError: Features do not fit the catalogue or the users.
    """
    settings = GnolrConfig() if config is None else config
    checked = check_log(log, n_items, max_level=settings.levels)
    users = np.unique(checked[USER].to_numpy())
    dense = _rows_of_users(user_features, users)
    everyone = _Rows(histories_from_log(checked, users, n_items), dense.to(device))
    rng = np.random.default_rng(seed)
    towers = _towers(start, settings, features, n_items, dense.shape[1], seed).to(device)

    training, validation = _split_users(everyone, settings.validation_users, rng)
    counts = _count_levels(training.histories, settings.levels)
    mixed = thresholds_from_counts(counts.sum(0), extra_ignored=settings.negatives)
    towers.limit_steps(mixed.diff())
    if start is None:
        base = item_base_logits(counts, extra_ignored=settings.negatives)
        towers.start_item_biases(base + mixed)

    _fit(towers, training, validation, mixed.to(device), settings, rng, report)
    judges = validation if validation.histories.nnz else training
    calibration = _calibrate(towers, judges, mixed.to(device), settings)
    return Gnolr(towers, calibration, retrieve_level=settings.retrieve_level)


def update(
    model: Gnolr,
    log: pd.DataFrame,
    *,
    seed: int,
    config: GnolrConfig | None = None,
    user_features: Floats | None = None,
    report: Report | None = None,
) -> Gnolr:
    """The model trained on, from its present weights, on a log that has grown or changed.

    Base rates, thresholds and the limits of the steps are taken anew from the log, so pass old and new rows
    together (see `merge_repeats`) unless the old ones are to be forgotten. The given model is left as it is.

    Args:
        model: Where to start.
        log: Interaction log over the same catalogue.
        seed: As for `train`.
        config: None takes 3 epochs of the defaults at the model's own levels and aim. Sizes are the model's.
        user_features: One row a user id. Shape (U, G).
        report: As for `train`.

    Returns:
        A new model.

    Raises:
        InteractionError: The log is not usable.
        ShapeError: `user_features` is not as in the first training, or `config` has other levels.
    """
    settings = config or GnolrConfig(levels=model.levels, retrieve_level=model.retrieve_level, epochs=3)
    return train(
        log,
        n_items=model.n_items,
        seed=seed,
        config=settings,
        user_features=user_features,
        start=model,
        report=report,
        device=str(model.item_blocks.device),
    )


def _rows_of_users(user_features: Floats | None, users: Ints) -> Tensor:
    """Features of the given users. Shape (B, G)."""
    if user_features is None:
        return torch.zeros(len(users), 0)
    if user_features.ndim != 2 or len(user_features) <= users[-1]:
        raise ShapeError(
            f"`user_features` must have one row for each user id up to {users[-1]}; got shape "
            f"{user_features.shape}. Add the missing rows."
        )
    return torch.from_numpy(user_features[users].astype(np.float32))


def _towers(
    start: Gnolr | None,
    config: GnolrConfig,
    features: Floats | None,
    n_items: int,
    user_features: int,
    seed: int,
) -> Towers:
    """Fresh towers, or a trainable copy of the ones to start from."""
    if start is not None:
        got = (config.levels, n_items, user_features)
        known = start.towers.sizes
        if got != (known.levels, known.items, known.user_features):
            raise ShapeError(
                f"The model to go on from has {known.levels} levels, {known.items} items and {known.user_features} "
                f"user features; got {got[0]}, {got[1]} and {got[2]}. Train a new model instead."
            )
        return towers_like(asdict(known), start.towers.state_dict()).train()
    table = np.zeros((n_items, 0), dtype=np.float32) if features is None else features
    if table.ndim != 2 or len(table) != n_items:
        raise ShapeError(
            f"`features` must have one row for each of the {n_items} items; got shape {table.shape}. "
            "Give a row of zeros to an item that nothing is known about."
        )
    sizes = TowerSizes(n_items, config.levels, config.embedding, config.width, table.shape[1], user_features)
    return Towers(sizes, torch.from_numpy(table.astype(np.float32)), torch.Generator().manual_seed(seed))


def _count_levels(histories: Histories, levels: int) -> Tensor:
    """Rows of each item and level. Shape (I, C + 1)."""
    slot = histories.indices.astype(np.int64) * (levels + 1) + histories.data.astype(np.int64) - 1
    counts = np.bincount(slot, minlength=histories.shape[1] * (levels + 1))
    return torch.from_numpy(counts).view(-1, levels + 1)


def _split_users(everyone: _Rows, share: float, rng: np.random.Generator) -> tuple[_Rows, _Rows]:
    order = rng.permutation(everyone.histories.shape[0])
    n_validation = int(len(order) * share)
    return everyone.select(np.sort(order[n_validation:])), everyone.select(np.sort(order[:n_validation]))


def _fit(
    towers: Towers,
    training: _Rows,
    validation: _Rows,
    thresholds: Tensor,
    config: GnolrConfig,
    rng: np.random.Generator,
    report: Report | None,
) -> None:
    """Train `towers` in place and leave them at their best epoch."""
    optimizer = _optimizer(towers, config)
    fixed_seed = int(rng.integers(2**31))
    best, best_state, bad_epochs = math.inf, towers.state_dict(), 0
    for epoch in range(config.epochs):
        total, rows = 0.0, 0
        for users in _user_batches(training.histories, config.batch_rows, rng):
            loss, n_rows = batch_loss(towers, training.select(users), thresholds, config, rng)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total, rows = total + float(loss.detach()) * n_rows, rows + n_rows
        step = {"epoch": float(epoch), "train_loss": total / rows}
        if validation.histories.nnz:
            step["validation_loss"] = _validate(towers, validation, thresholds, config, fixed_seed)
        if report is not None:
            report(step)
        current = step.get("validation_loss", -float(epoch))
        if current < best:
            best, bad_epochs = current, 0
            best_state = {name: tensor.detach().clone() for name, tensor in towers.state_dict().items()}
        else:
            bad_epochs += 1
        if bad_epochs >= config.patience:
            break
    towers.load_state_dict(best_state)


def _optimizer(towers: Towers, config: GnolrConfig) -> torch.optim.Optimizer:
    rest = [p for p in towers.parameters() if p is not towers.item_id]
    groups = [
        {"params": [towers.item_id], "weight_decay": config.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def _user_batches(histories: Histories, batch_rows: int, rng: np.random.Generator | None) -> Iterator[Ints]:
    """Groups of users with about `batch_rows` rows together, in random order if `rng` is given."""
    n_users = histories.shape[0]
    order = np.arange(n_users) if rng is None else rng.permutation(n_users)
    group = np.diff(histories.indptr)[order].cumsum() // batch_rows
    yield from np.split(order, np.flatnonzero(np.diff(group)) + 1)


def _impression_sums(towers: Towers, users: _Rows, pairs: _Pairs, bags: Bags, blocks: Tensor) -> Tensor:
    """z_k + a_k of every impression, each left out of its own history. Shape (N, C)."""
    held = leave_out(bags, pairs.row, pairs.level, towers.item_embeddings()[pairs.item])
    return sum_steps(towers.user_blocks(held, users.dense[pairs.row]), blocks[pairs.item])


def batch_loss(
    towers: Towers, users: _Rows, thresholds: Tensor, config: GnolrConfig, rng: np.random.Generator
) -> tuple[Tensor, int]:
    """Mean loss of an impression with its share of the sampled negatives, and how many impressions there are."""
    histories, blocks = users.histories, towers.item_blocks()
    bags = towers.bags(histories, towers.item_embeddings())
    pairs = _Pairs.of(histories, thresholds.device)
    logits = _impression_sums(towers, users, pairs, bags, blocks) - thresholds
    total = nested_ordinal_loss(logits, pairs.level).sum()
    if config.negatives > 0:
        drawn = rng.choice(histories.shape[1], min(config.negative_items, histories.shape[1]), replace=False)
        unseen = torch.from_numpy((histories[:, drawn].toarray() == 0).astype(np.float32)).to(blocks.device)
        rows = torch.from_numpy(np.diff(histories.indptr)).to(blocks.device)
        weight = unseen * (rows / unseen.sum(1).clamp(min=1.0))[:, None]
        places = torch.from_numpy(drawn).to(blocks.device)
        first = towers.user_blocks(bags, users.dense)[:, 0] @ blocks[places, 0].T - thresholds[0]
        # A level-0 row costs -log(1 - P_1) in each of the C readings of the nested loss.
        total = total + config.negatives * towers.sizes.levels * (weight * softplus(first)).sum()
    return total / len(pairs.row), len(pairs.row)


def _calibrate(towers: Towers, users: _Rows, thresholds: Tensor, config: GnolrConfig) -> Calibration:
    """Scale and thresholds that suit the impressions of `users`, without sampled rows, best."""
    sums, levels = [], []
    with torch.no_grad():
        for batch in _user_batches(users.histories, config.batch_rows, None):
            part = users.select(batch)
            pairs = _Pairs.of(part.histories, thresholds.device)
            bags = towers.bags(part.histories, towers.item_embeddings())
            sums.append(_impression_sums(towers, part, pairs, bags, towers.item_blocks()))
            levels.append(pairs.level)
    return fit_calibration(torch.cat(sums), torch.cat(levels), thresholds)


@torch.no_grad()
def _validate(towers: Towers, users: _Rows, thresholds: Tensor, config: GnolrConfig, seed: int) -> float:
    rng = np.random.default_rng(seed)
    total, rows = 0.0, 0
    for batch in _user_batches(users.histories, config.batch_rows, None):
        loss, n_rows = batch_loss(towers, users.select(batch), thresholds, config, rng)
        total, rows = total + float(loss) * n_rows, rows + n_rows
    return total / rows
