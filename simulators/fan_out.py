"""Rollouts fanned out over the processes of a Ray cluster, with the same dialogues as on one machine.

Blocks of users go to workers. A block's batches are those of a local rollout with the same block, and every worker
computes with the same number of threads, so on like processors the dialogues are the same bit for bit.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeAlias

import torch
from scipy.sparse import csr_array

from persona.types import Condition
from simulators.dialogue_store import DialogueStore
from simulators.errors import MissingDependency, RolloutError
from simulators.protocols import Agent, SimulatedUser
from simulators.rollout import check_rows, rollout, user_blocks
from simulators.types import Dialogue

Build: TypeAlias = Callable[[], tuple[Agent, SimulatedUser]]
"""Makes agent and users inside a worker: a function of a module that workers can import, or a `partial` of one."""


_LOOPBACK = "127.0.0.1"


class _Worker:
    """Holds one agent and one population in a process of its own."""

    def __init__(self, build: Build, threads: int) -> None:
        torch.set_num_threads(threads)
        self._agent, self._viewers = build()

    def talk(
        self, users: Sequence[int], histories: csr_array, condition: Condition | None, seed: int, attempt: int
    ) -> list[Dialogue]:
        return rollout(
            users,
            self._agent,
            self._viewers,
            histories=histories,
            condition=condition,
            seed=seed,
            attempt=attempt,
            block=len(users),
        )


def rollout_on_ray(
    users: Sequence[int],
    build: Build,
    *,
    histories: csr_array,
    condition: Condition | None,
    seed: int,
    attempt: int = 0,
    block: int = 256,
    workers: int = 2,
    threads: int = 1,
    store: DialogueStore | None = None,
) -> list[Dialogue]:
    """What `rollout` gives with the same block, from many processes.

    Call `ray.init` with the address of a cluster first, or hold the call inside `local_ray`.

    Args:
        users: Rows of N users in the population.
        build: Makes agent and users, once in each worker, so that no model travels.
        histories: What the agent knows of each user's past. Shape (N, I).
        condition: One row a user, or None for the average user.
        seed: Seed of the simulation.
        attempt: As for `rollout`.
        block: Users a task.
        workers: Processes, each with an agent and users of its own.
        threads: Threads, and processors asked for, of each; the local rollout must use as many for the same bits.
        store: Where each block is kept as soon as it is finished; blocks that it has already are not held again. It
            holds one attempt.

    Returns:
        One finished dialogue a user, in the given order.

    Raises:
        MissingDependency: Ray is not installed.
        RolloutError: Ray was not initialised, there is no worker, or an argument does not fit.
    """
    ray = _initialised_ray()
    check_rows(users, histories, condition)
    if workers < 1 or threads < 1:
        raise RolloutError(f"`workers` and `threads` must be at least 1; got {workers} and {threads}.")
    blocks = list(user_blocks(len(users), block))
    todo = [rows for rows in blocks if store is None or store.missing(users[rows], seed=seed)]
    remote = ray.remote(num_cpus=threads)(_Worker)
    team = [remote.remote(build, threads) for _ in range(min(workers, len(todo)))]

    def begin(worker: Any, rows: slice) -> Any:
        known = condition.select(range(rows.start, rows.stop)) if condition else None
        return worker.talk.remote(list(users[rows]), histories[rows], known, seed, attempt)

    finished: dict[int, list[Dialogue]] = {}
    try:
        for rows, dialogues in _share_out(ray, team, todo, begin):
            finished[rows.start] = dialogues
            if store is not None:
                store.add(dialogues, seed=seed)
    finally:
        for worker in team:
            ray.kill(worker)
    return [
        dialogue
        for rows in blocks
        for dialogue in finished.get(rows.start) or (store.read(users[rows], seed=seed) if store else [])
    ]


def _share_out(
    ray: Any, team: Sequence[Any], todo: Sequence[slice], begin: Callable[[Any, slice], Any]
) -> Iterator[tuple[slice, list[Dialogue]]]:
    """Each block with its dialogues as soon as they are held; who has finished one gets the next."""
    waiting, idle = list(reversed(todo)), list(team)
    running: dict[Any, tuple[Any, slice]] = {}
    while waiting or running:
        while waiting and idle:
            worker, rows = idle.pop(), waiting.pop()
            running[begin(worker, rows)] = (worker, rows)
        done = ray.wait(list(running), num_returns=1)[0][0]
        worker, rows = running.pop(done)
        idle.append(worker)
        yield rows, ray.get(done)


@contextmanager
def local_ray(processors: int) -> Iterator[None]:
    """Ray on this machine for the time of the block, reachable from this machine only.

    By itself Ray listens on every interface. It reads whether it may on its first import, so nothing may have imported
    it before.

    Args:
        processors: How many it may give to workers.

    Raises:
        MissingDependency: Ray is not installed.
        RolloutError: Ray was imported before, and would listen on every interface.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray = _ray()
    ray.init(
        num_cpus=processors, include_dashboard=False, configure_logging=False, _node_ip_address=_LOOPBACK
    )
    try:
        if (address := ray.util.get_node_ip_address()) != _LOOPBACK:
            raise RolloutError(
                f"A local Ray must listen on {_LOOPBACK} alone; it took {address}, because something imported Ray "
                "before. Start it first."
            )
        yield
    finally:
        ray.shutdown()


def _initialised_ray() -> Any:
    ray = _ray()
    if not ray.is_initialized():
        raise RolloutError(
            "Ray must be initialised; it is not. Use `local_ray`, or call `ray.init` with a cluster's address."
        )
    return ray


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError as err:
        raise MissingDependency(
            "ray", needed_for="rollouts on several processes", install="pip install 'persona[ray]'"
        ) from err
