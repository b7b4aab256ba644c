"""What a run was made with: configuration, code, packages, device and data."""

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from app.config import RunConfig
from app.errors import StoreError
from app.files import read_json

MANIFEST = "manifest.json"
"""Name of the file, at the top of a run's folder."""

_PACKAGES = (
    "persona",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "safetensors",
    "faiss-cpu",
    "faiss-gpu-cu12",
    "implicit",
    "scikit-learn",
    "numpy",
    "scipy",
    "pandas",
    "gradio",
    "plotly",
)
_SOURCE = Path(__file__).resolve().parent.parent


class Settings(Protocol):
    """What a folder of work needs to know of the choices that it was made with."""

    @property
    def seed(self) -> int:
        """Every random draw follows from it."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """All choices as plain values."""
        ...


def build_manifest(config: Settings, data_hashes: Mapping[str, str], device: str) -> dict[str, Any]:
    """Everything that a reader of a result needs to know to make it again.

    Args:
        config: The choices that the work was made with.
        data_hashes: SHA-256 in hex of each input that is not part of the code, by name.
        device: Where tensors live once "auto" is settled, such as "cpu".

    Returns:
        A JSON object: config, seed, commit (None outside a checkout), dirty (whether the checkout held
        uncommitted changes, None outside one), versions by package, device, data_hashes.
    """
    commit, dirty = _read_checkout(_SOURCE)
    return {
        "config": config.model_dump(mode="json"),
        "seed": config.seed,
        "commit": commit,
        "dirty": dirty,
        "versions": _read_versions(),
        "device": device,
        "data_hashes": dict(sorted(data_hashes.items())),
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the run in `folder` was made with.

    Raises:
        StoreError: There is no run in the folder, or its manifest is damaged.
    """
    if not (folder / MANIFEST).is_file():
        raise StoreError(
            f"A run's folder must hold {MANIFEST}; got {folder}, without one. Make it with `persona run`."
        )
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or not {"config", "data_hashes", "device"} <= manifest.keys():
        raise StoreError(
            f"{folder / MANIFEST} must be as `persona run` wrote it; got other content. Use another folder."
        )
    return manifest


def read_config(folder: Path, manifest: Mapping[str, Any]) -> RunConfig:
    """The configuration in a run's manifest.

    Args:
        folder: The run's folder, for the message.
        manifest: What `read_manifest` found there.

    Raises:
        StoreError: It is not a configuration of this version, with every field.
    """
    found = manifest["config"]
    try:
        config = RunConfig.model_validate(found)
    except ValidationError as err:
        first = err.errors()[0]
        name = ".".join(map(str, first["loc"])) or "config"
        raise _other_config(folder, f"whose `{name}` is not one ({first['msg']})") from err
    # A run writes every field, so a default must not stand in for one that is gone.
    if lacking := sorted(RunConfig.model_fields.keys() - found.keys()):
        more = f" and {len(lacking) - 3} more" * (len(lacking) > 3)
        raise _other_config(folder, f"which lacks `{', '.join(lacking[:3])}`{more}")
    return config


def _other_config(folder: Path, what: str) -> StoreError:
    return StoreError(
        f"A run must have a configuration of this version; got {folder}, {what}. Make a new run."
    )


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 in hex of every file under a folder, by its path relative to the folder.

    Args:
        folder: A folder, or a single file, which then stands under its own name.

    Returns:
        Sorted by name; hidden files and folders are left out.

    Raises:
        StoreError: The folder is missing or a file in it cannot be read.
    """
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    root = folder.parent if folder.is_file() else folder
    names = {path: path.relative_to(root) for path in files}
    visible = {path: name for path, name in names.items() if not any(p.startswith(".") for p in name.parts)}
    if not visible:
        raise StoreError(f"A folder of data must hold files; got {folder}, which has none. Check the path.")
    try:
        return {name.as_posix(): _hash_file(path) for path, name in visible.items()}
    except OSError as err:
        raise StoreError(
            f"Every data file must be readable; got {err.filename} ({err.strerror}). Check its permissions."
        ) from err


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _read_checkout(source: Path) -> tuple[str | None, bool | None]:
    """The commit of a checkout and whether it held changes; (None, None) without a checkout or git."""
    if not (source / ".git").exists():
        return None, None
    try:
        commit = _ask_git(source, "rev-parse", "HEAD")
        return commit, bool(_ask_git(source, "status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _ask_git(source: Path, *arguments: str) -> str:
    # Optional locks off: reading the state of a checkout must not write into it.
    command = ["git", "--no-optional-locks", "-C", str(source), *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=30).stdout.strip()
