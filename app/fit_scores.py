"""What one fitted profile did on one split, user by user, and how it is kept in its stage's folder."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from app.errors import StoreError
from app.files import read_json, read_tensors, write_arrays, write_json
from app.fit_data import Prepared, Trial
from app.profile_wishes import build_lens, central_wishes, no_pairs, reward_scales
from persona.data.comparisons import ComparisonTable, context_pairs
from persona.diagnostics import flip_cosines
from persona.evaluation import ACTIVE_VARIANCE, score_users
from persona.profiles import Profile
from persona.types import ReplyPairs

SCORES, FACTS = "scores.safetensors", "facts.json"
KEPT, FAILED = "kept", "failed"
LENS_PAIRS = 400
_REPEATS = 15
Values = NDArray[np.float64]


class Scores(NamedTuple):
    """Figures of U unseen users; K context sizes, C bins of confidence, A named attributes.

    users: Rows of the users. Shape (U,).
    accuracy: Shape (K, U).
    log_loss: Shape (K, U).
    bin_count: Shape (K, U, C).
    bin_gap: Shape (K, U, C).
    shown: Pairs that were shown. Shape (K, U).
    shuffled: Accuracy at the last size under another user's context. Shape (U,).
    agreed: Accuracy at the last size on pairs that several users judged alike, NaN without any. Shape (U,).
    controversial: The same on pairs that they judged differently. Shape (U,).
    place: Where the belief lies on its two widest axes. Shape (U, 2).
    wishes: What the belief wants more of than the average user, in logits a deviation. Shape (U, A).
    flip: Cosine of the latent with that of someone who chose the opposite every time, NaN where it stays zero. (U,).
    scale: Deviation of the user's log-odds over pairs that are the same for all. Shape (U,).
    """

    users: NDArray[np.int64]
    accuracy: Values
    log_loss: Values
    bin_count: Values
    bin_gap: Values
    shown: Values
    shuffled: Values
    agreed: Values
    controversial: Values
    place: Values
    wishes: Values
    flip: Values
    scale: Values


def stage_name(method: str, part: int | str) -> str:
    """The stage of a method on the split of one seed, or (`KEPT`) of the profile that is kept."""
    return f"{method}-{part}"


def measure_profile(
    profile: Profile,
    prepared: Prepared,
    trial: Trial,
    features: torch.Tensor,
    *,
    sizes: Sequence[int],
    seed: int,
) -> tuple[Scores, dict[str, Any]]:
    """Everything that is measured of one profile on one split.

    Args:
        profile: What was fitted to the training part.
        prepared: For the named attributes.
        trial: The split.
        features: The matrix that the profile reads. Shape (N, D).
        sizes: Context sizes, ascending.
        seed: Draws contexts, and who gets whose.

    Returns:
        The scores, and facts: latent_dim, active_units, new_user_ms.
    """
    context, target = trial.split.context, trial.split.target
    by_size = [score_users(profile, context, target, features, k=k, seed=seed) for k in sizes]
    users, last = by_size[-1].users, sizes[-1]
    shuffled = score_users(profile, context, target, features, k=last, seed=seed, shuffled=True)
    shown = np.stack([np.minimum(count_shown(context, users), k) for k in sizes]).astype(np.float64)
    with torch.no_grad():
        lifted = profile.lift(features)
        pairs = context_pairs(context, lifted, users, last, np.random.default_rng(seed))
        posterior = profile.encode(pairs)
        white = _in_prior_units(profile, posterior.mean, lifted)
    lens = build_lens(profile, features, prepared.named.values, lens_pairs(trial.split.train, seed))
    scores = Scores(
        users,
        np.stack([score.accuracy for score in by_size]),
        np.stack([score.log_loss for score in by_size]),
        np.stack([score.bin_count for score in by_size]),
        np.stack([score.bin_gap for score in by_size]),
        shown,
        shuffled.accuracy,
        _accuracy_on(profile, trial, trial.agreed, features, users, last, seed),
        _accuracy_on(profile, trial, trial.controversial, features, users, last, seed),
        two_axes(white),
        central_wishes(profile, posterior, lens),
        flip_cosines(profile, pairs),
        reward_scales(profile, posterior, lens),
    )
    facts = {
        "latent_dim": profile.latent_dim,
        "active_units": _active_units(white),
        "new_user_ms": _new_user_ms(profile, pairs),
    }
    return scores, facts


def lens_pairs(table: ComparisonTable, seed: int) -> NDArray[np.int64]:
    """At most `LENS_PAIRS` different pairs that were judged, at random. Shape (T, 2)."""
    pairs = np.unique(np.sort(np.stack([table.chosen, table.rejected], axis=1), axis=1), axis=0)
    return pairs[np.random.default_rng(seed).permutation(len(pairs))[:LENS_PAIRS]]


def save_scores(folder: Path, scores: Scores, facts: dict[str, Any]) -> None:
    """Write scores and facts into a stage's folder.

    Raises:
        StoreError: The folder cannot be written.
    """
    write_arrays(folder / SCORES, scores._asdict())
    write_json(folder / FACTS, facts)


def read_scores(folder: Path) -> tuple[Scores, dict[str, Any]]:
    """What `save_scores` wrote.

    Raises:
        StoreError: A file is missing or damaged.
    """
    arrays, facts = read_tensors(folder / SCORES), read_json(folder / FACTS)
    if set(arrays) != set(Scores._fields) or not isinstance(facts, dict):
        raise StoreError(
            f"{folder / SCORES} must hold {', '.join(Scores._fields)}; got other content. Fit anew in another folder."
        )
    return Scores(**{name: value.numpy() for name, value in arrays.items()}), facts


def count_shown(table: ComparisonTable, users: NDArray[np.int64]) -> NDArray[np.int64]:
    """Comparisons of each user. Shape (U,)."""
    order = np.sort(table.users)
    return np.searchsorted(order, users, side="right") - np.searchsorted(order, users, side="left")


def _accuracy_on(
    profile: Profile,
    trial: Trial,
    kept: NDArray[np.bool_],
    features: torch.Tensor,
    users: NDArray[np.int64],
    k: int,
    seed: int,
) -> Values:
    """Accuracy by user on some of the targets, NaN for users without any of them."""
    found = np.full(len(users), np.nan)
    if kept.any():
        part = trial.split.target.select(kept)
        score = score_users(profile, trial.split.context, part, features, k=k, seed=seed)
        found[np.searchsorted(users, score.users)] = score.accuracy
    return found


def _in_prior_units(profile: Profile, mean: torch.Tensor, lifted: torch.Tensor) -> Values:
    """Posterior means in deviations of the prior, which has one in every direction. Shape (U, Z)."""
    prior = profile.encode(no_pairs(lifted))
    values, vectors = torch.linalg.eigh(prior.covariance[0].double())
    floor = values.max() * 1e-6 if len(values) else 0.0
    white: Values = (mean.double() @ vectors / values.clamp_min(floor).sqrt()).cpu().numpy()
    return white


def _active_units(white: Values) -> int:
    """Principal axes along which posterior means vary by more than a share of the prior's variance."""
    centred = white - white.mean(0)
    return int((np.linalg.svd(centred, compute_uv=False) ** 2 / len(white) > ACTIVE_VARIANCE).sum())


def two_axes(white: Values) -> Values:
    """The means on their two widest axes, each with its largest entry positive; zeros where there are fewer."""
    found = np.zeros((len(white), 2))
    if white.shape[1]:
        _, _, axes = np.linalg.svd(white - white.mean(0), full_matrices=False)
        axes = axes[:2]
        axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], axis=1))
        found[:, : len(axes)] = white @ axes.T
    return found


@torch.no_grad()
def _new_user_ms(profile: Profile, pairs: ReplyPairs) -> float:
    """Median time of a belief about one user, features known, in milliseconds."""
    one = ReplyPairs(*(part[:1] for part in pairs))
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        profile.encode(one)
        seconds.append(time.perf_counter() - began)
    return 1000.0 * float(np.median(seconds))
