"""Features that were computed once, kept on disk by the content of the text that they describe.

A cache is a folder with one subfolder for each kind of feature, and in it one folder for each batch that was computed:
`digests.npy` says which texts, `rows.npy` holds their features and is memory-mapped. A batch appears whole or not at
all, so a stopped computation goes on where it was; nothing in it is executed when it is read.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BATCH = 4096
"""Texts in a batch: what a kill can lose."""

Rows = NDArray[np.float32]


class FeatureCache:
    """Rows of features by text.

    Args:
        folder: Made if missing; several processes may share it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def rows(self, kind: str, texts: Sequence[str], compute: Callable[[list[str]], Rows]) -> Rows:
        """Features of all texts; those that the cache lacks are computed and kept.

        Args:
            kind: Everything but the text that a row depends on: encoder, weights, pooling, version.
            texts: N texts, which may repeat.
            compute: From texts to rows (n, H), one for each.

        Returns:
            Shape (N, H), float32: a read-only memory map if one batch holds exactly these texts, else an array.
        """
        folder = self._folder / hashlib.sha256(kind.encode()).hexdigest()[:32]
        digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        known = _open_batches(folder)
        place = {digest: (n, row) for n, (held, _) in enumerate(known) for row, digest in enumerate(held)}
        missing = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in place}
        order = sorted(missing, key=lambda digest: len(missing[digest]))
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            rows = np.ascontiguousarray(compute([missing[digest] for digest in part]), dtype=np.float32)
            place |= {digest: (len(known), row) for row, digest in enumerate(part)}
            known.append((part, _keep(folder, part, rows)))
        return _gather(known, [place[digest] for digest in digests])


def _open_batches(folder: Path) -> list[tuple[list[bytes], Rows]]:
    found = []
    for batch in sorted(folder.glob("batch-*")):
        try:
            digests = np.load(batch / "digests.npy", allow_pickle=False)
            rows = np.load(batch / "rows.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            continue  # damaged: computed again
        if digests.dtype == np.uint8 and digests.shape == (len(rows), 32) and rows.dtype == np.float32:
            found.append(([digest.tobytes() for digest in digests], rows))
    return found


def _keep(folder: Path, digests: list[bytes], rows: Rows) -> Rows:
    """Write a batch under a name of its own and open it from there."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"batch-{hashlib.sha256(b''.join(digests)).hexdigest()[:32]}"
    making = Path(tempfile.mkdtemp(dir=folder, prefix=".making-"))
    try:
        np.save(making / "digests.npy", np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32))
        np.save(making / "rows.npy", rows)
        shutil.rmtree(folder / name, ignore_errors=True)  # a damaged batch of the same texts
        os.replace(making, folder / name)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    opened: Rows = np.load(folder / name / "rows.npy", mmap_mode="r", allow_pickle=False)
    return opened


def _gather(known: list[tuple[list[bytes], Rows]], places: list[tuple[int, int]]) -> Rows:
    if not places:
        return np.zeros((0, 0), dtype=np.float32)
    batch, row = np.asarray(places).T
    first: Rows = known[batch[0]][1]
    if (batch == batch[0]).all() and np.array_equal(row, np.arange(len(first))):
        return first
    out = np.empty((len(places), first.shape[1]), dtype=np.float32)
    for number in np.unique(batch):
        chosen = batch == number
        out[chosen] = known[number][1][row[chosen]]
    return out
