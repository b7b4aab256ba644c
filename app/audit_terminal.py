"""What `persona audit` prints."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

_STYLES = {"yes": "green", "no": "red", "not shown": "yellow"}


def print_audit(console: Console, report: Mapping[str, Any]) -> None:
    """Print what was compared, a line for each use, and notes.

    Args:
        console: Where to.
        report: What `audit.json` holds.
    """
    for side in ("simulated", "real"):
        console.print(f"{side.capitalize()}: {counted(report['counts'][side])}", markup=False)
    for verdict in report["verdicts"]:
        answer = verdict["answer"]
        console.print(
            f"{escape(verdict['use'].capitalize())}: [bold {_STYLES[answer]}]{answer}[/], because "
            f"{escape(verdict['because'])}.",
            soft_wrap=True,
        )
    for note in report["notes"]:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)


def counted(counts: Mapping[str, int]) -> str:
    """How much there is of one side, in words.

    Args:
        counts: One side of `counts` in a report.
    """
    words = (
        ("users", "user", "users"),
        ("rows", "reaction", "reactions"),
        ("dialogues", "dialogue", "dialogues"),
        ("scenes", "choice", "choices"),
    )
    parts = [
        f"{counts[name]:,} {one if counts[name] == 1 else many}" for name, one, many in words if counts[name]
    ]
    return ", ".join(parts) or "nothing"
