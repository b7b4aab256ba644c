"""Answers of chat models kept on disk, so that no question is paid for twice.

An answer is found by the content of its question: what answers, the messages, the sampling settings, the seed and the
schema. Each is committed as it arrives; a simulation that is killed and started again walks the same way through the
answers it has and asks only for the rest.
"""

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from simulators.chat.model import Completion, Message, Schema
from simulators.errors import CacheError

_FORMAT = 1
_MARK = 0x50525243  # Tells a response cache from the SQLite files of other programs.
_LOCK_S = 60.0
_REMEDIES = (
    ("full", "Free some space and start again: every answer up to here is kept"),
    ("i/o", "Check the disk, and free some space: every answer up to here is kept"),
    ("too big", "Raise the limit on file sizes: every answer up to here is kept"),
    ("locked", "Wait for the other process that writes to it, or name another file"),
    ("locking", "Put it on a local disk: network folders often cannot lock"),
    ("readonly", "Make it writable, or name another file"),
    ("unable to open", "Name a file in a folder that can be written to"),
)
_BROKEN = "Name another file, or delete this one to pay for its answers again"


class CacheTotals(NamedTuple):
    """What a cache holds.

    answers: Number of answers.
    prompt_tokens: Tokens that were read for them.
    completion_tokens: Tokens that were written for them.
    """

    answers: int
    prompt_tokens: int
    completion_tokens: int


class ResponseCache:
    """A file of answers by the content of their questions.

    Several processes and threads may use one file; of two answers to one question the first stays. An answer that was
    put survives the death of the process; a failing power supply may take the last ones. Close it, or use it as a
    context manager.

    Args:
        path: A file, made with its folder where there is none. SQLite in WAL mode: two neighbouring files with the
            same name and a suffix belong to it while it is open.

    Raises:
        CacheError: The file is no response cache, or cannot be read and written.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        with self._connected() as connection:
            connection.execute("SELECT 1 FROM answers LIMIT 1")

    def __enter__(self) -> Self:
        """The cache itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Completion]:
        """Those of the answers that are there, by key, with the tokens that they took.

        Raises:
            CacheError: The file cannot be read.
        """
        with self._connected() as connection:
            rows = [
                connection.execute(
                    "SELECT text, prompt_tokens, completion_tokens FROM answers WHERE key = ?", (key,)
                ).fetchone()
                for key in keys
            ]
        return {
            key: Completion(row[0], None, row[1], row[2])
            for key, row in zip(keys, rows, strict=True)
            if row is not None
        }

    def put(self, key: bytes, completion: Completion) -> Completion:
        """Keep an answer, and return the one that stays: where another came first, that one.

        Args:
            key: From `answer_key`.
            completion: An answer, not a failure.

        Raises:
            CacheError: The file cannot be written, or `completion` is a failure.
        """
        if completion.failure is not None:
            raise CacheError(
                f"only answers may be kept; got the failure {completion.failure!r}. Ask again instead."
            )
        with self._connected() as connection:
            made = connection.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)",
                (key, completion.text, completion.prompt_tokens, completion.completion_tokens),
            )
            if made.rowcount == 1:
                return completion
        return self.get([key])[key]

    def totals(self) -> CacheTotals:
        """How many answers there are, and the tokens that they took."""
        with self._connected() as connection:
            return CacheTotals(
                *connection.execute(
                    "SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0)"
                    " FROM answers"
                ).fetchone()
            )

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time, with every fault of SQLite told as a `CacheError`."""
        with self._lock:
            try:
                # A connection must not be used on the other side of a fork.
                if self._connection is None or self._process != os.getpid():
                    self._connection, self._process = _open(self._path), os.getpid()
                yield self._connection
            except (sqlite3.Error, OSError) as error:
                said = str(error).lower()
                remedy = next((told for sign, told in _REMEDIES if sign in said), _BROKEN)
                raise CacheError(
                    f"the response cache must be a file that can be read and written; {self._path} gave: {error}. "
                    f"{remedy}."
                ) from error


def answer_key(
    identity: str,
    messages: Sequence[Message],
    seed: int,
    *,
    max_new_tokens: int,
    temperature: float,
    banned: Collection[str] = (),
    schema: Schema | None = None,
) -> bytes:
    """The SHA-256 of everything that an answer depends on, and of nothing else.

    Args:
        identity: Names what answers, with its settings.
        messages: The conversation.
        seed: Of the sampling.
        max_new_tokens: Longest answer, in tokens.
        temperature: Of the sampling.
        banned: Slots that must not be written, in any order.
        schema: What the answer is held to; the order of its fields counts, as it does for a model that is held to it.
    """
    question = [
        _FORMAT,
        identity,
        [sorted(message.items()) for message in messages],
        int(seed),
        max_new_tokens,
        float(temperature),
        sorted(banned),
        schema,
    ]
    return hashlib.sha256(json.dumps(question, separators=(",", ":")).encode("ascii")).digest()


def _open(path: Path) -> sqlite3.Connection:
    """Open the file in WAL mode, made where there is none.

    A commit then reaches the operating system, which survives the death of this process. It is not forced to the
    disk, which would take several milliseconds an answer.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_LOCK_S, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the table in an empty file, and refuse a file that is something else."""
    connection.execute("PRAGMA synchronous = NORMAL")
    if _is_empty(connection):
        connection.execute("BEGIN IMMEDIATE")
        if _is_empty(connection):  # Unless another process was first.
            connection.execute(
                "CREATE TABLE answers (key BLOB PRIMARY KEY, text TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,"
                " completion_tokens INTEGER NOT NULL) WITHOUT ROWID"
            )
            connection.execute(f"PRAGMA application_id = {_MARK}")
            connection.execute(f"PRAGMA user_version = {_FORMAT}")
        connection.execute("COMMIT")
    marks = [
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    ]
    if marks != [_MARK, _FORMAT]:
        raise sqlite3.DatabaseError("it belongs to another program or to another version of this one")
    connection.execute("PRAGMA journal_mode = WAL")


def _is_empty(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None
