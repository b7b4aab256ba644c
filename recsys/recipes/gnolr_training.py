"""The loop of GNOLR's training: epochs over blocks of users, stopped by the validation loss, in one process or more."""

import math
from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from recsys.models.towers import Towers
from recsys.recipes.gnolr_config import GnolrConfig
from recsys.recipes.gnolr_rows import Examples, Source
from recsys.recipes.gnolr_steps import Catalogue, batch_loss
from recsys.types import Ints

_OF_USERS = {"user_sparse", "user_dense", "user_sparse_bias", "user_dense_bias"}
# Share of a weight that one step may decay, at most.
MOST_DECAY = 0.5

Report = Callable[[dict[str, float]], None]


class Training:
    """The loop, its optimizers and its share of the processes.

    Args:
        towers: Trained in place.
        config: Settings.
        catalogue: Items, on the device of the towers.
        accelerator: Shares each epoch's steps among processes and sets the precision; None is one in float32.
        rows_per_user: Training rows of a user, on average.
    """

    def __init__(
        self,
        towers: Towers,
        config: GnolrConfig,
        catalogue: Catalogue,
        accelerator: Accelerator | None,
        rows_per_user: float,
    ) -> None:
        self.towers, self.config, self.catalogue = towers, config, catalogue
        self.accelerator = accelerator
        self._processes = 1 if accelerator is None else accelerator.num_processes
        # Gradients of touched rows alone cannot be averaged over processes that touched different ones.
        towers.sparse_gradients = catalogue.is_large and self._processes == 1
        self.optimizers = _optimizers(towers, config, rows_per_user)

    def fit(
        self, source: Source, judges: list[Examples], rng: np.random.Generator, report: Report | None
    ) -> None:
        """Train the towers in place and leave them at their best epoch.

        Args:
            source: Training rows.
            judges: Rows whose loss says which epoch was best; without any it is the last.
            rng: Draws the order of users, dropped histories and negatives.
            report: Called after every epoch; see `recsys.recipes.gnolr.train`.
        """
        fixed_seed = int(rng.integers(2**31))
        # All processes must agree on the order of users, whatever else each of them draws.
        order = np.random.default_rng(int(rng.integers(2**31)))
        if self.accelerator is not None:
            rng = np.random.default_rng([int(rng.integers(2**31)), self.accelerator.process_index])
        best, best_state, bad_epochs = math.inf, _copy_state(self.towers), 0
        for epoch in range(self.config.epochs):
            step = {"epoch": float(epoch), "train_loss": self._epoch(source, order, rng)}
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

    def _epoch(self, source: Source, order: np.random.Generator, rng: np.random.Generator) -> float:
        self.towers.train()
        total, rows = 0.0, 0
        for block in source.blocks(order):
            for users in self._my_share(block.user_batches(self.config.batch_rows, order)):
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
        if self.accelerator is None or self._processes == 1:
            return batches
        count = self._processes
        return batches[: len(batches) // count * count][self.accelerator.process_index :: count]

    def _share_gradients(self) -> None:
        if self.accelerator is None or self._processes == 1:
            return
        for weight in self.towers.parameters():
            if weight.grad is not None:
                weight.grad = self.accelerator.reduce(weight.grad, reduction="mean")


def _optimizers(towers: Towers, config: GnolrConfig, rows_per_user: float) -> list[torch.optim.Optimizer]:
    """AdamW for all weights, but rows of large item tables only where a step touched them.

    A user's features come with every row of the user and yet are seen once: their weights decay as many times faster.
    """
    few = {"gamma_raw", "first_thresholds", "gaps_raw", "item_statistics", "user_statistics"}
    tables = [towers.item_id, towers.item_bias]
    named = [(name, weight) for name, weight in towers.named_parameters() if weight.requires_grad]
    rest = [(name, weight) for name, weight in named if name not in {"item_id", "item_bias"}]
    decay = config.weight_decay
    groups = [
        {"params": [weight for name, weight in rest if name in few], "weight_decay": 0.0},
        {
            "params": [weight for name, weight in rest if name in _OF_USERS],
            "weight_decay": min(decay / 2 * max(1.0, rows_per_user), MOST_DECAY / config.learning_rate),
        },
        {
            "params": [weight for name, weight in rest if name not in few | _OF_USERS],
            "weight_decay": decay / 2,
        },
    ]
    if towers.sparse_gradients:
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


def _copy_state(towers: Towers) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in towers.state_dict().items()}
