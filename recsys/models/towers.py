"""The two towers of GNOLR: what a user and an item become before they meet in one inner product.

Axis letters: N rows, B users, I items, C levels above 0, K blocks (C, or 1 where all levels share one), E embedding,
W width of the first layer, D width of a block's unit vector, F and G sparse and dense features. A block is D + 2
wide: unit vector, item bias, user bias; the step of block j is the inner product of the user's and the item's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, leaky_relu, normalize, softplus

from recsys.errors import OrdinalError
from recsys.models.ordinal import LevelTree, smoothed_logits

STRUCTURES = ("gnolr", "v1", "v0", "nolr")
EMBEDDING_STD = 0.05
# Share of the gap between two thresholds that no step may use, so that order survives rounding.
ORDER_MARGIN = 0.02
# No bias needs more logits; beyond some thousands float32 would round the gaps between levels away.
MOST_BIAS = 500.0
# How sharply a bias bends below its ceiling, in units of one over the gap.
BEND = 4.0
# First weight of a cosine, in logits.
FIRST_GAMMA = 0.6
# Logarithms of counts are read on about the scale of logits.
COUNT_SCALE = 0.1
# Below this squared length a vector has no direction.
LEAST_SQUARE = 1e-24


@dataclass(frozen=True, slots=True)
class TowerSizes:
    """What fixes the shapes and the form of the towers.

    Attributes:
        items: Size I of the catalogue.
        parents: The level tree; see `recsys.models.ordinal.LevelTree`.
        structure: "gnolr" and "v1": a block a level, steps added along the way to a level; they differ in the loss.
            "v0": a block a level, not added. "nolr": one block for all levels.
        embedding: Width E of item embeddings.
        width: Width D of each block's unit vector.
        hidden: Width of a hidden layer in both towers, 0 for linear ones.
        item_sparse: F of items.
        item_dense: G of items.
        user_sparse: F of users.
        user_dense: G of users.
        history: Whether users are known by their histories.
        biases: Whether steps have biases, as here, or are cosines alone, as published.
        item_prior_rows: Rows of the whole log that an item's own rates are drawn to.
        user_prior_rows: The same for users, whose ways change more than items do.
        is_gamma_fixed: Whether the weights of cosines are given rather than learned.
    """

    items: int
    parents: tuple[int, ...]
    structure: str = "gnolr"
    embedding: int = 32
    width: int = 32
    hidden: int = 0
    item_sparse: int = 0
    item_dense: int = 0
    user_sparse: int = 0
    user_dense: int = 0
    history: bool = True
    biases: bool = True
    item_prior_rows: float = 5.0
    user_prior_rows: float = 200.0
    is_gamma_fixed: bool = False

    @property
    def levels(self) -> int:
        """The number C of levels above 0."""
        return len(self.parents)

    @property
    def blocks(self) -> int:
        """The number K of blocks."""
        return 1 if self.structure == "nolr" else len(self.parents)


class Rows(NamedTuple):
    """Features of N entities as tensors.

    indices: Columns of the sparse features, entity after entity.
    owners: Row of each of them.
    values: Their values.
    dense: Shape (N, G).
    """

    indices: Tensor
    owners: Tensor
    values: Tensor
    dense: Tensor

    def times(self, sparse: Tensor, dense: Tensor) -> Tensor:
        """The features' product with their weights. Shape (N, anything)."""
        found = (self.dense @ dense).float()
        if len(self.indices):
            found = found.index_add(0, self.owners, embedding(self.indices, sparse) * self.values[:, None])
        return found


class Items(NamedTuple):
    """Items as both towers read them.

    embedded: What histories sum. Shape (n, E).
    unit: Unit vectors. Shape (n, K, D).
    """

    embedded: Tensor
    unit: Tensor


