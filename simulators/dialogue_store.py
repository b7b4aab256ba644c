"""Dialogues on disk while a rollout runs: JSON lines that survive a kill, and one Parquet file at the end.

A block of users is the unit of work: it is written when all its dialogues are finished. After a kill, blocks that
are whole are read instead of run; a block of which only a part was written is run again as a whole, so that its
batches are the same, and only what is missing is added. So an interrupted run ends in the same files as another.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_array

from persona.types import Condition
from simulators.errors import DialogueStoreError
from simulators.protocols import Agent, SimulatedUser
from simulators.rollout import check_rows, rollout, user_blocks
from simulators.transcripts import dialogue_from_json, dialogue_to_json
from simulators.types import LEVELS, Dialogue

LINES, TABLE, IDENTITY = "dialogues.jsonl", "dialogues.parquet", "run.json"
_ROWS_AT_ONCE = 1024
_SCHEMA = pa.schema(
    {
        "user": pa.int64(),
        "seed": pa.int64(),
        "policy": pa.string(),
        "stop": pa.string(),
        "turns": pa.int32(),
        "deepest_level": pa.int32(),
        "mean_satisfaction": pa.float64(),
        "dialogue": pa.string(),
    }
)


class DialogueStore:
    """A folder of finished dialogues, one for each user and seed.

    Close it, or use it in a `with` statement; one process at a time may have it open.

    Args:
        folder: Created if it is not there.
        identity: What the dialogues were held with, as plain JSON values; a folder of another identity is refused.
        policy: Name of who recommends, written with each dialogue, so that those of several can be told apart.

    Raises:
        DialogueStoreError: The folder cannot be written, is open elsewhere, is of another run, or a line that is not
            the last is damaged.
    """

    def __init__(
        self, folder: str | Path, *, identity: Mapping[str, Any] | None = None, policy: str | None = None
    ) -> None:
        """Open the folder; a last line that was cut off is taken away."""
        self._folder = Path(folder)
        self._about = {} if policy is None else {"policy": policy}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self._folder / LINES, "a+b")  # noqa: SIM115 - held open, and locked, until `close`
        except OSError as err:
            raise DialogueStoreError(
                f"Dialogues must go to a folder that can be written; got {str(self._folder)!r} ({err.strerror}). "
                "Choose another folder."
            ) from err
        try:
            self._lock()
            self._check_identity(identity)
            self._places = self._read_places()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "DialogueStore":
        """The store itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the store."""
        self.close()

    def __len__(self) -> int:
        """Number of dialogues."""
        return len(self._places)

    def close(self) -> None:
        """Let go of the folder."""
        with suppress(OSError):  # What could not be written was told by `add`, and Python tries once more.
            self._file.close()

    def missing(self, users: Sequence[int], *, seed: int) -> list[int]:
        """Those of `users`, in their order, who have no dialogue of this seed."""
        return [user for user in users if (seed, user) not in self._places]

    def add(self, dialogues: Sequence[Dialogue], *, seed: int) -> int:
        """Append finished dialogues, forced to disk before this returns; those already there are left out.

        Returns:
            How many were added.

        Raises:
            DialogueStoreError: They cannot be written, as when the disk is full.
        """
        start = self._file.seek(0, os.SEEK_END)
        lines = bytearray()
        places: dict[tuple[int, int], tuple[int, int]] = {}
        for dialogue in dialogues:
            key = (seed, int(dialogue.user))
            if key not in self._places and key not in places:
                line = json.dumps(
                    {"seed": seed, **self._about, **dialogue_to_json(dialogue)}, ensure_ascii=False
                ).encode()
                places[key] = (start + len(lines), len(line))
                lines += line + b"\n"
        with self._disk_faults_named():
            self._file.write(lines)
            self._file.flush()
            os.fsync(self._file.fileno())
        self._places |= places
        return len(places)

    def read(self, users: Sequence[int], *, seed: int) -> Iterator[Dialogue]:
        """The dialogues of `users`, in their order, one at a time.

        Raises:
            DialogueStoreError: A user has none.
        """
        return (dialogue_from_json(json.loads(line)) for line in self._lines(users, seed))

    def write_table(self, users: Sequence[int], *, seed: int) -> Path:
        """Write one Parquet file, a row a dialogue in the order of `users`; it appears whole or not at all.

        Columns: user, seed, policy (null if not named), stop, turns, deepest_level and mean_satisfaction (null without
        turns), and dialogue, the JSON that `simulators.transcripts.dialogue_from_json` reads.

        Raises:
            DialogueStoreError: A user has no dialogue, or the file cannot be written.
        """
        final = self._folder / TABLE
        unfinished = final.with_suffix(".parquet.part")
        lines = self._lines(users, seed)
        with self._disk_faults_named():
            with pq.ParquetWriter(unfinished, _SCHEMA) as writer:
                while rows := [_table_row(line) for line in islice(lines, _ROWS_AT_ONCE)]:
                    writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
            with open(unfinished, "rb+") as written:
                os.fsync(written.fileno())
            unfinished.replace(final)
        return final

    @contextmanager
    def _disk_faults_named(self) -> Iterator[None]:
        """Every fault of the disk as an error of the store."""
        try:
            yield
        except OSError as err:
            raise DialogueStoreError(
                f"Dialogues must be kept in a folder that can be read and written; {str(self._folder)!r} gave: "
                f"{err.strerror or err}. Put that right and start again: what was finished before is kept."
            ) from err

    def _lines(self, users: Sequence[int], seed: int) -> Iterator[bytes]:
        if lost := self.missing(users, seed=seed)[:3]:
            raise DialogueStoreError(
                f"Every user must have a dialogue of seed {seed} in {str(self._folder)!r}; users {lost} have none. "
                "Run their dialogues first."
            )
        for user in users:
            place, length = self._places[seed, user]
            self._file.seek(place)
            yield self._file.read(length)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise DialogueStoreError(
                f"Only one process at a time may write dialogues to {str(self._folder)!r}; another has it open. "
                "Wait for it, or choose another folder."
            ) from err

    def _check_identity(self, identity: Mapping[str, Any] | None) -> None:
        path = self._folder / IDENTITY
        wanted = json.dumps(identity or {}, indent=2, sort_keys=True) + "\n"
        with self._disk_faults_named():
            if not path.exists():
                unfinished = path.with_suffix(".json.part")
                unfinished.write_text(wanted, encoding="utf-8")
                unfinished.replace(path)
            found = path.read_text(encoding="utf-8", errors="replace")
        if found != wanted:
            raise DialogueStoreError(
                f"The dialogues in {str(self._folder)!r} must be of this run; {_difference(found, wanted)}. Give what "
                "they were held with, or choose another folder."
            )

    def _read_places(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Where each dialogue's line begins and how long it is."""
        places: dict[tuple[int, int], tuple[int, int]] = {}
        end = 0
        self._file.seek(0)
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                self._file.truncate(end)  # cut off by a kill
                break
            try:
                row = json.loads(line)
                dialogue = dialogue_from_json(row)
                _check_feelings(dialogue)
                key = (int(row["seed"]), int(dialogue.user))
            except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as err:
                raise DialogueStoreError(
                    f"Every line of {str(self._folder / LINES)!r} must hold a dialogue; line {number} does not. "
                    "Delete that line to have the dialogue held again."
                ) from err
            places[key] = (end, len(line) - 1)
            end += len(line)
        return places


