import hashlib
import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from safetensors.torch import save

from recsys.errors import ArtefactError
from recsys.index import FaissIndex, IndexKind, IndexSettings, MeasuredRecall, load_index, save_index, storage
from recsys.index.settings import faiss_from_bytes

N, D = 400, 8
RECALL = MeasuredRecall(value=0.987, k=10, queries=30)
GRAPH = IndexSettings(kind=IndexKind.HNSW, ef_search=40, tuned_k=5)


def draw(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "deep" / "index"
    save_index(place, FaissIndex(draw(N, 0), GRAPH), recall=RECALL, ids=np.arange(N) * 3)
    return place


def file_of(folder: Path, ending: str) -> Path:
    (path,) = folder.glob(f"index-*.{ending}")
    return path


def manifest_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "index.json").read_text())
    return content


def edit(folder: Path, **changes: object) -> None:
    (folder / "index.json").write_text(json.dumps({**manifest_of(folder), **changes}))


def plant(folder: Path, part: str, ending: str, content: bytes) -> None:
    """Put a file in place with every hash right, as someone hostile would."""
    digest = hashlib.sha256(content).hexdigest()
    (folder / f"index-{digest[:16]}.{ending}").write_bytes(content)
    edit(folder, **{part: {"sha256": digest, "bytes": len(content)}})


def is_rebuilt_well(folder: Path, why: str) -> bool:
    loaded = load_index(folder)
    exact = FaissIndex(draw(N, 0), GRAPH).search(draw(5, 1), 5)
    assert loaded.notes == (f"The index was built anew from its vectors: {why}.",), loaded.notes
    return np.array_equal(loaded.index.search(draw(5, 1), 5).items, exact.items)


@pytest.mark.parametrize("kind", IndexKind)
def test_what_was_saved_is_read(kind: IndexKind, tmp_path: Path) -> None:
    index = FaissIndex(draw(N, 0), IndexSettings(kind=kind, lists=8, probes=4, ef_search=30, tuned_k=5))
    save_index(tmp_path, index, recall=RECALL)
    loaded = load_index(tmp_path)
    found, wanted = loaded.index.search(draw(7, 1), 5), index.search(draw(7, 1), 5)
    assert np.array_equal(found.items, wanted.items) and np.array_equal(found.scores, wanted.scores)
    assert loaded.index.settings == index.settings and loaded.recall == RECALL
    assert loaded.ids is None and loaded.notes == ()
    assert {p.suffix for p in tmp_path.iterdir()} == (
        {".json", ".safetensors"} if kind is IndexKind.FLAT else {".json", ".safetensors", ".faiss"}
    )


def test_the_manifest_says_what_it_should(folder: Path) -> None:
    manifest = manifest_of(folder)
    assert (manifest["dim"], manifest["count"], manifest["metric"]) == (D, N, "inner product")
    assert manifest["recall"] == {"value": 0.987, "k": 10, "queries": 30}
    assert manifest["settings"]["kind"] == "hnsw" and manifest["faiss"] == faiss.__version__
    for part, ending in (("vectors", "safetensors"), ("cache", "faiss")):
        content = file_of(folder, ending).read_bytes()
        assert manifest[part] == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    ids = load_index(folder).ids
    assert ids is not None and ids.tolist() == [3 * i for i in range(N)]


def test_an_empty_index_is_kept_too(tmp_path: Path) -> None:
    save_index(tmp_path, FaissIndex(draw(0, 0), GRAPH))
    assert load_index(tmp_path).index.search(draw(1, 1), 2).items.tolist() == [[-1, -1]]


def test_ids_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"shape \(400,\).* got \(3,\)"):
        save_index(tmp_path, FaissIndex(draw(N, 0)), ids=np.arange(3))