class Towers(nn.Module):
    """User and item towers over ids, features, statistics and histories; no user id unless it is a feature.

    The step of block j is gamma_j cos(u_j, v_ij) + b_ij + c_uj, and z_k = (sum of the steps on the way to k) - a_k.
    Biases are bent so that gamma_j + b_ij + c_uj < a_j - a_parent(j), whatever they are fed; hence the logit of a
    level lies below that of its parent for any user and item, while a bias may be as negative as the data want.

    Biases start from statistics: the item's and the user's own smoothed logits, in training without the row that is
    to be foretold. They are inputs, not weights, so that they can be brought up to date without training.

    Args:
        sizes: Shapes and form.
        thresholds: a_1..a_C of training. Shape (C,).
        rates: P(level k is reached) in training, sampled rows included. Shape (C,).
        rng: Draws the first weights.
        gamma: Fixed weight of every cosine, in logits; None learns one for each block.
        stretch: How much more weight the cosines of levels that deepen none start with, where they are learned.
        learn_thresholds: Let training move the thresholds, keeping their order.
    """

    rates: Tensor
    # Whether item tables get gradients of the rows that a step touches, and no others; for large catalogues.
    sparse_gradients: bool = False

    def __init__(
        self,
        sizes: TowerSizes,
        thresholds: Tensor,
        rates: Tensor,
        rng: torch.Generator,
        *,
        gamma: float | None = None,
        stretch: float = 0.0,
        learn_thresholds: bool = False,
    ) -> None:
        """Draw the weights."""
        super().__init__()
        self.sizes, self.tree = sizes, LevelTree(sizes.parents)
        blocks, wide, emb = sizes.blocks, sizes.width, sizes.embedding
        first = sizes.hidden or blocks * wide

        def draw(*shape: int, std: float = EMBEDDING_STD) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=rng) * std)

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*shape))

        self.item_id = draw(sizes.items, emb)
        self.item_sparse, self.item_dense = draw(sizes.item_sparse, emb), draw(sizes.item_dense, emb)
        self.item_tower, self.item_shift = draw(emb, first, std=emb**-0.5), draw(first)
        self.user_history = draw(sizes.levels + 1, emb, first, std=emb**-0.5)
        self.user_sparse, self.user_dense = draw(sizes.user_sparse, first), draw(sizes.user_dense, first)
        self.user_shift = draw(first)
        deep = sizes.hidden, blocks * wide
        self.item_out = draw(*deep, std=max(1, sizes.hidden) ** -0.5)
        self.user_out = draw(*deep, std=max(1, sizes.hidden) ** -0.5)

        start = self._first_statistics_weights()
        self.item_statistics = nn.Parameter(start)
        self.user_statistics = nn.Parameter(0.5 * self._mean_over_levels())
        self.item_bias = zeros(sizes.items, blocks)
        self.item_sparse_bias, self.item_dense_bias = (
            zeros(sizes.item_sparse, blocks),
            zeros(sizes.item_dense, blocks),
        )
        self.user_sparse_bias, self.user_dense_bias = (
            zeros(sizes.user_sparse, blocks),
            zeros(sizes.user_dense, blocks),
        )
        self.user_bias_shift = zeros(blocks)
        self.gamma_raw = nn.Parameter(
            _inverse_softplus(self._first_gamma(stretch) if gamma is None else torch.full((blocks,), gamma)),
            requires_grad=gamma is None,
        )
        gaps = (thresholds @ self.tree.edges.T)[~self.tree.roots]
        self.first_thresholds = nn.Parameter(thresholds[self.tree.roots].clone(), learn_thresholds)
        self.gaps_raw = nn.Parameter(_inverse_softplus(gaps), learn_thresholds)
        self.register_buffer("rates", rates.clone())

    @property
    def thresholds(self) -> Tensor:
        """a_1..a_C, each above its parent's. Shape (C,)."""
        steps = torch.empty_like(self.rates)
        roots = self.tree.roots.to(steps.device)
        steps = steps.masked_scatter(roots, self.first_thresholds)
        steps = steps.masked_scatter(~roots, softplus(self.gaps_raw))
        return steps @ self.tree.paths.to(steps.device).T

    @property
    def mixing(self) -> Tensor:
        """Takes steps of blocks to logits of levels before thresholds. Shape (C, K)."""
        if self.sizes.structure == "nolr":
            return self.rates.new_ones(self.sizes.levels, 1)
        if self.sizes.structure == "v0":
            return torch.eye(self.sizes.levels, device=self.rates.device)
        return self.tree.paths.to(self.rates.device)

    def ceilings(self) -> Tensor:
        """What each block's step must stay below, infinite where nothing lies shallower. Shape (K,)."""
        gaps = (1.0 - ORDER_MARGIN) * (self.thresholds @ self.tree.edges.to(self.rates.device).T)
        roots = self.tree.roots.to(self.rates.device)
        if self.sizes.structure == "nolr":
            return self.rates.new_full((1,), torch.inf)
        if self.sizes.structure == "v0":
            return self._half_gaps(gaps, roots)
        return torch.where(roots, torch.inf, gaps)

    def _half_gaps(self, gaps: Tensor, roots: Tensor) -> Tensor:
        """Steps that are not added up must share each gap with the level next to them."""
        half = torch.where(roots, torch.inf, gaps / 2)
        parts = [
            torch.stack(
                [
                    half[place],
                    *(half[c] for c, parent in enumerate(self.sizes.parents) if parent == place + 1),
                ]
            )
            for place in range(self.sizes.levels)
        ]
        return torch.stack([part.min() for part in parts])

    def gamma(self) -> Tensor:
        """Weight of each block's cosine. Shape (K,), positive."""
        free = softplus(self.gamma_raw)
        return free if self.sizes.biases else torch.minimum(free, self.ceilings())

    def statistics(self, counts: Tensor, prior_rows: float) -> Tensor:
        """How far an entity's smoothed logits lie from the log's, by step, and how much it is known by.

        Args:
            counts: Rows of each level, sampled ones included. Shape (N, C + 1).
            prior_rows: Strength of the prior.

        Returns:
            Shape (N, C + 1).
        """
        logits = smoothed_logits(counts, self.rates, prior_rows, self.tree)
        apart = (logits - torch.logit(self.rates)) @ self.tree.edges.to(logits).T
        return torch.cat([apart, COUNT_SCALE * counts.sum(1, keepdim=True).log1p()], dim=1)

    def items(self, places: Tensor | None, rows: Rows) -> Items:
        """Embeddings and unit vectors of some items.

        Args:
            places: Which items, n of them; None is all.
            rows: Their features.
        """
        own = self.item_id if places is None else self._look_up(self.item_id, places)
        embedded = own + rows.times(self.item_sparse, self.item_dense)
        flat = embedded @ self.item_tower + self.item_shift
        return Items(embedded, self._unit(flat, self.item_out))

    def item_biases(self, places: Tensor, counts: Tensor, rows: Rows, owners: Tensor | None = None) -> Tensor:
        """The item's part b of each row's step: what the item's statistics, features and id say.

        Args:
            places: Item of each row. Shape (N,).
            counts: Rows of each level of that item, without what is to be foretold. Shape (N, C + 1).
            rows: Features of n items.
            owners: Which of the n each row is about; None where they are aligned. Shape (N,).

        Returns:
            Shape (N, K).
        """
        said = rows.times(self.item_sparse_bias, self.item_dense_bias)
        said = said if owners is None else said.index_select(0, owners)
        raw = self.statistics(counts, self.sizes.item_prior_rows) @ self.item_statistics
        return self._bend(raw + said + self._look_up(self.item_bias, places))

    def user_biases(self, counts: Tensor, said: Tensor) -> Tensor:
        """The user's part c of each row's step: what the user's statistics and features say.

        Args:
            counts: Rows of each level of the history. Shape (N, C + 1).
            said: From `Rows.times` with the user's bias weights. Shape (N, K).

        Returns:
            Shape (N, K).
        """
        raw = said + self.user_bias_shift
        if self.sizes.history:
            # A user's own rates shift all levels alike: how people use the deepest ones changes from visit to visit.
            shift = self.statistics(counts, self.sizes.user_prior_rows) @ self.user_statistics
            raw = raw + shift * self._shallowest()
        return self._bend(raw)

    def user_units(self, first: Tensor) -> Tensor:
        """Unit vectors from the user's first layer. Shape (N, W) to (N, K, D)."""
        return self._unit(first + self.user_shift, self.user_out)

    def user_cosines(self, first: Tensor, units: Tensor) -> Tensor:
        """Cosines of users, from their first layer, with unit vectors: as `user_units`, with less memory moved.

        Args:
            first: Shape (N, W).
            units: Shape (N, K, D).

        Returns:
            Shape (N, K).
        """
        flat = self._deepen(first + self.user_shift, self.user_out)
        return (flat * units).sum(2) / flat.square().sum(2).clamp(min=LEAST_SQUARE).sqrt()

    def _unit(self, flat: Tensor, out: Tensor) -> Tensor:
        return normalize(self._deepen(flat, out), dim=2)

    def _deepen(self, flat: Tensor, out: Tensor) -> Tensor:
        """What lies behind the first layer. Shape (N, W) to (N, K, D), float32."""
        if self.sizes.hidden:
            flat = leaky_relu(flat) @ out
        return flat.float().view(-1, self.sizes.blocks, self.sizes.width)

    def _bend(self, raw: Tensor) -> Tensor:
        """Half of what is left below a block's ceiling is the most that either bias may take."""
        if not self.sizes.biases:
            return torch.zeros_like(raw)
        ceilings = self.ceilings()
        bounded = torch.isfinite(ceilings)
        gaps = torch.where(bounded, ceilings, 1.0)
        most = (gaps - self.gamma()) / 2
        bent = most - softplus((most - raw) * (BEND / gaps)) * (gaps / BEND)
        return torch.where(bounded, bent, raw.clamp(-MOST_BIAS, MOST_BIAS))

    def _look_up(self, table: Tensor, places: Tensor) -> Tensor:
        return embedding(places, table, sparse=self.sparse_gradients)

    def _first_gamma(self, stretch: float) -> Tensor:
        if self.sizes.structure == "nolr":
            return torch.full((1,), FIRST_GAMMA + stretch)
        return FIRST_GAMMA + stretch * self.tree.roots

    def _first_statistics_weights(self) -> Tensor:
        """Steps start as the statistics themselves; a single block starts as their mean over levels."""
        if self.sizes.structure == "nolr":
            return self._mean_over_levels()
        start = self.tree.paths if self.sizes.structure == "v0" else torch.eye(self.sizes.levels)
        return torch.cat([start.T, torch.zeros(1, self.sizes.levels)])

    def _mean_over_levels(self) -> Tensor:
        """Takes statistics to how far the logits of all levels lie from the log's on average. Shape (C + 1, 1)."""
        return torch.cat([self.tree.paths.mean(0, keepdim=True).T, torch.zeros(1, 1)])

    def _shallowest(self) -> Tensor:
        """Marks blocks whose step moves every level. Shape (K,)."""
        if self.sizes.structure == "nolr":
            return self.rates.new_ones(1)
        return self.tree.roots.to(self.rates)


def towers_like(sizes: Mapping[str, Any], state: Mapping[str, Tensor]) -> Towers:
    """New towers of the given sizes with a copy of the given weights.

    Raises:
        TypeError: `sizes` are not those of towers.
        OrdinalError: The levels make no tree, or there is no such structure.
        RuntimeError: The weights are of other sizes.
    """
    known = TowerSizes(**{**sizes, "parents": tuple(sizes["parents"])})
    if known.structure not in STRUCTURES:
        raise OrdinalError(
            f"`structure` must be one of {', '.join(STRUCTURES)}; got {known.structure!r}. Train the model again."
        )
    places = torch.arange(1, known.levels + 1, dtype=torch.float32)
    towers = Towers(known, places, torch.sigmoid(-places), torch.Generator())
    towers.load_state_dict(dict(state))
    return towers


def _inverse_softplus(values: Tensor) -> Tensor:
    return values + torch.log(-torch.expm1(-values))
