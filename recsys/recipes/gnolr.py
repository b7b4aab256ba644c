"""Training GNOLR on a log of impressions, from nothing or from an earlier model.

Each step takes whole users, about `batch_rows` impressions of them. Their histories are summed once; every
impression is then scored against its user's history, and its item's statistics, without itself. Where negatives are
wanted, the same users meet sampled items that they were never shown, weighted to count as so many level-0 rows an
impression, by one matrix product; thresholds and statistics are those of that mix, and undone by calibration.

Departures from the paper are listed in `recsys.models.gnolr`. `PAPER` takes them back.
"""

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Literal

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from recsys.columns import ITEM, LEVEL, USER
from recsys.data.interactions import check_log
from recsys.data.shards import UserShards
from recsys.errors import ShapeError
from recsys.features import FeatureTable
from recsys.models.calibration import Calibration, fit_calibration
from recsys.models.gnolr import Gnolr, Known, mixed_item_counts, towers_like
from recsys.models.ordinal import LevelTree, nested_ordinal_loss, thresholds_from_counts
from recsys.models.pairs import Targets, encode_users, pair_parts, rows_of, user_blocks
from recsys.models.towers import LARGE_CATALOGUE, Rows, Towers, TowerSizes
from recsys.recipes.gnolr_rows import Examples, Source
from recsys.types import Ints

Report = Callable[[dict[str, float]], None]


