"""What a profile over texts believes, through its log-odds of pairs: it has no latent that could be looked at.

The log-odds of pairs of known attributes stand for the belief, as they do for profiles over features. Doubt is found
by leaving out each choice in turn (the jackknife), for there is no posterior: Tukey's t, with one degree of freedom
less than there are choices.

Source: Tukey (1958), "Bias and confidence in not quite large samples"; Seung, Opper & Sompolinsky (1992), "Query by
Committee", for the next question.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, xlogy
from scipy.stats import t as student

from app.attribute_words import more_or_less
from app.errors import ConfigError
from app.profile_portrait import Portrait, Question, Telling, Wish
from persona.profiles.shots import Shot
from persona.profiles.texts import TextProfile, text_log_odds
from persona.types import Conversation

Values = NDArray[np.float64]
LEAST_CHOICES = 2
PAIRS = 24
"""Pairs of replies that beliefs are read through."""


class TextPairs(NamedTuple):
    """T pairs of replies: conversations, one reply to each, and another one."""

    conversations: Sequence[Conversation]
    first: Sequence[str]
    second: Sequence[str]


class TextLens(NamedTuple):
    """Pairs through which beliefs are read.

    pairs: T pairs.
    solve: From their log-odds to least-squares coefficients on the attributes' differences. Shape (A, T).
    """

    pairs: TextPairs
    solve: Values


class Committee(NamedTuple):
    """Log-odds of pairs under all of a user's choices, without each of them, and of a stranger.

    full: Shape (T,).
    without: Row i leaves out choice i. Shape (P, T).
    stranger: Shape (T,).
    """

    full: Values
    without: Values
    stranger: Values


def build_text_lens(pairs: TextPairs, first: Values, second: Values) -> TextLens:
    """A lens of pairs whose replies have these standardised attributes, each of shape (T, A)."""
    return TextLens(pairs, np.linalg.pinv(first - second).astype(np.float64))


def pair_odds(profile: TextProfile, reading: Any, pairs: TextPairs) -> Values:
    """Log-odds (T,) that the user who was read prefers the first reply of each pair."""
    odds: Values = text_log_odds(profile, reading, *pairs).numpy()
    return odds


def ask_committee(profile: TextProfile, shots: Sequence[Shot], pairs: TextPairs) -> Committee:
    """Read the choices once for all of them, and once without each.

    Raises:
        ConfigError: There are fewer than `LEAST_CHOICES` choices, so that doubt cannot be told.
    """
    if len(shots) < LEAST_CHOICES:
        raise ConfigError(
            f"A method that reads texts must be shown at least {LEAST_CHOICES} choices to tell its doubt; got "
            f"{len(shots)}. Add choices, or name another --method."
        )
    rows = [[*shots[:place], *shots[place + 1 :]] for place in range(len(shots))]
    full, stranger, *without = (pair_odds(profile, profile.read(part), pairs) for part in (shots, [], *rows))
    return Committee(full, np.stack(without), stranger)


def draw_text_portrait(
    committee: Committee, own: Sequence[int], lens: TextLens, names: Sequence[str]
) -> Portrait:
    """One user's portrait; `doubt_left` is None, as there is no belief whose variance could be compared.

    Args:
        committee: Asked about the lens's pairs, and then about the user's own choices.
        own: Where each choice stands among the committee's pairs.
        lens: Its pairs are the committee's first.
        names: Of the lens's attributes.
    """
    size = lens.solve.shape[1]
    full, without, stranger = committee.full[:size], committee.without[:, :size], committee.stranger[:size]
    moved = (full - without) @ lens.solve.T
    influence = np.abs(expit(full) - expit(without)).mean(1)
    deviation = jackknife_deviation(without)
    shift = np.sqrt(np.mean(((full - without) / np.maximum(deviation, 1e-9)) ** 2, axis=1))
    tellings = [
        Telling(
            place,
            float(influence[place]),
            float(shift[place]),
            float(expit(committee.without[place, own[place]])),
            _strengthens(moved[place], names),
        )
        for place in range(len(without))
    ]
    return Portrait(
        _wishes(
            (full - stranger) @ lens.solve.T, jackknife_deviation(without @ lens.solve.T), len(without), names
        ),
        sorted(tellings, key=lambda telling: -telling.influence),
        None,
        float(expit(np.abs(full)).mean()),
        float(expit(np.abs(stranger)).mean()),
    )


def jackknife_deviation(without: Values) -> Values:
    """Deviation of a figure by its values (P, ...) without each of P choices: root of (P - 1) / P times their squares.

    Example:
        >>> float(jackknife_deviation(np.array([1.0, 3.0])))  # sqrt(1 / 2 * (1 + 1))
        1.0
    """
    count = len(without)
    squares = ((without - without.mean(0)) ** 2).sum(0)
    deviation: Values = np.sqrt((count - 1) / count * squares)
    return deviation


def text_questions(committee: Committee, candidates: Sequence[int]) -> list[Question]:
    """Candidate pairs by how far the committee's members differ about the answer, the most first.

    The gain is the entropy of the mean answer less the mean entropy of the members' answers, in bits.

    Args:
        committee: Asked about the candidates too.
        candidates: Where each stands among the committee's pairs.
    """
    answers = expit(committee.without[:, candidates])
    gain = np.maximum(_bits(answers.mean(0)) - _bits(answers).mean(0), 0.0)
    usual = expit(committee.full[candidates])
    return [Question(int(i), float(gain[i]), float(usual[i])) for i in np.argsort(-gain, kind="stable")]


def _wishes(mean: Values, deviation: Values, choices: int, names: Sequence[str]) -> list[Wish]:
    freedom = choices - 1
    width = float(student.ppf(0.975, freedom))
    sure = student.cdf(np.abs(mean) / np.maximum(deviation, 1e-12), freedom)
    found = [
        Wish(
            name,
            more_or_less(name, is_more=bool(mean[place] > 0)),
            float(mean[place]),
            float(mean[place] - width * deviation[place]),
            float(mean[place] + width * deviation[place]),
            float(sure[place]),
        )
        for place, name in enumerate(names)
    ]
    return sorted(found, key=lambda wish: -wish.sure)


def _strengthens(moved: Values, names: Sequence[str]) -> str:
    if not len(moved) or not np.abs(moved).max() > 1e-6:
        return ""
    place = int(np.abs(moved).argmax())
    return more_or_less(names[place], is_more=bool(moved[place] > 0))


def _bits(p: Values) -> Values:
    bits: Values = -(xlogy(p, p) + xlogy(1 - p, 1 - p)) / np.log(2.0)
    return bits
