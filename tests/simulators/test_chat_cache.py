"""The cache on disk: found by content, safe against death, other processes, a full disk and broken files."""

import os
import resource
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulators.chat.cache import CacheTotals, ResponseCache, answer_key
from simulators.chat.model import Completion
from simulators.errors import CacheError

FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
ANSWER = Completion("Try it, it's warm \u2603\n", None, 12, 7)
QUESTION: dict[str, Any] = {
    "identity": "model-a",
    "messages": [{"role": "user", "content": "What now?"}],
    "seed": 5,
    "max_new_tokens": 64,
    "temperature": 1.0,
    "banned": ("<mood>", "<year>"),
    "schema": {"type": "object", "properties": {"a": {}, "b": {}}},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "answers.sqlite"


@pytest.fixture
def cache(path: Path) -> Iterator[ResponseCache]:
    with ResponseCache(path) as made:
        yield made


def key(number: int) -> bytes:
    return answer_key("m", [{"role": "user", "content": str(number)}], 0, max_new_tokens=8, temperature=0.0)


def in_child(work: Callable[[], None]) -> Callable[[], int]:
    """Start `work` in a forked process; the result waits for it and gives its exit status."""
    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return lambda: os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_answers_come_back_by_content_from_another_day(cache: ResponseCache, path: Path) -> None:
    assert cache.put(key(1), ANSWER) == ANSWER
    assert cache.get([key(1), key(2)]) == {key(1): ANSWER}
    cache.close()
    with ResponseCache(path) as again:
        assert again.get([key(2), key(1)]) == {key(1): ANSWER}
        assert again.totals() == CacheTotals(1, 12, 7)


def test_the_first_of_two_answers_stays(cache: ResponseCache, path: Path) -> None:
    cache.put(key(1), ANSWER)
    with ResponseCache(path) as other:
        assert other.put(key(1), Completion("Another")) == ANSWER
    assert cache.get([key(1)]) == {key(1): ANSWER}


def test_failures_are_not_kept(cache: ResponseCache) -> None:
    with pytest.raises(CacheError, match="only answers may be kept; got the failure 'it timed out'"):
        cache.put(key(1), Completion("", "it timed out"))
    assert cache.totals() == CacheTotals(0, 0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"identity": "model-b"},
        {"messages": [{"role": "user", "content": "What now"}]},
        {"messages": [{"role": "system", "content": "What now?"}]},
        {"messages": [{"role": "user", "content": "What now?"}, {"role": "assistant", "content": ""}]},
        {"seed": 6},
        {"max_new_tokens": 65},
        {"temperature": 0.9},
        {"banned": ("<mood>",)},
        {"schema": None},
        {"schema": {"type": "object", "properties": {"b": {}, "a": {}}}},
    ],
)
def test_whatever_may_change_an_answer_changes_the_key(change: dict[str, Any]) -> None:
    assert answer_key(**QUESTION) != answer_key(**{**QUESTION, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"content": "What now?", "role": "user"}]},
        {"seed": np.int64(5)},
        {"temperature": 1},
        {"banned": frozenset({"<year>", "<mood>"})},
    ],
)
def test_the_same_question_has_the_same_key_however_it_is_written(change: dict[str, Any]) -> None:
    assert answer_key(**QUESTION) == answer_key(**{**QUESTION, **change})


@FORKS
def test_what_was_put_survives_a_kill(path: Path) -> None:
    def work() -> None:
        mine = ResponseCache(path)
        for number in range(50):
            mine.put(key(number), ANSWER)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(work)() == -signal.SIGKILL
    with ResponseCache(path) as cache:
        assert cache.totals() == CacheTotals(50, 600, 350)


@FORKS
def test_processes_that_start_at_once_share_one_file(path: Path) -> None:
    def work(name: int) -> Callable[[], None]:
        def put() -> None:
            with ResponseCache(path) as mine:
                for number in range(100):
                    mine.put(key(number), Completion(f"{name}"))
                    mine.put(key(1000 * name + number), Completion(f"{name}"))

        return put

    children = [in_child(work(name)) for name in range(1, 5)]
    assert [wait() for wait in children] == [0] * 4
    with ResponseCache(path) as cache:
        assert cache.totals().answers == 500


@FORKS
def test_a_forked_process_opens_the_file_anew(cache: ResponseCache) -> None:
    cache.put(key(1), ANSWER)

    def work() -> None:
        cache.put(key(2), ANSWER)
        cache.close()

    assert in_child(work)() == 0
    cache.put(key(3), ANSWER)
    assert set(cache.get([key(1), key(2), key(3)])) == {key(1), key(2), key(3)}


def test_threads_share_one_cache(cache: ResponseCache) -> None:
    def work(name: int) -> None:
        for number in range(50):
            cache.put(key(100 * name + number), Completion(f"{name}"))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.totals().answers == 400
    assert cache.get([key(749)])[key(749)].text == "7"


def test_a_full_disk_gives_one_clear_error_and_loses_nothing(cache: ResponseCache) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    cache.put(key(0), ANSWER)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CacheError, match=r"answers.sqlite gave: .*every answer up to here is kept\.$"):
            for number in range(1, 1000):
                cache.put(key(number), Completion("x" * 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept = cache.totals().answers
    assert 3 < kept < 100 and len(cache.get([key(number) for number in range(kept)])) == kept
    cache.put(key(5000), ANSWER)
    assert cache.totals().answers == kept + 1


def test_a_file_that_is_no_cache_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("Not a database, but long enough to look like one. " * 100)
    before = path.read_bytes()
    with pytest.raises(CacheError, match=r"answers.sqlite gave: file is not a database\. Name another file"):
        ResponseCache(path)
    assert path.read_bytes() == before


def test_another_program_s_database_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE answers (theirs)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(CacheError, match="it belongs to another program or to another version"):
        ResponseCache(path)
    assert path.read_bytes() == before


def test_a_damaged_cache_is_told(path: Path) -> None:
    with ResponseCache(path) as cache:
        for number in range(200):
            cache.put(key(number), Completion("x" * 500))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(CacheError, match=r"gave: database disk image is malformed\. .*delete this one"):
        ResponseCache(path).get([key(1)])


def test_a_place_that_cannot_hold_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"can be read and written; .*file/answers.sqlite gave: "):
        ResponseCache(tmp_path / "file" / "answers.sqlite")
    with pytest.raises(CacheError, match=r"gave: unable to open database file\. Name a file in a folder"):
        ResponseCache(tmp_path)
