"""Speed and memory of the simulation engine: sessions without words, dialogues batched and one at a time, memory.

Dialogues are held by the embedded language model on both sides, batched and one by one in turn within one process, so
that their ratio holds even where the machine is shared; processor time is written beside the clock. One by one are held
every so-many-th of the batch's dialogues, as the first few may be longer or shorter than most, and the two are compared
by the words written a second. Memory is what a fresh process holds beyond its models, watched while so many dialogues
are live, and the line through those highest values. Writes `results/rollout/<date>-<commit>.json`; a dirty checkout
writes to `results/local/`.

    python -m benchmarks.bench_rollout --repeats 3
"""

import argparse
import ctypes
import gc
import json
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
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
from simulators.types import Dialogue
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
    parser.add_argument("--batch", type=int, default=1024, help="dialogues of a batched rollout")
    parser.add_argument("--alone", type=int, default=64, help="dialogues held one at a time")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of the model")
    parser.add_argument(
        "--live", type=int, nargs="+", default=[512, 1024, 1536, USERS], help="live dialogues to weigh"
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
    everyone = list(range(batch))
    some = everyone[:: max(1, batch // alone)]
    _hold(cast, everyone[:4])
    found: dict[str, dict[str, list[float]]] = {"batched": {}, "alone": {}}
    for _ in range(repeats):
        for name, groups in (("batched", [everyone]), ("alone", [[user] for user in some])):
            for measure, value in _pace(cast, groups).items():
                found[name].setdefault(measure, []).append(value)
    middle = {
        name: {measure: statistics.median(values) for measure, values in row.items()}
        for name, row in found.items()
    }
    return {
        "dialogues": {"batched": len(everyone), "alone": len(some)},
        **found,
        "speed_up": {
            clock: middle["batched"][clock] / middle["alone"][clock]
            for clock in ("tokens_a_second", "tokens_a_processor_second", "dialogues_a_second")
        },
    }


def _pace(cast: _Cast, groups: list[list[int]]) -> dict[str, float]:
    """How fast groups of users hold their dialogues, one group after the other."""
    wall, processor = time.perf_counter(), time.process_time()
    held = [dialogue for users in groups for dialogue in _hold(cast, users)]
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    written = sum(_written(cast, dialogue) for dialogue in held)
    return {
        "tokens_a_second": written / wall,
        "tokens_a_processor_second": written / processor,
        "dialogues_a_second": len(held) / wall,
        "tokens_a_dialogue": written / len(held),
    }


def _written(cast: _Cast, dialogue: Dialogue) -> int:
    """Tokens of all that user and agent said, each with the one that ends it."""
    turns = dialogue.turns
    said = [words for turn in turns for words in (turn.user, turn.reply)]
    said += [turn.feedback.utterance for turn in turns[-1:]]
    encode = cast.agent.policy.language_model.tokenizer.encode
    return sum(len(encode(words.raw, add_special_tokens=False)) + 1 for words in said)


def _memory(live: list[int], threads: int) -> dict[str, Any]:
    """Highest memory beyond the models by number of live dialogues, in fresh processes, and the line through it."""
    weighed = []
    for count in live:
        command = [
            *(sys.executable, "-m", "benchmarks.bench_rollout"),
            *("--weigh", str(count), "--threads", str(threads)),
        ]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        weighed.append(json.loads(said.splitlines()[-1]))
    counts, mib = np.asarray(live, float), np.asarray([row["rise_mib"] for row in weighed])
    slope, offset = np.polyfit(counts, mib, 1) if len(live) > 1 else (float("nan"), float("nan"))
    spread = float(((mib - mib.mean()) ** 2).sum())
    rest = float(((mib - slope * counts - offset) ** 2).sum())
    return {
        "live": live,
        "weighed": weighed,
        "kib_a_dialogue": float(slope) * 1024,
        "offset_mib": float(offset),
        "r_squared": 1 - rest / spread if spread else float("nan"),
    }


def _weigh(count: int) -> dict[str, float]:
    """How far resident memory rises above that of the loaded models while `count` dialogues are live."""
    cast = _cast(count)
    _hold(cast, [0, 1])
    _give_back()
    watch = _Watch()
    watch.start()
    _hold(cast, list(range(count)))
    watch.done.set()
    watch.join()
    return {"before_mib": watch.before, "rise_mib": watch.highest - watch.before}


class _Watch(threading.Thread):
    """Looks at this process's resident memory every few milliseconds and keeps the highest value, in MiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.before = self.highest = _resident_mib()

    def run(self) -> None:
        while not self.done.wait(0.005):
            self.highest = max(self.highest, _resident_mib())


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def _give_back() -> None:
    """Return to the system what the set-up has freed, or it would be filled again unseen."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


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


def _hold(cast: _Cast, users: list[int]) -> list[Dialogue]:
    """The dialogues of some users, held in one block."""
    return rollout(
        users,
        cast.agent,
        cast.viewers,
        histories=cast.histories[users],
        condition=cast.condition.select(users),
        seed=0,
        block=len(users),
    )


def _rate(work: Callable[[], int], repeats: int) -> dict[str, list[float]]:
    """How much is done a second, by the clock and by processor time; `work` says how much it did."""
    rates: dict[str, list[float]] = {"a_second": [], "a_processor_second": []}
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        done = work()
        rates["a_second"].append(done / (time.perf_counter() - wall))
        rates["a_processor_second"].append(done / (time.process_time() - processor))
    return rates


if __name__ == "__main__":
    main()
