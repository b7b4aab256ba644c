"""Training SASRec by full cross-entropy over the catalogue, stopped by NDCG@10 of users kept from training.

Departures from Kang and McAuley (ICDM 2018):
1. The loss of a place is the cross-entropy of the item that follows against the whole catalogue, after Klenitskiy and
   Vasilev (RecSys 2023), who show that it, not the network, was what SASRec lacked; no negatives are sampled. Memory
   grows with places of a batch times I: lower `batch_users` for large catalogues.
2. Training stops by whole users kept apart, asked for their last event, so that no user in training gives one up.
"""

import math

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import cross_entropy

from recsys.errors import InteractionError, RecsysError
from recsys.metrics.ranking import ndcg_at_k
from recsys.models.sasrec import SasRec, SasRecNet, SasRecSizes, check_levels, latest_events
from recsys.recipes.ease import Report
from recsys.topk import top_k
from recsys.types import Histories, relevant_items


class SasRecConfig(BaseModel):
    """Shape and training of SASRec."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Deepest level C of the histories.
    levels: int = Field(default=4, ge=1)
    # Level from which an item is an event, 1..levels.
    relevant_level: int = Field(default=2, ge=1)
    # Width of embeddings and hidden states, a multiple of `heads`.
    width: int = Field(default=64, ge=1)
    # Attention heads.
    heads: int = Field(default=2, ge=1)
    # Layers.
    blocks: int = Field(default=2, ge=1)
    # Latest events looked at.
    length: int = Field(default=100, ge=1)
    # Rate of all dropouts.
    dropout: float = Field(default=0.2, ge=0, lt=1)
    # Users in a step.
    batch_users: int = Field(default=64, ge=1)
    # Passes over the users, at most.
    epochs: int = Field(default=100, ge=1)
    # Passes without a better validation before training stops.
    patience: int = Field(default=5, ge=1)
    # Adam's step size.
    learning_rate: float = Field(default=0.001, gt=0)
    # Share of the users kept for the validation; 0 trains on all for all epochs.
    validation_users: float = Field(default=0.1, ge=0, lt=1)
    # Whether the network runs in bfloat16 while training, the loss staying in float32; for GPUs.
    bf16: bool = False

    @model_validator(mode="after")
    def _shapes_fit(self) -> "SasRecConfig":
        if self.width % self.heads:
            raise ValueError(
                f"`width` must be a multiple of `heads` ({self.heads}); got {self.width}. Change one."
            )
        if self.relevant_level > self.levels:
            raise ValueError(
                f"`relevant_level` must be at most `levels` ({self.levels}); got {self.relevant_level}. Lower it."
            )
        return self


def train(
    histories: Histories,
    *,
    seed: int,
    config: SasRecConfig | None = None,
    times: Histories | None = None,
    report: Report | None = None,
    device: str = "cpu",
) -> SasRec:
    """SASRec at the epoch with the best validation; same arguments on CPU, same bits.

    Args:
        histories: Training users. Shape (U, I).
        seed: Draws first weights, validation users, the order of users and dropout, apart from torch's own generator.
        config: None takes the defaults.
        times: When each entry happened. The same entries, shape (U, I).
        report: Called after every epoch with epoch, train_loss in nats an event and, with validation, its ndcg@10.
        device: Where to train and serve.

    Raises:
        InteractionError: There are no times, or no user to train on has two events.
        ShapeError: `times` does not have the entries of `histories`.
        OrdinalError: A history holds a level above `levels`.
        RecsysError: The loss is no longer finite.
    """
    settings = SasRecConfig() if config is None else config
    check_levels(histories, settings.levels)
    n_users, n_items = histories.shape
    sequences = torch.from_numpy(
        latest_events(histories, times, length=settings.length + 1, relevant_level=settings.relevant_level)
    ).to(device)
    usable = np.flatnonzero((sequences != n_items).sum(1).cpu().numpy() >= 2)
    order = np.random.default_rng(seed).permutation(usable)
    n_validation = int(len(order) * settings.validation_users)
    validation, training = (sequences[torch.from_numpy(part)] for part in np.split(order, [n_validation]))
    if len(training) == 0:
        raise InteractionError(
            f"SASRec must train on users with two events or more; got {len(training)} of {n_users}, {n_validation} "
            "kept for validation. Lower `relevant_level` or `validation_users`."
        )
    sizes = SasRecSizes(n_items, settings.width, settings.heads, settings.blocks, settings.length)
    with torch.random.fork_rng(devices=[device] if torch.device(device).type == "cuda" else []):
        torch.manual_seed(seed)
        net = SasRecNet(sizes, dropout=settings.dropout).to(device)
        _fit(net, training, validation, settings, report)
    events = relevant_items(histories, settings.relevant_level)
    counts = np.bincount(events.indices, minlength=n_items).astype(np.float32)
    fallback = torch.from_numpy(counts).to(device)
    return SasRec(net, fallback, levels=settings.levels, relevant_level=settings.relevant_level)


def _fit(
    net: SasRecNet, training: Tensor, validation: Tensor, config: SasRecConfig, report: Report | None
) -> None:
    """Train `net` in place and leave it at its best epoch."""
    optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate)
    best, best_state, bad_epochs = -math.inf, net.state_dict(), 0
    for epoch in range(config.epochs):
        loss = _run_epoch(net, training, optimizer, config)
        if not math.isfinite(loss):
            raise RecsysError(
                f"SASRec's loss must stay finite; got {loss} in epoch {epoch} at `learning_rate` "
                f"{config.learning_rate}. Lower it."
            )
        row: dict[str, float | str] = {"epoch": epoch, "train_loss": loss}
        found = float(epoch)
        if len(validation):
            row["ndcg@10"] = found = last_event_ndcg(net, validation, batch_users=config.batch_users)
        if report is not None:
            report(row)
        if found > best:
            best, bad_epochs = found, 0
            best_state = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
        else:
            bad_epochs += 1
        if bad_epochs >= config.patience:
            break
    net.load_state_dict(best_state)


def _run_epoch(
    net: SasRecNet, sequences: Tensor, optimizer: torch.optim.Optimizer, config: SasRecConfig
) -> float:
    """One pass in random order; the mean loss of an event."""
    net.train()
    total, events = 0.0, 0
    order = torch.randperm(len(sequences)).to(sequences.device)
    for rows in order.split(config.batch_users):
        batch = sequences[rows]
        with torch.autocast(batch.device.type, dtype=torch.bfloat16, enabled=config.bf16):
            losses = next_event_losses(net, batch)
        optimizer.zero_grad(set_to_none=True)
        losses.mean().backward()
        optimizer.step()
        total, events = total + float(losses.detach().sum()), events + len(losses)
    return total / events


def next_event_losses(net: SasRecNet, sequences: Tensor) -> Tensor:
    """Cross-entropy, over the catalogue, of each event that follows another in its sequence.

    Args:
        net: Network of length L.
        sequences: Items in order, left-padded with I. Shape (B, T), int64, T at most L + 1.

    Returns:
        In nats, float32, one for each event but the first of each row; row by row.
    """
    n_items = net.sizes.items
    longest = int((sequences != n_items).sum(1).max())
    inputs, targets = sequences[:, -longest:-1], sequences[:, -longest:][:, 1:]
    is_event = inputs != n_items
    scores = net.item_scores(net(inputs)[is_event])
    return cross_entropy(scores.float(), targets[is_event], reduction="none")


@torch.no_grad()
def last_event_ndcg(net: SasRecNet, sequences: Tensor, *, batch_users: int) -> float:
    """Mean NDCG@10 of each row's last event, asked for from those before it, which are not offered again.

    Args:
        net: Left in evaluation mode.
        sequences: Items in order, left-padded with I, two events a row or more. Shape (B, T), int64.
        batch_users: Rows scored at once.
    """
    net.eval()
    n_items = net.sizes.items
    lists = []
    for batch in sequences.split(batch_users):
        inputs = batch[:, :-1]
        scores = net.item_scores(net(inputs)[:, -1])
        padded = torch.cat([scores, scores.new_zeros(len(scores), 1)], dim=1).scatter_(1, inputs, -torch.inf)
        lists.append(top_k(padded[:, :-1].contiguous(), 10).items)
    last = sequences[:, -1].cpu().numpy()
    places = (np.arange(len(last)), last)
    relevant = csr_array((np.ones(len(last), dtype=np.float32), places), shape=(len(last), n_items))
    return float(ndcg_at_k(np.concatenate(lists), relevant, 10).values.mean())