class GnolrConfig(BaseModel):
    """How to train GNOLR."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Deepest level C of the log.
    levels: int = Field(default=4, ge=1)
    # Level that each level 1..C deepens, 0 being "shown"; None is a chain. Parallel branches share a parent.
    parents: tuple[int, ...] | None = None
    # Level that retrieval aims at, 1..levels.
    retrieve_level: int = Field(default=2, ge=1)
    # "gnolr", or the paper's ablation: "v1" (no nesting), "v0" (nor adding of steps), "nolr" (one embedding).
    structure: Literal["gnolr", "v1", "v0", "nolr"] = "gnolr"
    # Whether users are known by their histories.
    history: bool = True
    # Whether steps have item and user biases, from statistics and features; "v0" has none.
    biases: bool = True
    # Fixed weight of every cosine in logits, cut where it would break the order of levels; None learns them.
    gamma: float | None = Field(default=None, gt=0)
    # Let training move the thresholds, keeping their order, rather than hold them to base rates.
    learn_thresholds: bool = False
    # Width of an item's embedding.
    embedding: int = Field(default=32, ge=1)
    # Width of each level's unit vector.
    width: int = Field(default=32, ge=1)
    # Width of a hidden layer in both towers; 0 keeps them linear, which is several times faster.
    hidden: int = Field(default=0, ge=0)
    # Rows of the whole log that an item's own rates are drawn to, and a user's own.
    item_prior_rows: float = Field(default=5.0, gt=0)
    user_prior_rows: float = Field(default=200.0, gt=0)
    # Share of impressions foretold without any history, so that strangers are served well.
    history_dropout: float = Field(default=0.1, ge=0, lt=1)
    # Sampled level-0 rows for each impression; 0 trains on impressions alone.
    negatives: float = Field(default=16.0, ge=0)
    # Items drawn as negatives in each step, shared by its users.
    negative_items: int = Field(default=1024, ge=1)
    # Impressions in a step, about.
    batch_rows: int = Field(default=2048, ge=1)
    # Passes over the log, at most.
    epochs: int = Field(default=20, ge=1)
    # Passes without a better validation loss before training stops.
    patience: int = Field(default=3, ge=1)
    # Adam's step size.
    learning_rate: float = Field(default=0.002, gt=0)
    # Decoupled decay of item embeddings per unit of learning rate; item biases get a quarter of it, the rest half.
    weight_decay: float = Field(default=2.0, ge=0)
    # Share of the users kept for the validation loss where no validation rows are given; 0 trains on all.
    validation_users: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits_together(self) -> "GnolrConfig":
        if self.retrieve_level > self.levels:
            raise ValueError(
                f"`retrieve_level` must be at most `levels` ({self.levels}); got {self.retrieve_level}. Lower it."
            )
        if self.structure == "v0" and self.biases:
            raise ValueError(
                "`biases` must be false for structure 'v0', whose steps are not added; got true."
            )
        if len(self.tree.parents) != self.levels:
            raise ValueError(
                f"`parents` must name one parent for each of the {self.levels} levels; got {self.parents}."
            )
        return self

    @property
    def tree(self) -> LevelTree:
        """The levels."""
        return LevelTree.chain(self.levels) if self.parents is None else LevelTree(self.parents)

    @property
    def nested(self) -> bool:
        """Whether the loss sums all readings of the levels."""
        return self.structure == "gnolr"


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
    catalogue = _Catalogue(known, torch.device(device))

    judges = (
        source.judges if validation is None else _later(source, validation, n_items, settings.levels, users)
    )
    _Training(towers, settings, catalogue, accelerator).fit(source, judges, rng, report)
    calibration = _calibrate(towers, judges, source, catalogue, settings)
    _forget_unseen_items(towers, counts)
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
    settings = config or GnolrConfig(
        levels=model.levels,
        parents=model.towers.sizes.parents,
        retrieve_level=model.retrieve_level,
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


class _Catalogue:
    """What every step knows of items: features and statistics, with sampled rows mixed in."""

    def __init__(self, known: Known, device: torch.device) -> None:
        self.known, self.device = known, device
        self.counts = mixed_item_counts(known).to(device)
        self.is_large = len(known.item_features) > LARGE_CATALOGUE
        self._rows = None if self.is_large else rows_of(known.item_features, device)

    def at_hand(self, *wanted: Ints) -> tuple[Ints | None, Rows, list[Ints]]:
        """The items of a step (None is all), their features, and where among them each wanted item is."""
        if self._rows is not None:
            return None, self._rows, list(wanted)
        items, places = np.unique(np.concatenate(wanted), return_inverse=True)
        rows = rows_of(self.known.item_features.take(items), self.device)
        return items, rows, np.split(places, np.cumsum([len(part) for part in wanted])[:-1])


class _Training:
    """The loop, its optimizers and its share of the processes."""

    def __init__(
        self, towers: Towers, config: GnolrConfig, catalogue: _Catalogue, accelerator: Accelerator | None
    ) -> None:
        self.towers, self.config, self.catalogue = towers, config, catalogue
        self.accelerator = accelerator
        self.optimizers = _optimizers(towers, config)

    def fit(
        self, source: Source, judges: list[Examples], rng: np.random.Generator, report: Report | None
    ) -> None:
        """Train the towers in place and leave them at their best epoch."""
        fixed_seed = int(rng.integers(2**31))
        best, best_state, bad_epochs = math.inf, _copy_state(self.towers), 0
        for epoch in range(self.config.epochs):
            step = {"epoch": float(epoch), "train_loss": self._epoch(source, rng)}
            if judges:
                step["validation_loss"] = self._validate(judges, fixed_seed)
            if report is not None:
                report(step)
            current = step.get("validation_loss", -float(epoch))
            if current < best:
                best, best_state, bad_epochs = current, _copy_state(self.towers), 0
            else:
                bad_epochs += 1
            if bad_epochs >= self.config.patience:
                break
        self.towers.load_state_dict(best_state)

    def _epoch(self, source: Source, rng: np.random.Generator) -> float:
        self.towers.train()
        total, rows = 0.0, 0
        for block in source.blocks(rng):
            for users in self._my_share(block.user_batches(self.config.batch_rows, rng)):
                batch = block.select(users)
                loss = self._loss(batch, rng, counted=True)
                for optimizer in self.optimizers:
                    optimizer.zero_grad(set_to_none=True)
                (loss / len(batch)).backward()
                self._share_gradients()
                _decay_touched(self.towers, self.config)
                for optimizer in self.optimizers:
                    optimizer.step()
                total, rows = total + float(loss.detach()), rows + len(batch)
        return total / max(rows, 1)

    @torch.no_grad()
    def _validate(self, judges: list[Examples], seed: int) -> float:
        self.towers.eval()
        rng = np.random.default_rng(seed)
        total, rows = 0.0, 0
        for judge in judges:
            for users in judge.user_batches(self.config.batch_rows, None):
                batch = judge.select(users)
                total, rows = total + float(self._loss(batch, rng, counted=False)), rows + len(batch)
        return total / rows

    def _loss(self, batch: Examples, rng: np.random.Generator, *, counted: bool) -> Tensor:
        if self.accelerator is None:
            return batch_loss(self.towers, batch, self.catalogue, self.config, rng, counted=counted)
        with self.accelerator.autocast():
            return batch_loss(self.towers, batch, self.catalogue, self.config, rng, counted=counted)

    def _my_share(self, batches: list[Ints]) -> list[Ints]:
        """Every process takes as many steps, or they would wait for one another."""
        if self.accelerator is None or self.accelerator.num_processes == 1:
            return batches
        count = self.accelerator.num_processes
        return batches[: len(batches) // count * count][self.accelerator.process_index :: count]

    def _share_gradients(self) -> None:
        if self.accelerator is None or self.accelerator.num_processes == 1:
            return
        for weight in self.towers.parameters():
            if weight.grad is not None:
                dense = weight.grad.to_dense() if weight.grad.is_sparse else weight.grad
                weight.grad = self.accelerator.reduce(dense, reduction="mean")


def batch_loss(
    towers: Towers,
    batch: Examples,
    catalogue: _Catalogue,
    config: GnolrConfig,
    rng: np.random.Generator,
    *,
    counted: bool,
) -> Tensor:
    """Summed loss of a batch's impressions, with their share of the sampled negatives.

    Args:
        towers: The towers.
        batch: Whole users.
        catalogue: Items.
        config: Says which loss, and how many negatives.
        rng: Draws dropped histories, while the towers train, and negatives.
        counted: Whether the items' statistics hold the batch's own rows, which are then left out of them.
    """
    drawn = np.empty(0, dtype=np.int64)
    if config.negatives > 0:
        n_items = batch.histories.shape[1]
        drawn = rng.choice(n_items, min(config.negative_items, n_items), replace=False)
    parts, side_blocks = _forward(towers, batch, catalogue, config, rng, counted=counted, drawn=drawn)
    level = torch.from_numpy(batch.level).to(catalogue.device)
    steps = parts.float().sum(1)
    logits = steps @ towers.mixing.T - towers.thresholds
    total = nested_ordinal_loss(logits, level, towers.tree, nested=config.nested).sum()
    if side_blocks is None:
        return total
    weight = torch.from_numpy(batch.unseen_weights(drawn)).to(catalogue.device)
    roots = towers.tree.ignored_readings(nested=config.nested).to(catalogue.device)
    user, item = side_blocks
    for root in roots.nonzero()[:, 0].tolist():
        mix = towers.mixing[root]
        first = (user * mix[:, None]).flatten(1) @ item.flatten(1).T - towers.thresholds[root]
        total = total + config.negatives * roots[root] * (weight * softplus(first.float())).sum()
    return total


def _forward(
    towers: Towers,
    batch: Examples,
    catalogue: _Catalogue,
    config: GnolrConfig,
    rng: np.random.Generator,
    *,
    counted: bool,
    drawn: Ints,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Parts of the impressions' steps, and blocks of the users and of the sampled items."""
    device = catalogue.device
    held, rows, (columns, places, sampled) = catalogue.at_hand(
        batch.histories.indices.astype(np.int64), batch.item, drawn
    )
    items = towers.items(None if held is None else torch.from_numpy(held).to(device), rows)
    side = encode_users(towers, batch.histories, columns, items, rows_of(batch.features, device))
    item, place = torch.from_numpy(batch.item).to(device), torch.from_numpy(places).to(device)
    counts = catalogue.counts[item]
    if counted:
        counts = counts - one_hot(torch.from_numpy(batch.level).to(device), counts.shape[1])
    biases = towers.item_biases(item, counts, rows, place)
    targets = Targets(torch.from_numpy(batch.user).to(device), place, torch.from_numpy(batch.own).to(device))
    kept = None
    if towers.training and config.history_dropout > 0:
        kept = torch.from_numpy(rng.random(len(batch)) >= config.history_dropout).to(device)
    parts = pair_parts(towers, side, items, biases, targets, extra_ignored=config.negatives, kept=kept)
    if len(drawn) == 0:
        return parts, None
    spots, names = torch.from_numpy(sampled).to(device), torch.from_numpy(drawn).to(device)
    bias = towers.item_biases(names, catalogue.counts[names], rows, spots)
    blocks = torch.cat([items.unit[spots], bias[:, :, None], torch.ones_like(bias)[:, :, None]], dim=2)
    return parts, (user_blocks(towers, side, extra_ignored=config.negatives), blocks)


