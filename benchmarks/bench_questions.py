"""How many well-chosen questions are worth 16 comparisons taken at random.

Unseen users of the planted world, or simulated ones over real answers (`benchmarks.real_answers`), are asked one pair
at a time, the best by each rule of 50 candidates that are drawn anew for each step from what they have not been asked;
after each answer their choices on unseen prompts are predicted. Every rule sees the same profile, users, candidates and
targets. Uncertainty sampling is there because it is often used; so is the number of questions with which it does worse
than chance. Writes `results/questions/<date>-<commit>.json`; a dirty checkout writes to `results/local/questions/`.

    python -m benchmarks.bench_questions --seeds 3
    python -m benchmarks.bench_questions --answers answers.jsonl.gz --encoder sentence-transformers/all-MiniLM-L6-v2
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.real_answers import draw_trial, feature_matrix, read_answers
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
from persona.data.splits import PreferenceSplit, split_users_and_prompts
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
REAL_TRAINING_USERS, REAL_UNSEEN_USERS, REAL_COMPARISONS = 120, 240, 400

Curve = NDArray[np.float64]


class Questioning(NamedTuple):
    """What one seed needs.

    train: Comparisons of training users.
    pool: What unseen users may be asked. Shape (B, P, L).
    target: What is to be predicted of them. Shape (B, T, L).
    features: Of every reply. Shape (N, L).
    """

    train: ComparisonTable
    pool: ReplyPairs
    target: ReplyPairs
    features: Tensor

    @classmethod
    def of_split(cls, train: ComparisonTable, split: PreferenceSplit, features: Tensor) -> "Questioning":
        """Pool and targets of a split's unseen users."""
        users = split.target.user_ids
        pool, target = (context_pairs(part, features, users) for part in (split.context, split.target))
        return cls(train, pool, target, features)


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


def planted(seed: int) -> Questioning:
    """Users of the planted world; 40 comparisons of each training user."""
    world = make_world(users=TRAINING_USERS + 150, comparisons=300, seed=seed)
    split = split_users_and_prompts(world.table, seed=seed, test_users=1 / 3, context_prompts=0.4)
    order = np.argsort(split.train.users, kind="stable")
    count = np.unique(split.train.users, return_counts=True)[1]
    place = np.concatenate([np.arange(size) for size in count])
    return Questioning.of_split(split.train.select(order[place < 40]), split, world.features)


def over_real_answers(path: Path, encoder: str, cache: Path) -> Callable[[int], Questioning]:
    """Simulated users who choose between the answers of a file, by seed."""
    answers = read_answers(path, encoder, cache)

    def draw(seed: int) -> Questioning:
        trial = draw_trial(
            answers,
            train_users=REAL_TRAINING_USERS,
            unseen_users=REAL_UNSEEN_USERS,
            seed=seed,
            comparisons=REAL_COMPARISONS,
        )
        features = feature_matrix(answers, trial.split.train, "all")
        return Questioning.of_split(trial.split.train, trial.split, features)

    return draw


def main() -> None:
    """Ask by every rule on every seed and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="worlds")
    parser.add_argument("--answers", type=Path, help="file of real answers; the planted world without")
    parser.add_argument("--encoder", help="sentence encoder for real answers, by path or id")
    parser.add_argument("--cache", type=Path, default=Path("runs/features"), help="where its states are kept")
    options = parser.parse_args()
    if (options.answers is None) != (options.encoder is None):
        parser.error("--answers and --encoder go together: give both or neither")
    torch.set_num_threads(1)
    draw = over_real_answers(options.answers, options.encoder, options.cache) if options.answers else planted
    curves: dict[str, list[list[float]]] = {name: [] for name in RULES}
    seconds: dict[str, list[float]] = {name: [] for name in RULES}
    for seed in range(options.seeds):
        train, pool, target, features = draw(seed)
        config = LatentConfig(latent_dim=min(LatentConfig().latent_dim, features.shape[1]))
        profile = train_latent(train, features, config, seed=seed)
        pool, target = (
            ReplyPairs(profile.lift(part.chosen), profile.lift(part.rejected), part.mask)
            for part in (pool, target)
        )
        for name, rule in RULES.items():
            accuracy, spent = ask(profile, pool, target, rule, questions=QUESTIONS, seed=seed)
            curves[name].append(accuracy.mean(0).tolist())
            seconds[name].append(spent / len(accuracy))
    _write("real answers" if options.answers else "planted", curves, seconds)


def _write(world: str, curves: Mapping[str, list[list[float]]], seconds: Mapping[str, list[float]]) -> None:
    mean = {name: np.mean(rows, axis=0) for name, rows in curves.items()}
    goal = float(mean["random"][AGAINST])
    needed = {name: questions_to_reach(curve, goal) for name, curve in mean.items()}
    record(
        "questions",
        {
            "world": world,
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
