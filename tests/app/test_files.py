import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from app import files
from app.errors import StoreError


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    arrays: dict[str, NDArray[Any] | torch.Tensor] = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "b": torch.tensor([1, 2]),
        "c": np.array([True, False]),
        "d": np.float64(0.1) * np.ones(()),
    }
    path = tmp_path / "x.safetensors"
    files.write_arrays(path, arrays)
    back = files.read_tensors(path)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert torch.equal(back[name], torch.as_tensor(array))
        assert back[name].dtype == torch.as_tensor(array).dtype


def test_bfloat16_comes_back_as_tensor(tmp_path: Path) -> None:
    tensor = torch.tensor([0.1, 2.0], dtype=torch.bfloat16)
    files.write_arrays(tmp_path / "x.safetensors", {"a": tensor})
    assert torch.equal(files.read_tensors(tmp_path / "x.safetensors")["a"], tensor)


def test_equal_arrays_give_equal_bytes_whatever_their_order(tmp_path: Path) -> None:
    one, two = np.ones(3, dtype=np.float32), np.zeros(2, dtype=np.float32)
    files.write_arrays(tmp_path / "x.safetensors", {"one": one, "two": two})
    files.write_arrays(tmp_path / "y.safetensors", {"two": two, "one": one})
    assert (tmp_path / "x.safetensors").read_bytes() == (tmp_path / "y.safetensors").read_bytes()


def test_tensors_that_share_memory_are_written(tmp_path: Path) -> None:
    tensor = torch.arange(4.0)
    files.write_arrays(tmp_path / "x.safetensors", {"a": tensor, "b": tensor[:2]})
    assert torch.equal(files.read_tensors(tmp_path / "x.safetensors")["b"], tensor[:2])


def test_texts_are_not_arrays(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"`names` in x.safetensors must hold numbers; got dtype <U1"):
        files.write_arrays(tmp_path / "x.safetensors", {"names": np.array(["a"])})


def test_json_is_sorted_and_exact(tmp_path: Path) -> None:
    value = {"b": 0.1 + 0.2, "a": ["é", None, True]}
    files.write_json(tmp_path / "x.json", value)
    assert files.read_json(tmp_path / "x.json") == value
    assert list(json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))) == ["a", "b"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32(1), {1, 2}])
def test_json_refuses_what_json_has_not(tmp_path: Path, value: object) -> None:
    with pytest.raises(StoreError, match=r"x.json must hold plain JSON with finite numbers"):
        files.write_json(tmp_path / "x.json", {"a": value})
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, 1)

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match=r"x.json must be writable; got No space left on device"):
        files.write_json(path, 2)
    assert files.read_json(path) == 1


def test_failed_move_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"final must be writable; got No such file"):
        files.move_folder(tmp_path / "absent", tmp_path / "final")


@pytest.mark.parametrize(("name", "content"), [("x.json", "{"), ("x.json", None), ("x.safetensors", "no")])
def test_damaged_or_missing_file_is_told(tmp_path: Path, name: str, content: str | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(StoreError, match=rf"{name} must be whole and readable; got "):
        files.read_json(path) if name.endswith("json") else files.read_tensors(path)
