"""Speed and memory of the simulation engine: sessions without words, dialogues batched and one at a time, memory.

Dialogues are held by the embedded language model on both sides, batched and one by one in turn within one process, so
that their ratio holds even where the machine is shared; processor time is written beside the clock. Memory is the peak
of a fresh process for each number of live dialogues, and the line through the peaks. Writes
`results/rollout/<date>-<commit>.json`; a dirty checkout writes to `results/local/`.

    python -m benchmarks.bench_rollout --repeats 3
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from app.quiet import quiet_libraries
from benchmarks.recording import record
from persona.policy.conditioned import ConditionedPolicy
from persona.policy.language_model import load_language_model
from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition
from recsys.models.popularity import Popularity
from recsys.types import Histories, histories_from_log
from simulators.agent import Recommender
from simulators.chat.model import LocalChat
from simulators.dialogue_env import grammar_scale
from simulators.env import FilmSlateVectorEnv, film_world
from simulators.rollout import rollout
from simulators.sessions import Sessions
from simulators.users.film_viewers import FilmViewers

FILMS, USERS = 2400, 2000
LATENT = 8


class _Cast(NamedTuple):
    """All that a rollout needs."""

    agent: Recommender
    viewers: FilmViewers
    histories: Histories
    condition: Condition


def main() -> None:
    """Measure everything and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats of each measurement")
    parser.add_argument("--batch", type=int, default=256, help="dialogues of a batched rollout")
    parser.add_argument("--alone", type=int, default=12, help="dialogues held one at a time")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of the model")
    parser.add_argument(
        "--live", type=int, nargs="+", default=[64, 128, 256, 512, 1024], help="live dialogues to weigh"
    )
    parser.add_argument("--weigh", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(arguments.threads)
    if arguments.weigh:
        print(json.dumps(_weigh(arguments.weigh)))
        return
    result = {
        "threads": arguments.threads,
        "sessions": _sessions(arguments.repeats),
        "dialogues": _dialogues(arguments.repeats, arguments.batch, arguments.alone),
        "memory": _memory(arguments.live, arguments.threads),
    }
    path = record("rollout", result)
    print(json.dumps({name: result[name] for name in ("sessions", "dialogues", "memory")}, indent=1))
    print(path)


def _sessions(repeats: int) -> dict[str, Any]:
    """User-steps a second on one core, of plain sessions and of the vector environment, by length of slate."""
    world = film_world(FILMS, USERS, 0)
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for slate in (1, 10):
        count = 20_000 if slate == 1 else 4_000
        shown = rng.integers(0, FILMS, (5, count, slate))
        users = rng.integers(0, USERS, count)

        def run(shown: Any = shown, users: Any = users) -> int:
            sessions = Sessions(world.oracle, users, seeds=0)
            steps = 0
            for items in shown:
                steps += int((~sessions.stopped).sum())
                sessions.step(items)
            return steps

        env = FilmSlateVectorEnv(count, world, slate=slate)

        def play(env: FilmSlateVectorEnv = env, shown: Any = shown, slate: int = slate) -> int:
            env.reset(seed=0)
            for items in shown:
                env.step(items[:, 0] if slate == 1 else items)
            return len(shown) * env.num_envs

        for name, work in (("sessions", run), ("vector_env", play)):
            found[f"{name}_slate_{slate}"] = _rate(work, repeats)
    return found


def _dialogues(repeats: int, batch: int, alone: int) -> dict[str, Any]:
    """Dialogues a second, all at once and one at a time."""
    cast = _cast(batch)
    _hold(cast, list(range(4)))
    rates: dict[str, dict[str, list[float]]] = {"batched": {}, "alone": {}}
    for _ in range(repeats):
        for name, work in (
            ("batched", lambda: _hold(cast, list(range(batch)))),
            ("alone", lambda: sum(_hold(cast, [user]) for user in range(alone))),
        ):
            for clock, values in _rate(work, 1).items():
                rates[name].setdefault(clock, []).extend(values)
    return {
        **rates,
        "speed_up": {
            clock: statistics.median(rates["batched"][clock]) / statistics.median(rates["alone"][clock])
            for clock in rates["batched"]
        },
    }


def _memory(live: list[int], threads: int) -> dict[str, Any]:
    """Peak of the resident memory by number of live dialogues, in fresh processes, and the line through it."""
    peaks = []
    for count in live:
        command = [
            *(sys.executable, "-m", "benchmarks.bench_rollout"),
            *("--weigh", str(count), "--threads", str(threads)),
        ]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peaks.append(json.loads(said.splitlines()[-1]))
    counts, mib = np.asarray(live, float), np.asarray([peak["rise_mib"] for peak in peaks])
    slope, offset = np.polyfit(counts, mib, 1) if len(live) > 1 else (float("nan"), float("nan"))
    spread = float(((mib - mib.mean()) ** 2).sum())
    rest = float(((mib - slope * counts - offset) ** 2).sum())
    return {
        "live": live,
        "peaks": peaks,
        "kib_a_dialogue": float(slope) * 1024,
        "offset_mib": float(offset),
        "r_squared": 1 - rest / spread if spread else float("nan"),
    }


def _weigh(count: int) -> dict[str, float]:
    """How far the peak rises above the loaded models when `count` dialogues are live; a few replies are enough."""
    cast = _cast(count)
    _hold(cast, [0, 1])
    before = _peak_mib()
    _hold(cast, list(range(count)))
    return {"before_mib": before, "rise_mib": _peak_mib() - before}


def _cast(count: int) -> _Cast:
    world = film_world(FILMS, USERS, 0)
    base = load_language_model("nano", device="cpu")
    policy = ConditionedPolicy.build(base, LATENT, len(ATTRIBUTES), seed=0)
    histories = histories_from_log(world.log, np.arange(USERS), len(world.catalogue))
    agent = Recommender(world.catalogue, Popularity.fit(histories), policy)
    draws = torch.randn(count, len(ATTRIBUTES), generator=torch.Generator().manual_seed(0))
    direction = torch.nn.functional.normalize(draws, dim=1)
    viewers = FilmViewers(world.oracle, grammar_scale(), LocalChat(base))
    return _Cast(agent, viewers, histories, Condition.of_direction(direction, latent_dim=LATENT))


def _hold(cast: _Cast, users: list[int]) -> int:
    """Hold the dialogues of some users in one block; how many there were."""
    held = rollout(
        users,
        cast.agent,
        cast.viewers,
        histories=cast.histories[users],
        condition=cast.condition.select(users),
        seed=0,
        block=len(users),
    )
    return len(held)


def _rate(work: Callable[[], int], repeats: int) -> dict[str, list[float]]:
    """How much is done a second, by the clock and by processor time; `work` says how much it did."""
    rates: dict[str, list[float]] = {"a_second": [], "a_processor_second": []}
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        done = work()
        rates["a_second"].append(done / (time.perf_counter() - wall))
        rates["a_processor_second"].append(done / (time.process_time() - processor))
    return rates


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
