"""Few-shot preferences on the embedded model and the film world: accuracy by number of shots, and what reuse saves.

Replies are short ones in the words of the film world's grammar, users are the film world's. Unseen users on unseen
prompts, for each seed a world of its own: the few-shot profile at numbers of shots that were
trained on and at others; the same recipe without shots (the pooled model); the untrained model with the same shots in
its prompt; hierarchical Bayes on the features, for scale, and the oracle. Then how far scores move with the order of
shots, and time and equality of scores where the shots are read once for all prompts. Writes
`results/few_shot/<date>-<commit>.json`; a dirty checkout writes to `results/local/`.

    python -m benchmarks.bench_few_shot --seeds 0 1 2
"""

import argparse
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.quiet import quiet_libraries
from benchmarks.recording import record
from persona.data.comparisons import ComparisonTable, Rows
from persona.data.splits import PreferenceSplit
from persona.evaluation import (
    UserScores,
    bootstrap_mean,
    oracle_accuracy,
    paired_difference,
    score_users,
    worst_decile,
)
from persona.features import surface_features
from persona.few_shot_evaluation import order_spread, score_few_shot_users
from persona.policy.conditioned import ConditionedPolicy
from persona.policy.language_model import load_language_model
from persona.profiles.few_shot import FewShotProfile, Reference
from persona.profiles.hierarchical_bayes import fit_hierarchical_bayes
from persona.recipes.few_shot import FewShotConfig, train_few_shot
from persona.recipes.few_shot_tasks import ReplyTexts
from persona.rewards.attributes import AttributeScale, measure_attributes
from simulators.world.language import Situation, opening, reply, sample_style
from simulators.world.population import draw_manners

REPLIES = 6
SEEN, UNSEEN = (0, 1, 2, 3, 4, 8), (6, 12)
SETTINGS = {
    "shots": SEEN,
    "users_per_step": 8,
    "pairs_per_user": 3,
    "options": 4,
    "imagined": 1.0,
    "clear_shots": 0.2,
    "clear_questions": 0.85,
    "beta": 0.1,
    "learning_rate": 1.5e-3,
    "warmup": 0.03,
    "reference": Reference.NO_SHOTS,
}
POOLED = {**SETTINGS, "shots": (0,), "clear_shots": 0.0, "clear_questions": 0.0}
QUICK = {"steps": 4, "pooled_steps": 2, "learners": 40, "users": 10, "targets": 4, "prompts": 60}
FULL = {"steps": 800, "pooled_steps": 100, "learners": 400, "users": 100, "targets": 12, "prompts": 400}


