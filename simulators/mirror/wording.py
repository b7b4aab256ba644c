"""How far the wording of a reply counts beside the item: assumed, or fitted to dialogues that users rated.

Stars are linear in the utility of the item and in the worth of the words, with logistic noise, rounded to whole stars
and cut at both ends; interest is the log's own choice model with a shift. Both are fitted by maximum likelihood, the
first as an ordinal model with known cut points (McCullagh, 1980, "Regression Models for Ordinal Data").
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from simulators.errors import MirrorError
from simulators.grounding import reply_attributes
from simulators.mirror.level_model import LevelModel
from simulators.mirror.manner import Manners
from simulators.mirror.steps import Values
from simulators.types import Dialogue

LEAST_TURNS = 50
FLAT = 1e-3
"""Slope of the mean log-likelihood, in nats a unit, below which a fit has converged."""
FEWEST_STARS, MOST_STARS = 1.0, 5.0


class Wording(NamedTuple):
    """How a user's feelings follow from item and words; by default assumed, not measured.

    interest: Logits that a unit of the words' worth adds to each step of interest.
    readiness: Logits that being in a dialogue adds to each step, against the log.
    stars: Stars of an average item in average words.
    stars_item: Stars that a unit of the item's utility adds.
    stars_reply: Stars that a unit of the words' worth adds.
    noise: Scale of the logistic noise of a rating, in stars.
    """

    interest: float = 0.5
    readiness: float = 0.0
    stars: float = 2.5
    stars_item: float = 0.5
    stars_reply: float = 1.0
    noise: float = 0.4

    @classmethod
    def fit(cls, model: LevelModel, manners: Manners, dialogues: Sequence[Dialogue]) -> "Wording":
        """Measured on dialogues of real users, who are rows of both models.

        Items and words are taken at the mean of what is believed of them, so that what belief does not know of a user
        becomes noise and not a smaller effect.

        Args:
            model: What the log tells of users and items.
            manners: What choices between replies tell of users.
            dialogues: Finished dialogues, rated turn by turn.

        Raises:
            MirrorError: There are fewer turns than `LEAST_TURNS`, or no wording is found that fits them best.
        """
        turns = [(dialogue.user, turn) for dialogue in dialogues for turn in dialogue.turns]
        if len(turns) < LEAST_TURNS:
            raise MirrorError(
                f"Wording must be fitted to at least {LEAST_TURNS} rated turns; got {len(turns)}. Hold more dialogues, "
                "or keep to the assumed one."
            )
        users = np.asarray([user for user, _ in turns], np.int64)
        cards, replies = [turn.card for _, turn in turns], [turn.reply for _, turn in turns]
        utility, _ = model.utility(users, np.asarray([card.item for card in cards], np.int64))
        attributes = manners.scale(reply_attributes(replies, cards))
        worth = manners.contributions(manners.weights.mean[users], attributes).sum(axis=1)
        felt = [turn.feedback for _, turn in turns]
        levels = np.asarray([feedback.level for feedback in felt], np.int64)
        stars = np.asarray([feedback.satisfaction for feedback in felt], np.float64)

        def unlikely_levels(free: Values) -> float:
            likelihood = model.choice.log_likelihood(utility, levels, shift=free[0] * worth + free[1])
            return -float(likelihood.mean())

        def unlikely_stars(free: Values) -> float:
            mean = free[0] + free[1] * utility + free[2] * worth
            return -float(np.log(_star_probability(stars, mean, np.exp(free[3]))).mean())

        assumed = cls()
        first = [assumed.stars, assumed.stars_item, assumed.stars_reply, np.log(assumed.noise)]
        interest, readiness = _likeliest(unlikely_levels, [assumed.interest, 0.0])
        base, item, reply, log_noise = _likeliest(unlikely_stars, first)
        # A better reply must never please less: users are met again under the same luck.
        return cls(
            max(interest, 0.0), readiness, base, max(item, 0.0), max(reply, 0.0), float(np.exp(log_noise))
        )

    def rate(self, utility: Values, worth: Values, mood: Values) -> Values:
        """Whole stars, 1 to 5, under uniform numbers `mood`; a better item or reply never gets fewer. Shape (B,)."""
        felt = self.stars + self.stars_item * utility + self.stars_reply * worth
        noise = self.noise * logit(np.clip(mood, 1e-12, 1 - 1e-12))
        return np.asarray(np.clip(np.rint(felt + noise), FEWEST_STARS, MOST_STARS))

    def shift(self, worth: Values) -> Values:
        """Logits added to each step of interest. Shape (B,)."""
        return self.interest * worth + self.readiness


def _likeliest(unlikely: Callable[[Values], float], first: list[float]) -> list[float]:
    """Where a mean negative log-likelihood, in nats a turn, is flat and least."""
    found = minimize(unlikely, first)
    # Steps may stop short of scipy's own tolerance by rounding alone; what is left of the slope says how far off.
    if not np.isfinite(found.x).all() or not np.abs(found.jac).max() < FLAT:
        raise MirrorError(
            f"Rated turns must tell how much item and words count; the likelihood still rises by "
            f"{np.abs(found.jac).max():.2g} nats at {np.round(found.x, 2).tolist()}. Hold more dialogues, or keep to "
            "the assumed wording."
        )
    values: list[float] = found.x.tolist()
    return values


def _star_probability(stars: Values, mean: Values, scale: float) -> Values:
    """P(whole stars) where the logistic feeling about `mean` is rounded and cut at both ends. Shape (B,)."""
    upper = np.where(stars >= MOST_STARS, 1.0, expit((stars + 0.5 - mean) / scale))
    lower = np.where(stars <= FEWEST_STARS, 0.0, expit((stars - 0.5 - mean) / scale))
    return np.asarray(np.maximum(upper - lower, 1e-12))