@torch.no_grad()
def _judged_parts(
    towers: Towers, judges: list[Examples], catalogue: _Catalogue, config: GnolrConfig, *, counted: bool
) -> tuple[Tensor, Tensor]:
    parts, levels = [], []
    rng = np.random.default_rng(0)
    none = np.empty(0, dtype=np.int64)
    for judge in judges:
        for users in judge.user_batches(config.batch_rows, None):
            batch = judge.select(users)
            found, _ = _forward(towers, batch, catalogue, config, rng, counted=counted, drawn=none)
            parts.append(found.float())
            levels.append(torch.from_numpy(batch.level).to(catalogue.device))
    return torch.cat(parts), torch.cat(levels)


def _calibrate(
    towers: Towers, judges: list[Examples], source: Source, catalogue: _Catalogue, config: GnolrConfig
) -> Calibration:
    """Scales and thresholds that suit impressions, without sampled rows, best."""
    towers.eval()
    chosen = judges or list(source.blocks(np.random.default_rng(0)))
    parts, levels = _judged_parts(towers, chosen, catalogue, config, counted=not judges)
    ceilings = towers.ceilings().detach()
    gamma = towers.gamma().detach()
    bias = (ceilings - gamma) / 2 if config.biases else torch.zeros_like(gamma)
    most = torch.stack([gamma, bias, bias])
    start = Calibration(torch.ones(3, device=catalogue.device), towers.thresholds.detach())
    return fit_calibration(parts, levels, start, towers.tree, towers.mixing, most)


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
        "gnolr" if config.structure == "v1" else config.structure,
        config.embedding,
        config.width,
        config.hidden,
        *known.item_features.widths,
        *known.user_features.widths,
        config.history,
        config.biases,
        config.item_prior_rows,
        config.user_prior_rows,
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


