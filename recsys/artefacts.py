"""Saved models: tensors in a safetensors file, everything else in a JSON file that carries the tensors' hash.

No code runs on reading. Each file is written beside its place and moved there in one step, the JSON last, so a
folder that was cut off in the middle is refused rather than half read.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from scipy.sparse import csr_array
from torch import Tensor

from recsys.errors import ArtefactError

TENSORS = "model.safetensors"
MANIFEST = "model.json"
Model = TypeVar("Model")


def write_artefact(
    folder: Path, kind: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> None:
    """Write a model folder.

    Args:
        folder: Created where missing; an earlier model in it is replaced.
        kind: Name of the model, checked on reading.
        tensors: By name.
        settings: What JSON can hold.

    Raises:
        ArtefactError: A tensor holds NaN or infinity.
    """
    _demand_finite(folder, tensors)
    folder.mkdir(parents=True, exist_ok=True)
    blob = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    manifest = {"kind": kind, "settings": dict(settings), "sha256": hashlib.sha256(blob).hexdigest()}
    _write_atomically(folder / TENSORS, blob)
    _write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())


def load_artefact(
    folder: Path, kind: str, build: Callable[[dict[str, Tensor], dict[str, Any]], Model]
) -> Model:
    """The model that a folder holds.

    Args:
        folder: What `write_artefact` wrote.
        kind: Name of the model.
        build: Makes it from its tensors and settings.

    Raises:
        ArtefactError: A file is missing or damaged, the folder holds another kind of model, or `build` cannot use what
            it holds.
    """
    tensors, settings = read_artefact(folder, kind)
    try:
        return build(tensors, settings)
    except ArtefactError:
        raise
    except (LookupError, TypeError, ValueError, RuntimeError) as err:
        raise ArtefactError(
            f"The settings of {folder} must fit its tensors; got: {type(err).__name__}, {err}. Save the model again."
        ) from err


def read_artefact(folder: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model folder.

    Returns:
        The tensors by name, all of them finite, and the settings.

    Raises:
        ArtefactError: A file is missing or damaged, or the folder holds another kind of model.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        blob = (folder / TENSORS).read_bytes()
    except FileNotFoundError as err:
        raise ArtefactError(
            f"{folder} must hold {MANIFEST} and {TENSORS}; {Path(str(err.filename)).name} is missing. "
            "Save the model again."
        ) from err
    except OSError as err:
        raise ArtefactError(
            f"{folder} must hold readable files; {Path(str(err.filename)).name}: {err.strerror}. Restore them."
        ) from err
    except (ValueError, RecursionError) as err:
        raise ArtefactError(
            f"{folder / MANIFEST} must be valid JSON; got: {err}. Save the model again."
        ) from err
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        got = manifest.get("kind") if isinstance(manifest, dict) else type(manifest).__name__
        raise ArtefactError(
            f"{folder} must hold a model of kind {kind!r}; got {got!r}. Open the right folder."
        )
    if not isinstance(manifest.get("settings"), dict):
        raise ArtefactError(
            f"{folder / MANIFEST} must hold the model's settings; got none. Save the model again."
        )
    if hashlib.sha256(blob).hexdigest() != manifest.get("sha256"):
        raise ArtefactError(
            f"{folder / TENSORS} must have the hash that {MANIFEST} names; it differs, so the folder is damaged or "
            "was cut off while written. Save the model again."
        )
    try:
        tensors = load(blob)
    except SafetensorError as err:
        raise ArtefactError(
            f"{folder / TENSORS} must be a safetensors file; got: {err}. Save the model again."
        ) from err
    _demand_finite(folder, tensors)
    return tensors, manifest["settings"]


def read_sparse(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, int]) -> csr_array:
    """A sparse matrix from its saved parts, every index checked: native code that reads it later checks none.

    Args:
        tensors: Hold NAME.data, NAME.indices and NAME.indptr, or without a name just those.
        name: Of the matrix; may be empty.
        shape: Of the matrix.

    Raises:
        ArtefactError: The parts do not make such a matrix.
        KeyError: A part is missing.
    """
    keys = (f"{name}.{part}" if name else part for part in ("data", "indices", "indptr"))
    parts = tuple(tensors[key].numpy() for key in keys)
    try:
        matrix = csr_array(parts, shape=shape)
        matrix.check_format(full_check=True)
    except ValueError as err:
        raise ArtefactError(
            f"The model must hold a sparse matrix `{name or 'data'}` of shape {shape}; got: {err}. Save it again."
        ) from err
    return matrix


def _demand_finite(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    wrong = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if wrong:
        raise ArtefactError(
            f"The tensors of a model must be finite; `{wrong[0]}` of {folder} holds NaN or infinity. Train it again."
        )


def _write_atomically(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
