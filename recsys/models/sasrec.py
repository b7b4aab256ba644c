"""SASRec: a causal transformer over a user's last events (Kang and McAuley, ICDM 2018), scored over all items.

Left-padded: the latest event always stands in the last place, so the query of a user is the last hidden state and
places are counted from the end. A place that is padding sees itself alone, which keeps its softmax finite; nothing
else sees it. Items are scored by their own input embeddings (tied), without a bias.

Differs from the paper: normalisation stands before attention and feed-forward for queries, keys and values alike
(the published code leaves keys and values as they are), and training is by full cross-entropy; see the recipe.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from recsys.artefacts import load_artefact, write_artefact
from recsys.errors import OrdinalError
from recsys.models.recent_popularity import entry_times
from recsys.topk import check_search, rank_in_blocks
from recsys.types import Bools, Histories, Ints, TopK

KIND = "sasrec"


@dataclass(frozen=True, slots=True)
class SasRecSizes:
    """Shape of the network.

    Attributes:
        items: Size I of the catalogue; the id I is padding.
        width: Width D of embeddings and hidden states, a multiple of `heads`.
        heads: Attention heads.
        blocks: Layers of attention and feed-forward.
        length: Events L of a history that are looked at, the latest ones.
    """

    items: int
    width: int
    heads: int
    blocks: int
    length: int


class _Block(nn.Module):
    """Attention to earlier places and a feed-forward of one hidden layer, each added to its input."""

    def __init__(self, sizes: SasRecSizes, dropout: float) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.attention_norm, self.forward_norm = nn.LayerNorm(sizes.width), nn.LayerNorm(sizes.width)
        self.attention_in = nn.Linear(sizes.width, 3 * sizes.width)
        self.attention_out = nn.Linear(sizes.width, sizes.width)
        self.forward_in, self.forward_out = (nn.Linear(sizes.width, sizes.width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, may_see: Tensor) -> Tensor:
        rows, places, width = hidden.shape
        parts = self.attention_in(self.attention_norm(hidden)).view(rows, places, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        rate = self.dropout.p if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=may_see, dropout_p=rate)
        hidden = hidden + self.dropout(self.attention_out(mixed.transpose(1, 2).reshape(rows, places, width)))
        inner = self.dropout(self.forward_in(self.forward_norm(hidden)).relu())
        found: Tensor = hidden + self.dropout(self.forward_out(inner))
        return found


class SasRecNet(nn.Module):
    """Hidden states of sequences of items.

    Args:
        sizes: Shape of the network.
        dropout: Rate of all dropouts, 0 or more and below 1.
    """

    def __init__(self, sizes: SasRecSizes, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.sizes = sizes
        self.items = nn.Embedding(sizes.items + 1, sizes.width, padding_idx=sizes.items)
        self.places = nn.Embedding(sizes.length, sizes.width)
        for table in (self.items, self.places):
            nn.init.normal_(table.weight, std=0.02)
        with torch.no_grad():
            self.items.weight[sizes.items] = 0.0
        self.blocks = nn.ModuleList(_Block(sizes, dropout) for _ in range(sizes.blocks))
        self.norm = nn.LayerNorm(sizes.width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, sequences: Tensor) -> Tensor:
        """Hidden state at each place, from the events up to it.

        Args:
            sequences: Items in order, left-padded with I; at most L places. Shape (B, T), int64.

        Returns:
            Shape (B, T, D); of no meaning where padded.
        """
        length = sequences.shape[1]
        is_event = sequences != self.sizes.items
        hidden = self.items(sequences) * self.sizes.width**0.5 + self.places.weight[-length:]
        own = torch.eye(length, dtype=torch.bool, device=sequences.device)
        earlier = torch.ones_like(own).tril()
        may_see = (is_event[:, None, :] & earlier) | own
        hidden = self.dropout(hidden)
        for block in self.blocks:
            hidden = block(hidden, may_see[:, None])
        normed: Tensor = self.norm(hidden)
        return normed

    def item_scores(self, hidden: Tensor) -> Tensor:
        """Inner products with all items' embeddings. From shape (..., D) to (..., I)."""
        return hidden @ self.items.weight[: self.sizes.items].T


