"""The readers on published data sets, where these are at hand."""

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.data import check_log
from recsys.data.readers import read_bandit_log, read_dataset, read_open_bandit
from tests.helpers.log_files import outside_rows

DATA = Path(os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def needs(*files: str) -> pytest.MarkDecorator:
    absent = [name for name in files if not (DATA / name).exists()]
    return pytest.mark.skipif(bool(absent), reason=f"{DATA} holds no {', '.join(absent)}")


@needs("ml-100k/ml-100k.inter")
def test_movielens_100k_has_its_published_size_and_reads_within_a_second() -> None:
    began = time.process_time()
    found = read_dataset(DATA / "ml-100k")
    assert time.process_time() - began < 1
    assert (len(found.log), len(found.users), len(found.items)) == (100_000, 943, 1682)
    assert list(found.items.kinds) == ["release_year", "class"]
    assert list(found.users.kinds) == ["age", "gender", "occupation"]
    assert np.bincount(found.log["level"]).tolist() == [6110 + 11370, 27145, 34174, 21201]
    assert found.items.labels is not None and found.items.labels[0] == "Toy Story"
    assert len(check_log(found.log, len(found.items))) == 100_000


@needs("ml-100k/ml-100k.inter")
def test_movielens_100k_rows_are_those_of_a_plain_loop_over_the_file() -> None:
    lines = (DATA / "ml-100k" / "ml-100k.inter").read_text().splitlines()[1:2001]
    expected = [
        (user, item, max(0, int(stars) - 2), int(moment))
        for user, item, stars, moment in (line.split("\t") for line in lines)
    ]
    found = read_dataset(DATA / "ml-100k")
    assert outside_rows(replace(found, log=found.log.head(2000))) == expected


@needs("openbandit/random/men.csv", "openbandit/bts/men.csv")
def test_open_bandit_has_its_published_rows_and_chances() -> None:
    for policy in ("random", "bts"):
        log = read_bandit_log(DATA / "openbandit" / policy)
        found = read_open_bandit(DATA / "openbandit" / policy)
        assert len(log) == len(found.log) == 10_000
        assert set(log["action"]) <= set(range(34)) and set(log["position"]) == {1, 2, 3}
        assert 0 < log["reward"].mean() < 0.02
        assert len(found.items) == 34
        assert found.log["level"].tolist() == log["reward"].astype(int).tolist()
    assert np.allclose(read_bandit_log(DATA / "openbandit" / "random")["propensity"], 1 / 34)


@needs("ml-1m-implicit/train.txt", "ml-1m-implicit/test.txt")
def test_implicit_movielens_1m_has_its_published_pairs_and_split() -> None:
    found = read_dataset(DATA / "ml-1m-implicit")
    assert len(found.log) == 920_193 and len(found.users) == 6040
    words = len((DATA / "ml-1m-implicit" / "test.txt").read_text().split())
    lines = len((DATA / "ml-1m-implicit" / "test.txt").read_text().splitlines())
    assert int(found.log["is_test"].sum()) == words - lines
    assert not found.has_times and found.level_names == ("not met", "met")
