"""How well profiles that read texts predict unseen users on unseen prompts: `score_users` for `TextProfile`."""

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from persona.data.comparisons import ComparisonTable, PaddedRows, Rows, rows_of_users
from persona.evaluation import UserScores, check_targets, other_users, scores_by_user
from persona.profiles.texts import TextProfile
from persona.ranking_accuracy import PairLogProbs, RankingReport, ranking_report
from persona.recipes.few_shot_tasks import ReplyTexts


class Progress(Protocol):
    """Told how many users are done."""

    def __call__(self, done: int, total: int) -> None:
        """Take note."""
        ...


class Foretold(NamedTuple):
    """What a profile said of every target of U users, T at most of each.

    users: Users with targets, ascending. Shape (U,).
    asked: Rows of `target`, padded. Shape (U, T).
    policy: Gap of chosen and rejected reply under the policy, in nats; 0 where padded. Shape (U, T).
    reference: Under the reference. Shape (U, T).
    scale: Log-odds for each nat of reward.
    """

    users: Rows
    asked: PaddedRows
    policy: NDArray[np.float64]
    reference: NDArray[np.float64]
    scale: float

    @property
    def probability(self) -> NDArray[np.float64]:
        """Of each choice that was made. Shape (U, T)."""
        likelihood: NDArray[np.float64] = expit(self.scale * (self.policy - self.reference))
        return likelihood

    def scores(self) -> UserScores:
        """By user, as `score_users` gives them."""
        return scores_by_user(self.users, self.probability, self.asked.mask)

    def accuracy_on(self, kept: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Accuracy by user on those targets that `kept` (M,) marks, NaN for a user without any. Shape (U,)."""
        mask = self.asked.mask & kept[self.asked.rows]
        some = mask.any(1)
        found = np.full(len(self.users), np.nan)
        found[some] = scores_by_user(self.users[some], self.probability[some], mask[some]).accuracy
        return found

    def ranking(self, *, beta: float) -> RankingReport:
        """Whether the policy itself ranks the targets as their users did, beside whether its reward does."""
        mask = self.asked.mask
        nothing = np.zeros(int(mask.sum()))
        log_probs = PairLogProbs(self.policy[mask], nothing, self.reference[mask], nothing)
        return ranking_report(log_probs, beta=beta)


def foretell(
    profile: TextProfile,
    context: ComparisonTable,
    target: ComparisonTable,
    texts: ReplyTexts,
    *,
    k: int,
    seed: int,
    shuffled: bool = False,
    targets: int | None = None,
    progress: Progress | None = None,
) -> Foretold:
    """What a profile says of the targets of every user who has some, after at most `k` shots.

    Contexts are those of `persona.evaluation.score_users` at the same seed, so that both can be compared user by
    user.

    Args:
        profile: What is asked.
        context: What the users may show.
        target: What is to be predicted; no prompt of it may be in `context`.
        texts: What the rows of both stand for.
        k: Shots of each user.
        seed: Draws the contexts, and who gets whose if shuffled.
        shuffled: Give every user the shots of the next user in a random ring.
        targets: Most targets of a user, the first ones; None for all.
        progress: Called after each user.

    Raises:
        DataError: A user shows a prompt that is also asked for, or there are no targets.
    """
    users = target.user_ids
    check_targets(context, target)
    owners = other_users(users, np.random.default_rng((seed, 1))) if shuffled else users
    shown = rows_of_users(context, owners, k, np.random.default_rng(seed))
    asked = rows_of_users(target, users, targets)
    gaps = np.zeros((2, *asked.rows.shape))
    for user in range(len(users)):
        reading = profile.read(texts.shots(context, shown.rows[user, shown.mask[user]]))
        rows = asked.rows[user, asked.mask[user]]
        gaps[:, user, asked.mask[user]] = _ask(profile, reading, target, rows, texts)
        if progress is not None:
            progress(user + 1, len(users))
    return Foretold(users, asked, gaps[0], gaps[1], profile.scale)


def score_few_shot_users(
    profile: TextProfile,
    context: ComparisonTable,
    target: ComparisonTable,
    texts: ReplyTexts,
    *,
    k: int,
    seed: int,
    shuffled: bool = False,
    targets: int | None = None,
    progress: Progress | None = None,
) -> UserScores:
    """Scores of what `foretell` gives for the same arguments; measures take them as those of `score_users`.

    Raises:
        DataError: As `foretell`.
    """
    told = foretell(
        profile, context, target, texts, k=k, seed=seed, shuffled=shuffled, targets=targets, progress=progress
    )
    return told.scores()


def order_spread(
    profile: TextProfile,
    context: ComparisonTable,
    target: ComparisonTable,
    texts: ReplyTexts,
    *,
    k: int,
    permutations: int,
    seed: int,
    users: int = 20,
    targets: int = 4,
) -> NDArray[np.float64]:
    """How far scores move when a user's shots are put in other orders.

    Args:
        profile: What is scored.
        context: What the users may show.
        target: What is asked.
        texts: What the rows of both stand for.
        k: Shots of each user.
        permutations: Orders tried, at least 2.
        seed: Draws contexts and orders.
        users: Most users tried.
        targets: Most targets of each.

    Returns:
        For every target the largest difference of probability between two orders. Shape (N,).
    """
    rng = np.random.default_rng((seed, 3))
    some = target.user_ids[:users]
    shown = rows_of_users(context, some, k, np.random.default_rng(seed))
    asked = rows_of_users(target, some, targets)
    found = []
    for user in range(len(some)):
        shots = texts.shots(context, shown.rows[user, shown.mask[user]])
        rows = asked.rows[user, asked.mask[user]]
        orders = [rng.permutation(len(shots)) for _ in range(permutations)]
        readings = [profile.read([shots[i] for i in order]) for order in orders]
        gaps = np.stack([_ask(profile, reading, target, rows, texts) for reading in readings])
        found.append(np.ptp(expit(profile.scale * (gaps[:, 0] - gaps[:, 1])), axis=0))
    return np.concatenate(found) if found else np.zeros(0)


def _ask(
    profile: TextProfile, reading: Any, target: ComparisonTable, rows: Rows, texts: ReplyTexts
) -> NDArray[np.float64]:
    """Gaps of each choice that was made, under policy and reference. Shape (2, T)."""
    gaps = profile.gaps(
        reading,
        [texts.prompts[row] for row in target.prompts[rows]],
        [texts.replies[row] for row in target.chosen[rows]],
        [texts.replies[row] for row in target.rejected[rows]],
    )
    return np.stack([part.double().numpy() for part in gaps])