def _optimizers(towers: Towers, config: GnolrConfig) -> list[torch.optim.Optimizer]:
    """AdamW for all weights, but rows of large item tables only where a step touched them."""
    few = {"gamma_raw", "first_thresholds", "gaps_raw", "item_statistics", "user_statistics"}
    large = towers.sizes.items > LARGE_CATALOGUE
    tables = [towers.item_id, towers.item_bias]
    named = [(name, weight) for name, weight in towers.named_parameters() if weight.requires_grad]
    rest = [(name, weight) for name, weight in named if name not in {"item_id", "item_bias"}]
    decay = config.weight_decay
    groups = [
        {"params": [weight for name, weight in rest if name in few], "weight_decay": 0.0},
        {"params": [weight for name, weight in rest if name not in few], "weight_decay": decay / 2},
    ]
    if large:
        touched = torch.optim.SparseAdam(tables, lr=config.learning_rate)
        return [torch.optim.AdamW(groups, lr=config.learning_rate), touched]
    groups.append({"params": [towers.item_id], "weight_decay": decay})
    groups.append({"params": [towers.item_bias], "weight_decay": decay / 4})
    return [torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)]


@torch.no_grad()
def _decay_touched(towers: Towers, config: GnolrConfig) -> None:
    """What AdamW does to the rows of large item tables that this step touched; SparseAdam has no decay of its own."""
    for table, share in ((towers.item_id, 1.0), (towers.item_bias, 0.25)):
        if table.grad is not None and table.grad.is_sparse:
            rows = table.grad.coalesce().indices()[0]
            table[rows] *= 1.0 - config.learning_rate * config.weight_decay * share


@torch.no_grad()
def _forget_unseen_items(towers: Towers, counts: Tensor) -> None:
    """An item that training never met is what its features say, not what its first random weights were."""
    unseen = counts.sum(1) == 0
    towers.item_id[unseen] = 0.0
    towers.item_bias[unseen] = 0.0


def _copy_state(towers: Towers) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in towers.state_dict().items()}
