"""How well profiles that read texts predict unseen users on unseen prompts: `score_users` for `FewShotProfile`."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from persona.data.comparisons import ComparisonTable, Rows, rows_of_users
from persona.errors import DataError
from persona.evaluation import UserScores, _score
from persona.profiles.few_shot import FewShotProfile
from persona.profiles.shots import Shot
from persona.recipes.few_shot_tasks import ReplyTexts


class Progress(Protocol):
    """Told how many users are done."""

    def __call__(self, done: int, total: int) -> None:
        """Take note."""
        ...


def score_few_shot_users(
    profile: FewShotProfile,
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
    """Score a profile on every user who has targets, after at most `k` shots.

    Contexts are those of `persona.evaluation.score_users` at the same seed, so that both can be compared user by
    user; measures take the result as they take that of `score_users`.

    Args:
        profile: What is scored.
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
    if not len(users):
        raise DataError(
            "`target` must hold at least one comparison; got none. Hold out more prompts or users."
        )
    leaked = np.intersect1d(np.unique(context.prompts[np.isin(context.users, users)]), target.prompts)
    if len(leaked):
        raise DataError(
            f"No prompt of `target` may occur in `context`; got {len(leaked)} shared ones, such as "
            f"{leaked[:3].tolist()}. Split by prompt, with `split_users_and_prompts`."
        )
    owners = _next_in_ring(users, np.random.default_rng((seed, 1))) if shuffled else users
    shown = rows_of_users(context, owners, k, np.random.default_rng(seed))
    asked = rows_of_users(target, users, targets)
    probability = np.full(asked.rows.shape, 0.5)
    for user in range(len(users)):
        shots = texts.shots(context, shown.rows[user, shown.mask[user]])
        rows = asked.rows[user, asked.mask[user]]
        probability[user, asked.mask[user]] = _ask(profile, shots, target, rows, texts)
        if progress is not None:
            progress(user + 1, len(users))
    return _score(users, probability, asked.mask)


def order_spread(
    profile: FewShotProfile,
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
        scores = [_ask(profile, [shots[i] for i in order], target, rows, texts) for order in orders]
        found.append(np.ptp(np.stack(scores), axis=0))
    return np.concatenate(found) if found else np.zeros(0)


def _ask(
    profile: FewShotProfile, shots: list[Shot], target: ComparisonTable, rows: Rows, texts: ReplyTexts
) -> NDArray[np.float64]:
    """Probability of each choice that was made."""
    scores = profile.scores(
        shots,
        [texts.prompts[row] for row in target.prompts[rows]],
        [texts.replies[row] for row in target.chosen[rows]],
        [texts.replies[row] for row in target.rejected[rows]],
    )
    return np.asarray(scores.double().numpy())


def _next_in_ring(users: Rows, rng: np.random.Generator) -> Rows:
    """For each user another one, each used once (a lone user has only itself)."""
    order = rng.permutation(len(users))
    donor = np.empty_like(order)
    donor[order] = np.roll(order, 1)
    return users[donor]
