"""GNOLR (KDD 2025, arXiv 2505.20900): ordinal feedback in one embedding space, served by one inner-product index.

Departures from the paper:
1. Steps are capped below the gaps of the thresholds, so P(level >= k) decreases in k for every pair; gammas are
   learned under that cap. The published choice of gamma can break the order.
2. Item and user biases sit inside the same inner product.
3. The user is the bag of the history by level, without a user id, so a user unknown in training is served.
4. Sampled negatives join the impressions in training, with the thresholds of that mix; `probabilities` are those
   of impressions, by a scale and thresholds fitted afterwards to users kept from training, order kept.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.artefacts import read_artefact, write_artefact
from recsys.errors import OrdinalError, ShapeError
from recsys.index import FaissIndex, ItemIndex
from recsys.models.ordinal import Calibration
from recsys.models.towers import Bags, Towers, TowerSizes, leave_out
from recsys.topk import check_search
from recsys.types import Bools, Floats, Histories, Ints, TopK, levels_in

KIND = "gnolr"
PAIRS_AT_ONCE = 65_536


class Gnolr:
    """A trained GNOLR model: probabilities of every level, and exact retrieval by any of them.

    Args:
        towers: Trained towers.
        calibration: From sums of steps to logits of impressions.
        retrieve_level: Level that `search` aims at when none is given, 1..C.
        index: Searches the flattened item blocks; None builds a FAISS one.
    """

    def __init__(
        self, towers: Towers, calibration: Calibration, *, retrieve_level: int, index: ItemIndex | None = None
    ) -> None:
        """Freeze the towers and index the items."""
        self.towers = towers.eval().requires_grad_(False)
        self.calibration = Calibration(*(part.to(towers.item_id.device) for part in calibration))
        self.retrieve_level = self._check_level(retrieve_level)
        self.item_blocks = towers.item_blocks()
        self._embedded = towers.item_embeddings()
        self.index: ItemIndex = FaissIndex(self.item_blocks.flatten(1)) if index is None else index

    @property
    def n_items(self) -> int:
        """Size I of the catalogue."""
        return self.towers.sizes.items

    @property
    def levels(self) -> int:
        """The deepest level C."""
        return self.towers.sizes.levels

    def queries(self, histories: Histories, level: int, *, user_features: Floats | None = None) -> Tensor:
        """Query vectors: the inner product with any item's flattened blocks is step_1 + .. + step_level.

        Args:
            histories: Shape (B, I).
            level: Level to rank by, 1..C; the blocks of deeper ones are zero.
            user_features: Shape (B, G).

        Returns:
            Shape (B, C * (D + 2)).
        """
        self._check_level(level)
        bags = self.towers.bags(histories, self._embedded)
        blocks = self.towers.user_blocks(bags, self._dense(user_features, histories.shape[0]))
        blocks[:, level:] = 0.0
        return blocks.flatten(1)

    def search(
        self,
        histories: Histories,
        k: int,
        *,
        level: int | None = None,
        allowed: Bools | None = None,
        exclude_seen: bool = True,
        users: Ints | None = None,
        times: Histories | None = None,
        user_features: Floats | None = None,
    ) -> TopK:
        """The k items most likely to reach `level`, exactly; see `Retriever.search`.

        `user_features` (B, G) belongs to models trained with them. Scores are logits of P(level >= k), were
        the item shown.

        Raises:
            ShapeError: An argument does not fit the catalogue, or `k` is below 1.
            OrdinalError: `level` is outside 1..C.
        """
        del users, times
        check_search(histories, self.n_items, k, allowed)
        depth = self.retrieve_level if level is None else level
        queries = self.queries(histories, depth, user_features=user_features)
        found = self.index.search(queries, k, seen=histories if exclude_seen else None, allowed=allowed)
        scale, threshold = float(self.calibration.scale), float(self.calibration.thresholds[depth - 1])
        return TopK(found.items, (found.scores * scale - threshold).astype(np.float32))

    def logits(self, histories: Histories, items: Ints, *, user_features: Floats | None = None) -> Tensor:
        """z_1..z_C of given pairs; an item inside its row's own history is left out of it first.

        Args:
            histories: Shape (B, I).
            items: Items asked for, one or more a user. Shape (B,) or (B, N).
            user_features: Shape (B, G).

        Returns:
            Strictly decreasing along the last axis. Shape (B, C) or (B, N, C).

        Raises:
            ShapeError: `items` does not have one row a history, or an item lies outside the catalogue.
        """
        self._check_items(histories, items)
        rows = np.broadcast_to(
            np.arange(len(items))[(...,) + (None,) * (items.ndim - 1)], items.shape
        ).ravel()
        dense = self._dense(user_features, histories.shape[0])
        bags = self.towers.bags(histories, self._embedded)
        pairs = np.stack([rows, items.ravel(), levels_in(histories, rows, items.ravel())])
        parts = [
            self._pair_logits(bags, dense, pairs[:, start : start + PAIRS_AT_ONCE])
            for start in range(0, pairs.shape[1], PAIRS_AT_ONCE)
        ]
        joined = torch.cat(parts) if parts else self.item_blocks.new_empty(0, self.levels)
        return joined.view(*items.shape, self.levels)

    def probabilities(
        self, histories: Histories, items: Ints, *, user_features: Floats | None = None
    ) -> Floats:
        """P(level >= k), k = 1..C, were the item shown to the user.

        Takes the arguments of `logits` and raises as it does.

        Returns:
            Decreasing along the last axis. Shape (B, C) or (B, N, C), float32.
        """
        found: Floats = self.logits(histories, items, user_features=user_features).sigmoid().cpu().numpy()
        return found

    def save(self, folder: Path) -> None:
        """Write the model to `folder`, without the index, which is rebuilt on loading."""
        tensors = {**self.towers.state_dict(), **self.calibration._asdict()}
        settings = {"sizes": asdict(self.towers.sizes), "retrieve_level": self.retrieve_level}
        write_artefact(folder, KIND, tensors, settings)

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> "Gnolr":
        """Read a model that `save` wrote.

        Raises:
            ArtefactError: The folder holds no such model, or a damaged one.
        """
        tensors, settings = read_artefact(folder, KIND)
        calibration = Calibration(tensors.pop("scale"), tensors.pop("thresholds"))
        towers = towers_like(settings["sizes"], tensors)
        return cls(towers.to(device), calibration, retrieve_level=int(settings["retrieve_level"]))

    def _pair_logits(self, bags: Bags, dense: Tensor, pairs: Ints) -> Tensor:
        """Logits of pairs given as user row, item, and level of the item in the row's own history. Shape (3, N)."""
        row, item, inside = torch.from_numpy(pairs).to(self.item_blocks.device)
        held = leave_out(bags, row, inside, self._embedded[item])
        sums = sum_steps(self.towers.user_blocks(held, dense[row]), self.item_blocks[item])
        return self.calibration.scale * sums - self.calibration.thresholds

    def _dense(self, user_features: Floats | None, rows: int) -> Tensor:
        wanted = (rows, self.towers.sizes.user_features)
        if user_features is None and wanted[1] == 0:
            return self.item_blocks.new_zeros(wanted)
        got = None if user_features is None else user_features.shape
        if user_features is None or got != wanted:
            raise ShapeError(
                f"`user_features` must have shape {wanted}; got {got}. Give the columns that the model was trained on."
            )
        return torch.from_numpy(user_features.astype(np.float32)).to(self.item_blocks.device)

    def _check_level(self, level: int) -> int:
        if not 1 <= level <= self.levels:
            raise OrdinalError(
                f"`level` must lie in 1..{self.levels}; got {level}. Level 0 is reached by everything shown."
            )
        return level

    def _check_items(self, histories: Histories, items: Ints) -> None:
        if items.ndim not in {1, 2} or len(items) != histories.shape[0]:
            raise ShapeError(
                f"`items` must have shape ({histories.shape[0]},) or ({histories.shape[0]}, N), one row a history; "
                f"got {items.shape}. Repeat a user's history to ask about more items."
            )
        if items.size and (items.min() < 0 or items.max() >= self.n_items):
            raise ShapeError(
                f"`items` must lie in 0..{self.n_items - 1}; got {int(items.min())}..{int(items.max())}. "
                "Drop the padding of ranked lists first."
            )


def sum_steps(user_blocks: Tensor, item_blocks: Tensor) -> Tensor:
    """step_1 + .. + step_k for k = 1..C of aligned rows, a step being the inner product of two blocks.

    Args:
        user_blocks: Shape (N, C, D + 2).
        item_blocks: Shape (N, C, D + 2).

    Returns:
        Shape (N, C).
    """
    return (user_blocks * item_blocks).sum(2).cumsum(1)


def towers_like(sizes: Mapping[str, Any], state: Mapping[str, Tensor]) -> Towers:
    """Towers of the given sizes that hold the given weights, in memory of their own."""
    shapes = TowerSizes(**sizes)
    # The weights drawn here are overwritten at once.
    towers = Towers(shapes, torch.zeros(shapes.items, shapes.item_features), torch.Generator().manual_seed(0))
    towers.load_state_dict({name: tensor.detach().cpu() for name, tensor in state.items()})
    return towers
