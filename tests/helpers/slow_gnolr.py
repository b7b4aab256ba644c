"""GNOLR written out with loops over levels, items and users, in float64, and drawn models to hold against it."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from recsys.features import FeatureTable
from recsys.models.calibration import Calibration
from recsys.models.gnolr import Gnolr
from recsys.models.known import Known
from recsys.models.ordinal import LevelTree, thresholds_from_counts
from recsys.models.towers import BEND, COUNT_SCALE, Towers, TowerSizes
from recsys.types import Histories

Vector = NDArray[np.float64]


def draw_table(rows: int, sparse: int, dense: int, seed: int) -> FeatureTable:
    """Features of which about a third are set."""
    rng = np.random.default_rng(seed)
    kept = rng.normal(size=(rows, sparse)) * (rng.random((rows, sparse)) < 0.35)
    return FeatureTable(csr_array(kept.astype(np.float32)), rng.normal(size=(rows, dense)).astype(np.float32))


def draw_histories(users: int, items: int, levels: int, seed: int) -> Histories:
    """Histories of a quarter of the items; the last user has none."""
    rng = np.random.default_rng(seed)
    stored = rng.integers(1, levels + 2, size=(users, items)) * (rng.random((users, items)) < 0.25)
    stored[-1] = 0
    return csr_array(stored.astype(np.float32))


def draw_model(
    parents: tuple[int, ...] = (0, 1, 2),
    structure: str = "gnolr",
    *,
    items: int = 40,
    hidden: int = 0,
    features: tuple[int, int] = (6, 2),
    user_features: tuple[int, int] = (5, 1),
    history: bool = True,
    extra_ignored: float = 3.0,
    weights: float = 0.7,
    seed: int = 0,
) -> Gnolr:
    """A model whose weights are large enough that every part of a step matters; v0 has no biases."""
    rng, depth = torch.Generator().manual_seed(seed), len(parents) + 1
    tree = LevelTree(parents)
    counts = torch.poisson(20.0 / torch.arange(1, depth + 1).square().expand(items, depth), generator=rng)
    thresholds = thresholds_from_counts(counts.sum(0), tree, extra_ignored=extra_ignored)
    sizes = TowerSizes(
        items, parents, structure, 5, 6, hidden, *features, *user_features, history, structure != "v0"
    )
    towers = Towers(sizes, thresholds, torch.sigmoid(-thresholds), rng)
    with torch.no_grad():
        for name, weight in towers.named_parameters():
            if name not in {"first_thresholds", "gaps_raw"}:
                weight.copy_(weights * torch.randn(weight.shape, generator=rng))
    known = Known(
        draw_table(items, *features, seed), draw_table(30, *user_features, seed + 1), counts, extra_ignored
    )
    # Smaller trust and the thresholds of training keep the order whatever the weights.
    calibration = Calibration(torch.tensor([0.9, 0.7, 0.8]), thresholds)
    return Gnolr(towers, calibration, known, retrieve_level=min(2, len(parents)))


def slow_way(parents: Sequence[int], level: int) -> list[int]:
    """Levels from the first one to `level`, each deepening the one before; none for level 0."""
    return [] if level == 0 else [*slow_way(parents, parents[level - 1]), level]


def slow_loss(logits: Sequence[float], level: int, parents: Sequence[int], *, nested: bool = True) -> float:
    """Write the classes of every reading out, check that they sum to one, and take the log of the observed one."""
    reach = [1.0] + [1 / (1 + math.exp(-z)) for z in logits]
    total = 0.0
    for aim in range(1, len(parents) + 1):
        if not nested and aim in parents:
            continue
        way = [0, *slow_way(parents, aim)]
        classes = [reach[a] - reach[b] for a, b in pairwise(way)] + [reach[aim]]
        assert math.isclose(sum(classes), 1.0)
        shared = [step for step in way if step in {0, *slow_way(parents, level)}]
        total -= math.log(classes[len(shared) - 1])
    return total


def slow_statistics(towers: Towers, counts: Sequence[float], prior_rows: float) -> list[float]:
    """How far smoothed logits lie from the log's, level by level less their parents', and how many rows there are."""
    parents = towers.sizes.parents
    apart = [0.0]
    for level in range(1, len(parents) + 1):
        rate = float(towers.rates[level - 1])
        reached = sum(n for own, n in enumerate(counts) if level in slow_way(parents, own))
        share = (reached + prior_rows * rate) / (sum(counts) + prior_rows)
        apart.append(math.log(share / (1 - share)) - math.log(rate / (1 - rate)))
    steps = [apart[level] - apart[parent] for level, parent in enumerate(parents, start=1)]
    return [*steps, COUNT_SCALE * math.log1p(sum(counts))]


def slow_bend(towers: Towers, raw: Vector) -> Vector:
    """A bias below half of what its block's cosine leaves of the ceiling."""
    found = np.zeros(len(raw))
    if not towers.sizes.biases:
        return found
    for block, value in enumerate(raw.tolist()):
        ceiling, gamma = float(towers.ceilings()[block]), float(towers.gamma()[block])
        if math.isinf(ceiling):
            found[block] = value
            continue
        most = (ceiling - gamma) / 2
        above = (most - value) * BEND / ceiling
        found[block] = most - ceiling / BEND * (max(above, 0.0) + math.log1p(math.exp(-abs(above))))
    return found


