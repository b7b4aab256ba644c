import json
from pathlib import Path

import pytest

from app import store as store_module
from app.config import RunConfig
from app.errors import StoreError
from app.files import PARTIAL
from app.store import RunStore

CONFIG = RunConfig(users=50)
HASHES = {"u.data": "12ab"}


def open_store(
    out: Path, config: RunConfig = CONFIG, *, resume: bool = False, device: str = "cpu"
) -> RunStore:
    return RunStore.open(out, config, HASHES, resume=resume, device=device)


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_manifest_is_the_first_thing_written(tmp_path: Path) -> None:
    with open_store(tmp_path / "a" / "run") as store:
        written = json.loads((tmp_path / "a" / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert written == store.manifest
    assert written["config"] == CONFIG.model_dump()
    assert written["data_hashes"] == HASHES


@pytest.mark.parametrize("resume", [False, True])
def test_empty_folder_begins_a_run_with_and_without_resume(tmp_path: Path, resume: bool) -> None:
    open_store(tmp_path, resume=resume).close()
    assert (tmp_path / "manifest.json").is_file()


def test_folder_left_by_a_run_killed_before_its_manifest_is_empty(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / f"{PARTIAL}manifest.json").write_text('{"conf', encoding="utf-8")
    open_store(tmp_path).close()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "manifest.json", "stages"]


def test_manifest_of_the_first_start_is_kept(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    before = (tmp_path / "manifest.json").read_bytes()
    with open_store(tmp_path, resume=True) as store:
        assert store.manifest == json.loads(before)
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_leftovers_of_a_killed_run_are_deleted(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    leftover = tmp_path / "stages" / f"{PARTIAL}world"
    leftover.mkdir()
    (leftover / "half.json").write_text("{", encoding="utf-8")
    open_store(tmp_path, resume=True).close()
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("config", "device", "hashes", "says"),
    [
        (RunConfig(users=60), "cpu", HASHES, r"same configuration; got .* with users 50 there and 60 now"),
        (CONFIG, "cuda", HASHES, r"same device; got .* with 'cpu' there and 'cuda' now"),
        (CONFIG, "cpu", {"u.data": "34cd"}, r"same data; got .* with u.data '12ab' there and '34cd' now"),
        (CONFIG, "cpu", {}, r"same data; got .* with u.data '12ab' there and None now"),
    ],
)
def test_resume_refuses_another_run(
    tmp_path: Path, config: RunConfig, device: str, hashes: dict[str, str], says: str
) -> None:
    open_store(tmp_path).close()
    before = listing(tmp_path)
    with pytest.raises(StoreError, match=says):
        RunStore.open(tmp_path, config, hashes, resume=True, device=device)
    assert listing(tmp_path) == before


def test_long_differences_are_cut(tmp_path: Path) -> None:
    then = {name: "0" * 64 for name in "abcde"}
    RunStore.open(tmp_path, CONFIG, then, resume=False, device="cpu").close()
    with pytest.raises(StoreError, match=r"with a '0{12}' there and '1{12}' now, .* and 2 more\. Give"):
        RunStore.open(tmp_path, CONFIG, {name: "1" * 64 for name in "abcde"}, resume=True, device="cpu")


def test_damaged_part_of_a_manifest_is_not_printed(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"config": []}), encoding="utf-8")
    with pytest.raises(StoreError, match=r"got .* with a damaged `config` in its manifest\.json\."):
        open_store(tmp_path, resume=True)


def test_file_in_place_of_the_stages_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    (tmp_path / "stages").rmdir()
    (tmp_path / "stages").touch()
    with pytest.raises(StoreError, match=r"can be written; got .* \(File exists\)"):
        open_store(tmp_path, resume=True)


def test_existing_run_is_refused_without_resume(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    before = listing(tmp_path)
    with pytest.raises(StoreError, match=r"must not hold a run yet; got .*, which does. Pass --resume"):
        open_store(tmp_path)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("resume", [False, True])
def test_folder_of_something_else_is_refused_untouched(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years", encoding="utf-8")
    with pytest.raises(StoreError, match=r"must be empty or hold a run; got .* with thesis.tex in it"):
        open_store(tmp_path, resume=resume)
    assert listing(tmp_path) == {"thesis.tex": b"years"}


def test_damaged_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=r"manifest.json must be whole and readable; got Expecting"):
        open_store(tmp_path, resume=True)


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(StoreError, match=r"must be a folder; got .*run, which is a file"):
        open_store(tmp_path / "run")


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"can be written; got .*run \(Not a directory\)"):
        open_store(tmp_path / "file" / "run")


def test_folder_that_cannot_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.listdir", fail)
    with pytest.raises(StoreError, match=r"can be written; got .* \(Permission denied\)"):
        open_store(tmp_path)


def test_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with (
        open_store(tmp_path),
        pytest.raises(StoreError, match=r"One run at a time .*; got .*another is at work"),
    ):
        open_store(tmp_path, resume=True)
    open_store(tmp_path, resume=True).close()


def test_refused_open_gives_the_lock_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_delete_partial", lambda out: (_ for _ in ()).throw(StoreError("no")))
        with pytest.raises(StoreError, match="no"):
            open_store(tmp_path)
    open_store(tmp_path, resume=True).close()


def test_other_code_is_told_on_resume_in_one_plain_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_store(tmp_path).close()
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"commit": "0" * 40}), encoding="utf-8")
    open_store(tmp_path, resume=True).close()
    told = capsys.readouterr().err
    assert told.startswith("This run began with another commit; its finished stages are kept")
    assert told.count("\n") == 1 and ".py" not in told
