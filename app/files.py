"""Files that are either whole or absent: written beside their place, forced to disk, then moved into it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from app.errors import StoreError

PARTIAL = ".partial-"
"""How the names of unfinished files and folders begin; whatever bears it may be deleted."""


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a crash at any moment leaves the old file or the new one, never a part.

    Args:
        path: File to write or replace; its folder must exist.
        content: All of the file.

    Raises:
        StoreError: The disk is full, or the folder cannot be written.
    """
    partial = path.with_name(PARTIAL + path.name)
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as err:
        raise _unwritable(path, err) from err


def move_folder(partial: Path, final: Path) -> None:
    """Force everything under `partial` to disk, then give it its final name in one step.

    Args:
        partial: A finished folder.
        final: Its name to be, in the same parent folder; must not exist.

    Raises:
        StoreError: The disk is full, or the folder cannot be written.
    """
    try:
        for root, _, names in os.walk(partial, topdown=False):
            for name in names:
                _sync(Path(root, name))
            _sync(Path(root))
        os.replace(partial, final)
        _sync(final.parent)
    except OSError as err:
        raise _unwritable(final, err) from err


def _sync(path: Path) -> None:
    """Force a file's content, or a folder's list of names, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, keys sorted, so that equal values give equal bytes.

    Args:
        path: File to write.
        value: Dicts with text keys, lists, texts, finite numbers, booleans and None.

    Raises:
        StoreError: The value is not JSON, or holds NaN or an infinity; or the file cannot be written.
    """
    try:
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as err:
        raise StoreError(
            f"{path.name} must hold plain JSON with finite numbers; got something else ({err}). "
            "Turn arrays into lists, and missing figures into None."
        ) from err
    write_atomically(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        StoreError: The file is missing, unreadable, or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as err:
        raise _unreadable(path, err.strerror or str(err)) from err
    except (ValueError, RecursionError) as err:
        raise _unreadable(path, str(err)) from err


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any] | torch.Tensor]) -> None:
    """Write numpy arrays and torch tensors as one safetensors file.

    Args:
        path: File to write, ending in `.safetensors`.
        arrays: By name; any shapes, numeric or boolean. Tensors are copied from their device.

    Raises:
        StoreError: An array is not numeric; or the file cannot be written.
    """
    tensors = {}
    for name, array in arrays.items():
        if isinstance(array, np.ndarray) and array.dtype.kind not in "biuf":
            raise StoreError(
                f"`{name}` in {path.name} must hold numbers; got dtype {array.dtype}. Write texts as JSON."
            )
        # A copy of its own for each: safetensors refuses tensors that share memory.
        tensors[name] = torch.as_tensor(array).detach().cpu().contiguous().clone()
    write_atomically(path, safetensors.torch.save(tensors))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file on the CPU, by name.

    Raises:
        StoreError: The file is missing or not safetensors.
    """
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as err:
        raise _unreadable(path, str(err)) from err


def _unwritable(path: Path, err: OSError) -> StoreError:
    return StoreError(
        f"{path} must be writable; got {err.strerror}. Make room or choose another folder with --out."
    )


def _unreadable(path: Path, reason: str) -> StoreError:
    return StoreError(
        f"{path} must be whole and readable; got {reason}. Restore it, or start again in another folder."
    )
