"""How every benchmark writes down what it measured: with the machine, the commit and the versions."""

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch

from app.config import RunConfig
from app.manifest import build_manifest


def record(topic: str, result: Mapping[str, object]) -> Path:
    """Write one JSON file and say where.

    Args:
        topic: Folder under `benchmarks/results`; a dirty checkout writes to `results/local/<topic>`, which git ignores.
        result: What was measured, raw repeats included.

    Returns:
        The file, named by date and commit.
    """
    manifest = build_manifest(RunConfig(), {}, "cpu")
    machine = {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg(),
    }
    content = {
        "machine": machine,
        "manifest": {key: manifest[key] for key in ("commit", "dirty", "versions")},
        **result,
    }
    clean = manifest["commit"] and not manifest["dirty"]
    folder = Path(__file__).parent / "results" / (topic if clean else f"local/{topic}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y-%m-%d}-{(manifest['commit'] or 'unknown')[:8]}.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def _processor() -> str:
    """The processor's own name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
