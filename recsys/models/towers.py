"""The two towers of GNOLR: what a user's history and an item become before they meet in one inner product.

Axis letters: N rows, B users, I items, C levels above 0, E embedding, D width of a level's unit vector, F item
features, G user features. A level's block is D + 2 wide: unit vector, item bias, user bias.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, normalize

from recsys.types import Histories

EMBEDDING_STD = 0.05
# Share of the gap between two thresholds that no step may use, so that order survives rounding.
ORDER_MARGIN = 0.02
# Level 1 has no shallower neighbour to stay below; its step may move a base rate by this many logits either way.
FIRST_STEP_AT_MOST = 12.0
# First shares of a step's range: cosine, item bias, user bias, unused.
FIRST_SHARES = (0.1, 0.3, 0.1, 0.5)


@dataclass(frozen=True, slots=True)
class TowerSizes:
    """What fixes the shapes of the towers.

    Attributes:
        items: Size I of the catalogue.
        levels: Deepest level C.
        embedding: Width E of item embeddings.
        width: Width D of each level's unit vector.
        item_features: F, 0 without any.
        user_features: G, 0 without any.
    """

    items: int
    levels: int
    embedding: int
    width: int
    item_features: int
    user_features: int


class Bags(NamedTuple):
    """Users' histories summed by level, not yet divided by their size.

    sums: Sum of the embeddings of the items that reached exactly each level 0..C. Shape (N, C + 1, E).
    counts: How many those are. Shape (N, C + 1).
    """

    sums: Tensor
    counts: Tensor


class Towers(nn.Module):
    """User and item towers, linear, one output a level; no user id, so anyone with a history can be served.

    The step of level j is step_j(u, i) = gamma_j cos(u_j, v_ij) + b_ij + c_uj, which is the inner product of the
    user's and the item's block j, and z_k = step_1 + .. + step_k - a_k. The three parts share a range of
    (1 - margin) (a_j - a_{j-1}), hence z_j - z_{j-1} = step_j - (a_j - a_{j-1}) < 0 for any user and item.

    Args:
        sizes: Shapes.
        features: One row an item. Shape (I, F), float32; F may be 0.
        rng: Draws the first weights.
    """

    features: Tensor
    step_limits: Tensor

    def __init__(self, sizes: TowerSizes, features: Tensor, rng: torch.Generator) -> None:
        """Draw the weights; call `limit_steps` before use."""
        super().__init__()
        self.sizes = sizes
        deep, wide, emb = sizes.levels, sizes.width, sizes.embedding

        def draw(*shape: int, std: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=rng) * std)

        self.register_buffer("features", features.float())
        self.register_buffer("step_limits", torch.ones(deep))
        self.item_id = draw(sizes.items, emb, std=EMBEDDING_STD)
        self.item_from_features = draw(sizes.item_features, emb, std=EMBEDDING_STD)
        self.item_tower = draw(emb, deep * wide, std=emb**-0.5)
        self.item_shift = draw(deep * wide, std=EMBEDDING_STD)
        self.user_tower = draw((deep + 1) * emb, deep * wide, std=emb**-0.5)
        self.user_shift = draw(deep * wide, std=EMBEDDING_STD)
        self.user_from_features = draw(sizes.user_features, deep * wide, std=EMBEDDING_STD)
        self.item_bias = nn.Parameter(torch.zeros(sizes.items, deep))
        self.user_bias = nn.Parameter(torch.zeros(deep + 1 + sizes.user_features, deep))
        self.user_bias_shift = nn.Parameter(torch.zeros(deep))
        self.shares = nn.Parameter(torch.tensor(FIRST_SHARES).log().repeat(deep, 1))

    def limit_steps(self, gaps: Tensor) -> None:
        """Set how far each step may go.

        Args:
            gaps: a_2 - a_1, .., a_C - a_{C-1}, all positive. Shape (C - 1,).
        """
        first = torch.tensor([FIRST_STEP_AT_MOST])
        self.step_limits = torch.cat([first, (1.0 - ORDER_MARGIN) * gaps.cpu()]).to(self.step_limits.device)

    def step_parts(self) -> Tensor:
        """Largest size of cosine term, item bias and user bias of each level. Shape (C, 3), positive."""
        return self.shares.softmax(dim=1)[:, :3] * self.step_limits[:, None]

    def start_item_biases(self, logits: Tensor) -> None:
        """Set the item biases so that, at cosine and user bias zero, z_k is each item's own base rate.

        A bias that would need more than nine tenths of its range is cut there.

        Args:
            logits: What z_k + a_k should be. Shape (I, C).
        """
        with torch.no_grad():
            limits = self.step_parts()[:, 1]
            wanted = torch.diff(logits.to(limits.device), dim=1, prepend=torch.zeros_like(logits[:, :1]))
            self.item_bias.copy_(torch.atanh((wanted / limits).clamp(-0.9, 0.9)))

    def item_embeddings(self) -> Tensor:
        """Embeddings of all items, which both towers read: its own, and what its features say. Shape (I, E)."""
        return self.item_id + self.features @ self.item_from_features

    def item_blocks(self) -> Tensor:
        """Blocks of all items. Shape (I, C, D + 2)."""
        flat = self.item_embeddings() @ self.item_tower + self.item_shift
        unit = normalize(flat.view(-1, self.sizes.levels, self.sizes.width), dim=2)
        bias = self.step_parts()[:, 1] * torch.tanh(self.item_bias)
        return torch.cat([unit, bias[:, :, None], torch.ones_like(bias)[:, :, None]], dim=2)

    def user_blocks(self, bags: Bags, dense: Tensor) -> Tensor:
        """Blocks of users, the cosine's weight gamma included.

        Args:
            bags: Histories of N rows.
            dense: User features. Shape (N, G).

        Returns:
            Shape (N, C, D + 2).
        """
        # A sum of n independent vectors grows like the root of n; one more keeps an empty bag at zero.
        scaled = bags.sums / (bags.counts + 1.0).sqrt()[:, :, None]
        flat = scaled.flatten(1) @ self.user_tower + self.user_shift + dense @ self.user_from_features
        parts = self.step_parts()
        unit = normalize(flat.view(-1, self.sizes.levels, self.sizes.width), dim=2) * parts[:, 0, None]
        habits = torch.cat([bags.counts.log1p(), dense], dim=1)
        bias = parts[:, 2] * torch.tanh(habits @ self.user_bias + self.user_bias_shift)
        return torch.cat([unit, torch.ones_like(bias)[:, :, None], bias[:, :, None]], dim=2)

    def bags(self, histories: Histories, embedded: Tensor) -> Bags:
        """Sum each user's history by level.

        Args:
            histories: Shape (B, I).
            embedded: From `item_embeddings`. Shape (I, E).

        Returns:
            B rows.
        """
        device, depth = embedded.device, self.sizes.levels + 1
        owner = np.repeat(np.arange(histories.shape[0], dtype=np.int64), np.diff(histories.indptr))
        slot = owner * depth + histories.data.astype(np.int64) - 1
        counts = np.bincount(slot, minlength=histories.shape[0] * depth)
        items = torch.from_numpy(histories.indices.astype(np.int64)[np.argsort(slot, kind="stable")]).to(
            device
        )
        starts = torch.from_numpy(np.cumsum(counts) - counts).to(device)
        sums = embedding_bag(items, embedded, starts, mode="sum").view(-1, depth, self.sizes.embedding)
        return Bags(sums, torch.from_numpy(counts.astype(np.float32)).to(device).view(-1, depth))


def leave_out(bags: Bags, rows: Tensor, levels: Tensor, own: Tensor) -> Bags:
    """Histories of one row a target, each without its target, which would otherwise give its level away.

    Args:
        bags: Histories of B users.
        rows: User of each target, 0..B-1. Shape (N,), int64.
        levels: Level that the target reached in that history, -1 if it is not in it. Shape (N,), int64.
        own: What the target added to its bag. Shape (N, E).

    Returns:
        N rows.
    """
    is_inside = (levels >= 0).to(own.dtype)
    place = torch.arange(len(rows), device=rows.device), levels.clamp(min=0)
    sums = bags.sums[rows].index_put(place, -own * is_inside[:, None], accumulate=True)
    counts = bags.counts[rows].index_put(place, -is_inside, accumulate=True)
    return Bags(sums, counts)
