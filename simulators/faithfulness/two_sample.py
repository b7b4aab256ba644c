"""Whether a classifier can tell simulated users from real ones: the two-sample test of a learned discriminator.

One row stands for one user of one side. A user who is on both sides is in one fold with both rows, so that nothing of
a user is learned and asked about. The classifier is scikit-learn's logistic regression, part of the extra `baselines`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.significance import Interval
from simulators.errors import FaithfulnessError, MissingDependency
from simulators.faithfulness.acceptance import weighted_auc
from simulators.faithfulness.resampling import RESAMPLES, Values, exchanged_sides

FOLDS = 5
REFITS = 99
_HASHES = 2**13


class Features(NamedTuple):
    """One row a user.

    users: Distinct ids. Shape (U,).
    values: Dense or sparse. Shape (U, D).
    """

    users: NDArray[np.str_]
    values: Any


class TwoSample(NamedTuple):
    """How well the sides are told apart.

    auc: Chance that a simulated user's row is scored above a real one's by a classifier trained on other users; one
        half where they cannot be told apart. The mean over folds.
    p: Chance of such an AUC if sides were dealt at random, the classifier fitted anew each time.
    users: Rows that took part.
    """

    auc: Interval
    p: float
    users: int


def two_sample_auc(
    simulated: Features,
    real: Features,
    *,
    seed: int,
    folds: int = FOLDS,
    n_permutations: int = REFITS,
    n_boot: int = RESAMPLES,
) -> TwoSample:
    """Train a logistic regression to tell the sides apart, and ask it about users that it has not seen.

    Args:
        simulated: Rows of simulated users.
        real: Rows of real users, the same columns.
        seed: Draws folds, sides and users.
        folds: Parts of the users; each is asked about once.
        n_permutations: Number of refits under dealt sides.
        n_boot: Number of resamples of users, for the interval.

    Raises:
        FaithfulnessError: A side has fewer users than folds.
        MissingDependency: scikit-learn is not installed.

    Source: Lopez-Paz and Oquab (2017), "Revisiting Classifier Two-Sample Tests"; p by refits, as the folds of a
    cross-validation are not independent.
    """
    if min(len(simulated.users), len(real.users)) < folds:
        raise FaithfulnessError(
            f"Each side must have at least {folds} users to be told apart; got {len(simulated.users)} simulated and "
            f"{len(real.users)} real ones. Simulate more users."
        )
    table = _stack(simulated.values, real.values)
    is_simulated = np.arange(table.shape[0]) < len(simulated.users)
    fold = _deal_folds(simulated.users, real.users, folds, np.random.default_rng([seed, 0]))
    scores = _held_out_scores(table, is_simulated, fold)
    rng = np.random.default_rng([seed, 1])
    dealt = exchanged_sides(simulated.users, real.users, rng=rng, size=n_permutations)
    found = _fold_auc(scores, is_simulated, fold, np.ones((1, len(fold))))[0]
    as_far = sum(
        float(_fold_auc(_held_out_scores(table, side, fold), side, fold, np.ones((1, len(fold))))[0]) >= found
        for side in dealt
    )
    drawn = _fold_auc(scores, is_simulated, fold, _user_counts(simulated, real, seed=seed, n_boot=n_boot))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    n = min(len(simulated.users), len(real.users))
    return TwoSample(
        Interval(float(found), float(low), float(high), n), (1 + as_far) / (1 + n_permutations), len(fold)
    )


def text_features(users: Sequence[str], texts: Sequence[str]) -> Features:
    """Hashed counts of words, word pairs and runs of three or four characters, each user's row of length one.

    Args:
        users: Whose text it is; the texts of a user are joined. Length N.
        texts: What was said. Length N.

    Raises:
        MissingDependency: scikit-learn is not installed.
    """
    try:
        from scipy.sparse import hstack  # noqa: PLC0415 - needed with the next alone
        from sklearn.feature_extraction.text import HashingVectorizer  # noqa: PLC0415 - optional
    except ImportError as err:
        raise _lacking() from err
    joined: dict[str, list[str]] = {}
    for user, text in zip(users, texts, strict=True):
        joined.setdefault(str(user), []).append(text)
    names = sorted(joined)
    documents = ["\n".join(joined[name]) for name in names]
    parts = [
        HashingVectorizer(
            analyzer=kind, ngram_range=sizes, n_features=_HASHES, alternate_sign=False, norm="l2"
        ).transform(documents)
        for kind, sizes in (("word", (1, 2)), ("char_wb", (3, 4)))
    ]
    return Features(np.asarray(names, dtype=np.str_), hstack(parts, format="csr") / np.sqrt(len(parts)))


def drawn_users(features: Features, most: int, *, seed: int) -> Features:
    """At most so many of the users, drawn evenly, in ascending order.

    Args:
        features: U rows.
        most: How many to keep.
        seed: Draws them.
    """
    if len(features.users) <= most:
        return features
    kept = np.sort(np.random.default_rng(seed).choice(len(features.users), most, replace=False))
    return Features(features.users[kept], features.values[kept])


def _held_out_scores(table: Any, is_simulated: NDArray[np.bool_], fold: NDArray[np.int64]) -> Values:
    try:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - optional
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 - optional
    except ImportError as err:
        raise _lacking() from err
    scores = np.zeros(len(fold))
    for part in range(int(fold.max()) + 1):
        train, asked = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        if is_simulated[train].all() or not is_simulated[train].any():
            continue
        # Hashed texts have a common scale already; one column's rare hash must not count as much as a word.
        scale = StandardScaler() if isinstance(table, np.ndarray) else None
        rows = table[train] if scale is None else scale.fit_transform(table[train])
        others = table[asked] if scale is None else scale.transform(table[asked])
        strength = 1.0 if scale is not None else 10.0
        fitted = LogisticRegression(C=strength, solver="liblinear").fit(rows, is_simulated[train])
        scores[asked] = fitted.decision_function(others)
    return scores


def _fold_auc(
    scores: Values, is_simulated: NDArray[np.bool_], fold: NDArray[np.int64], weights: Values
) -> Values:
    """Mean over folds of the AUC within the fold, for each weighting of rows. Shape (R,)."""
    found = []
    for part in range(int(fold.max()) + 1):
        rows = fold == part
        found.append(weighted_auc(scores[rows], is_simulated[rows].astype(np.float64), weights[:, rows]))
    table = np.stack(found)
    known = ~np.isnan(table)
    mean: Values = np.where(known, table, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    return np.where(known.any(0), mean, np.nan)


def _deal_folds(
    simulated: NDArray[np.str_], real: NDArray[np.str_], folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Fold of each row, simulated then real: users on both sides, on one and on the other are spread evenly."""
    both = np.intersect1d(simulated, real)
    fold_of: dict[str, int] = {}
    for group in (both, np.setdiff1d(simulated, both), np.setdiff1d(real, both)):
        for place, row in enumerate(rng.permutation(len(group))):
            fold_of[str(group[row])] = place % folds
    return np.asarray([fold_of[str(user)] for user in (*simulated, *real)], dtype=np.int64)


def _user_counts(simulated: Features, real: Features, *, seed: int, n_boot: int) -> Values:
    """How often each row is drawn when the users of each side are drawn again. Shape (n_boot, U + V)."""
    rng = np.random.default_rng([seed, 2])
    sizes = len(simulated.users), len(real.users)
    return np.concatenate([rng.multinomial(n, np.full(n, 1 / n), size=n_boot) for n in sizes], axis=1).astype(
        np.float64
    )


def _stack(simulated: Any, real: Any) -> Any:
    if isinstance(simulated, np.ndarray):
        return np.concatenate([simulated, real])
    from scipy.sparse import vstack  # noqa: PLC0415 - for sparse tables alone

    return vstack([simulated, real], format="csr")


def _lacking() -> MissingDependency:
    return MissingDependency(
        "scikit-learn",
        needed_for="telling simulated from real by a classifier",
        install="pip install 'persona[baselines]'",
    )
