"""How far words may move the probabilities of a fitted choice model: a calibrated model decides, words adjust it.

P(option) is proportional to p(option)^scale * q(option)^weight, where p is the choice model's probability and q that of
a language model which has told how the user decides. In logits: those of the choice model times `scale`, plus `weight`
times the log-odds of the words. Both are fitted to scenes that neither model was trained on, so that probabilities are
calibrated, and words that foretell nothing get no weight, but for one time in twenty or so, and then a small one.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from simulators.errors import MirrorError
from simulators.mirror.choice_model import fit_choices

Values = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS = 5
CLEAR = 1.645
"""Standard errors by which words must help: chance alone is further up one time in twenty."""


class Adjustment(NamedTuple):
    """How choice model and words are put together.

    scale: Power of the choice model's probabilities; 1 leaves them as they are.
    weight: Power of the words' probabilities, at least 0; at 0 words change nothing.
    weight_error: Standard error of the weight, users being the independent units; NaN at weight 0.
    gain: By how much users left out of the fit were foretold better, in nats a scene, mean over users.
    gain_error: Standard error of the gain.
    """

    scale: float = 1.0
    weight: float = 0.0
    weight_error: float = np.nan
    gain: float = 0.0
    gain_error: float = 0.0

    def apply(self, base: ArrayLike, words: ArrayLike) -> Values:
        """The choice model's probabilities, moved by the words.

        Args:
            base: P(option) of the choice model; an option that a scene lacks has 0. Shape (S, O).
            words: P(option) of the words, positive where `base` is. Shape (S, O).

        Returns:
            Shape (S, O), rows sum to 1.

        Raises:
            MirrorError: Arrays that are no distributions over the same options.
        """
        logs = _logs(base, words)
        if self.weight == 0 and self.scale == 1:
            return np.asarray(base, np.float64)
        has = np.isfinite(logs[0])
        inside = np.where(has, logs, 0.0)
        moved: Values = softmax(
            np.where(has, self.scale * inside[0] + self.weight * inside[1], -np.inf), axis=1
        )
        return moved


def fit_adjustment(base: ArrayLike, words: ArrayLike, chosen: ArrayLike, users: ArrayLike) -> Adjustment:
    """Fit scale and weight by maximum likelihood, and keep them where they are worth it to users left out.

    Users are dealt to folds in turn; each fold is foretold by a fit to the others. Unless the mean gain over users is
    more than `CLEAR` standard errors, the choice model is left as it is.

    Args:
        base: P(option) of the choice model; an option that a scene lacks has 0. Shape (S, O).
        words: P(option) of the words, positive where `base` is. Shape (S, O).
        chosen: Which option was taken. Shape (S,).
        users: Whose scene it is. Shape (S,).

    Raises:
        MirrorError: Arrays that are no distributions over the same options, a choice that was not on offer, or fewer
            than two users.
    """
    logs = _logs(base, words)
    took = np.asarray(chosen, np.int64)
    names, owner = np.unique(np.asarray(users), return_inverse=True)
    rows = np.arange(len(took))
    if took.shape != owner.shape or len(took) != logs.shape[1] or len(names) < 2:
        raise MirrorError(
            f"`chosen` and `users` must have one entry for each of {logs.shape[1]} scenes, of two users or more; got "
            f"{len(took)}, {len(owner)} and {len(names)} users. Hold out scenes of more users."
        )
    inside = (took >= 0) & (took < logs.shape[2])
    if not inside.all() or np.isinf(logs[0, rows, took]).any():
        raise MirrorError(
            "`chosen` must be an option on offer, which the choice model gives a positive probability; got "
            f"{took[~inside][:3].tolist() or 'an option without one'}. Count choosing nothing as an option."
        )
    folds = owner % min(FOLDS, len(names))
    gains = np.empty(len(took))
    for fold in range(folds.max() + 1):
        out = folds == fold
        fitted = _fit(logs[:, ~out], took[~out], owner[~out])
        gains[out] = _log_likelihood(logs[:, out], took[out], fitted) - logs[0, rows, took][out]
    by_user = np.bincount(owner, weights=gains) / np.bincount(owner)
    gain, error = float(by_user.mean()), float(by_user.std(ddof=1) / np.sqrt(len(names)))
    if gain <= CLEAR * error:
        return Adjustment(gain=gain, gain_error=error)
    return _fit(logs, took, owner)._replace(gain=gain, gain_error=error)


def _fit(logs: Values, took: Ints, owner: Ints) -> Adjustment:
    """The most likely scale and weight, the weight at least 0: a conditional logit of two covariates."""
    available = np.isfinite(logs[0])
    covariates = np.where(available[..., None], np.moveaxis(logs, 0, 2), 0.0)
    both = fit_choices(covariates, available, took, owner, n_users=int(owner.max()) + 1)
    if both.theta[1] > 0:
        effect = both.effect(1)
        return Adjustment(float(both.theta[0]), effect.value, effect.error)
    # The likelihood is concave, so the best fit with a weight of at least 0 then lies at 0.
    alone = fit_choices(covariates[..., :1], available, took, owner, n_users=int(owner.max()) + 1)
    return Adjustment(float(alone.theta[0]))


def _log_likelihood(logs: Values, took: Ints, fitted: Adjustment) -> Values:
    moved = fitted.apply(*np.exp(logs))
    found: Values = np.log(moved[np.arange(len(took)), took])
    return found


def _logs(base: ArrayLike, words: ArrayLike) -> Values:
    """Logarithms of both, -inf where a scene lacks the option. Shape (2, S, O)."""
    both = [np.asarray(p, np.float64) for p in (base, words)]
    if both[0].ndim != 2 or both[0].shape != both[1].shape:
        raise MirrorError(
            f"`base` and `words` must speak of the same scenes and options; got {both[0].shape} and {both[1].shape}. "
            "Put both in the same columns."
        )
    if not all(np.allclose(p.sum(axis=1), 1.0) and (p >= 0).all() for p in both):
        raise MirrorError(
            "`base` and `words` must sum to 1 over the options of each scene; got sums from "
            f"{min(p.sum(axis=1).min() for p in both):.3g} to {max(p.sum(axis=1).max() for p in both):.3g}. Normalise "
            "them over the options on offer."
        )
    if ((both[0] > 0) & (both[1] <= 0)).any():
        raise MirrorError(
            f"`words` must be positive wherever `base` is; got 0 in {int(((both[0] > 0) & (both[1] <= 0)).sum())} "
            "places. Use `mean_over_rationales`."
        )
    with np.errstate(divide="ignore"):
        found: Values = np.log(np.stack(both))
    return found
