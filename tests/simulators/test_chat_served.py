"""The embedded model behind `transformers serve`: a server that nobody here wrote."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from rich.console import Console

from app.config import load_settings
from app.simulate import simulate
from app.simulate_config import SimulateConfig
from simulators.chat.endpoint import EndpointChat
from simulators.chat.endpoint_settings import EndpointSettings
from simulators.prompts import viewer_opening_prompt
from tests.helpers.rehearsed_run import rehearsed_run

pytestmark = pytest.mark.integration

NANO = str(files("persona") / "assets" / "nano")
START_S = 60.0


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that has started, or a skip where it does not start in time."""
    command = Path(sys.executable).with_name("transformers")
    if not command.exists():
        pytest.skip("the command `transformers` is not installed beside this Python")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [str(command), "serve", NANO, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    with (
        log.open("w") as out,
        subprocess.Popen(
            arguments, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=out, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            if not is_up(f"http://127.0.0.1:{port}/health", process):
                pytest.skip(f"`transformers serve` is not up after {START_S:g} s: {log.read_text()[-300:]}")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def is_up(health: str, process: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urlopen(health, timeout=5):
                return True
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    return False


def test_a_real_server_answers_every_row_with_its_tokens(url: str) -> None:
    chat = EndpointChat(EndpointSettings(base_url=url, model=NANO, concurrency=4, timeout_s=120))
    wishes = [{"genre": genre, "mood": "warm"} for genre in ("drama", "comedy", "crime")]
    prompts = [viewer_opening_prompt(wish, ["<genre>", "<mood>"]) for wish in wishes]
    found = chat.complete(prompts, seeds=[1, 2, 3], max_new_tokens=24, temperature=0.7)
    assert [row.failure for row in found] == [None] * 3
    assert all(
        row.text.strip() and 0 < row.completion_tokens <= 24 and row.prompt_tokens > 5 for row in found
    )
    assert chat.spent.requests == 3


def test_users_of_a_finished_run_speak_through_a_real_server(
    url: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = rehearsed_run(tmp_path_factory.getbasetemp())
    given = [f"run={run}", "users=over-agreeable", f"chat={NANO}@{url}", "dialogues=3", "timeout_s=120"]
    config = load_settings(SimulateConfig, None, given)
    summary = json.loads(simulate(config, tmp_path / "out", console=Console(quiet=True)).read_text())
    assert summary["dialogues"] == 3 and "model_failed" not in summary["stops"]
