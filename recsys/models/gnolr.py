"""GNOLR (KDD 2025, arXiv 2505.20900): ordinal feedback in one embedding space, served by one inner-product index.

Departures from the paper, each of which a setting of `recsys.recipes.gnolr` takes back:
1. A step stays below the gap of its thresholds, so P(level k) falls along the levels for every pair; gammas are
   learned under that bound. The published choice of gamma can break the order.
2. Item and user biases sit inside the same inner product. They start from statistics (smoothed rates of the item
   and of the user), which are inputs: `refreshed` brings them up to date without training.
3. The user is the bag of the history by level, and user features; an id only if it is made a feature. So a user
   unknown in training is served at once, from a few rows or none.
4. Sampled negatives may join the impressions, with the thresholds of that mix; `probabilities` are those of
   impressions, by scales and thresholds fitted afterwards to rows kept from training, order of levels kept. With
   negatives there is one scale, so that what they taught of rankings stays.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.artefacts import load_artefact, write_artefact
from recsys.errors import OrdinalError, ShapeError
from recsys.features import FeatureTable
from recsys.index import (
    FaissIndex,
    IndexPlan,
    ItemIndex,
    MeasuredRecall,
    choose_index,
    load_index,
    save_index,
)
from recsys.models.calibration import Calibration, calibrated_logits, read_calibration
from recsys.models.known import Known, check_depth, count_levels, mixed_item_counts
from recsys.models.pairs import (
    Targets,
    UserSide,
    check_targets,
    check_users,
    encode_users,
    pair_parts,
    rows_of,
    user_blocks,
)
from recsys.models.towers import Towers, towers_like
from recsys.topk import check_histories, check_search
from recsys.types import Bools, Floats, Histories, Ints, TopK, levels_in

KIND = "gnolr"
INDEX_FOLDER = "index"
PAIRS_AT_ONCE = 65_536
_TABLES = ("item_features", "user_features")


class Gnolr:
    """A trained GNOLR model: probabilities of every level, and exact retrieval by any of them.

    Args:
        towers: Trained towers.
        calibration: From parts of steps to logits of impressions.
        known: Features and statistics.
        retrieve_level: Level that `search` aims at when none is given, 1..C.
        index: Searches the flattened item blocks; None builds an exact FAISS one. `indexed` chooses by size.
        recall: Of the index against the exact answer, where it was measured.
    """

    def __init__(
        self,
        towers: Towers,
        calibration: Calibration,
        known: Known,
        *,
        retrieve_level: int,
        index: ItemIndex | None = None,
        recall: MeasuredRecall | None = None,
    ) -> None:
        """Freeze the towers and index the items."""
        self.towers = towers.eval().requires_grad_(False)
        self.device = towers.item_id.device
        self.calibration = Calibration(*(part.to(self.device) for part in calibration))
        self.known = known._replace(item_counts=known.item_counts.to(self.device))
        self.retrieve_level = self._check_level(retrieve_level)
        rows = rows_of(known.item_features, self.device)
        self._items = towers.items(None, rows)
        every = torch.arange(self.n_items, device=self.device)
        self._item_biases = towers.item_biases(every, mixed_item_counts(self.known), rows)
        ones = torch.ones_like(self._item_biases)
        self.item_blocks = torch.cat(
            [self._items.unit, self._item_biases[:, :, None], ones[:, :, None]], dim=2
        )
        self.index: ItemIndex = FaissIndex(self.item_blocks.flatten(1)) if index is None else index
        self.recall = recall

    @property
    def n_items(self) -> int:
        """Size I of the catalogue."""
        return self.towers.sizes.items

    @property
    def levels(self) -> int:
        """The number C of levels above 0."""
        return self.towers.sizes.levels

    def queries(
        self,
        histories: Histories,
        level: int,
        *,
        users: Ints | None = None,
        user_features: FeatureTable | None = None,
    ) -> Tensor:
        """Query vectors: the inner product with any item's flattened blocks is the item's score for that level.

        Args:
            histories: Shape (B, I).
            level: Level to rank by, 1..C; blocks that do not lie on the way to it are zero.
            users: Ids in the table of users, -1 for someone else. Shape (B,).
            user_features: Features of the B users, in place of looking them up by `users`.

        Returns:
            Shape (B, K * (D + 2)).
        """
        self._check_level(level)
        side = self._user_side(histories, users, user_features)
        blocks = user_blocks(
            self.towers, side, extra_ignored=self.known.extra_ignored, scales=self.calibration.scales
        )
        return (blocks * self.towers.mixing[level - 1][:, None]).flatten(1)

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
        user_features: FeatureTable | None = None,
    ) -> TopK:
        """The k items most likely to reach `level`, exactly; see `Retriever.search`.

        `user_features` are those of the B users, for strangers whom the table of users does not hold. Scores are
        logits of P(level is reached), were the item shown.

        Raises:
            ShapeError: An argument does not fit the catalogue, or `k` is below 1.
            OrdinalError: `level` is outside 1..C.
        """
        del times
        check_search(histories, self.n_items, k, allowed)
        depth = self.retrieve_level if level is None else level
        queries = self.queries(histories, depth, users=users, user_features=user_features)
        found = self.index.search(queries, k, seen=histories if exclude_seen else None, allowed=allowed)
        threshold = float(self.calibration.thresholds[depth - 1])
        return TopK(found.items, (found.scores - threshold).astype(np.float32))

    def logits(
        self,
        histories: Histories,
        items: Ints,
        *,
        users: Ints | None = None,
        user_features: FeatureTable | None = None,
    ) -> Tensor:
        """z_1..z_C of given pairs; an item inside its row's own history is left out of it first.

        Args:
            histories: Shape (B, I).
            items: Items asked for, one or more a user. Shape (B,) or (B, N).
            users: Ids in the table of users, -1 for someone else. Shape (B,).
            user_features: Features of the B users, in place of looking them up.

        Returns:
            Each below its parent's, so strictly decreasing along a chain. Shape (B, C) or (B, N, C).

        Raises:
            ShapeError: `items` does not have one row a history, or an item lies outside the catalogue.
        """
        check_targets(histories, items, self.n_items)
        shape = items.shape
        rows = np.broadcast_to(np.arange(len(items))[(...,) + (None,) * (items.ndim - 1)], shape).ravel()
        return self.pair_logits(
            histories, rows, items.ravel(), users=users, user_features=user_features
        ).view(*shape, self.levels)

    def pair_logits(
        self,
        histories: Histories,
        rows: Ints,
        items: Ints,
        *,
        users: Ints | None = None,
        user_features: FeatureTable | None = None,
    ) -> Tensor:
        """As `logits`, for pairs given as row of `histories` and item. Shape (N,) each to (N, C)."""
        parts = self.pair_parts(histories, rows, items, users=users, user_features=user_features)
        return calibrated_logits(parts, self.calibration, self.towers.mixing)

    def pair_parts(
        self,
        histories: Histories,
        rows: Ints,
        items: Ints,
        *,
        users: Ints | None = None,
        user_features: FeatureTable | None = None,
    ) -> Tensor:
        """Uncalibrated cosine, item and user part of each pair's steps. Shape (N, 3, K)."""
        side = self._user_side(histories, users, user_features)
        pairs = np.stack([rows, items, levels_in(histories, rows, items)])
        found = [
            self._parts(
                side, Targets(*torch.from_numpy(pairs[:, start : start + PAIRS_AT_ONCE]).to(self.device))
            )
            for start in range(0, len(items), PAIRS_AT_ONCE)
        ]
        return torch.cat(found) if found else self.item_blocks.new_empty(0, 3, self.towers.sizes.blocks)

    def probabilities(
        self,
        histories: Histories,
        items: Ints,
        *,
        users: Ints | None = None,
        user_features: FeatureTable | None = None,
    ) -> Floats:
        """P(level k is reached), k = 1..C, were the item shown to the user.

        Takes the arguments of `logits` and raises as it does.

        Returns:
            Decreasing along the last axis of a chain. Shape (B, C) or (B, N, C), float32.
        """
        logits = self.logits(histories, items, users=users, user_features=user_features)
        found: Floats = logits.sigmoid().cpu().numpy()
        return found

    def indexed(
        self, histories: Histories, *, users: Ints | None = None, target_recall: float = 0.98, seed: int = 0
    ) -> tuple["Gnolr", IndexPlan]:
        """The same model behind the kind of index that suits its catalogue; exact up to 200,000 items.

        Args:
            histories: Some hundreds of users like those to come. Shape (B, I).
            users: Ids in the table of users, -1 for someone else. Shape (B,).
            target_recall: Least share of the 100 best items that a search must find.
            seed: Halves the users into those that tune the index and those that measure it.

        Returns:
            The model, and how the choice went.
        """
        queries = self.queries(histories, self.retrieve_level, users=users)
        vectors = self.item_blocks.flatten(1)
        plan = choose_index(vectors, target_recall=target_recall, sample_queries=queries, seed=seed)
        level = self.retrieve_level
        model = Gnolr(
            self.towers,
            self.calibration,
            self.known,
            retrieve_level=level,
            index=plan.index,
            recall=plan.recall,
        )
        return model, plan

    def refreshed(self, histories: Histories) -> "Gnolr":
        """The same weights with items' statistics counted anew: what has happened since training, without training.

        Args:
            histories: Every row that may be known by now, by user. Shape (U, I).

        Raises:
            ShapeError: There is not one column an item.
            OrdinalError: A stored value is no level of the model.
        """
        check_histories(histories, self.n_items)
        counts = count_levels(histories, self.levels)
        known = self.known._replace(item_counts=counts)
        return Gnolr(self.towers, self.calibration, known, retrieve_level=self.retrieve_level)

    def with_items(self, features: FeatureTable) -> "Gnolr":
        """The same model over a catalogue that has grown: new items are known by their features alone.

        Args:
            features: Of the new items, encoded as those of training were. They get the ids I, I + 1, ...

        Raises:
            ShapeError: The features have other columns than those of training.
        """
        table = self.known.item_features.append(features)
        sizes = replace(self.towers.sizes, items=len(table))
        state = dict(self.towers.state_dict())
        for name in ("item_id", "item_bias"):
            state[name] = torch.cat([state[name], state[name].new_zeros(len(features), state[name].shape[1])])
        counts = self.known.item_counts
        drawn = self.n_items if self.known.sampled_items is None else self.known.sampled_items
        known = self.known._replace(
            sampled_items=drawn,
            item_features=table,
            item_counts=torch.cat([counts, counts.new_zeros(len(features), counts.shape[1])]),
        )
        towers = towers_like(asdict(sizes), state).to(self.device)
        return Gnolr(towers, self.calibration, known, retrieve_level=self.retrieve_level)

    def save(self, folder: Path) -> None:
        """Write the model to `folder`, with its index unless that is the exact one, which is rebuilt on loading."""
        tensors = {f"towers.{name}": value for name, value in self.towers.state_dict().items()}
        tensors |= self.calibration._asdict() | {"item_counts": self.known.item_counts}
        widths = {}
        for name, table in zip(_TABLES, (self.known.item_features, self.known.user_features), strict=True):
            widths[name] = table.widths[0]
            tensors |= table.to_tensors(name)
        settings = {
            "sizes": asdict(self.towers.sizes),
            "retrieve_level": self.retrieve_level,
            "extra_ignored": self.known.extra_ignored,
            "sampled_items": self.known.sampled_items,
            "sparse_features": widths,
            "indexed": self.recall is not None and isinstance(self.index, FaissIndex),
        }
        if self.recall is not None and isinstance(self.index, FaissIndex):
            save_index(folder / INDEX_FOLDER, self.index, recall=self.recall)
        write_artefact(folder, KIND, tensors, settings)

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> "Gnolr":
        """Read a model that `save` wrote.

        Raises:
            ArtefactError: The folder holds no such model, or a damaged one.
        """
        return load_artefact(
            folder, KIND, lambda tensors, settings: cls._of_tensors(folder, tensors, settings, device)
        )

    @classmethod
    def _of_tensors(
        cls, folder: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], device: str
    ) -> "Gnolr":
        items, users = (
            FeatureTable.from_tensors(name, tensors, int(settings["sparse_features"][name]))
            for name in _TABLES
        )
        known = Known(
            items, users, tensors["item_counts"], float(settings["extra_ignored"]), settings["sampled_items"]
        )
        prefix = "towers."
        state = {
            name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
        }
        towers = towers_like(settings["sizes"], state).to(device)
        calibration = read_calibration(tensors, towers.sizes.levels)
        model = cls(towers, calibration, known, retrieve_level=int(settings["retrieve_level"]))
        if settings["indexed"]:
            # A save that was cut off in between leaves the index of one model beside the weights of another.
            vectors = model.item_blocks.flatten(1)
            held = load_index(folder / INDEX_FOLDER, device=device, expected=vectors)
            model.index, model.recall = held.index, held.recall
        return model

    def _user_side(
        self, histories: Histories, users: Ints | None, user_features: FeatureTable | None
    ) -> UserSide:
        rows = histories.shape[0]
        table = user_features
        if table is None:
            ids = np.full(rows, -1, dtype=np.int64) if users is None else users
            check_users(ids, rows, len(self.known.user_features))
            table = self.known.user_features.take(ids)
        if table.widths != self.known.user_features.widths or len(table) != rows:
            raise ShapeError(
                f"`user_features` must hold {rows} rows of {self.known.user_features.widths} sparse and dense columns; "
                f"got {len(table)} rows of {table.widths}. Encode them as those of training were."
            )
        check_histories(histories, self.n_items)
        check_depth(histories, self.levels)
        columns = histories.indices.astype(np.int64)
        return encode_users(self.towers, histories, columns, self._items, rows_of(table, self.device))

    def _parts(self, side: UserSide, targets: Targets) -> Tensor:
        biases = self._item_biases[targets.item]
        return pair_parts(
            self.towers, side, self._items, biases, targets, extra_ignored=self.known.extra_ignored
        )

    def _check_level(self, level: int) -> int:
        if not 1 <= level <= self.levels:
            raise OrdinalError(
                f"`level` must lie in 1..{self.levels}; got {level}. Level 0 is reached by everything shown."
            )
        return level
