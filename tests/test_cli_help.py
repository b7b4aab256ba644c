"""`persona --help`, and that of every subcommand, answers at once: it imports neither torch nor gradio."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.cli import app

ROOT = Path(__file__).parents[1]
COMMANDS = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
EXPECTED = [
    "run",
    "pretrain",
    "chat",
    "report",
    "demo",
    "evaluate",
    "recommend",
    "ope",
    "fit",
    "whois",
    "simulate",
    "train",
    "audit",
]
SCRIPT = """
import sys
from app.cli import main
try:
    main()
finally:
    heavy = {"torch", "gradio", "transformers", "peft", "faiss", "pandas", "numpy"} & sys.modules.keys()
    print("IMPORTED", sorted(heavy), file=sys.stderr)
"""


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_every_command_of_the_platform_is_there() -> None:
    assert COMMANDS == EXPECTED


@pytest.mark.parametrize("command", [None, *EXPECTED])
def test_help_imports_nothing_heavy(command: str | None) -> None:
    done = ask(*([command] if command else []), "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert done.stderr.strip() == "IMPORTED []"


@pytest.mark.integration
def test_help_takes_less_than_a_second() -> None:
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        ask("--help")
        seconds.append(time.perf_counter() - began)
    # The least of several: others may be at work on the machine.
    assert min(seconds) < 1.0
