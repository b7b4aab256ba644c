"""Directions: how soon choices give one away, how well objectives are read from a model, how far rounds push the front.

Three parts, each over several seeds. `infer`: cosine between true and inferred direction on four correlated aspects
rated 1 to 5, against cheaper rules, and how often the credible angle holds. `heads`: R2 of measured attributes of the
embedded model's replies on held-out prompts, by ridge on frozen states and with a LoRA. `rounds`: hypervolume of the
mean-reward front after each round of rejection-sampling fine-tuning, told by the gate and by numbers in the prompt.
Writes `results/directions/<date>-<commit>.json`; a dirty checkout writes to `results/local/`.

    python -m benchmarks.bench_directions --seeds 3 --parts infer heads rounds
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from app.quiet import quiet_libraries
from benchmarks.recording import record
from persona.data.comparisons import context_pairs
from persona.evaluation import bootstrap_mean
from persona.hypervolume import hypervolume
from persona.policy.conditioned import ConditionedPolicy
from persona.policy.language_model import LanguageModel, load_language_model
from persona.profiles.direction import decorrelation, directions_between
from persona.profiles.inferred_direction import InferredDirection, whiten_within_prompts
from persona.recipes.inferred_direction import InferredDirectionConfig, train_inferred_direction
from persona.recipes.multi_objective import MultiObjectiveConfig, number_prompts, train_multi_objective
from persona.recipes.rejection_sampling import (
    RejectionSamplingConfig,
    Tell,
    reward_front,
    tell_by_gate,
    tell_by_text,
    train_rejection_sampling,
)
from persona.rewards.attributes import ATTRIBUTES, AttributeScale, measure_attributes
from persona.rewards.multi_objective import explained_variance, fit_multi_objective
from persona.types import Conversation
from simulators.grounding import whole_sentences
from simulators.prompts import RECOMMENDER
from simulators.world.conversations import film_conversations
from tests.helpers.rated_world import ASPECTS, make_rated_world, rate_replies, unit_vectors

CHOICES = (5, 10, 20, 50, 100)
USERS, TRAINED_USERS = 200, 120
STRENGTHS = (1.0, 2.0)
SPACES = ("whitened", "raw", "positive")
FAN = 5
PAIR = ("brevity", "reasons")
"""The two ends of the arc of directions: long replies give reasons, so they pull against each other."""
LATENT = 1


def main() -> None:
    """Measure the chosen parts and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds")
    parser.add_argument("--parts", nargs="+", default=["infer", "heads", "rounds"], help="what to measure")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of rejection sampling")
    parser.add_argument("--prompts", type=int, default=64, help="prompts of a round")
    parser.add_argument("--steps", type=int, default=16, help="optimiser steps of a round")
    parser.add_argument("--jobs", type=int, default=1, help="processes for the seeds of heads and rounds")
    options = parser.parse_args()
    _prepare()
    config = RejectionSamplingConfig(
        rounds=options.rounds,
        prompts_per_round=options.prompts,
        replies_per_prompt=6,
        steps_per_round=options.steps,
    )
    result: dict[str, object] = {"options": vars(options)}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context, initializer=_prepare) as workers:
        waiting = [
            workers.submit(with_nano, seed, config, tuple(options.parts)) for seed in range(options.seeds)
        ]
        if "infer" in options.parts:
            worlds = product(STRENGTHS, SPACES, range(options.seeds))
            result["infer"] = [infer(strength, space, seed) for strength, space, seed in worlds]
            result["infer_ms"] = time_new_user()
        parts = [job.result() for job in waiting]
    for part in ("heads", "rounds"):
        result[part] = [row for rows in parts for row in rows[part]]
    print(record("directions", result))


def _prepare() -> None:
    quiet_libraries()
    torch.set_num_threads(1)


def with_nano(
    seed: int, config: RejectionSamplingConfig, parts: Sequence[str]
) -> dict[str, list[dict[str, object]]]:
    """The parts that need a language model, for one seed."""
    found: dict[str, list[dict[str, object]]] = {"heads": [], "rounds": []}
    if {"heads", "rounds"} & set(parts):
        base = load_language_model("nano", device="cpu")
        pool = sample_pool(base, seed)
        if "heads" in parts:
            found["heads"] = [read_attributes(base, pool, seed)]
        if "rounds" in parts:
            tells = {
                "gate": tell_by_gate(latent_dim=LATENT),
                "text": tell_by_text(ATTRIBUTES, latent_dim=LATENT),
            }
            found["rounds"] = [
                push_front(base, pool, config, name, tell, seed) for name, tell in tells.items()
            ]
    return found


