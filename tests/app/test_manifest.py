import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

from app import manifest
from app.config import RunConfig
from app.errors import StoreError


def test_manifest_says_what_the_run_was_made_with() -> None:
    built = manifest.build_manifest(RunConfig(seed=7), {"b": "2", "a": "1"}, "cpu")
    assert built["seed"] == built["config"]["seed"] == 7
    assert list(built["data_hashes"]) == ["a", "b"]
    assert built["device"] == "cpu"
    assert built["versions"]["numpy"] == np.__version__
    assert {"python", "torch", "transformers", "peft"} <= built["versions"].keys()


def test_commit_and_dirty_flag_follow_the_checkout(tmp_path: Path) -> None:
    assert manifest._read_checkout(tmp_path) == (None, None)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    # A checkout without a commit has no commit to name.
    assert manifest._read_checkout(tmp_path) == (None, None)
    (tmp_path / "x").write_text("1", encoding="utf-8")
    subprocess.run([*git, "add", "x"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    commit, dirty = manifest._read_checkout(tmp_path)
    assert commit is not None and len(commit) == 40 and dirty is False
    (tmp_path / "x").write_text("2", encoding="utf-8")
    assert manifest._read_checkout(tmp_path) == (commit, True)


def test_absent_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert manifest._read_checkout(tmp_path) == (None, None)


def test_hashes_are_of_contents_by_relative_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_bytes(b"two")
    (tmp_path / "a.txt").write_bytes(b"one")
    (tmp_path / ".hidden").write_bytes(b"three")
    expected = {"a.txt": hashlib.sha256(b"one").hexdigest(), "sub/b.txt": hashlib.sha256(b"two").hexdigest()}
    assert manifest.hash_files(tmp_path) == expected
    assert manifest.hash_files(tmp_path / "a.txt") == {"a.txt": expected["a.txt"]}


def test_empty_or_missing_data_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"must hold files; got .*absent, which has none"):
        manifest.hash_files(tmp_path / "absent")


def test_unreadable_data_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_bytes(b"one")

    def fail(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(manifest, "_hash_file", fail)
    with pytest.raises(StoreError, match=r"must be readable; got .*a.txt \(Permission denied\)"):
        manifest.hash_files(tmp_path)


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"must hold manifest.json; got .*, without one"):
        manifest.read_manifest(tmp_path)


def test_strange_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[]", encoding="utf-8")
    with pytest.raises(StoreError, match=r"manifest.json must be as `persona run` wrote it"):
        manifest.read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, r"which lacks `beta, catalogue, comparisons` and \d+ more\. Make a new run"),
        ([], r"whose `config` is not one \(Input should be a valid dictionary"),
        ({"shoe_size": 44}, r"whose `shoe_size` is not one"),
    ],
)
def test_configuration_of_another_version_is_refused(tmp_path: Path, config: object, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        manifest.read_config(tmp_path, {"config": config})


def test_configuration_is_read_back(tmp_path: Path) -> None:
    config = RunConfig(seed=7)
    assert manifest.read_config(tmp_path, manifest.build_manifest(config, {}, "cpu")) == config
