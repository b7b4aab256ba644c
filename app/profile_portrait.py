"""One user as a profile sees them: what they want, how sure that is, which choices told most, what to ask next."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.attribute_words import more_or_less
from app.profile_wishes import (
    DRAWS,
    Lens,
    Values,
    belief_odds,
    central_wishes,
    draw_users,
    no_pairs,
    predict_pairs,
    read_wishes,
)
from persona.active import GaussianOdds, expected_information, mutual_information
from persona.profiles import Profile
from persona.types import Posterior, ReplyPairs

_CONTEXTS_AT_ONCE = 64
_WIDTH_OF_95 = 1.959964


class Wish(NamedTuple):
    """How much more of one attribute a user wants than the average user, in logits a deviation.

    attribute: Its name.
    words: What the wish means.
    mean: Centre of the belief.
    low: Lower end of its 95 % interval.
    high: Upper end.
    sure: Probability that the wish has this sign, at least one half.
    """

    attribute: str
    words: str
    mean: float
    low: float
    high: float
    sure: float


class Telling(NamedTuple):
    """What one choice told, found by leaving it out.

    place: Which choice of the user, from 0.
    influence: Mean change of the probabilities of other choices.
    shift: Distance that the belief's mean moves, in deviations of the belief.
    expected: Probability that the belief without it gives to this choice.
    words: The wish that it strengthens most; empty if it moves none.
    """

    place: int
    influence: float
    shift: float
    expected: float
    words: str


class Portrait(NamedTuple):
    """One user.

    wishes: The surest first.
    tellings: The most telling first.
    doubt_left: Variance of the log-odds of choices that is left, as a share of that about a stranger; None where a
        profile has no belief.
    foretells: How often the profile expects to be right about this user's next choices.
    stranger: The same for a stranger.
    """

    wishes: list[Wish]
    tellings: list[Telling]
    doubt_left: float | None
    foretells: float
    stranger: float


class Question(NamedTuple):
    """A pair to ask about.

    place: Which candidate, from 0.
    gain_bits: What the answer is expected to tell of the user.
    probability: That the user prefers the first reply.
    """

    place: int
    gain_bits: float
    probability: float


@torch.no_grad()
def draw_portrait(
    profile: Profile, context: ReplyPairs, lens: Lens, names: Sequence[str], *, seed: int = 0
) -> Portrait:
    """One user's portrait.

    Args:
        profile: Fitted; its latent has at least one dimension.
        context: The user's choices, all real, with lifted features. Shapes (1, P, L) and (1, P).
        lens: Pairs to read beliefs through.
        names: Of the lens's attributes.
        seed: Draws users from the beliefs.
    """
    posterior, prior = profile.encode(context), profile.encode(no_pairs(context.chosen[0]))
    after, before = (
        float(belief_odds(profile, belief, 0, lens.first, lens.second, seed=seed).variance.mean())
        for belief in (posterior, prior)
    )
    expected, usual = (
        predict_pairs(profile, belief, lens.first, lens.second).double() for belief in (posterior, prior)
    )
    return Portrait(
        _wishes(profile, posterior, lens, names, seed),
        _tellings(profile, context, posterior, lens, names),
        after / before if before > 0 else 1.0,
        float(torch.maximum(expected, 1 - expected).mean()),
        float(torch.maximum(usual, 1 - usual).mean()),
    )


@torch.no_grad()
def next_questions(
    profile: Profile, posterior: Posterior, first: Tensor, second: Tensor, *, seed: int = 0
) -> list[Question]:
    """Candidate pairs by what their answers are expected to tell of one user, the most first.

    The gain is the mutual information of answer and user: entropy of the expected answer less the expected entropy of
    the answer. It is exact for log-odds that are linear in a Gaussian latent; of a belief over kinds, users are drawn.

    Args:
        profile: Fitted.
        posterior: Belief about the user: one row.
        first: Lifted features of one reply of each of T candidates. Shape (T, L).
        second: Of the other. Shape (T, L).
        seed: Draws the users.

    Source: MacKay (1992), "Information-Based Objective Functions for Active Data Selection"; Houlsby et al. (2011),
    "Bayesian Active Learning for Classification and Preference Learning".
    """
    if isinstance(profile, GaussianOdds):
        asked = ReplyPairs(first[None], second[None], torch.ones(1, len(first), dtype=torch.bool))
        gain = expected_information(profile, posterior, asked)[0].double() / math.log(2.0)
        mean = profile.predict(posterior, asked)[0]
    elif posterior.weights is None:
        odds = belief_odds(profile, posterior, 0, first, second, seed=seed)
        gain = mutual_information(odds.mean, odds.variance) / math.log(2.0)
        mean = predict_pairs(profile, posterior, first, second)[0]
    else:
        drawn = draw_users(posterior, 0, seed=seed, draws=DRAWS)
        answers = predict_pairs(profile, drawn, first, second).double().cpu()
        mean = answers.mean(0)
        gain = (_entropy_bits(mean) - _entropy_bits(answers).mean(0)).clamp_min(0.0)
    order = torch.argsort(-gain, stable=True).tolist()
    return [Question(place, float(gain[place]), float(mean[place])) for place in order]


def _wishes(
    profile: Profile, posterior: Posterior, lens: Lens, names: Sequence[str], seed: int
) -> list[Wish]:
    found = read_wishes(profile, posterior, lens, seed=seed)
    chances = found.probability_of_more()[0]
    wishes = [
        Wish(
            name,
            more_or_less(name, is_more=bool(chance >= 0.5)),
            float(mean),
            float(mean - _WIDTH_OF_95 * std),
            float(mean + _WIDTH_OF_95 * std),
            float(max(chance, 1 - chance)),
        )
        for name, chance, mean, std in zip(names, chances, found.mean[0], found.std[0], strict=True)
    ]
    return sorted(wishes, key=lambda wish: -wish.sure)


def _tellings(
    profile: Profile, context: ReplyPairs, posterior: Posterior, lens: Lens, names: Sequence[str]
) -> list[Telling]:
    count = context.mask.shape[1]
    usual = predict_pairs(profile, posterior, lens.first, lens.second)
    centre = central_wishes(profile, posterior, lens)
    influence, shift, expected = (np.zeros(0) for _ in range(3))
    moved = np.zeros((0, centre.shape[1]))
    for start in range(0, count, _CONTEXTS_AT_ONCE):
        places = torch.arange(start, min(start + _CONTEXTS_AT_ONCE, count), device=context.mask.device)
        others = torch.arange(count, device=places.device) != places[:, None]
        without = profile.encode(
            ReplyPairs(*(part.expand(len(places), *part.shape[1:]) for part in context)).keep(others)
        )
        other = predict_pairs(profile, without, lens.first, lens.second)
        influence = np.append(influence, (usual - other).abs().mean(1).double().cpu().numpy())
        shift = np.append(shift, _distance(posterior, without))
        own = ReplyPairs(*(part[0, places][:, None] for part in context))
        expected = np.append(expected, profile.predict(without, own)[:, 0].double().cpu().numpy())
        moved = np.concatenate([moved, centre - central_wishes(profile, without, lens)])
    words = [_strengthens(moved[place], names) for place in range(count)]
    found = [
        Telling(place, float(influence[place]), float(shift[place]), float(expected[place]), words[place])
        for place in range(count)
    ]
    return sorted(found, key=lambda telling: -telling.influence)


def _strengthens(moved: Values, names: Sequence[str]) -> str:
    if not len(moved) or not np.abs(moved).max() > 1e-6:
        return ""
    place = int(np.abs(moved).argmax())
    return more_or_less(names[place], is_more=bool(moved[place] > 0))


def _distance(posterior: Posterior, others: Posterior) -> NDArray[np.float64]:
    """How far other means lie from a belief's, in its deviations. Shape (B,)."""
    apart = (others.mean - posterior.mean).double()
    values, vectors = torch.linalg.eigh(posterior.covariance[0].double())
    scaled = apart @ vectors / values.clamp_min(1e-12).sqrt()
    distance: NDArray[np.float64] = scaled.norm(dim=1).cpu().numpy()
    return distance


def _entropy_bits(p: Tensor) -> Tensor:
    bits: Tensor = -(torch.special.xlogy(p, p) + torch.special.xlogy(1 - p, 1 - p)) / math.log(2.0)
    return bits