def main() -> None:
    """Measure every seed and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="one world and training a seed"
    )
    parser.add_argument("--quick", action="store_true", help="a few steps on a small world: does it run?")
    parser.add_argument("--steps", type=int, help="optimiser steps of the few-shot policy")
    options = parser.parse_args()
    quiet_libraries()
    size = dict(QUICK if options.quick else FULL)
    size["steps"] = options.steps or size["steps"]
    seeds = {seed: measure(seed, size) for seed in options.seeds}
    print(
        record(
            "few_shot", {"size": size, "settings": {k: str(v) for k, v in SETTINGS.items()}, "seeds": seeds}
        )
    )


def measure(seed: int, size: Mapping[str, int]) -> dict[str, object]:
    """Everything about one world."""
    language_model = load_language_model("nano", device="cpu")
    world = make_world(seed, size)
    texts, split, target = world.texts, world.split, world.split.target

    def train(config: FewShotConfig) -> FewShotProfile:
        return train_few_shot(
            split.train,
            texts,
            language_model,
            config,
            seed=seed,
            features=world.features,
            report=_teller(seed),
        )

    began = time.process_time()
    few_shot = train(FewShotConfig.model_validate({"steps": size["steps"], **SETTINGS}))
    seconds = time.process_time() - began
    pooled = train(FewShotConfig.model_validate({"steps": size["pooled_steps"], **POOLED}))
    untrained = ConditionedPolicy.build(language_model, 0, 0, rank=1, seed=seed)
    prompt = FewShotProfile(untrained, few_shot.shot_format, reference=Reference.NO_SHOTS)
    bayes = fit_hierarchical_bayes(split.train, world.features, seed=seed)
    scores: dict[str, dict[int, UserScores]] = {
        name: {k: score_few_shot_users(profile, split.context, target, texts, k=k, seed=seed) for k in ks}
        for name, profile, ks in (
            ("few_shot", few_shot, sorted({*SEEN, *UNSEEN})),
            ("pooled", pooled, [0]),
            ("in_context_prompt", prompt, [2, 8]),
        )
    }
    scores["hierarchical_bayes"] = {
        k: score_users(bayes, split.context, target, world.features, k=k, seed=seed)
        for k in sorted({*SEEN, *UNSEEN})
    }
    shuffled = score_few_shot_users(few_shot, split.context, target, texts, k=8, seed=seed, shuffled=True)
    own = {k: found.accuracy for k, found in scores["few_shot"].items()}
    moved = order_spread(few_shot, split.context, target, texts, k=8, permutations=4, seed=seed)
    return {
        "training_cpu_seconds": seconds,
        "scale": few_shot.scale,
        "accuracy": {
            name: {f"k{k}": bootstrap_mean(found.accuracy, seed) for k, found in by_k.items()}
            for name, by_k in scores.items()
        },
        "log_loss": {
            f"k{k}": bootstrap_mean(found.log_loss, seed) for k, found in scores["few_shot"].items()
        },
        "worst_decile_k8": worst_decile(own[8], seed),
        "oracle": bootstrap_mean(world.ceiling, seed),
        "k6_less_mean_of_k4_and_k8": paired_difference(own[6], (own[4] + own[8]) / 2, seed),
        "k12_less_k8": paired_difference(own[12], own[8], seed),
        "k0_less_pooled": paired_difference(own[0], scores["pooled"][0].accuracy, seed),
        "k8_over_in_context_prompt": paired_difference(own[8], scores["in_context_prompt"][8].accuracy, seed),
        "k8_over_k0": paired_difference(own[8], own[0], seed),
        "context_shuffle_gap_k8": paired_difference(own[8], shuffled.accuracy, seed),
        "order_spread_k8": {"largest": float(moved.max()), "mean": float(moved.mean())},
        "reuse": measure_reuse(few_shot, texts, split),
    }


class World(NamedTuple):
    """Short replies in the words of the film world's grammar, and what its users chose between them.

    texts: Openings of users as prompts, and `REPLIES` replies to each, prompt after prompt.
    features: Surface counts of the replies, standardised. Shape (N, D).
    split: Learners on training prompts; unseen users on training prompts as context, on other prompts as target.
    ceiling: Accuracy of someone who knows the users. Shape (U,).
    """

    texts: ReplyTexts
    features: Tensor
    split: PreferenceSplit
    ceiling: NDArray[np.float64]


def make_world(seed: int, size: Mapping[str, int]) -> World:
    """Prompts, replies and choices; users and their noise are the film world's."""
    rng = np.random.default_rng((seed, 4))
    prompts = [[{"role": "user", "content": opening(("genre", "mood"), rng)}] for _ in range(size["prompts"])]
    replies = [_short_reply(rng) for _ in range(size["prompts"] * REPLIES)]
    measured = measure_attributes(replies)
    attributes = AttributeScale.fit(measured)(measured)
    counts = torch.from_numpy(surface_features(replies))
    deviation = counts.std(0)
    kept = deviation > 0
    features = ((counts - counts.mean(0)) / deviation)[:, kept].clamp(-3, 3).float()
    _, same = np.unique([prompt[0]["content"] for prompt in prompts], return_inverse=True)
    asked_last = rng.permutation(same.max() + 1)[same] < 0.3 * (same.max() + 1)
    seen, held = np.flatnonzero(~asked_last), np.flatnonzero(asked_last)
    style, _, noise = draw_manners(size["learners"] + size["users"], seed=seed)
    learners, unseen = np.split(np.arange(len(style)), [size["learners"]])

    def ask(users: Rows, among: Rows, count: int) -> tuple[ComparisonTable, NDArray[np.float64]]:
        who = np.repeat(users, count)
        prompt = rng.choice(among, len(who))
        first = rng.integers(REPLIES, size=len(who))
        a = prompt * REPLIES + first
        b = prompt * REPLIES + (first + rng.integers(1, REPLIES, size=len(who))) % REPLIES
        differ = np.array([replies[x] != replies[y] for x, y in zip(a, b, strict=True)])
        who, prompt, a, b = who[differ], prompt[differ], a[differ], b[differ]
        gain = (style[who] * (attributes[a] - attributes[b])).sum(1)
        likes_a = rng.random(len(who)) < 1 / (1 + np.exp(-gain / noise[who]))
        table = ComparisonTable(who, prompt, np.where(likes_a, a, b), np.where(likes_a, b, a))
        return table, np.where(likes_a, gain, -gain)

    (train, _), (context, _) = ask(learners, seen, 40), ask(unseen, seen, 16)
    target, gain = ask(unseen, held, size["targets"])
    return World(
        ReplyTexts(prompts, replies),
        features,
        PreferenceSplit(train, context, target),
        oracle_accuracy(target, gain),
    )


