"""Learning one person from choices between two replies: what to ask next, and what the choices tell.

A lesson is plain data for one session; the teacher is shared by all sessions and never changes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.attribute_words import MORE_AND_LESS
from app.errors import TalkError
from app.pipeline.replies import ReplyPool
from app.profile_portrait import next_questions
from app.profile_wishes import Lens, build_lens, read_wishes
from persona.profiles import Profile
from persona.profiles.latent import LatentProfile
from persona.rewards.attributes import ATTRIBUTES
from persona.types import Posterior, ReplyPairs

LENS_PAIRS = 400
_CANDIDATES = 256
_SURE = 0.8


class Offer(NamedTuple):
    """Two replies to one question, as rows of the pool."""

    first: int
    second: int


class Pick(NamedTuple):
    """An offer with the side that was preferred: 0 the first, 1 the second."""

    offer: Offer
    side: int


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one person has chosen so far, and what is on offer.

    Attributes:
        picks: Oldest first.
        offer: The two replies to choose between.
        skipped: Offers that were passed on.
        seed: Draws which replies are offered.
    """

    picks: tuple[Pick, ...]
    offer: Offer
    skipped: int = 0
    seed: int = 0


class Belief(NamedTuple):
    """How much more than the average user a person wants of each attribute, in logits a deviation.

    mean: Shape (A,).
    std: Standard deviation of the belief. Shape (A,).
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    def probability_of_more(self) -> list[float]:
        """Probability that the person wants more of each attribute than the average user does."""
        return [
            0.5 * (1 + math.erf(m / (s * math.sqrt(2)))) for m, s in zip(self.mean, self.std, strict=True)
        ]


class Teacher:
    """Turns choices into a posterior, and the posterior into the next question.

    Args:
        pool: Replies to choose between, with their features and measured attributes.
        profile: The trained profile.
        features: What the profile reads of the pool's replies; None takes the pool's own features. Shape (N, D).
    """

    def __init__(self, pool: ReplyPool, profile: Profile, features: Tensor | None = None) -> None:
        """Prepare everything that does not depend on the person."""
        self._profile = profile
        self._per_prompt = len(pool.replies) // len(pool.prompts)
        self._prompts = len(pool.prompts)
        _, self._text_of = np.unique([reply.text for reply in pool.replies], return_inverse=True)
        with torch.inference_mode():
            plain = pool.features if features is None else features
            self._lifted = profile.lift(plain).clone()
            self._read: Callable[[Posterior], Belief]
            if isinstance(profile, LatentProfile):
                head = profile.head.double().T
                self._read = partial(
                    _exact_belief, _regression(pool.attributes) @ self._lifted.double() @ head
                )
            else:
                lens = build_lens(profile, plain, pool.attributes, self._lens_pairs())
                self._read = partial(_drawn_belief, profile, lens)

    def begin(self, seed: int = 0) -> Lesson:
        """A person of whom nothing is known, with a first offer."""
        return self._with_offer(Lesson((), Offer(0, 0), seed=seed))

    def pick(self, lesson: Lesson, side: int) -> Lesson:
        """The lesson after the first (0) or the second (1) reply on offer was preferred, with a new offer."""
        return self._with_offer(replace(lesson, picks=(*lesson.picks, Pick(lesson.offer, side))))

    def skip(self, lesson: Lesson) -> Lesson:
        """The lesson with another offer and nothing learned."""
        return self._with_offer(replace(lesson, skipped=lesson.skipped + 1))

    def undo(self, lesson: Lesson) -> Lesson:
        """The lesson without its last pick, which is on offer again.

        Raises:
            TalkError: Nothing was picked yet.
        """
        if not lesson.picks:
            raise TalkError("There must be a choice to take back; got none yet. Pick one of the two replies.")
        return replace(lesson, picks=lesson.picks[:-1], offer=lesson.picks[-1].offer)

    def posterior(self, lesson: Lesson) -> Posterior:
        """Belief about the person's latent: mean (1, Z), covariance (1, Z, Z); the prior before the first pick."""
        chosen = [pick.offer[pick.side] for pick in lesson.picks]
        rejected = [pick.offer[1 - pick.side] for pick in lesson.picks]
        with torch.inference_mode():
            return self._profile.encode(self._pairs(chosen, rejected))

    def belief(self, lesson: Lesson) -> Belief:
        """The posterior reward, less the average user's, as a linear function of the measured attributes.

        Over the replies of the pool, z . W g is regressed on the attributes by least squares; that map is linear in
        z, so the Gaussian over z gives a Gaussian over its coefficients. Of a profile without such a head, users are
        drawn from the belief and the log-odds of pairs are regressed instead.
        """
        return self._read(self.posterior(lesson))

    def _with_offer(self, lesson: Lesson) -> Lesson:
        """Of many random pairs, the one whose answer would tell most.

        That is the one of largest p (1 - p) v, with p the probability of the first and v the variance of the
        log-odds: the expected gain in information, to first order.

        Source: MacKay (1992), "Information-Based Objective Functions for Active Data Selection".
        """
        rng = np.random.default_rng((lesson.seed, len(lesson.picks), lesson.skipped))
        start = rng.integers(self._prompts, size=_CANDIDATES) * self._per_prompt
        one = rng.integers(self._per_prompt, size=_CANDIDATES)
        step = rng.integers(1, self._per_prompt, size=_CANDIDATES)
        first, second = start + one, start + (one + step) % self._per_prompt
        gain = np.where(
            self._text_of[first] == self._text_of[second],
            -1.0,
            self._worth(self.posterior(lesson), first, second),
        )
        best = int(gain.argmax())
        return replace(lesson, offer=Offer(int(first[best]), int(second[best])))

    def _worth(
        self, posterior: Posterior, first: NDArray[np.int64], second: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """What the answer to each pair would tell, larger being more. Shape (candidates,)."""
        with torch.inference_mode():
            asked = self._pairs(first, second)
            if isinstance(self._profile, LatentProfile):
                _, variance = self._profile.log_odds(posterior, asked)
                p = self._profile.predict(posterior, asked)
                return np.asarray((p * (1 - p) * variance)[0])
            worth = np.zeros(len(first))
            for question in next_questions(self._profile, posterior, asked.chosen[0], asked.rejected[0]):
                worth[question.place] = question.gain_bits
            return worth

    def _lens_pairs(self) -> NDArray[np.int64]:
        """Pairs of replies to one question each, through which beliefs are read. Shape (T, 2)."""
        rng = np.random.default_rng(0)
        start = rng.integers(self._prompts, size=LENS_PAIRS) * self._per_prompt
        one = rng.integers(self._per_prompt, size=LENS_PAIRS)
        other = (one + rng.integers(1, self._per_prompt, size=LENS_PAIRS)) % self._per_prompt
        return np.stack([start + one, start + other], axis=1)

    def _pairs(
        self, first: Sequence[int] | NDArray[np.int64], second: Sequence[int] | NDArray[np.int64]
    ) -> ReplyPairs:
        """Replies of the pool as the pairs of one person."""
        chosen, rejected = (
            self._lifted[torch.as_tensor(rows, dtype=torch.long)][None] for rows in (first, second)
        )
        return ReplyPairs(chosen, rejected, torch.ones(chosen.shape[:2], dtype=torch.bool))


def _exact_belief(to_attributes: Tensor, posterior: Posterior) -> Belief:
    mean, covariance = (part[0].double() for part in posterior[:2])
    spread = to_attributes @ covariance @ to_attributes.T
    return Belief((to_attributes @ mean).numpy(), spread.diagonal().clamp_min(1e-12).sqrt().numpy())


def _drawn_belief(profile: Profile, lens: Lens, posterior: Posterior) -> Belief:
    wishes = read_wishes(profile, posterior, lens, seed=0)
    return Belief(wishes.mean[0], np.maximum(wishes.std[0], 1e-6))


def describe(belief: Belief, picks: int) -> str:
    """What the choices tell, in a sentence or two of Markdown.

    Args:
        belief: After those choices.
        picks: How many there were.
    """
    if not picks:
        return (
            "Nothing is known of you yet: you are the average user. Pick the reply that you would rather get."
        )
    chances = belief.probability_of_more()
    known = sorted(
        (max(p, 1 - p), MORE_AND_LESS[name][p < 0.5])
        for name, p in zip(ATTRIBUTES, chances, strict=True)
        if max(p, 1 - p) >= _SURE
    )[::-1]
    open_ones = [name for name, p in zip(ATTRIBUTES, chances, strict=True) if max(p, 1 - p) < _SURE]
    counted = "1 choice" if picks == 1 else f"{picks} choices"
    if not known:
        return f"After {counted} nothing is sure yet. A few more will tell."
    wanted = ", ".join(f"**{words}** ({min(chance, 0.99):.0%} sure)" for chance, words in known)
    rest = f" Still open: {', '.join(open_ones)}." if open_ones else ""
    return f"After {counted} you seem to want {wanted}, compared with the average user.{rest}"


def _regression(attributes: NDArray[np.float64]) -> Tensor:
    """The matrix that turns N values into their least-squares coefficients on the attributes. Shape (A, N)."""
    design = np.column_stack([attributes, np.ones(len(attributes))])
    return torch.from_numpy(np.linalg.pinv(design)[: attributes.shape[1]])