def infer(strength: float, space: str, seed: int) -> dict[str, object]:
    """Cosines with the truth by number of choices; users in `space`, `strength` logits for one deviation."""
    ratings, prompt_of = rate_replies(seed=seed)
    matrix = whiten_within_prompts(ratings, prompt_of)
    drawn = torch.from_numpy(unit_vectors(USERS + TRAINED_USERS, seed)).float()
    if space == "whitened":
        weights = strength * drawn @ matrix.T
    else:
        deviation = torch.linalg.inv(matrix @ matrix.T).diagonal().sqrt()
        weights = strength * (drawn.abs() if space == "positive" else drawn) / deviation
    world = make_rated_world(
        weights.double().numpy(), ratings, prompt_of, comparisons=max(CHOICES), seed=seed
    )
    trained = world.table.select(world.table.users >= USERS)
    profiles = {
        "no users known": InferredDirection.without_users(ratings, prompt_of, names=ASPECTS),
        "trained": train_inferred_direction(
            trained, ratings, InferredDirectionConfig(names=ASPECTS), seed=seed
        ),
    }
    truth = normalize(weights[:USERS])
    white_truth = normalize(truth @ torch.linalg.inv(matrix).T)
    rows: dict[str, object] = {}
    for k in CHOICES:
        difference = context_pairs(world.table, ratings, np.arange(USERS), k).difference
        sums = normalize(difference.sum(1))
        rows[f"sum of differences, {k}"] = _agreement(
            sums, normalize(sums @ torch.linalg.inv(matrix).T), truth, white_truth, seed
        )
        for name, profile in profiles.items():
            pairs = context_pairs(world.table, profile.lift(ratings), np.arange(USERS), k)
            posterior = profile.encode(pairs)
            belief = profile.believe(posterior, pairs)
            raw = profile.as_raw(belief.direction)
            white = normalize(raw @ torch.linalg.inv(matrix).T)
            own_truth = normalize(truth @ torch.linalg.inv(profile.whitening).T)
            turned = cosine_similarity(belief.direction, own_truth).clamp(-1, 1).arccos()
            row = _agreement(raw, white, truth, white_truth, seed)
            row["angle_degrees"] = float(belief.angle.rad2deg().mean())
            row["held"] = float((turned <= belief.angle).float().mean())
            rows[f"{name}, {k}"] = row
    ties = float((difference == 0).all(-1).float().mean())
    return {
        "strength": strength, "space": space, "seed": seed, "by_choices": rows, "ties": ties,
        "oracle_accuracy": float((world.advantage > 0).mean() + 0.5 * (world.advantage == 0).mean()),
    }  # fmt: skip


def _agreement(
    raw: Tensor, white: Tensor, truth: Tensor, white_truth: Tensor, seed: int
) -> dict[str, object]:
    cosines = {
        "cosine_raw": cosine_similarity(raw, truth),
        "cosine_whitened": cosine_similarity(white, white_truth),
    }
    return {name: bootstrap_mean(values.numpy(), seed) for name, values in cosines.items()} | {
        "worst_decile_whitened": float(cosines["cosine_whitened"].quantile(0.1))
    }


def time_new_user(repeats: int = 30) -> dict[str, float]:
    """Median CPU milliseconds, on one thread, from one user's choices to a belief, and to direction and angle."""
    ratings, prompt_of = rate_replies(seed=0)
    world = make_rated_world(unit_vectors(1, 0), ratings, prompt_of, comparisons=16, seed=0)
    profile = InferredDirection.without_users(ratings, prompt_of, names=ASPECTS)
    pairs = context_pairs(world.table, profile.lift(ratings), np.arange(1), 16)
    posterior = profile.encode(pairs)
    tasks: dict[str, Callable[[], object]] = {
        "encode_16": lambda: profile.encode(pairs),
        "believe": lambda: profile.believe(posterior),
        "believe_with_pairs": lambda: profile.believe(posterior, pairs),
    }
    return {
        name: 1e3 * float(np.median([_time(task) for _ in range(repeats)])) for name, task in tasks.items()
    }


def _time(task: Callable[[], object]) -> float:
    began = time.process_time()
    task()
    return time.process_time() - began


class Pool:
    """Prompts of the film world with the base model's replies, and rewards on their scale."""

    def __init__(self, base: LanguageModel, prompts: int, each: int, seed: int) -> None:
        """Sample `each` replies to each of `prompts` prompts."""
        talks = film_conversations(np.random.default_rng((seed, 7)))
        self.prompts: list[Conversation] = []
        while len(self.prompts) < prompts:
            talk = next(talks)
            if talk[0]["content"] == RECOMMENDER:
                self.prompts.append(talk[:2])
        self.banned = [frozenset(s for s in base.slots if s not in p[-1]["content"]) for p in self.prompts]
        self.rows = np.arange(prompts).repeat(each)
        policy = ConditionedPolicy.build(base, LATENT, len(ATTRIBUTES), seed=seed)
        self.replies = policy.generate(
            [self.prompts[i] for i in self.rows],
            seeds=(10_000 * (seed + 1) + np.arange(len(self.rows))).tolist(),
            banned=[self.banned[i] for i in self.rows],
        )
        raw = measure_attributes([whole_sentences(reply) for reply in self.replies])
        self.scale = AttributeScale.fit(raw)
        self.attributes = torch.from_numpy(self.scale(raw)).float()
        self.whitening = decorrelation(self.attributes)

    def measure(self, rows: np.ndarray, replies: Sequence[str]) -> Tensor:
        """Whitened attributes of replies, (N, A)."""
        raw = measure_attributes([whole_sentences(reply) for reply in replies])
        return torch.from_numpy(self.scale(raw)).float() @ self.whitening