class SasRec:
    """A trained network; serves anyone with a history and its times.

    Args:
        net: Trained network.
        fallback: Score of each item for a user without an event. Shape (I,), float32.
        levels: The deepest level C of histories.
        relevant_level: Items that stayed below it are no events.
    """

    def __init__(self, net: SasRecNet, fallback: Tensor, *, levels: int, relevant_level: int) -> None:
        """Freeze the network."""
        self.net, self.fallback = net.eval().requires_grad_(False), fallback
        self.levels, self.relevant_level = levels, relevant_level

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
    ) -> TopK:
        """The k items likeliest to come next, scored in logits; see `Retriever.search`. `level` is ignored.

        Events of one time come by ascending item.

        Raises:
            ShapeError: An argument does not fit the catalogue, `times` does not fit `histories`, or `k` is below 1.
            InteractionError: There are entries without times.
            OrdinalError: A history holds a level above C.
        """
        del level, users
        sizes = self.net.sizes
        check_search(histories, sizes.items, k, allowed)
        check_levels(histories, self.levels)
        sequences = latest_events(histories, times, length=sizes.length, relevant_level=self.relevant_level)
        inputs = torch.from_numpy(sequences).to(self.fallback.device)

        def score(block: slice) -> Tensor:
            last = self.net(inputs[block])[:, -1]
            is_cold = inputs[block, -1:] == sizes.items
            return torch.where(is_cold, self.fallback, self.net.item_scores(last))

        seen = histories if exclude_seen else None
        with torch.no_grad():
            return rank_in_blocks(score, histories.shape[0], k, seen=seen, allowed=allowed)

    def save(self, folder: Path) -> None:
        """Write the model to `folder`."""
        tensors = {**self.net.state_dict(), "fallback": self.fallback}
        settings = {
            "sizes": asdict(self.net.sizes),
            "levels": self.levels,
            "relevant_level": self.relevant_level,
        }
        write_artefact(folder, KIND, tensors, settings)

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> "SasRec":
        """Read what `save` wrote; raises `ArtefactError` if the folder holds no such model."""

        def build(tensors: dict[str, Tensor], settings: dict[str, Any]) -> "SasRec":
            fallback = tensors.pop("fallback").to(device)
            net = SasRecNet(SasRecSizes(**settings["sizes"]))
            net.load_state_dict(tensors)
            levels, relevant_level = int(settings["levels"]), int(settings["relevant_level"])
            return cls(net.to(device), fallback, levels=levels, relevant_level=relevant_level)

        return load_artefact(folder, KIND, build)


def check_levels(histories: Histories, levels: int) -> None:
    """Refuse histories deeper than level C.

    Raises:
        OrdinalError: A history holds a level above `levels`.
    """
    deepest = int(histories.data.max(initial=0.0)) - 1
    if deepest > levels:
        raise OrdinalError(
            f"Histories must hold levels 0..{levels}; got {deepest}. Set `levels` to the deepest one of the log."
        )


def latest_events(histories: Histories, times: Histories | None, *, length: int, relevant_level: int) -> Ints:
    """Each user's latest items that reached a level, in the order of their times.

    Args:
        histories: Shape (B, I).
        times: When each entry happened; equal times by ascending item. The same entries, shape (B, I).
        length: Events kept of a history, at most.
        relevant_level: Level that an item must have reached.

    Returns:
        Items, left-padded with I; T is the longest kept history, at least 1. Shape (B, T), int64.

    Raises:
        InteractionError: There are entries without times.
        ShapeError: `times` does not have the entries of `histories`.

    Example:
        >>> from scipy.sparse import csr_array
        >>> times = csr_array(np.array([[30.0, 10.0, 20.0], [0, 0, 5.0]]))
        >>> latest_events(csr_array(np.array([[2, 2, 2], [0, 0, 2]])), times, length=2, relevant_level=1).tolist()
        [[2, 0], [3, 2]]
    """
    when = entry_times(histories, times, needed_by="SASRec")
    n_users, n_items = histories.shape
    keep = histories.data >= relevant_level + 1
    owner = np.repeat(np.arange(n_users, dtype=np.int64), np.diff(histories.indptr))[keep]
    item = histories.indices.astype(np.int64)[keep]
    order = np.lexsort((item, when[keep], owner))
    owner, item = owner[order], item[order]
    counts = np.bincount(owner, minlength=n_users)
    from_end = counts.cumsum()[owner] - 1 - np.arange(len(owner))
    width = int(np.clip(counts.max(initial=0), 1, length))
    found = np.full((n_users, width), n_items, dtype=np.int64)
    late = from_end < width
    found[owner[late], width - 1 - from_end[late]] = item[late]
    return found
