import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from scipy.sparse import csr_array

from recsys.artefacts import load_artefact, read_artefact, read_sparse, write_artefact
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


def test_settings_that_are_missing_are_named(folder: Path) -> None:
    manifest = json.loads((folder / "model.json").read_text())
    del manifest["settings"]
    (folder / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match=r"model\.json must hold the model's settings; got none"):
        read_artefact(folder, "toy")


def test_json_too_deep_to_read_is_refused(folder: Path) -> None:
    (folder / "model.json").write_text("[" * 200_000)
    with pytest.raises(ArtefactError, match=r"model\.json must be valid JSON; got: maximum recursion"):
        read_artefact(folder, "toy")


def test_a_folder_in_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / "model.json").unlink()
    (folder / "model.json").mkdir()
    with pytest.raises(ArtefactError, match=r"readable files; model\.json: Is a directory"):
        read_artefact(folder, "toy")


def test_tensors_in_another_format_are_refused_whatever_their_hash(folder: Path) -> None:
    manifest = json.loads((folder / "model.json").read_text())
    manifest["sha256"] = hashlib.sha256(b"pickle" * 9).hexdigest()
    (folder / "model.json").write_text(json.dumps(manifest))
    (folder / "model.safetensors").write_bytes(b"pickle" * 9)
    with pytest.raises(ArtefactError, match=r"model\.safetensors must be a safetensors file; got: "):
        read_artefact(folder, "toy")


def test_numbers_that_are_not_finite_are_neither_written_nor_read(folder: Path) -> None:
    broken = torch.tensor([1.0, torch.nan])
    with pytest.raises(ArtefactError, match=r"must be finite; `w` of .* holds NaN or infinity"):
        write_artefact(folder, "toy", {"w": broken}, {})
    blob = save({"u": torch.ones(1), "w": broken})
    (folder / "model.safetensors").write_bytes(blob)
    manifest = {"kind": "toy", "settings": {}, "sha256": hashlib.sha256(blob).hexdigest()}
    (folder / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match=r"must be finite; `w` of .* holds NaN or infinity"):
        read_artefact(folder, "toy")


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("error", [KeyError("q"), IndexError("q"), TypeError("q"), RuntimeError("q")])
def test_what_cannot_be_built_is_refused_in_one_sentence(folder: Path, error: Exception) -> None:
    with pytest.raises(
        ArtefactError, match=rf"must fit its tensors; got: {type(error).__name__}, '?q'?\. Save"
    ):
        load_artefact(folder, "toy", lambda tensors, settings: fail(error))
    with pytest.raises(ArtefactError, match=r"^as it was$"):
        load_artefact(folder, "toy", lambda tensors, settings: fail(ArtefactError("as it was")))


@pytest.mark.parametrize("name", ["", "near"])
def test_a_sparse_matrix_comes_back_and_one_that_points_outside_itself_does_not(name: str) -> None:
    matrix = csr_array(np.array([[0.0, 2.0], [3.0, 0.0]]))
    dot = f"{name}." if name else ""
    tensors = {
        f"{dot}{part}": torch.from_numpy(getattr(matrix, part)) for part in ("data", "indices", "indptr")
    }
    assert np.array_equal(read_sparse(tensors, name, (2, 2)).toarray(), matrix.toarray())
    tensors[f"{dot}indices"][0] = 2
    with pytest.raises(ArtefactError, match=rf"sparse matrix `{name or 'data'}` of shape \(2, 2\); got: "):
        read_sparse(tensors, name, (2, 2))
    del tensors[f"{dot}indptr"]
    with pytest.raises(KeyError, match=f"{dot}indptr"):
        read_sparse(tensors, name, (2, 2))
