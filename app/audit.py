"""`persona audit`: how far a simulator can be believed, and for what, on the terminal and in files.

OUT/audit.json     every measure with its interval, verdicts, limits with their reasons, and what it was made from
OUT/audit.html     the same for people, one file that needs no network
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from app.audit_config import AuditConfig
from app.audit_data import personas_beside, read_evidence
from app.audit_html import render_audit
from app.audit_terminal import print_audit
from app.errors import StoreError
from app.files import write_atomically, write_json
from app.manifest import build_manifest, hash_files
from simulators.faithfulness import Evidence, audit_simulator

AUDIT_JSON, AUDIT_HTML = "audit.json", "audit.html"


def audit(config: AuditConfig, out: Path, *, console: Console) -> dict[str, Any]:
    """Compare simulated with real behaviour, print the verdicts, and write `audit.json` and `audit.html`.

    Args:
        config: Files and settings.
        out: Folder to write to, made if missing.
        console: Where verdicts go.

    Returns:
        What `audit.json` holds.

    Raises:
        FaithfulnessError, PersonaError: A file cannot be read or compared.
        StoreError: The folder cannot be written.
    """
    sides = [
        read_evidence(
            [Path(path) for path in paths], side=side, max_level=config.max_level, columns=config.columns
        )
        for side, paths in (("simulated", config.simulated), ("real", config.log))
    ]
    report = audit_simulator(
        sides[0],
        sides[1],
        seed=config.seed,
        max_level=config.max_level,
        accept_level=config.accept_level,
        limits=config.limits,
    )
    report["notes"] += _note_personas(sides)
    report["manifest"] = build_manifest(config, _hash_inputs(config), "cpu")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise StoreError(
            f"{out} must be a folder that can be made; got {err.strerror}. Choose another with --out."
        ) from err
    write_json(out / AUDIT_JSON, report)
    write_atomically(out / AUDIT_HTML, render_audit(report).encode())
    print_audit(console, report)
    console.print(f"Report: {out / AUDIT_HTML}", markup=False, soft_wrap=True)
    return report


def _hash_inputs(config: AuditConfig) -> dict[str, str]:
    """SHA-256 of every file that was read, personas beside dialogues included."""
    hashes: dict[str, str] = {}
    for side, paths in (("simulated", config.simulated), ("real", config.log)):
        for path in map(Path, paths):
            for file in (path, personas_beside(path)):
                if file is not None:
                    hashes |= {f"{side}: {file}": value for value in hash_files(file).values()}
    return hashes


def _note_personas(sides: Sequence[Evidence]) -> list[str]:
    """What is to be known where personas were read: real users have none that they could speak against."""
    notes = []
    for side, evidence in zip(("simulated", "real"), sides, strict=True):
        known = sum(bool(d.likes or d.dislikes or d.targets) for d in evidence.dialogues)
        if known:
            notes.append(
                f"In {known} of {len(evidence.dialogues)} {side} dialogues it is known what the user likes or is "
                "after; there, words against it count as contradictions, and its title as a leak."
            )
    return notes
