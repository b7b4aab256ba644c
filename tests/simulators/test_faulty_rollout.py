"""Dialogues over an endpoint that fails: none lost, none doubled, and the same ones after a kill."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from recsys.types import histories_from_log
from simulators.chat.cache import ResponseCache
from simulators.chat.cached import CachedChat
from simulators.chat.endpoint import EndpointChat
from simulators.chat.endpoint_settings import EndpointSettings
from simulators.rollout import rollout
from simulators.types import Dialogue, StopReason
from simulators.users.film_viewers import FilmViewers
from tests.helpers.faulty_server import Fault, FaultyServer
from tests.helpers.talking import reference_scale, talking_world

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

USERS = list(range(60))
WORLD, AGENT, _ = talking_world(len(USERS))
HISTORIES = histories_from_log(WORLD.log, USERS, len(WORLD.catalogue))


def faulty_server() -> FaultyServer:
    chances: dict[Fault, float] = {fault: 0.04 for fault in Fault if fault not in {Fault.STALL, Fault.DRIP}}
    return FaultyServer(seed=5, chances=chances, hopeless=0.02)


def talk(url: str, path: Path, *, dies_at: int | None = None) -> list[Dialogue]:
    """Roll everything out; the process kills itself when the cache holds `dies_at` answers."""
    with ResponseCache(path) as cache:

        def die(done: int, of: int) -> None:
            if dies_at is not None and cache.totals().answers >= dies_at:
                os.kill(os.getpid(), signal.SIGKILL)

        settings = EndpointSettings(base_url=url, model="viewers", first_wait_s=0, longest_wait_s=1)
        viewers = FilmViewers(
            WORLD.oracle, reference_scale(), CachedChat(EndpointChat(settings, progress=die), cache)
        )
        return rollout(USERS, AGENT, viewers, histories=HISTORIES, condition=None, seed=3)


def test_a_faulty_endpoint_and_a_kill_lose_double_and_change_no_dialogue(tmp_path: Path) -> None:
    with faulty_server() as server:
        whole = talk(server.url, tmp_path / "whole.sqlite")
        answers = server.counts()["answered"]
    assert [dialogue.user for dialogue in whole] == USERS
    stops = Counter(dialogue.stop for dialogue in whole)
    assert None not in stops and stops[StopReason.ACCEPTED] and stops[StopReason.MODEL_FAILED]
    assert {*server.counts()["faults"]} == {
        "500",
        *(fault for fault in Fault if fault not in {Fault.STALL, Fault.DRIP}),
    }
    for dialogue in whole:
        if dialogue.stop is StopReason.MODEL_FAILED and dialogue.turns:
            reason = dialogue.turns[-1].feedback.utterance.failure
            assert reason == "6 attempts failed, the last because it answered 500 (this one never works)"

    with faulty_server() as server:
        process = os.fork()
        if process == 0:
            talk(server.url, tmp_path / "killed.sqlite", dies_at=answers // 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
        with ResponseCache(tmp_path / "killed.sqlite") as cache:
            assert answers // 2 <= cache.totals().answers < answers
        assert talk(server.url, tmp_path / "killed.sqlite") == whole
        # Only what was under way when the process died was asked for twice.
        assert server.counts()["answered_again"] <= EndpointSettings.model_fields["concurrency"].default
