"""Speed of the conditioned policy: sampling, scoring and a training step, with and without products in bfloat16.

Both formats are timed in turn within one process, so that their ratio holds even where the machine is shared. Writes
`results/policy/<date>-<commit>.json` with the machine and every repeat; a dirty checkout writes to `results/local/`.

    python -m benchmarks.bench_policy --repeats 5
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from app.quiet import quiet_libraries
from benchmarks.recording import record
from persona.policy.conditioned import ConditionedPolicy
from persona.policy.language_model import load_language_model
from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition, Conversation
from simulators.world.conversations import film_conversations

ROWS, TRAINED = 128, 32
LATENT = 8


def main() -> None:
    """Time everything and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats of each measurement")
    repeats = parser.parse_args().repeats
    quiet_libraries()
    base = load_language_model("nano", device="cpu")
    talks = film_conversations(np.random.default_rng(0))
    prompts = [talk[:-1] for talk in (next(talks) for _ in range(ROWS))]
    condition = Condition.of_direction(
        torch.randn(ROWS, len(ATTRIBUTES), generator=torch.Generator().manual_seed(0)), latent_dim=LATENT
    )
    formats = {name: replace(base, mixed=mixed) for name, mixed in (("float32", False), ("bfloat16", True))}
    policies = {
        name: ConditionedPolicy.build(model, LATENT, len(ATTRIBUTES), seed=0)
        for name, model in formats.items()
    }
    replies = policies["float32"].generate(prompts, condition, seeds=range(ROWS))
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in policies}
    for _ in range(repeats):
        for name, policy in policies.items():
            for task, work in _tasks(policy, prompts, replies, condition).items():
                seconds[name].setdefault(task, []).append(_time(work))
    _write(seconds)


def _tasks(
    policy: ConditionedPolicy, prompts: Sequence[Conversation], replies: list[str], condition: Condition
) -> dict[str, Callable[[], object]]:
    few = list(range(TRAINED))

    def score() -> None:
        with torch.no_grad():
            policy.log_probs(prompts, replies, condition)

    def step() -> None:
        policy.log_probs(prompts[:TRAINED], replies[:TRAINED], condition.select(few)).sum().backward()

    return {
        "sample_128_replies": lambda: policy.generate(prompts, condition, seeds=range(ROWS)),
        "score_128_replies": score,
        "gradient_of_32_replies": step,
    }


def _time(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _write(seconds: dict[str, dict[str, list[float]]]) -> None:
    medians = {
        task: {name: statistics.median(by_task[task]) for name, by_task in seconds.items()}
        for task in seconds["float32"]
    }
    speed_up = {task: row["float32"] / row["bfloat16"] for task, row in medians.items()}
    record("policy", {"seconds": seconds, "median_seconds": medians, "speed_up": speed_up})
    for task, ratio in speed_up.items():
        print(f"{task}: {medians[task]['float32']:.2f} s in float32, {ratio:.2f} times as fast in bfloat16")


if __name__ == "__main__":
    main()
