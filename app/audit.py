"""`persona audit`: how far a simulator can be believed, and for what, on the terminal and in files.

OUT/audit.json     every measure with its interval, verdicts, limits with their reasons, and what it was made from
OUT/audit.html     the same for people, one file that needs no network
"""

from pathlib import Path
from typing import Any

from rich.console import Console

from app.audit_config import AuditConfig
from app.audit_data import read_evidence
from app.audit_html import render_audit
from app.audit_terminal import print_audit
from app.errors import StoreError
from app.files import write_atomically, write_json
from app.manifest import build_manifest, hash_files
from simulators.faithfulness import audit_simulator

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
        FaithfulnessError: A file cannot be read or compared.
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
    hashes = {
        f"{side}: {name}": value
        for side, paths in (("simulated", config.simulated), ("real", config.log))
        for path in paths
        for name, value in hash_files(Path(path)).items()
    }
    report["manifest"] = build_manifest(config, hashes, "cpu")
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
