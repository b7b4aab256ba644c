"""How many well-chosen questions are worth 16 comparisons taken at random.

Unseen users of the planted world are asked one pair at a time, the best by each rule of 50 candidates that are drawn
anew for each step from what they have not been asked; after each answer their choices on unseen prompts are
predicted. Every rule sees the same profile, users, candidates and targets. Uncertainty sampling is there because it
is often used; so is the number of questions with which it does worse than chance. Writes
`results/questions/<date>-<commit>.json`; a dirty checkout writes to `results/local/questions/`.

    python -m benchmarks.bench_questions --seeds 3
"""

import argparse
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.recording import record
from persona.active import (
    Rule,
    choose_question,
    expected_information,
    log_odds_variance,
    prediction_gain,
    predictive_entropy,
)
from persona.data.comparisons import ComparisonTable, context_pairs
from persona.data.splits import split_users_and_prompts
from persona.profiles import Profile
from persona.recipes.latent import LatentConfig, train_latent
from persona.types import Posterior, ReplyPairs
from tests.helpers.preference_world import make_world

CANDIDATES = 50
AGAINST = 16
"""Random comparisons whose accuracy the rules are to reach."""
QUESTIONS = 24
TRAINING_USERS = 300
GOAL = 9

Curve = NDArray[np.float64]


def first_of_all(profile: Profile, posterior: Posterior, candidates: ReplyPairs) -> Tensor:
    """No rule: candidates come in random order, and the first is asked. Shape (B, T)."""
    return -torch.arange(candidates.mask.shape[1], dtype=torch.float32).expand(candidates.mask.shape)


RULES: Mapping[str, Rule] = {
    "random": first_of_all,
    "prediction gain": prediction_gain,
    "expected information": expected_information,
    "log-odds variance": log_odds_variance,
    "uncertainty sampling": predictive_entropy,
}


@torch.no_grad()
def ask(
    profile: Profile, pool: ReplyPairs, target: ReplyPairs, rule: Rule, *, questions: int, seed: int
) -> tuple[Curve, float]:
    """Accuracy of each user after 0, 1 ... `questions` answers, and the seconds a choice took for all users.

    Args:
        profile: Trained on other users.
        pool: Everything that each user could be asked, with the answer given by the order: no rule can see it, since
            all rules are blind to the order of the two replies. Shape (B, P, L).
        target: What is to be predicted. Shape (B, T, L).
        rule: Scores candidates.
        questions: How many to ask, fewer than each user has in the pool.
        seed: Draws the candidates of each step, the same for every rule until the rules part.

    Returns:
        Accuracy (B, questions + 1) and the mean time of one choice.
    """
    rng = np.random.default_rng(seed)
    order = rng.random((questions, *pool.mask.shape))
    asked = torch.zeros(len(pool.mask), 0, dtype=torch.long)
    free = pool.mask.clone()
    accuracy, seconds = [], 0.0
    for step in range(questions + 1):
        context = _take(pool, asked)
        posterior = profile.encode(context)
        right = profile.predict(posterior, target) > 0.5
        accuracy.append((right & target.mask).sum(1).double() / target.mask.sum(1))
        if step == questions:
            break
        keys = torch.from_numpy(order[step]).masked_fill(~free, 2.0)
        places = keys.argsort(1)[:, :CANDIDATES]
        candidates = _take(pool, places)
        began = time.perf_counter()
        best = choose_question(profile, posterior, candidates, rule)
        seconds += time.perf_counter() - began
        picked = places.gather(1, best[:, None])
        asked = torch.cat([asked, picked], dim=1)
        free.scatter_(1, picked, False)
    return torch.stack(accuracy, dim=1).numpy(), seconds / questions


def _take(pool: ReplyPairs, places: Tensor) -> ReplyPairs:
    rows = torch.arange(len(places))[:, None]
    return ReplyPairs(*(part[rows, places] for part in pool))


def questions_to_reach(curve: Sequence[float] | Curve, accuracy: float) -> int | None:
    """The fewest questions after which the accuracy is reached, or None if it never is."""
    reached = np.flatnonzero(np.asarray(curve) >= accuracy)
    return int(reached[0]) if len(reached) else None


def planted(seed: int) -> tuple[ComparisonTable, ReplyPairs, ReplyPairs, Tensor]:
    """Training comparisons, then the pool and the targets of unseen users, and the features."""
    world = make_world(users=TRAINING_USERS + 150, comparisons=300, seed=seed)
    split = split_users_and_prompts(world.table, seed=seed, test_users=1 / 3, context_prompts=0.4)
    order = np.argsort(split.train.users, kind="stable")
    count = np.unique(split.train.users, return_counts=True)[1]
    place = np.concatenate([np.arange(size) for size in count])
    train = split.train.select(order[place < 40])
    users = split.target.user_ids
    pool = context_pairs(split.context, world.features, users)
    return train, pool, context_pairs(split.target, world.features, users), world.features


def main() -> None:
    """Ask by every rule on every seed and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="worlds")
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    curves: dict[str, list[list[float]]] = {name: [] for name in RULES}
    seconds: dict[str, list[float]] = {name: [] for name in RULES}
    for seed in range(seeds):
        train, pool, target, features = planted(seed)
        profile = train_latent(train, features, LatentConfig(), seed=seed)
        for name, rule in RULES.items():
            accuracy, spent = ask(profile, pool, target, rule, questions=QUESTIONS, seed=seed)
            curves[name].append(accuracy.mean(0).tolist())
            seconds[name].append(spent / len(accuracy))
    _write(curves, seconds)


def _write(curves: Mapping[str, list[list[float]]], seconds: Mapping[str, list[float]]) -> None:
    mean = {name: np.mean(rows, axis=0) for name, rows in curves.items()}
    goal = float(mean["random"][AGAINST])
    needed = {name: questions_to_reach(curve, goal) for name, curve in mean.items()}
    record(
        "questions",
        {
            "world": "planted",
            "candidates": CANDIDATES,
            "curves": curves,
            "random_accuracy_at_16": goal,
            "questions_to_reach_it": needed,
            "goal_questions": GOAL,
            "seconds_for_one_user_and_question": seconds,
        },
    )
    print(f"accuracy of {AGAINST} random comparisons: {100 * goal:.1f} %")
    for name, curve in mean.items():
        shown = " ".join(f"{100 * curve[k]:.1f}" for k in (0, 1, 2, 4, 8, 16, QUESTIONS))
        cost = 1e3 * float(np.mean(seconds[name]))
        print(f"{name}: {needed[name] or f'more than {QUESTIONS}'} questions; {shown}; {cost:.2f} ms a user")


if __name__ == "__main__":
    main()