def slow_features(table: FeatureTable, row: int, sparse: Tensor, dense: Tensor) -> Vector:
    """Product of one row of features with its weights."""
    found: Vector = table.sparse.toarray()[row] @ _numbers(sparse) + table.dense[row] @ _numbers(dense)
    return found


def slow_logits(model: Gnolr, history: Mapping[int, int], item: int, user: FeatureTable) -> list[float]:
    """z_1..z_C of one pair, `item` left out of `history` (item to level); `user` holds one row of features."""
    parts = slow_parts(model, history, item, user)
    steps = np.zeros(parts.shape[1])
    for scale, part in zip(model.calibration.scales.tolist(), parts, strict=True):
        steps += scale * part
    found = []
    for level, threshold in enumerate(model.calibration.thresholds.tolist(), start=1):
        on_way = {
            "gnolr": [step - 1 for step in slow_way(model.towers.sizes.parents, level)],
            "v0": [level - 1],
            "nolr": [0],
        }[model.towers.sizes.structure]
        found.append(sum(float(steps[block]) for block in on_way) - threshold)
    return found


def slow_parts(model: Gnolr, history: Mapping[int, int], item: int, user: FeatureTable) -> Vector:
    """Cosine, item and user part of one pair's steps. Shape (3, K)."""
    towers, known = model.towers, model.known
    others = {other: level for other, level in history.items() if other != item}
    mine, theirs = _item_vector(model, item), _user_vector(model, others, user)
    cosine = [
        float(gamma) * float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
        for gamma, a, b in zip(towers.gamma().tolist(), theirs, mine, strict=True)
    ]
    rows = known.item_counts.tolist()[item]
    rows[0] += known.extra_ignored * float(known.item_counts.sum()) / model.n_items
    stats = np.array(slow_statistics(towers, rows, towers.sizes.item_prior_rows))
    item_raw = stats @ _numbers(towers.item_statistics) + _numbers(towers.item_bias)[item]
    item_raw += slow_features(known.item_features, item, towers.item_sparse_bias, towers.item_dense_bias)
    user_raw = _numbers(towers.user_bias_shift).copy()
    user_raw += slow_features(user, 0, towers.user_sparse_bias, towers.user_dense_bias)
    if towers.sizes.history:
        seen = [float(list(others.values()).count(level)) for level in range(towers.sizes.levels + 1)]
        seen[0] += known.extra_ignored * len(others)
        stats = np.array(slow_statistics(towers, seen, towers.sizes.user_prior_rows))
        for block in range(len(user_raw)):
            if towers.sizes.structure == "nolr" or towers.sizes.parents[block] == 0:
                user_raw[block] += float((stats @ _numbers(towers.user_statistics))[0])
    return np.stack([np.array(cosine), slow_bend(towers, item_raw), slow_bend(towers, user_raw)])


def history_of(histories: Histories, row: int) -> dict[int, int]:
    """One user's history as a dictionary from item to level."""
    dense = histories.toarray()[row]
    return {int(item): int(dense[item]) - 1 for item in np.flatnonzero(dense)}


def _embedded(model: Gnolr, item: int) -> Vector:
    towers = model.towers
    said = slow_features(model.known.item_features, item, towers.item_sparse, towers.item_dense)
    said += _numbers(towers.item_id)[item]
    return said


def _item_vector(model: Gnolr, item: int) -> list[Vector]:
    towers = model.towers
    first = _embedded(model, item) @ _numbers(towers.item_tower) + _numbers(towers.item_shift)
    return _deepen(towers, first, towers.item_out)


def _user_vector(model: Gnolr, history: Mapping[int, int], user: FeatureTable) -> list[Vector]:
    towers = model.towers
    first = slow_features(user, 0, towers.user_sparse, towers.user_dense) + _numbers(towers.user_shift)
    for level in range(towers.sizes.levels + 1 if towers.sizes.history else 0):
        items = [item for item, reached in history.items() if reached == level]
        for item in items:
            first = first + _embedded(model, item) @ _numbers(towers.user_history)[level] / math.sqrt(
                len(items) + 1
            )
    return _deepen(towers, first, towers.user_out)


def _deepen(towers: Towers, first: Vector, out: Tensor) -> list[Vector]:
    if towers.sizes.hidden:
        first = np.array([x if x > 0 else 0.01 * x for x in first.tolist()]) @ _numbers(out)
    return [
        first[block * towers.sizes.width : (block + 1) * towers.sizes.width]
        for block in range(towers.sizes.blocks)
    ]


def _numbers(weight: Tensor) -> Vector:
    found: Vector = weight.detach().double().cpu().numpy()
    return found
