"""Saved models: tensors in a safetensors file, everything else in a JSON file that carries the tensors' hash.

No code runs on reading. Each file is written beside its place and moved there in one step, the JSON last, so a
folder that was cut off in the middle is refused rather than half read.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from recsys.errors import ArtefactError

TENSORS = "model.safetensors"
MANIFEST = "model.json"


def write_artefact(
    folder: Path, kind: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> None:
    """Write a model folder.

    Args:
        folder: Created where missing; an earlier model in it is replaced.
        kind: Name of the model, checked on reading.
        tensors: By name.
        settings: What JSON can hold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blob = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    manifest = {"kind": kind, "settings": dict(settings), "sha256": hashlib.sha256(blob).hexdigest()}
    _write_atomically(folder / TENSORS, blob)
    _write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())


def read_artefact(folder: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model folder.

    Returns:
        The tensors by name, and the settings.

    Raises:
        ArtefactError: A file is missing or damaged, or the folder holds another kind of model.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        blob = (folder / TENSORS).read_bytes()
    except FileNotFoundError as err:
        raise ArtefactError(
            f"{folder} must hold {MANIFEST} and {TENSORS}; {Path(str(err.filename)).name} is missing. "
            "Save the model again."
        ) from err
    except ValueError as err:
        raise ArtefactError(
            f"{folder / MANIFEST} must be valid JSON; got: {err}. Save the model again."
        ) from err
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        got = manifest.get("kind") if isinstance(manifest, dict) else type(manifest).__name__
        raise ArtefactError(
            f"{folder} must hold a model of kind {kind!r}; got {got!r}. Open the right folder."
        )
    if hashlib.sha256(blob).hexdigest() != manifest.get("sha256"):
        raise ArtefactError(
            f"{folder / TENSORS} must have the hash that {MANIFEST} names; it differs, so the folder is damaged or "
            "was cut off while written. Save the model again."
        )
    return load(blob), manifest["settings"]


def _write_atomically(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
