"""Fitted things on disk: tensors as safetensors, the rest as JSON beside them, tied together by a hash.

No file of this package runs code when it is read. Each file appears whole or not at all.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from persona.errors import DataError

FORMAT_VERSION = 1


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader, or a crash, sees the old file or the new one, no part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def save_artefact(
    folder: Path, name: str, *, kind: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """Write `name`.safetensors and `name`.json into `folder`.

    Args:
        folder: Made if missing.
        name: File name without its ending.
        kind: What is saved; `load_artefact` refuses another kind.
        tensors: Arrays by name; copied to the CPU.
        facts: Anything that JSON can hold.
    """
    content = safetensors.torch.save(
        {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    )
    described = {
        "kind": kind,
        "version": FORMAT_VERSION,
        "sha256": hashlib.sha256(content).hexdigest(),
        **facts,
    }
    write_atomically(folder / f"{name}.safetensors", content)
    write_atomically(folder / f"{name}.json", (json.dumps(described, indent=2) + "\n").encode())


def load_artefact(folder: Path, name: str, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the facts that `save_artefact` wrote.

    Raises:
        DataError: A file is missing or unreadable, holds another kind or version, or the two do not belong
            together.
    """
    try:
        content = (folder / f"{name}.safetensors").read_bytes()
        facts = json.loads((folder / f"{name}.json").read_bytes())
        tensors = safetensors.torch.load(content)
    except (OSError, ValueError, safetensors.SafetensorError) as err:
        raise DataError(
            f"`{folder}` must hold readable files {name}.safetensors and {name}.json; got: {err}. Save it "
            "again, or give the folder that it was saved in."
        ) from err
    found = (facts.get("kind"), facts.get("version")) if isinstance(facts, dict) else (None, None)
    if found != (kind, FORMAT_VERSION):
        raise DataError(
            f"`{folder / name}.json` must describe a {kind} of format {FORMAT_VERSION}; got kind {found[0]} "
            f"of format {found[1]}. Load it with the class that saved it, or train it again."
        )
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        raise DataError(
            f"`{folder / name}.safetensors` must be the file that {name}.json describes; got another content "
            "hash. The two come from different runs: copy both again, or train again."
        )
    return tensors, facts
