from pathlib import Path

import numpy as np
import pytest

from persona.features import FeatureCache
from persona.features.cache import Rows


class Computer:
    """Counts what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: list[str]) -> Rows:
        self.asked += texts
        return np.asarray([[len(text), ord(text[0])] for text in texts], dtype=np.float32)


def test_each_text_is_computed_once_and_rows_keep_their_order(tmp_path: Path) -> None:
    cache, compute = FeatureCache(tmp_path), Computer()
    texts = ["bb", "a", "ccc", "a"]
    expected = [[2, 98], [1, 97], [3, 99], [1, 97]]
    np.testing.assert_array_equal(cache.rows("kind", texts, compute), expected)
    assert sorted(compute.asked) == ["a", "bb", "ccc"]
    np.testing.assert_array_equal(
        FeatureCache(tmp_path).rows("kind", ["ccc", "dd"], compute), [[3, 99], [2, 100]]
    )
    assert sorted(compute.asked) == ["a", "bb", "ccc", "dd"]


def test_another_kind_shares_nothing(tmp_path: Path) -> None:
    cache, compute = FeatureCache(tmp_path), Computer()
    cache.rows("one", ["a"], compute)
    cache.rows("other", ["a"], compute)
    assert compute.asked == ["a", "a"]


def test_one_whole_batch_comes_back_as_a_memory_map(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.rows("kind", ["a", "bb"], Computer())
    rows = cache.rows("kind", ["a", "bb"], Computer())
    assert isinstance(rows, np.memmap)
    assert not rows.flags.writeable


def test_a_stopped_computation_keeps_its_finished_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persona.features.cache.BATCH", 2)
    done = Computer()

    def stops(texts: list[str]) -> Rows:
        if len(done.asked) == 2:
            raise KeyboardInterrupt
        return done(texts)

    with pytest.raises(KeyboardInterrupt):
        FeatureCache(tmp_path).rows("kind", ["a", "bb", "ccc"], stops)
    again = Computer()
    np.testing.assert_array_equal(
        FeatureCache(tmp_path).rows("kind", ["a", "bb", "ccc"], again)[:, 0], [1, 2, 3]
    )
    assert again.asked == ["ccc"]


def test_a_damaged_batch_is_computed_again(tmp_path: Path) -> None:
    FeatureCache(tmp_path).rows("kind", ["a", "bb"], Computer())
    path = next(tmp_path.glob("*/batch-*/rows.npy"))
    path.write_bytes(path.read_bytes()[:-4])
    again = Computer()
    np.testing.assert_array_equal(FeatureCache(tmp_path).rows("kind", ["bb", "a"], again)[:, 0], [2, 1])
    assert sorted(again.asked) == ["a", "bb"]


def test_no_texts_give_no_rows(tmp_path: Path) -> None:
    assert FeatureCache(tmp_path).rows("kind", [], Computer()).shape == (0, 0)