def test_a_second_save_replaces_the_first_and_leaves_nothing_of_it(folder: Path) -> None:
    (folder / ".index-1-1.partial").write_bytes(b"left by a save that was cut off")
    save_index(folder, FaissIndex(draw(9, 3)))
    assert load_index(folder).index.n_items == 9
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("survived", [0, 1, 2])
def test_a_save_cut_off_leaves_the_index_before_it(
    folder: Path, survived: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = storage._replace
    written: list[Path] = []

    def die(path: Path, content: bytes) -> None:
        if len(written) == survived:
            path.with_name(".index-1-1.partial").write_bytes(content[: len(content) // 2])
            raise KeyboardInterrupt
        written.append(path)
        replace(path, content)

    monkeypatch.setattr(storage, "_replace", die)
    with pytest.raises(KeyboardInterrupt):
        save_index(folder, FaissIndex(draw(50, 3), GRAPH))
    loaded = load_index(folder)
    assert loaded.notes == () and torch.equal(loaded.index.vectors, draw(N, 0))


def test_a_cache_that_is_missing_is_built_anew(folder: Path) -> None:
    path = file_of(folder, "faiss")
    path.unlink()
    assert is_rebuilt_well(folder, f"{path} must be a readable file; No such file or directory")


def test_a_cache_of_another_faiss_is_built_anew(folder: Path) -> None:
    edit(folder, faiss="0.1")
    assert is_rebuilt_well(folder, f"the cache is of FAISS 0.1 and this is {faiss.__version__}")


def test_a_cache_that_is_not_wanted_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "faiss_from_bytes", None)
    assert load_index(folder, use_cache=False).notes[0].endswith("it was not to be used.")


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_damaged_cache_never_reaches_faiss(
    folder: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of(folder, "faiss")
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    path.write_bytes(blob if damage == "flip" else blob[:-5])
    monkeypatch.setattr(storage, "faiss_from_bytes", None)
    assert is_rebuilt_well(folder, "the cache has another hash than the manifest says")


def test_a_cache_longer_than_it_says_is_not_read_whole(folder: Path) -> None:
    path = file_of(folder, "faiss")
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"x")
    assert is_rebuilt_well(folder, f"{path} must hold at most {size} bytes; it holds more")


def test_a_cache_that_faiss_refuses_is_built_anew(folder: Path) -> None:
    plant(folder, "cache", "faiss", b"IHNf" + b"\xff" * 200)
    assert is_rebuilt_well(folder, "FAISS cannot read the cache")


def test_a_cache_that_claims_more_than_it_holds_is_built_anew(folder: Path) -> None:
    blob = bytearray(file_of(folder, "faiss").read_bytes())
    # The first list of the graph, six numbers long, now claims a million, 8 MiB of a file of 120 KiB.
    assert blob[37:45] == (6).to_bytes(8, "little")
    blob[37:45] = (2**20).to_bytes(8, "little")
    with pytest.raises(RuntimeError, match="vector_byte_limit"):
        faiss_from_bytes(np.frombuffer(blob, dtype=np.uint8))
    plant(folder, "cache", "faiss", bytes(blob))
    assert is_rebuilt_well(folder, "FAISS cannot read the cache")


def test_a_cache_of_another_index_is_built_anew(folder: Path) -> None:
    other = faiss.serialize_index(FaissIndex(draw(50, 3), GRAPH).native).tobytes()
    plant(folder, "cache", "faiss", other)
    assert is_rebuilt_well(folder, "the cache holds another kind or size of index")


def test_reading_leaves_the_limits_of_faiss_as_they_were(folder: Path) -> None:
    limits: Any = faiss
    before = limits.get_deserialization_loop_limit(), limits.get_deserialization_vector_byte_limit()
    load_index(folder)
    assert before == (limits.get_deserialization_loop_limit(), limits.get_deserialization_vector_byte_limit())


@pytest.mark.parametrize("missing", ["index.json", "safetensors"])
def test_a_missing_file_is_named(folder: Path, missing: str) -> None:
    path = folder / missing if missing == "index.json" else file_of(folder, missing)
    path.unlink()
    with pytest.raises(ArtefactError, match=rf"{path.name} must be a readable file; No such file"):
        load_index(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", r"the file: Invalid JSON"),
        (b"[" * 60_000, r"the file: Invalid JSON: recursion limit"),
        (b" " * 65_537, r"must hold at most 65536 bytes; it holds more"),
        (b"[1]", r"the file: Input should be an object"),
    ],
)
def test_a_manifest_that_is_none_is_refused(folder: Path, content: bytes, says: str) -> None:
    (folder / "index.json").write_bytes(content)
    with pytest.raises(ArtefactError, match=says):
        load_index(folder)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2}, "format: Input should be 1"),
        ({"metric": "l2"}, "metric: Input should be 'inner product'"),
        ({"count": -1}, "count: Input should be greater than or equal to 0"),
        ({"extra": 1}, "extra: Extra inputs"),
        (
            {"recall": {"value": 1.5, "k": 1, "queries": 1}},
            "recall.value: Input should be less than or equal to 1",
        ),
        ({"settings": {"kind": "pq"}}, "settings.kind: Input should be 'flat', 'hnsw'"),
        ({"vectors": {"sha256": "../" * 21 + "x", "bytes": 1}}, "vectors.sha256: String should match"),
    ],
)
def test_a_manifest_with_wrong_values_is_refused(folder: Path, changes: dict[str, object], says: str) -> None:
    edit(folder, **changes)
    with pytest.raises(ArtefactError, match=says):
        load_index(folder)


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_damaged_vectors_are_refused(folder: Path, damage: str) -> None:
    path = file_of(folder, "safetensors")
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(blob if damage == "flip" else blob[:-5])
    with pytest.raises(ArtefactError, match="must have the hash that it is named by"):
        load_index(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff" * 64, "must be a safetensors file; got: Error while deserializing: header too large"),
        (save({"vectors": draw(N - 1, 0)}), r"got \{'vectors': \(\(399, 8\)"),
        (save({"vectors": draw(N, 0).double()}), r"torch.float64"),
        (save({"vectors": draw(N, 0), "more": draw(1, 0)}), r"'more': \(\(1, 8\)"),
        (save({"ids": torch.arange(N)}), r"got \{'ids'"),
        (save({"vectors": draw(N, 0) / 0.0}), "must hold finite vectors; got NaN or infinity"),
    ],
)
def test_hostile_vectors_are_refused(folder: Path, content: bytes, says: str) -> None:
    plant(folder, "vectors", "safetensors", content)
    with pytest.raises(ArtefactError, match=says):
        load_index(folder)


def test_items_that_a_hostile_graph_invents_are_never_named(folder: Path) -> None:
    graph: Any = faiss.IndexHNSWFlat(D, 32, faiss.METRIC_INNER_PRODUCT)
    graph.add(draw(N, 5).numpy())
    plant(folder, "cache", "faiss", faiss.serialize_index(graph).tobytes())
    index = load_index(folder).index
    index.n_items = 100
    assert index._fetch(draw(20, 1), 30).items.max() < 100