def sample_pool(base: LanguageModel, seed: int) -> Pool:
    """96 prompts to train on and 32 to measure on, four base replies each."""
    return Pool(base, prompts=128, each=4, seed=seed)


def read_attributes(base: LanguageModel, pool: Pool, seed: int) -> dict[str, object]:
    """R2 on the last 32 prompts, a third of the labels missing in training."""
    kept = torch.from_numpy(pool.rows < 96)
    talks = [pool.prompts[i] for i in pool.rows]
    gaps = torch.rand(pool.attributes.shape, generator=torch.Generator().manual_seed(seed)) < 1 / 3
    labels = pool.attributes.masked_fill(gaps, float("nan"))
    policy = ConditionedPolicy.build(base, LATENT, len(ATTRIBUTES), seed=seed)
    states, prompt_of = policy.hidden_states(talks, pool.replies), torch.from_numpy(number_prompts(talks))
    ridge = fit_multi_objective(states[kept], labels[kept], prompt_of[kept], names=ATTRIBUTES, seed=seed)
    train, test = kept.nonzero()[:, 0].tolist(), (~kept).nonzero()[:, 0].tolist()
    looks: list[dict[str, float]] = []
    adapted = train_multi_objective(
        base, [talks[i] for i in train], [pool.replies[i] for i in train], labels[kept],
        MultiObjectiveConfig(steps=30, check_every=15, replies_per_step=16),
        names=ATTRIBUTES, seed=seed, report=looks.append,
    )  # fmt: skip
    truth = pool.attributes[~kept]
    rated = adapted.rate([talks[i] for i in test], [pool.replies[i] for i in test])
    return {
        "seed": seed, "looks": looks,
        "r2_ridge": explained_variance(ridge.rate(states[~kept]), truth, ATTRIBUTES),
        "r2_lora": explained_variance(rated, truth, ATTRIBUTES),
    }  # fmt: skip


def push_front(
    base: LanguageModel, pool: Pool, config: RejectionSamplingConfig, name: str, tell: Tell, seed: int
) -> dict[str, object]:
    """Front and hypervolume on 32 held-out prompts before and after each round."""
    axes = torch.eye(len(ATTRIBUTES))[[ATTRIBUTES.index(end) for end in PAIR]]
    fan = directions_between(axes[0], axes[1], torch.linspace(0, 1, FAN))
    columns = [ATTRIBUTES.index(end) for end in PAIR]
    policy = ConditionedPolicy.build(base, LATENT, len(ATTRIBUTES), seed=seed)
    held_out, banned = pool.prompts[96:], pool.banned[96:]
    volumes: list[float] = []
    titled: list[float] = []
    fronts: list[list[list[float]]] = []

    def measure_held_out(rows: np.ndarray, replies: Sequence[str]) -> Tensor:
        titled.append(float(np.mean(["<title>" in reply for reply in replies])))
        return pool.measure(rows, replies)

    def look() -> None:
        front = reward_front(
            policy, held_out, fan, measure=measure_held_out, tell=tell, seed=seed, banned=banned
        )
        fronts.append(front.tolist())
        volumes.append(hypervolume(front[:, columns].numpy(), [-1.0, -1.0]))

    def draw(count: int, rng: np.random.Generator) -> Tensor:
        return directions_between(axes[0], axes[1], torch.from_numpy(rng.random(count)))

    def after_round(metrics: object) -> None:
        look()
        print(f"{name}, seed {seed}: {volumes}", flush=True)

    look()
    began = time.process_time()
    history = train_rejection_sampling(
        policy, pool.prompts[:96], config,
        measure=pool.measure, draw=draw, tell=tell, seed=seed, banned=pool.banned[:96], report=after_round,
    )  # fmt: skip
    seconds = time.process_time() - began
    return {
        "told_by": name, "seed": seed, "hypervolume": volumes, "front": fronts, "history": history,
        "share_with_title": titled,
        "objectives": PAIR, "cpu_seconds": seconds,
    }  # fmt: skip


if __name__ == "__main__":
    main()
