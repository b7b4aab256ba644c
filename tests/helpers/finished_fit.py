"""A finished comparison of profiles on a small file, made once for all tests."""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from app.fit import fit
from app.fit_config import FitConfig
from app.fit_report import PROFILES_JSON
from tests.helpers.choices_file import write_choices

SMALL: dict[str, Any] = {
    "methods": ("pooled", "length", "hierarchical"),
    "seeds": (0, 1),
    "context": (0, 4),
    "device": "cpu",
}


class FinishedFit(NamedTuple):
    """out: Its folder. data: Its file. report: Its JSON. printed: What stood on the terminal."""

    out: Path
    data: Path
    report: dict[str, Any]
    printed: str


def run_fit(
    data: Path, out: Path, *, resume: bool = False, width: int = 80, **options: Any
) -> tuple[dict[str, Any], str]:
    """The report, and what was printed."""
    written = io.StringIO()
    config = FitConfig(data=str(data), **{**SMALL, **options})
    fit(config, out, resume=resume, console=Console(file=written, width=width))
    return json.loads((out / PROFILES_JSON).read_text()), written.getvalue()


@cache
def finished_fit(base: Path) -> FinishedFit:
    """A comparison under a test session's own folder; not to be changed."""
    data = write_choices(base / "choices.jsonl")
    report, printed = run_fit(data, base / "fit")
    return FinishedFit(base / "fit", data, report, printed)
