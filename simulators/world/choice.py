"""How a utility becomes an observed level of interest: a nested (sequential) ordinal choice.

A user goes deeper one step at a time, and may stop at each: shown, opened, saved, watched, loved. The model
is the continuation-ratio (sequential) logit of Fienberg (1980), "The Analysis of Cross-Classified Categorical
Data", ch. 6, in the form of Tutz (1991), "Sequential models in categorical regression", Comput. Stat. Data
Anal. 11(3), with a position term on the first step, where examination decides (Craswell et al., 2008, "An
experimental comparison of click position-bias models", WSDM).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulators.errors import WorldError


@dataclass(frozen=True, eq=False)
class NestedChoice:
    """Probabilities of levels 0..K-1 given a utility u, as a product of steps.

    P(y >= k | y >= k-1) = sigmoid(slope_k u - threshold_k + shift + [k = 1] position_effect f(position)) with
    f(position) = -log(1 + position): the first place of a slate (position 0) has no effect. Slopes are not
    negative, hence a larger utility makes every level at least as likely to be reached.

    Attributes:
        thresholds: Difficulty of each step, in logits. Shape (K-1,) for K levels.
        slopes: Weight of the utility in each step, at least 0. Shape (K-1,).
        position_effect: How fast attention falls along a slate, in logits, at least 0.
    """

    thresholds: NDArray[np.float64]
    slopes: NDArray[np.float64]
    position_effect: float = 0.0

    def __post_init__(self) -> None:
        """Check shapes and signs.

        Raises:
            WorldError: Thresholds and slopes differ in shape, are not finite, or a slope or the effect is
                negative.
        """
        thresholds, slopes = np.asarray(self.thresholds, np.float64), np.asarray(self.slopes, np.float64)
        if thresholds.ndim != 1 or thresholds.shape != slopes.shape or not len(thresholds):
            raise WorldError(
                f"`thresholds` and `slopes` must both have shape (K-1,); got {thresholds.shape} and "
                f"{slopes.shape}. Give one of each for every step between two levels."
            )
        if not np.isfinite(np.concatenate([thresholds, slopes])).all():
            raise WorldError(
                f"`thresholds` and `slopes` must be finite; got {thresholds.tolist()} and {slopes.tolist()}. "
                "Fit on data in which every level occurs."
            )
        if min(slopes.min(), self.position_effect) < 0:
            raise WorldError(
                f"`slopes` and `position_effect` must be at least 0; got {slopes.tolist()} and "
                f"{self.position_effect}. Turn the sign of the utility instead."
            )
        object.__setattr__(self, "thresholds", thresholds)
        object.__setattr__(self, "slopes", slopes)

    @classmethod
    def impressions(cls) -> "NestedChoice":
        """Levels of films shown in slates of ten, for utilities with mean 0 and standard deviation 1.

        Films shown at random to users of the embedded world, at positions 0..9, come out as 84 % ignored, 9.4 %
        opened, 3.4 % saved, 2.2 % watched and 1 % loved; normal utilities give nearly the same.
        """
        thresholds = np.array(IMPRESSION_THRESHOLDS)
        return cls(thresholds, np.array(IMPRESSION_SLOPES), IMPRESSION_POSITION_EFFECT)

    def step_logits(
        self, utility: ArrayLike, *, position: ArrayLike = 0, shift: ArrayLike = 0.0
    ) -> NDArray[np.float64]:
        """Logits of going on from each level to the next, shape (B, K-1).

        Args:
            utility: Shape (B,).
            position: 0-based place in the slate, one for all rows or shape (B,).
            shift: Added to every step, in logits, one for all rows or shape (B,).
        """
        u = np.asarray(utility, np.float64)
        logits: NDArray[np.float64] = u[:, None] * self.slopes - self.thresholds
        logits = logits + np.broadcast_to(np.asarray(shift, np.float64), u.shape)[:, None]
        logits[:, 0] -= self.position_effect * np.log1p(
            np.broadcast_to(np.asarray(position, np.float64), u.shape)
        )
        return logits

    def reach_probabilities(
        self, utility: ArrayLike, *, position: ArrayLike = 0, shift: ArrayLike = 0.0
    ) -> NDArray[np.float64]:
        """P(y >= k) for k = 1..K-1, shape (B, K-1), never rising with k. Arguments as in `step_logits`."""
        logits = self.step_logits(utility, position=position, shift=shift)
        reached: NDArray[np.float64] = np.exp(np.cumsum(-np.logaddexp(0.0, -logits), axis=1))
        return reached

    def probabilities(
        self, utility: ArrayLike, *, position: ArrayLike = 0, shift: ArrayLike = 0.0
    ) -> NDArray[np.float64]:
        """P(y = k) for k = 0..K-1, shape (B, K), rows sum to 1. Arguments as in `step_logits`."""
        reached = self.reach_probabilities(utility, position=position, shift=shift)
        ends = np.ones((len(reached), 1))
        return -np.diff(np.concatenate([ends, reached, 0 * ends], axis=1), axis=1)

    def log_likelihood(
        self, utility: ArrayLike, levels: ArrayLike, *, position: ArrayLike = 0, shift: ArrayLike = 0.0
    ) -> NDArray[np.float64]:
        """Log-probability of each level in nats, shape (B,), exact in the far tails too.

        Args:
            utility: Shape (B,).
            levels: Shape (B,), int, 0..K-1.
            position: As in `step_logits`.
            shift: As in `step_logits`.

        Raises:
            WorldError: A level outside 0..K-1.
        """
        y = np.asarray(levels, np.int64)
        last = len(self.thresholds)
        if len(y) and not 0 <= y.min() <= y.max() <= last:
            raise WorldError(
                f"`levels` must lie in 0..{last}; got {y.min()}..{y.max()}. Check how levels were coded."
            )
        logits = self.step_logits(utility, position=position, shift=shift)
        steps = np.arange(last)
        passed = np.where(steps < y[:, None], np.logaddexp(0.0, -logits), 0.0)
        stopped = np.where(steps == y[:, None], np.logaddexp(0.0, logits), 0.0)
        total: NDArray[np.float64] = -(passed + stopped).sum(axis=1)
        return total

    def sample(
        self, utility: ArrayLike, uniforms: ArrayLike, *, position: ArrayLike = 0, shift: ArrayLike = 0.0
    ) -> NDArray[np.int64]:
        """Levels by inverse CDF, shape (B,): level k is reached where the uniform lies below P(y >= k).

        Under the same uniform a larger utility never gives a smaller level, so two replies can be compared
        under common random numbers.

        Args:
            utility: Shape (B,).
            uniforms: Independent draws from U(0, 1), shape (B,).
            position: As in `step_logits`.
            shift: As in `step_logits`.
        """
        reached = self.reach_probabilities(utility, position=position, shift=shift)
        levels: NDArray[np.int64] = (np.asarray(uniforms)[:, None] < reached).sum(axis=1)
        return levels

    def rescaled(self, mean: float, deviation: float) -> "NestedChoice":
        """The same choices for utilities given as (u - mean) / deviation; `deviation` is positive."""
        return NestedChoice(
            self.thresholds - self.slopes * mean,
            self.slopes * deviation,
            position_effect=self.position_effect,
        )


# Slopes are chosen so that levels tell utilities apart as click and rating logs do (AUC of a click about .8
# for the true utility); the thresholds then follow from the base rates in `impressions` by one-dimensional
# root finding.
IMPRESSION_SLOPES = (1.4, 1.0, 1.0, 1.2)
IMPRESSION_POSITION_EFFECT = 0.35
IMPRESSION_THRESHOLDS = (1.69, 1.34, 1.38, 2.85)