def _short_reply(rng: np.random.Generator) -> str:
    """The sentence with the suggestion and, if there is another, one other sentence of the same reply."""
    said = reply(sample_style(rng), Situation(frozenset({"title"})), rng)
    sentences = re.split(r"(?<=[.!?]) ", said)
    suggestion = next(i for i, sentence in enumerate(sentences) if "<title>" in sentence)
    others = [i for i in range(len(sentences)) if i != suggestion]
    picked = sorted([suggestion, *rng.permutation(others)[:1].tolist()])
    return " ".join(sentences[i] for i in picked)


def measure_reuse(profile: FewShotProfile, texts: ReplyTexts, split: PreferenceSplit) -> dict[str, object]:
    """Eight later prompts of one user: shots read once, against shots read again for each; and how scores differ."""
    user = split.context.user_ids[0]
    rows = np.flatnonzero(split.context.users == user)[:8]
    shots = texts.shots(split.context, rows)
    prompts = [texts.prompts[row] for row in np.unique(split.target.prompts)[:8]]
    replies = (
        [texts.replies[row] for row in split.target.chosen[:8]],
        [texts.replies[row] for row in split.target.rejected[:8]],
    )
    seconds: dict[str, list[float]] = {"read_once": [], "read_again": []}
    for _ in range(5):
        began = time.process_time()
        reading = profile.read(shots)
        once = [profile.score(reading, *asked) for asked in zip(prompts, *replies, strict=True)]
        seconds["read_once"].append(time.process_time() - began)
        began = time.process_time()
        again = [profile.score(shots, *asked) for asked in zip(prompts, *replies, strict=True)]
        seconds["read_again"].append(time.process_time() - began)
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    return {
        "cpu_seconds": seconds,
        "times_as_fast": medians["read_again"] / medians["read_once"],
        "largest_difference_of_scores": float(np.abs(np.subtract(once, again)).max()),
        "prompts": len(prompts),
        "shots": len(shots),
    }


def _teller(seed: int) -> Callable[[Mapping[str, float]], None]:
    """Prints, every fifty steps, the mean training accuracy of these steps."""
    recent: list[float] = []

    def tell(row: Mapping[str, float]) -> None:
        if "accuracy" in row:
            recent.append(row["accuracy"])
            if row["step"] % 50 == 0:
                print(f"seed {seed}: step {row['step']}, accuracy {np.mean(recent[-50:]):.3f}", flush=True)

    return tell


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
