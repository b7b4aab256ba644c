"""A rollout over an endpoint that fails in every way, killed and continued, against one that nothing interrupts.

Film viewers find their words through an endpoint on the loopback interface whose faults are drawn by a seed: it
stalls, drops connections, turns away, answers 500, sends broken, truncated and empty JSON, and a few questions it never
answers. One process rolls out all dialogues; another, over a server of the same seed and a cache of its own, is killed
by SIGKILL at given shares of the answers and started again each time. Told: that every dialogue is there once with its
stop reason, that both ways end in the same dialogues, and what the kills cost. Writes
`results/faulty_endpoint/<date>-<commit>.json`; a dirty checkout writes to `results/local/`.

    python -m benchmarks.bench_faulty_endpoint --dialogues 2000 --kill-at .2 .55 .8
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

from app.quiet import quiet_libraries
from benchmarks.recording import record
from recsys.types import histories_from_log
from simulators.chat.cache import ResponseCache
from simulators.chat.cached import CachedChat
from simulators.chat.endpoint import EndpointChat
from simulators.chat.endpoint_settings import EndpointSettings
from simulators.rollout import rollout
from simulators.transcripts import dialogue_from_json, dialogue_to_json
from simulators.types import StopReason
from simulators.users.film_viewers import FilmViewers
from tests.helpers.talking import reference_scale, talking_world

_POLL_S = 0.2
_LONGEST_S = 3600.0


class Server:
    """The faulty server in a process of its own, for as long as the context lasts."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Remember the seed and the chances."""
        chances = ["--chance", str(options.chance), "--hopeless", str(options.hopeless)]
        self._command = ["tests.helpers.faulty_server", "--seed", str(options.seed), *chances]

    def __enter__(self) -> Self:
        """Start it, and wait for its URL."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", *self._command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        return self

    def __exit__(self, *_: object) -> None:
        """Let it end."""
        self._process.communicate("")

    def counts(self) -> dict[str, Any]:
        """What the server says it has been asked and has answered."""
        with urlopen(self.url.removesuffix("/v1"), timeout=60) as response:
            counts: dict[str, Any] = json.load(response)
        return counts


def talk(url: str, folder: Path, options: argparse.Namespace) -> None:
    """Roll out all dialogues over the endpoint, in this process, and leave them in `dialogues.jsonl`."""
    world, agent, _ = talking_world(options.dialogues)
    users = list(range(options.dialogues))
    settings = EndpointSettings(
        base_url=url,
        model="viewers",
        concurrency=options.concurrency,
        timeout_s=options.timeout_s,
        first_wait_s=0.02,
        longest_wait_s=1.0,
    )
    with ResponseCache(folder / "answers.sqlite") as cache:
        chat = CachedChat(EndpointChat(settings), cache)
        dialogues = rollout(
            users,
            agent,
            FilmViewers(world.oracle, reference_scale(), chat),
            histories=histories_from_log(world.log, users, len(world.catalogue)),
            condition=None,
            seed=options.seed,
        )
    lines = "".join(json.dumps(dialogue_to_json(dialogue)) + "\n" for dialogue in dialogues)
    unfinished = folder / "dialogues.part"
    unfinished.write_text(lines, encoding="utf-8")
    unfinished.rename(folder / "dialogues.jsonl")


def run(server: Server, folder: Path, options: argparse.Namespace, kill_after: int | None) -> float:
    """Start `talk` in a process, and kill it when the server has given `kill_after` answers; seconds it ran."""
    given = {name: value for name, value in vars(options).items() if name != "kill_at"}
    arguments = [
        text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))
    ]
    start = time.monotonic()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "benchmarks.bench_faulty_endpoint",
            *arguments,
            "--talk",
            server.url,
            str(folder),
        ]
    )
    while process.poll() is None:
        if time.monotonic() - start > _LONGEST_S:
            process.kill()
        if kill_after is not None and server.counts()["answered"] >= kill_after:
            process.send_signal(signal.SIGKILL)
        time.sleep(_POLL_S)
    if process.returncode not in {0, -signal.SIGKILL}:
        raise RuntimeError(f"the rollout must end or be killed; it ended with {process.returncode}")
    return time.monotonic() - start


def describe(folder: Path, server: Server, seconds: Sequence[float]) -> dict[str, Any]:
    """What became of the dialogues, and what it took."""
    lines = (folder / "dialogues.jsonl").read_text(encoding="utf-8").splitlines()
    dialogues = [dialogue_from_json(json.loads(line)) for line in lines]
    with ResponseCache(folder / "answers.sqlite") as cache:
        kept = cache.totals()
    failed = [d for d in dialogues if d.stop is StopReason.MODEL_FAILED]
    return {
        "dialogues": len(dialogues),
        "users": len({d.user for d in dialogues}),
        "without_stop_reason": sum(d.stop is None for d in dialogues),
        "stops": dict(Counter(str(d.stop) for d in dialogues)),
        "failed_without_words": sum(
            bool(d.turns) and not d.turns[-1].feedback.utterance.failure for d in failed
        ),
        "turns": sum(len(d.turns) for d in dialogues),
        "kept": kept._asdict(),
        "server": server.counts(),
        "seconds": [round(value, 1) for value in seconds],
    }


def main() -> None:
    """Roll out both ways, compare, and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dialogues", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--chance", type=float, default=0.03, help="of each transient fault; a fifth of it for stalls"
    )
    parser.add_argument(
        "--hopeless", type=float, default=0.002, help="share of questions that are never answered"
    )
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--timeout-s", type=float, default=20.0)
    parser.add_argument(
        "--kill-at", type=float, nargs="*", default=[0.2, 0.55, 0.8], help="shares of the answers"
    )
    parser.add_argument("--talk", nargs=2, metavar=("URL", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    quiet_libraries()
    asked = vars(options).pop("talk")
    if asked is not None:
        talk(asked[0], Path(asked[1]), options)
        return
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name, "whole"), Path(name, "killed")
        with Server(options) as server:
            one = describe(whole, server, [run(server, whole, options, None)])
        answers = one["server"]["answered"]
        with Server(options) as server:
            marks = [round(share * answers) for share in sorted(options.kill_at)]
            seconds = [run(server, killed, options, mark) for mark in [*marks, None]]
            two = describe(killed, server, seconds)
        same = (whole / "dialogues.jsonl").read_bytes() == (killed / "dialogues.jsonl").read_bytes()
    result = {"settings": vars(options), "uninterrupted": one, "killed": two, "same_dialogues": same}
    print(json.dumps(result, indent=2))
    print(record("faulty_endpoint", result))


if __name__ == "__main__":
    main()
