"""One step of GNOLR's training: what a batch of whole users costs, sampled negatives included."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from recsys.models.known import Known, mixed_item_counts
from recsys.models.ordinal import nested_ordinal_loss
from recsys.models.pairs import Targets, encode_users, pair_parts, rows_of, user_blocks
from recsys.models.towers import Rows, Towers
from recsys.recipes.gnolr_config import GnolrConfig
from recsys.recipes.gnolr_rows import Examples
from recsys.types import Ints

# Above so many items a step looks at those that it needs, and no others.
LARGE_CATALOGUE = 20_000


class Catalogue:
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


def batch_loss(
    towers: Towers,
    batch: Examples,
    catalogue: Catalogue,
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
    parts, side_blocks = forward(towers, batch, catalogue, config, rng, counted=counted, drawn=drawn)
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


def forward(
    towers: Towers,
    batch: Examples,
    catalogue: Catalogue,
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
def judged_parts(
    towers: Towers, judges: list[Examples], catalogue: Catalogue, config: GnolrConfig, *, counted: bool
) -> tuple[Tensor, Tensor]:
    """Parts of the steps, shape (N, 3, K), and levels, shape (N,), of all rows of `judges`; see `batch_loss`."""
    parts, levels = [], []
    rng = np.random.default_rng(0)
    none = np.empty(0, dtype=np.int64)
    for judge in judges:
        for users in judge.user_batches(config.batch_rows, None):
            batch = judge.select(users)
            found, _ = forward(towers, batch, catalogue, config, rng, counted=counted, drawn=none)
            parts.append(found.float())
            levels.append(torch.from_numpy(batch.level).to(catalogue.device))
    return torch.cat(parts), torch.cat(levels)
