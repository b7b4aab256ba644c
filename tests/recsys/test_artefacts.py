import json
from pathlib import Path

import pytest
import torch

from recsys.artefacts import read_artefact, write_artefact
from recsys.errors import ArtefactError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_artefact(tmp_path / "deep" / "m", "toy", {"w": torch.arange(6.0).view(2, 3).T}, {"k": 3})
    return tmp_path / "deep" / "m"


def test_what_was_written_is_read_and_nothing_else_is_left(folder: Path) -> None:
    tensors, settings = read_artefact(folder, "toy")
    assert torch.equal(tensors["w"], torch.arange(6.0).view(2, 3).T)
    assert settings == {"k": 3}
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.safetensors"]


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ArtefactError, match=r"model\.safetensors is missing"):
        read_artefact(folder, "toy")


def test_another_kind_of_model_is_refused(folder: Path) -> None:
    with pytest.raises(ArtefactError, match="kind 'ease'; got 'toy'"):
        read_artefact(folder, "ease")


def test_broken_json_is_refused(folder: Path) -> None:
    (folder / "model.json").write_text("{")
    with pytest.raises(ArtefactError, match=r"model\.json must be valid JSON; got: Expecting"):
        read_artefact(folder, "toy")
    (folder / "model.json").write_text(json.dumps([1]))
    with pytest.raises(ArtefactError, match="kind 'toy'; got 'list'"):
        read_artefact(folder, "toy")


def test_damaged_tensors_are_refused(folder: Path) -> None:
    blob = bytearray((folder / "model.safetensors").read_bytes())
    blob[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(blob))
    with pytest.raises(ArtefactError, match=r"safetensors must have the hash .* damaged"):
        read_artefact(folder, "toy")
