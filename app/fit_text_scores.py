"""What one profile over texts did on one split: the same figures as for profiles over features.

There is no latent, so what beliefs differ in is read off their log-odds of the same pairs of replies.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from app.fit_data import Prepared, Trial
from app.fit_scores import Scores, Values, count_shown, lens_pairs, two_axes
from app.fit_texts import Reader
from app.profile_texts import PAIRS, TextLens, TextPairs, build_text_lens, pair_odds
from persona.data.comparisons import rows_of_users
from persona.few_shot_evaluation import Foretold, foretell
from persona.profiles.texts import TextProfile

_REPEATS = 5
_LEAST_NORM = 1e-6
Advance = Callable[[int, int], None]


def measure_text_profile(
    profile: TextProfile,
    prepared: Prepared,
    trial: Trial,
    reader: Reader,
    *,
    sizes: Sequence[int],
    seed: int,
    beta: float | None,
    advance: Advance,
) -> tuple[Scores, dict[str, Any]]:
    """Everything that is measured of one profile over texts on one split.

    Args:
        profile: What was fitted to the training part.
        prepared: For the named attributes.
        trial: The split.
        reader: The texts.
        sizes: Context sizes, ascending.
        seed: Draws contexts, and who gets whose.
        beta: Of the profile's training, for the ranking that could be reached; None if untrained.
        advance: Told the passes over users that are done, and how many there are.

    Returns:
        The scores, and facts: latent_dim and active_units (None: there is no latent), new_user_ms, ranking.
    """
    rounds = len(sizes) + 2
    by_size: list[Foretold] = []
    shown = np.stack(
        [np.minimum(count_shown(trial.split.context, trial.split.target.user_ids), k) for k in sizes]
    )
    for place, size in enumerate(sizes):
        advance(place, rounds)
        is_known = place > 0 and (shown[place] == shown[place - 1]).all()
        by_size.append(by_size[-1] if is_known else _foretell(profile, trial, reader, size, seed))
    advance(len(sizes), rounds)
    shuffled = _foretell(profile, trial, reader, sizes[-1], seed, shuffled=True).scores()
    advance(len(sizes) + 1, rounds)
    lens = _lens(prepared, trial, reader, seed)
    own, flipped, stranger = _beliefs(profile, trial, reader, lens, sizes[-1], seed)
    scored, last = [told.scores() for told in by_size], by_size[-1]
    scores = Scores(
        last.users,
        np.stack([score.accuracy for score in scored]),
        np.stack([score.log_loss for score in scored]),
        np.stack([score.bin_count for score in scored]),
        np.stack([score.bin_gap for score in scored]),
        shown.astype(np.float64),
        shuffled.accuracy,
        last.accuracy_on(trial.agreed),
        last.accuracy_on(trial.controversial),
        two_axes(own - stranger),
        (own - stranger) @ lens.solve.T,
        _cosines(own - stranger, flipped - stranger),
        own.std(1),
    )
    ranking = last.ranking(beta=1.0 if beta is None else beta)
    facts = {
        "latent_dim": None,
        "active_units": None,
        "new_user_ms": _new_user_ms(profile, trial, reader, sizes[-1], seed),
        "ranking": {
            "ranking": ranking.ranking,
            "reward": ranking.reward,
            "reference": ranking.reference,
            "idealised": None if beta is None else ranking.idealised,
            **ranking.flips._asdict(),
        },
    }
    advance(rounds, rounds)
    return scores, facts


def _foretell(
    profile: TextProfile, trial: Trial, reader: Reader, size: int, seed: int, *, shuffled: bool = False
) -> Foretold:
    context, target = trial.split.context, trial.split.target
    return foretell(profile, context, target, reader.texts, k=size, seed=seed, shuffled=shuffled)


def _lens(prepared: Prepared, trial: Trial, reader: Reader, seed: int) -> TextLens:
    rows = lens_pairs(trial.split.train, seed)[:PAIRS]
    texts, values = reader.texts, prepared.named.values
    pairs = TextPairs(
        [texts.prompts[prepared.indexed.reply_prompts[row]] for row in rows[:, 0]],
        *([texts.replies[row] for row in rows[:, side]] for side in (0, 1)),
    )
    return build_text_lens(pairs, values[rows[:, 0]], values[rows[:, 1]])


def _beliefs(
    profile: TextProfile, trial: Trial, reader: Reader, lens: TextLens, size: int, seed: int
) -> tuple[Values, Values, Values]:
    """Log-odds of the lens's pairs by each user, by someone who chose the opposite, (U, T) each, and of a stranger."""
    context, users = trial.split.context, trial.split.target.user_ids
    shown = rows_of_users(context, users, size, np.random.default_rng(seed))
    own, flipped = [], []
    for row, mask in zip(shown.rows, shown.mask, strict=True):
        shots = reader.texts.shots(context, row[mask])
        opposite = [shot._replace(chosen=shot.rejected, rejected=shot.chosen) for shot in shots]
        own.append(pair_odds(profile, profile.read(shots), lens.pairs))
        flipped.append(pair_odds(profile, profile.read(opposite), lens.pairs))
    return np.stack(own), np.stack(flipped), pair_odds(profile, profile.read([]), lens.pairs)


def _cosines(own: Values, flipped: Values) -> Values:
    """Cosines of rows; NaN where one of the two hardly differs from a stranger's."""
    norms = np.linalg.norm(own, axis=1), np.linalg.norm(flipped, axis=1)
    product = norms[0] * norms[1]
    moved = np.minimum(*norms) > _LEAST_NORM
    cosine: Values = np.where(moved, (own * flipped).sum(1) / np.where(moved, product, 1.0), np.nan)
    return cosine


def _new_user_ms(profile: TextProfile, trial: Trial, reader: Reader, size: int, seed: int) -> float:
    """Median time in which one user's choices are read, in milliseconds."""
    context, users = trial.split.context, trial.split.target.user_ids[:1]
    shown = rows_of_users(context, users, size, np.random.default_rng(seed))
    shots = reader.texts.shots(context, shown.rows[0, shown.mask[0]])
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        profile.read(shots)
        seconds.append(time.perf_counter() - began)
    return 1000.0 * float(np.median(seconds))