def _check_feelings(dialogue: Dialogue) -> None:
    """Raise `ValueError` or `TypeError` unless every level and every number of stars, 1 to 5, is one."""
    for turn in dialogue.turns:
        felt = turn.feedback
        if felt.level not in range(len(LEVELS)) or not 1 <= felt.satisfaction <= 5:
            raise ValueError("a reaction outside its range")


def recorded_rollout(
    store: DialogueStore,
    users: Sequence[int],
    agent: Agent,
    viewers: SimulatedUser,
    *,
    histories: csr_array,
    condition: Condition | None,
    seed: int,
    block: int = 256,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """A rollout that goes on where it was killed, and ends in the same files as one that was not.

    Only one block of dialogues is in memory at a time.

    Args:
        store: Where dialogues go; give it an identity that names agent, users and models.
        users: Different rows of N users in the population.
        agent: The recommender.
        viewers: The simulated users.
        histories: What the agent knows of each user's past. Shape (N, I).
        condition: One row a user, or None for the average user.
        seed: Seed of the simulation.
        block: Users a block, the unit of work that a kill can cost. The same block must be used when going on.
        progress: Called after each block with the number of finished dialogues.

    Returns:
        The Parquet file, one row a user in the order of `users`.

    Raises:
        RolloutError: `histories` or `condition` has not one row a user, or `block` is below 1.
    """
    check_rows(users, histories, condition)

    def run(rows: slice) -> list[Dialogue]:
        return rollout(
            users[rows],
            agent,
            viewers,
            histories=histories[rows],
            condition=condition.select(range(rows.start, rows.stop)) if condition else None,
            seed=seed,
            block=block,
        )

    for rows in user_blocks(len(users), block):
        if store.missing(users[rows], seed=seed):
            store.add(run(rows), seed=seed)
        if progress:
            progress(rows.stop)
    return store.write_table(users, seed=seed)


def read_table(path: str | Path) -> list[Dialogue]:
    """The dialogues of a Parquet file that `DialogueStore.write_table` wrote, in its order."""
    texts = pq.read_table(path, columns=["dialogue"]).column("dialogue").to_pylist()
    return [dialogue_from_json(json.loads(text)) for text in texts]


def _table_row(line: bytes) -> dict[str, Any]:
    saved = json.loads(line)
    turns = saved["turns"]
    stars = [turn["satisfaction"] for turn in turns]
    return {
        "user": saved["user"],
        "seed": saved.pop("seed"),
        "policy": saved.get("policy"),
        "stop": saved["stop"],
        "turns": len(turns),
        "deepest_level": max((turn["level"] for turn in turns), default=None),
        "mean_satisfaction": sum(stars) / len(stars) if stars else None,
        "dialogue": json.dumps(saved, ensure_ascii=False),
    }


def _difference(found: str, wanted: str) -> str:
    """What two identities differ in, in words."""
    try:
        then, now = dict(json.loads(found)), json.loads(wanted)
    except (ValueError, TypeError):
        return f"{IDENTITY} there is damaged"
    keys = sorted(key for key in then | now if then.get(key) != now.get(key))
    # Hashes and the like would fill the line.
    said = [f"{key} {_short(then.get(key))} there and {_short(now.get(key))} now" for key in keys[:3]]
    return f"got {', '.join(said)}{' and more' * (len(keys) > 3)}"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}..."
