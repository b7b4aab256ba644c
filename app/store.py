"""A run's folder: what it was made with, which stages are finished, and what they left for later ones.

    OUT/manifest.json               what the run was made with, written first
    OUT/stages/<name>/              the artefacts of a finished stage; appears whole or not at all
    OUT/stages/<name>/stage.json    how long it took
    OUT/.lock                       held while a run is at work; the system drops it when the process dies

A stage is a deterministic function of the configuration and of earlier stages' files. So a run that was
killed at any moment goes on by skipping the finished stages, and ends with the same files, bit for bit.
"""

import fcntl
import os
import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from app import files
from app.errors import StoreError
from app.manifest import MANIFEST, Settings, build_manifest, read_manifest

RECORD = "stage.json"
"""Name of the file, in a finished stage's folder, that says how long the stage took."""

_LOCK = ".lock"
_HASH = re.compile("[0-9a-f]{40,}")
_SHOWN_OF_HASH = 12
_CODE = {
    "commit": "another commit",
    "dirty": "other uncommitted changes",
    "versions": "other versions of its packages",
}
"""Parts of a manifest that may differ when a run goes on, in words."""


class RunStore:
    """A run's folder, locked for this process until `close`; a context manager closes it.

    Attributes:
        folder: Where the run lives.
        manifest: What the run was made with, as its first start wrote it.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], lock: int) -> None:
        """Take over an opened folder; use `RunStore.open`."""
        self.folder = folder
        self.manifest = dict(manifest)
        self._lock = lock

    @classmethod
    def open(
        cls,
        out: Path,
        config: Settings,
        data_hashes: Mapping[str, str],
        *,
        resume: bool,
        device: str,
    ) -> Self:
        """Begin a run in `out`, or go on with the one that is there.

        Args:
            out: Folder of the run; made where it is missing.
            config: The choices that the work is made with.
            data_hashes: SHA-256 of each input, by name.
            resume: Whether a run of the same configuration may be there already; none there means a new run.
            device: Where tensors live once "auto" is settled, such as "cpu".

        Returns:
            The store, locked.

        Raises:
            StoreError: The folder cannot be written, holds something that is not a run, holds a run and
                `resume` is False, holds a run of another configuration, data or device, or another run is at
                work in it. Nothing in the folder is changed then.
        """
        now = build_manifest(config, data_hashes, device)
        _check_folder(out, now, resume=resume)
        with ExitStack() as undo:
            lock = _lock_folder(out)
            undo.callback(os.close, lock)
            # Once more now that nobody else can write: another run may have begun in between.
            then = _check_folder(out, now, resume=resume)
            if then is None:
                files.write_json(out / MANIFEST, now)
            else:
                _warn_of_other_code(then, now)
            try:
                (out / "stages").mkdir(exist_ok=True)
                _delete_partial(out)
            except OSError as err:
                raise _unusable(out, err) from err
            undo.pop_all()
        return cls(out, now if then is None else then, lock)

    def close(self) -> None:
        """Let other processes have the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store, whatever happened."""
        self.close()

    def done(self, stage: str) -> bool:
        """Whether a stage is finished."""
        return self.stage_folder(stage).is_dir()

    def stage_folder(self, stage: str) -> Path:
        """Where a finished stage keeps its artefacts."""
        return self.folder / "stages" / stage


def _check_folder(out: Path, now: Mapping[str, Any], *, resume: bool) -> dict[str, Any] | None:
    """The manifest of the run to go on with, or None where a new one may begin; changes nothing."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise StoreError(f"--out must be a folder; got {out}, which is a file. Choose another --out.")
    try:
        names = sorted(os.listdir(out))
    except OSError as err:
        raise _unusable(out, err) from err
    if MANIFEST not in names:
        strange = [name for name in names if name != _LOCK and not name.startswith(files.PARTIAL)]
        if strange:
            raise StoreError(
                f"--out must be empty or hold a run; got {out} with {', '.join(strange[:3])} in it. "
                "Choose another --out."
            )
        return None
    if not resume:
        raise StoreError(
            f"--out must not hold a run yet; got {out}, which does. Pass --resume to go on with it, or "
            "choose another --out."
        )
    then = read_manifest(out)
    _check_same_run(out, then, now)
    return then


def _check_same_run(out: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for part, what in (("config", "configuration"), ("data_hashes", "data"), ("device", "device")):
        if then[part] == now[part]:
            continue
        if isinstance(now[part], dict) and isinstance(then[part], dict):
            keys = sorted(k for k in now[part] | then[part] if now[part].get(k) != then[part].get(k))
            change = ", ".join(
                f"{k} {_short(then[part].get(k))} there and {_short(now[part].get(k))} now" for k in keys[:3]
            )
            change += f" and {len(keys) - 3} more" * (len(keys) > 3)
        elif isinstance(now[part], dict):
            change = f"a damaged `{part}` in its {MANIFEST}"
        else:
            change = f"{_short(then[part])} there and {_short(now[part])} now"
        raise StoreError(
            f"--resume must meet the same {what}; got {out} with {change}. Give what it began with, or "
            "choose another --out."
        )


def _short(value: object) -> str:
    """A value as a message shows it: hashes by their first characters."""
    return repr(value[:_SHOWN_OF_HASH] if isinstance(value, str) and _HASH.fullmatch(value) else value)


def _warn_of_other_code(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    other = [part for part in _CODE if then.get(part) != now[part]]
    if other:
        names = ", ".join(_CODE[part] for part in other)
        print(
            f"This run began with {names}; its finished stages are kept, so the report may differ from one made in a "
            "single go.",
            file=sys.stderr,
        )


def _lock_folder(out: Path) -> int:
    """Make the folder and hold its lock; the system drops it when this process ends, however it ends."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as err:
        raise _unusable(out, err) from err
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        os.close(lock)
        raise StoreError(
            f"One run at a time may work in a folder; got {out}, where another is at work. Wait for it, or "
            "choose another --out."
        ) from err
    return lock


def _delete_partial(out: Path) -> None:
    for leftover in (*out.glob(files.PARTIAL + "*"), *(out / "stages").glob(files.PARTIAL + "*")):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _unusable(out: Path, err: OSError) -> StoreError:
    return StoreError(
        f"--out must be a folder that can be written; got {out} ({err.strerror}). Choose another --out."
    )
