import os
from pathlib import Path

import pytest
import torch

from persona.artefacts import load_artefact, save_artefact, write_atomically
from persona.errors import DataError


def save(folder: Path, value: float = 1.0) -> None:
    save_artefact(folder, "thing", kind="a thing", tensors={"x": torch.full((2,), value)}, facts={"size": 2})


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path / "new" / "folder")
    tensors, facts = load_artefact(tmp_path / "new" / "folder", "thing", kind="a thing")
    assert torch.equal(tensors["x"], torch.ones(2))
    assert facts["size"] == 2


def test_missing_damaged_foreign_and_mixed_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"thing\.safetensors and thing\.json; got: .*No such file"):
        load_artefact(tmp_path, "thing", kind="a thing")
    save(tmp_path)
    with pytest.raises(DataError, match="must describe a profile of format 1; got kind a thing of format 1"):
        load_artefact(tmp_path, "thing", kind="profile")
    first = (tmp_path / "thing.safetensors").read_bytes()
    save(tmp_path, value=2.0)
    (tmp_path / "thing.safetensors").write_bytes(first)
    with pytest.raises(DataError, match="got another content hash"):
        load_artefact(tmp_path, "thing", kind="a thing")
    (tmp_path / "thing.safetensors").write_bytes(first[:10])
    with pytest.raises(DataError, match="must hold readable files"):
        load_artefact(tmp_path, "thing", kind="a thing")


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(source: str, target: Path) -> None:
        raise OSError("disk gone")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk gone"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
