"""Index folders: vectors as safetensors, a JSON manifest with every file's hash, and FAISS's own file as a cache.

Data files are named by their hash and the manifest is replaced last, in one step, so a save that is cut off leaves
the index that was there before. FAISS's reader is native code that trusts its input: its file is read only after
its hash was checked, with bounds on what may be allocated, and `use_cache=False` keeps it from being read at all. A
hash in the same folder shows damage, not malice; a folder from strangers is best loaded without the cache.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from threading import get_ident
from typing import Literal

import faiss
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from recsys.errors import ArtefactError
from recsys.index.choosing import MeasuredRecall
from recsys.index.faiss_index import FaissIndex
from recsys.index.settings import IndexKind, IndexSettings, faiss_from_bytes, faiss_to_bytes, matches
from recsys.types import Ints

MANIFEST = "index.json"
# Manifests are a page; anything longer is not one of ours.
MANIFEST_BYTES = 65_536


class StoredFile(BaseModel):
    """One data file of a folder; its name follows from its hash, so a manifest cannot point elsewhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Of the content, in hex.
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    # Length of the content, 1 or more.
    bytes: int = Field(ge=1)


class IndexManifest(BaseModel):
    """Everything about a saved index but its arrays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Version of this format.
    format: Literal[1] = 1
    # Numbers a vector, 1 or more.
    dim: int = Field(ge=1, le=2**20)
    # Items, 0 or more.
    count: int = Field(ge=0, lt=2**31)
    # What scores are.
    metric: Literal["inner product"] = "inner product"
    # Kind and knobs.
    settings: IndexSettings
    # Against the exact twin; null where nobody measured.
    recall: MeasuredRecall | None
    # Tensors `vectors` (count, dim) float32 and, where items have ids of their own, `ids` (count,) int64.
    vectors: StoredFile
    # FAISS's file; null where building is as fast as reading.
    cache: StoredFile | None
    # Version of FAISS that wrote the cache.
    faiss: str


@dataclass(frozen=True, slots=True, eq=False)
class LoadedIndex:
    """An index read from a folder.

    Attributes:
        index: Ready to search.
        ids: Id of each row, None where rows are the ids. Shape (I,), int64.
        recall: As measured before saving.
        notes: What was done beside reading, a sentence each; empty when the folder was whole.
    """

    index: FaissIndex
    ids: Ints | None
    recall: MeasuredRecall | None
    notes: tuple[str, ...]


def save_index(
    folder: Path, index: FaissIndex, *, recall: MeasuredRecall | None = None, ids: Ints | None = None
) -> None:
    """Write an index to `folder`, in place of an earlier one.

    Args:
        folder: Created where missing.
        index: What to write.
        recall: Against the exact twin, as in `IndexPlan.recall`.
        ids: Id of each row, where they are not 0..I-1. Shape (I,), int64.

    Raises:
        ArtefactError: `ids` is not one a row.
    """
    if ids is not None and ids.shape != (index.n_items,):
        raise ArtefactError(
            f"`ids` must have shape ({index.n_items},), one a row of the index; got {ids.shape}. "
            "Take both from one snapshot."
        )
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"vectors": index.vectors.detach().cpu().float().contiguous()}
    if ids is not None:
        tensors["ids"] = torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64))
    native = None if index.settings.kind is IndexKind.FLAT else index.native
    manifest = IndexManifest(
        dim=index.width,
        count=index.n_items,
        settings=index.settings,
        recall=recall,
        vectors=_store(folder, save(tensors), "safetensors"),
        cache=None if native is None else _store(folder, faiss_to_bytes(native), "faiss"),
        faiss=faiss.__version__,
    )
    _replace(folder / MANIFEST, manifest.model_dump_json(indent=1).encode())
    _sweep(folder, manifest)


def load_index(
    folder: Path, *, device: str = "cpu", use_cache: bool = True, expected: Tensor | None = None
) -> LoadedIndex:
    """Read what `save_index` wrote; a cache that is missing, stale or damaged is made anew from the vectors.

    Args:
        folder: Where it is.
        device: Where the vectors shall live.
        use_cache: False never hands the FAISS file to FAISS's reader.
        expected: Vectors that the index must be over, but for rounding elsewhere; None takes any. Shape (I, D).

    Raises:
        ArtefactError: The manifest or the vectors are missing, damaged or not what they say, or not those expected.
    """
    manifest = _read_manifest(folder)
    vectors, ids = _read_vectors(folder, manifest)
    if expected is not None and not _are_close(vectors, expected.detach().cpu()):
        raise ArtefactError(
            f"The index in {folder} must be of the model that it is saved with; its vectors differ from the model's. "
            "Save the model again."
        )
    native, note = None, ""
    if manifest.cache is not None:
        native, note = _read_cache(folder, manifest) if use_cache else (None, "it was not to be used")
    index = FaissIndex(vectors.to(device), manifest.settings, prebuilt=native)
    notes = (f"The index was built anew from its vectors: {note}.",) if note else ()
    return LoadedIndex(index, ids, manifest.recall, notes)


def _read_manifest(folder: Path) -> IndexManifest:
    content = _read(folder / MANIFEST, MANIFEST_BYTES)
    try:
        return IndexManifest.model_validate_json(content)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ArtefactError(
            f"{folder / MANIFEST} must describe an index; {where}: {first['msg']}. Save the index again."
        ) from err


def _read_vectors(folder: Path, manifest: IndexManifest) -> tuple[Tensor, Ints | None]:
    path = folder / _name(manifest.vectors, "safetensors")
    blob = _read(path, manifest.vectors.bytes)
    if hashlib.sha256(blob).hexdigest() != manifest.vectors.sha256:
        raise ArtefactError(
            f"{path} must have the hash that it is named by; it differs. Save the index again."
        )
    try:
        tensors = load(blob)
    except SafetensorError as err:
        raise ArtefactError(f"{path} must be a safetensors file; got: {err}. Save the index again.") from err
    wanted = {
        "vectors": ((manifest.count, manifest.dim), torch.float32),
        "ids": ((manifest.count,), torch.int64),
    }
    got = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    if "vectors" not in got or any(wanted.get(name) != what for name, what in got.items()):
        raise ArtefactError(f"{path} must hold {wanted}, ids at will; got {got}. Save the index again.")
    if not bool(torch.isfinite(tensors["vectors"]).all()):
        raise ArtefactError(f"{path} must hold finite vectors; got NaN or infinity. Train the model again.")
    ids: Ints | None = tensors["ids"].numpy() if "ids" in tensors else None
    return tensors["vectors"], ids


def _are_close(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(first, second, rtol=1e-3, atol=1e-3)


def _read_cache(folder: Path, manifest: IndexManifest) -> tuple[faiss.Index | None, str]:
    """FAISS's index, or why there is none to be had."""
    cache = manifest.cache
    if cache is None:
        return None, ""
    if manifest.faiss != faiss.__version__:
        return None, f"the cache is of FAISS {manifest.faiss} and this is {faiss.__version__}"
    try:
        blob = _read(folder / _name(cache, "faiss"), cache.bytes)
    except ArtefactError as err:
        return None, str(err).partition(". Save")[0]
    # The very bytes that are hashed are read, so nobody can swap the file in between.
    if hashlib.sha256(blob).hexdigest() != cache.sha256:
        return None, "the cache has another hash than the manifest says"
    try:
        native = faiss_from_bytes(np.frombuffer(blob, dtype=np.uint8))
    except RuntimeError:
        return None, "FAISS cannot read the cache"
    if not matches(native, manifest.count, manifest.dim, manifest.settings):
        return None, "the cache holds another kind or size of index"
    return native, ""


def _read(path: Path, most: int) -> bytes:
    """A whole file of at most so many bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as err:
        raise ArtefactError(f"{path} must be a readable file; {err.strerror}. Save the index again.") from err
    if len(content) > most:
        raise ArtefactError(f"{path} must hold at most {most} bytes; it holds more. Save the index again.")
    return content


def _store(folder: Path, content: bytes, ending: str) -> StoredFile:
    stored = StoredFile(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    _replace(folder / _name(stored, ending), content)
    return stored


def _name(stored: StoredFile, ending: str) -> str:
    return f"index-{stored.sha256[:16]}.{ending}"


def _replace(path: Path, content: bytes) -> None:
    """Put content in place in one step."""
    beside = path.with_name(f".index-{os.getpid()}-{get_ident()}.partial")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _sweep(folder: Path, manifest: IndexManifest) -> None:
    """Remove data files that the manifest in place does not name."""
    kept = {_name(manifest.vectors, "safetensors")}
    if manifest.cache is not None:
        kept.add(_name(manifest.cache, "faiss"))
    for pattern in ("index-*.safetensors", "index-*.faiss", ".index-*.partial"):
        for path in folder.glob(pattern):
            if path.name not in kept:
                path.unlink(missing_ok=True)
