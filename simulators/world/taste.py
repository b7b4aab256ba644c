"""The taste of real raters, fitted to their logs by a hierarchical ordinal model, and the rule it must beat.

utility(u, i) = user_u + item_i + t_u . (x_i - mean x) + p_u . q_i, and the level follows `NestedChoice` with
a slope of 1 in each step, the sequential logit of Tutz (1991). Users' tastes t are Gaussian about a shared
mean; effects of users and items and the loadings p are Gaussian about zero. Parameters are posterior modes,
found by Adam (Kingma & Ba, 2015). The prior variances of effects and tastes are learned by empirical Bayes
with diagonal Laplace posteriors (MacKay, 1992, "Bayesian Interpolation"), which keeps a fit linear in the
number of ratings. That of the loadings is
not: with modes for both sides of a product it grows until the factors overfit, so it is a constant, chosen on
the last fifth of each user's earlier ratings of MovieLens 100K.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from recsys import columns
from simulators.errors import WorldError
from simulators.world.choice import NestedChoice

BATCH = 8192
WARM_UP_EPOCHS = 3
FIRST_VARIANCE = 0.1
LOADING_VARIANCE = 0.02


@dataclass(frozen=True, eq=False)
class FittedTaste:
    """What a log says about its users and items; the parts as in the formula at the top of this module.

    Attributes:
        user_effect: Shape (U,), float32.
        item_effect: Shape (I,), float32.
        taste: Shape (U, F), float32.
        features: Attributes of the items less their means. Shape (I, F), float32.
        loadings: Shape (U, R), float32.
        factors: What ratings alone tell about the items. Shape (I, R), float32.
        choice: How a utility becomes a level.
    """

    user_effect: NDArray[np.float32]
    item_effect: NDArray[np.float32]
    taste: NDArray[np.float32]
    features: NDArray[np.float32]
    loadings: NDArray[np.float32]
    factors: NDArray[np.float32]
    choice: NestedChoice

    def utility(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.float64]:
        """Utility of each item for its user, in the logits of the first step. Shape (B,)."""
        u, i = np.asarray(users, np.int64), np.asarray(items, np.int64)
        known = np.einsum("bf,bf->b", self.taste[u], self.features[i])
        hidden = np.einsum("br,br->b", self.loadings[u], self.factors[i])
        total: NDArray[np.float64] = (self.user_effect[u] + self.item_effect[i] + known + hidden).astype(
            np.float64
        )
        return total


class _Parameters(NamedTuple):
    """Free parameters; deviations stand for differences from the shared mean."""

    thresholds: Tensor  # (K-1,)
    shared_taste: Tensor  # (F,)
    user_effect: Tensor  # (U, 1)
    item_effect: Tensor  # (I, 1)
    taste: Tensor  # (U, F)
    loadings: Tensor  # (U, R)
    factors: Tensor  # (I, R)


class _Rows(NamedTuple):
    users: Tensor
    items: Tensor
    levels: Tensor


def fit_taste(
    log: pd.DataFrame,
    features: NDArray[np.float32],
    *,
    n_users: int,
    n_levels: int = 5,
    n_factors: int = 4,
    epochs: int = 30,
    learning_rate: float = 0.03,
    seed: int,
) -> FittedTaste:
    """Fit users and items to a log of levels. Cost: linear in rows x (F + n_factors) x epochs.

    Args:
        log: Columns user_id, item_id (rows) and level; nothing later than what the fit may know.
        features: Attributes of the items, shape (I, F), float32.
        n_users: Number of users U; users without rows get the shared taste.
        n_levels: Number of levels K.
        n_factors: Width R of the factors.
        epochs: Passes over the log.
        learning_rate: Of Adam, falling to zero along a cosine.
        seed: Seed of the first factors and of the order of rows.

    Raises:
        WorldError: The log lacks a level, so that its threshold is unbounded.
    """
    counts = np.bincount(log[columns.LEVEL].to_numpy(np.int64), minlength=n_levels)
    if len(counts) > n_levels or not counts.all():
        raise WorldError(
            f"A log must hold every level 0..{n_levels - 1} and no other to fit a taste; got counts "
            f"{counts.tolist()}. Use more ratings, or merge levels."
        )
    rng = torch.Generator().manual_seed(seed)
    centred = torch.as_tensor(features - features.mean(axis=0), dtype=torch.float32)
    rows = _Rows(
        *(torch.tensor(log[c].to_numpy(np.int64)) for c in (columns.USER, columns.ITEM, columns.LEVEL))
    )
    parameters = _start(counts, n_users, centred, n_factors, rng)
    variances = {
        name: torch.full((getattr(parameters, name).shape[1],), FIRST_VARIANCE)
        for name in ("user_effect", "item_effect", "taste")
    }
    steps_per_epoch = -(-len(log) // BATCH)
    optimizer = torch.optim.Adam(list(parameters), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps_per_epoch)
    for epoch in range(epochs):
        if epoch >= WARM_UP_EPOCHS:
            _learn_variances(variances, parameters, rows, centred)
        for batch in torch.randperm(len(log), generator=rng).split(BATCH):
            part = _Rows(*(column[batch] for column in rows))
            loss = _nll(parameters, part, centred).sum() * (len(log) / len(batch)) + _penalty(
                parameters, variances
            )
            optimizer.zero_grad()
            (loss / len(log)).backward()
            optimizer.step()
            schedule.step()
    return _finish(parameters, centred)


def item_mean_levels(
    log: pd.DataFrame, items: ArrayLike, *, n_items: int, n_levels: int = 5, strength: float = 5.0
) -> NDArray[np.float64]:
    """The item-mean rule: each item's own distribution of levels, drawn towards that of all.

    P(k | i) = (n_ik + strength * share_k) / (n_i + strength), where share_k is the share of level k in the
    log.

    Args:
        log: Columns item_id (row) and level.
        items: Items to predict, shape (B,).
        n_items: Number of items I.
        n_levels: Number of levels K.
        strength: Ratings that the overall distribution counts for.

    Returns:
        Shape (B, K), rows sum to 1.
    """
    cells = log[columns.ITEM].to_numpy(np.int64) * n_levels + log[columns.LEVEL].to_numpy(np.int64)
    counts = np.bincount(cells, minlength=n_items * n_levels).reshape(n_items, n_levels).astype(np.float64)
    share = (counts.sum(axis=0) + 1) / (counts.sum() + n_levels)
    smoothed = (counts + strength * share) / (counts.sum(axis=1, keepdims=True) + strength)
    predicted: NDArray[np.float64] = smoothed[np.asarray(items, np.int64)]
    return predicted


def log_loss_by_user(
    probabilities: NDArray[np.float64], levels: ArrayLike, users: ArrayLike
) -> "pd.Series[float]":
    """Mean of -log P(level) in nats for each user, indexed by user.

    Args:
        probabilities: Predicted distributions, shape (B, K).
        levels: What happened, shape (B,).
        users: Whose row it is, shape (B,).
    """
    loss = -np.log(np.take_along_axis(probabilities, np.asarray(levels, np.int64)[:, None], axis=1)[:, 0])
    return pd.Series(loss).groupby(np.asarray(users, np.int64)).mean()


def _start(
    counts: NDArray[np.int64], n_users: int, features: Tensor, n_factors: int, rng: torch.Generator
) -> _Parameters:
    """Thresholds at the base rates, all effects zero, small random factors and loadings."""
    reached = counts[::-1].cumsum()[::-1]
    going_on = torch.as_tensor(reached[1:] / reached[:-1], dtype=torch.float32)
    n_items, n_features = features.shape
    parameters = _Parameters(
        thresholds=-torch.logit(going_on),
        shared_taste=torch.zeros(n_features),
        user_effect=torch.zeros(n_users, 1),
        item_effect=torch.zeros(n_items, 1),
        taste=torch.zeros(n_users, n_features),
        loadings=0.1 * torch.randn(n_users, n_factors, generator=rng),
        factors=0.3 * torch.randn(n_items, n_factors, generator=rng),
    )
    return _Parameters(*(parameter.requires_grad_() for parameter in parameters))


def _utility(p: _Parameters, users: Tensor, items: Tensor, features: Tensor) -> Tensor:
    taste = functional.embedding(users, p.taste) + p.shared_taste
    known = (taste * features[items]).sum(dim=1)
    hidden = (functional.embedding(users, p.loadings) * functional.embedding(items, p.factors)).sum(dim=1)
    effects = functional.embedding(users, p.user_effect) + functional.embedding(items, p.item_effect)
    return effects.squeeze(1) + known + hidden


def _step_logits(p: _Parameters, rows: _Rows, features: Tensor) -> Tensor:
    return _utility(p, rows.users, rows.items, features)[:, None] - p.thresholds


def _nll(p: _Parameters, rows: _Rows, features: Tensor) -> Tensor:
    """-log P(level) in nats, shape (B,): the step that was not taken, and all those that were."""
    logits = _step_logits(p, rows, features)
    steps = torch.arange(logits.shape[1])
    level = rows.levels[:, None]
    losses = functional.softplus(torch.where(steps < level, -logits, logits))
    return torch.where(steps <= level, losses, 0.0).sum(dim=1)


def _penalty(p: _Parameters, variances: dict[str, Tensor]) -> Tensor:
    """-log prior up to a constant; the standard normal prior of the factors sets the scale of loadings."""
    total = 0.5 * (
        (p.factors**2).sum() + (p.loadings**2 / LOADING_VARIANCE).sum() + (p.shared_taste**2).sum()
    )
    for name, variance in variances.items():
        total = total + 0.5 * (getattr(p, name) ** 2 / variance).sum()
    return total


@torch.no_grad()
def _learn_variances(variances: dict[str, Tensor], p: _Parameters, rows: _Rows, features: Tensor) -> None:
    """One EM step of each prior variance: mean of square + posterior variance over users or items, by column.

    Differs from plain EM: the posterior variance takes the diagonal of the Hessian only.
    """
    logits = _step_logits(p, rows, features)
    reached = torch.arange(logits.shape[1]) <= rows.levels[:, None]
    curvature = (torch.sigmoid(logits) * torch.sigmoid(-logits) * reached).sum(dim=1, keepdim=True)
    ones = torch.ones(len(curvature), 1)
    inputs = {"user_effect": ones, "item_effect": ones, "taste": features[rows.items]}
    for name, variance in variances.items():
        mode: Tensor = getattr(p, name)
        owner = rows.items if name == "item_effect" else rows.users
        information = torch.zeros_like(mode).index_add_(0, owner, curvature * inputs[name] ** 2)
        posterior = 1 / (information + 1 / variance)
        variance.copy_((mode**2 + posterior).mean(dim=0))


def _finish(p: _Parameters, features: Tensor) -> FittedTaste:
    with torch.no_grad():
        choice = NestedChoice(p.thresholds.double().numpy(), np.ones(len(p.thresholds)))
        return FittedTaste(
            user_effect=p.user_effect[:, 0].numpy().copy(),
            item_effect=p.item_effect[:, 0].numpy().copy(),
            taste=(p.taste + p.shared_taste).numpy(),
            features=features.numpy(),
            loadings=p.loadings.detach().numpy().copy(),
            factors=p.factors.detach().numpy().copy(),
            choice=choice,
        )
