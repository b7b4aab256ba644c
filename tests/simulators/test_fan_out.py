"""Rollouts on a local Ray: the same dialogues, bit for bit, and nothing is started unasked."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition
from recsys.types import Histories, histories_from_log
from simulators.dialogue_store import DialogueStore
from simulators.errors import MissingDependency, RolloutError
from simulators.fan_out import local_ray, rollout_on_ray
from simulators.protocols import Agent, SimulatedUser
from simulators.rollout import rollout
from tests.helpers.talking import talking_world

USERS = list(range(30))


def build() -> tuple[Agent, SimulatedUser]:
    _, agent, viewers = talking_world()
    return agent, viewers


def histories() -> Histories:
    world = talking_world()[0]
    return histories_from_log(world.log, USERS, len(world.catalogue))


def condition() -> Condition:
    return Condition.absent(len(USERS), latent_dim=2, direction_dim=len(ATTRIBUTES))


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    if find_spec("ray") is None:
        pytest.skip("Ray is an optional extra")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # workers import this module
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # so that it is put back
        with local_ray(processors=2):
            yield


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
def test_workers_hold_the_same_dialogues(ray: None, tmp_path: Path) -> None:
    agent, viewers = build()
    local = rollout(USERS, agent, viewers, histories=histories(), condition=condition(), seed=3, block=8)
    settings: dict[str, Any] = {"histories": histories(), "condition": condition(), "seed": 3, "block": 8}
    assert rollout_on_ray(USERS, build, **settings) == local
    with DialogueStore(tmp_path) as store:
        store.add(local[8:16], seed=3)  # a block that was there before
        assert rollout_on_ray(USERS, build, store=store, **settings) == local
        assert len(store) == len(USERS) and list(store.read(USERS, seed=3)) == local


def test_ray_must_be_there_and_initialised(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"histories": histories(), "condition": None, "seed": 3}

    class Sleeping:
        @staticmethod
        def is_initialized() -> bool:
            return False

    monkeypatch.setitem(sys.modules, "ray", Sleeping)
    with pytest.raises(RolloutError, match="Ray must be initialised"):
        rollout_on_ray(USERS, build, **settings)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency, match=r"pip install 'persona\[ray\]'"):
        rollout_on_ray(USERS, build, **settings)
