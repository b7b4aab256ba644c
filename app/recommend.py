"""`persona recommend`: lists from a retriever that an evaluation left, for known users or for a stranger's items."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.errors import ConfigError
from app.evaluation_config import find_level
from app.evaluation_retriever import Served, read_retriever
from app.files import write_atomically, write_json
from persona.policy.device import resolve_device
from recsys.types import Bools, Histories, Ints, histories_from_log, times_from_log

Strangers = Literal["refuse", "popular"]
FORMATS = (".csv", ".json", ".parquet")
# Users whose lists are printed.
SHOWN = 10
_STRANGER = "stranger"


class Wish(NamedTuple):
    """Whom to serve, and how.

    users: Outside ids.
    items: Outside ids of what a stranger wanted; a list of its own where given.
    k: Length of the lists.
    exclude_seen: Leave out what is in the user's own history.
    level: Name or number of the level to rank by; None is the model's own aim.
    allow: File of the only item ids that may be offered, one a line.
    deny: File of item ids that may not be offered, one a line.
    strangers: What becomes of ids that the retriever does not know: "refuse" them, or "popular", which serves them as
        someone without a history.
    """

    users: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    k: int = 20
    exclude_seen: bool = True
    level: str | None = None
    allow: Path | None = None
    deny: Path | None = None
    strangers: Strangers = "refuse"


class _Asked(NamedTuple):
    """B lists to make: names for people, histories, times where known, and ids in the table of users."""

    names: list[str]
    histories: Histories
    times: Histories | None
    users: Ints


def recommend(
    folder: Path, wish: Wish, *, out: Path | None = None, device: str = "auto", console: Console
) -> pd.DataFrame:
    """Make lists, print the first of them, and write all to a file.

    Args:
        folder: Of an evaluation, or its retriever.
        wish: Whom to serve, and how.
        out: File to write, ending in one of `FORMATS`; None prints alone.
        device: Where to load the model.
        console: Where lists are printed.

    Returns:
        user_id, rank (from 1), item_id, label and score, a row a place; users with fewer items to offer have fewer.

    Raises:
        ConfigError: Nobody is asked for, an id is unknown, or the file's ending is none of `FORMATS`.
        StoreError: The folder holds no retriever, or a file cannot be read or written.
        RecsysError: The model does not know the level.
    """
    if out is not None and out.suffix not in FORMATS:
        raise ConfigError(f"--out must end in one of {', '.join(FORMATS)}; got {out.name}. Rename it.")
    if not (wish.users or wish.items):
        raise ConfigError("Somebody must be served; got nobody. Give --users, --users-file or --items.")
    if wish.k < 1:
        raise ConfigError(f"--k must be at least 1; got {wish.k}. Ask for one item or more.")
    served = read_retriever(folder, device=str(resolve_device(device)))
    asked = _ask(served, wish)
    n_items = asked.histories.shape[1]
    if wish.k > n_items:
        raise ConfigError(
            f"--k must be at most the {n_items:,} items of the catalogue; got {wish.k}. Lower it."
        )
    level = None if wish.level is None else find_level(served.level_names, wish.level)
    found = served.model.search(
        asked.histories,
        wish.k,
        level=level,
        allowed=_allowed(served, wish),
        exclude_seen=wish.exclude_seen,
        users=asked.users,
        times=asked.times,
    )
    rows, places = np.nonzero(found.items >= 0)
    items = found.items[rows, places]
    table = pd.DataFrame(
        {
            "user_id": np.asarray(asked.names, dtype=object)[rows],
            "rank": places + 1,
            "item_id": served.items.to_numpy(dtype=object)[items],
            "label": np.asarray(served.labels, dtype=object)[items],
            "score": found.scores[rows, places],
        }
    )
    _print(console, table, asked, served.name)
    if out is not None:
        _write(out, table)
        console.print(f"{len(table):,} rows in {out}", markup=False, soft_wrap=True)
    return table


def read_ids(path: Path) -> tuple[str, ...]:
    """The ids of a text file, one a line; blank lines, and the mark that some editors put first, are passed over.

    Raises:
        ConfigError: The file cannot be read, or holds no id.
    """
    try:
        found = tuple(
            line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()
        )
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path} must be a readable text file of ids; got: {err}. Check the path.") from err
    if not found:
        raise ConfigError(f"{path} must hold ids, one a line; got none. Write some.")
    return found


def _ask(served: Served, wish: Wish) -> _Asked:
    """Histories of the users asked for, then the stranger's own."""
    if len(set(wish.users)) < len(wish.users):
        twice = sorted({name for name in wish.users if wish.users.count(name) > 1})
        raise ConfigError(f"Users must be named once; got {', '.join(twice[:3])} again. Drop the repeats.")
    ids = served.users.get_indexer(pd.Index(wish.users)).astype(np.int64)
    unknown = [name for name, row in zip(wish.users, ids, strict=True) if row < 0]
    if unknown and wish.strangers == "refuse":
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise ConfigError(
            f"Users must be known to the retriever; got {', '.join(unknown[:3])}{more}, which are not. Correct the "
            "ids, give a stranger's items by --items, or pass --strangers popular."
        )
    names = list(wish.users)
    log, keys = served.log, ids.copy()
    # Rows that stand for nobody in the log: strangers, who have no history.
    keys[ids < 0] = len(served.users) + np.flatnonzero(ids < 0)
    if wish.items:
        own = len(served.users) + len(ids)
        log = pd.concat([log, _stranger_rows(served, wish.items, own)], ignore_index=True)
        keys, ids, names = np.append(keys, own), np.append(ids, -1), [*names, _STRANGER]
    histories = histories_from_log(log, keys, len(served.items))
    times = times_from_log(log, keys, len(served.items)) if "timestamp" in log.columns else None
    return _Asked(names, histories, times, ids)


def _stranger_rows(served: Served, items: Sequence[str], user: int) -> pd.DataFrame:
    """What the stranger wanted, in the order given, after everything else."""
    rows = _find_items(served, items)
    frame = {"user_id": user, "item_id": rows, "level": served.relevant_level}
    if "timestamp" in served.log.columns:
        frame["timestamp"] = int(served.log["timestamp"].max()) + 1 + np.arange(len(rows))
    return pd.DataFrame(frame)


def _allowed(served: Served, wish: Wish) -> Bools | None:
    if wish.allow is None and wish.deny is None:
        return None
    allowed = np.full(len(served.items), wish.allow is None)
    if wish.allow is not None:
        allowed[_find_items(served, read_ids(wish.allow))] = True
    if wish.deny is not None:
        allowed[_find_items(served, read_ids(wish.deny))] = False
    return allowed


def _find_items(served: Served, names: Sequence[str]) -> Ints:
    rows = served.items.get_indexer(pd.Index(names)).astype(np.int64)
    unknown = [name for name, row in zip(names, rows, strict=True) if row < 0]
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise ConfigError(
            f"Items must be in the retriever's catalogue; got {', '.join(unknown[:3])}{more}, which are not. "
            "Correct the ids."
        )
    return rows


def _write(out: Path, table: pd.DataFrame) -> None:
    if out.suffix == ".json":
        write_json(out, table.to_dict("records"))
    elif out.suffix == ".csv":
        write_atomically(out, table.to_csv(index=False).encode())
    else:
        write_atomically(out, table.to_parquet(index=False))


def _print(console: Console, table: pd.DataFrame, asked: _Asked, name: str) -> None:
    for user in asked.names[:SHOWN]:
        own = table[table["user_id"] == user]
        grid = Table(title=escape(f"{user}, by {name}"), title_justify="left")
        for title in ("rank", "item", "", "score"):
            grid.add_column(title, justify="right" if title in {"rank", "score"} else "left")
        for row in own.to_dict("records"):
            label = "" if row["label"] == row["item_id"] else escape(row["label"])
            grid.add_row(str(row["rank"]), escape(row["item_id"]), label, f"{row['score']:.4g}")
        console.print(grid)
    if len(asked.names) > SHOWN:
        console.print(f"{len(asked.names) - SHOWN:,} more users are not shown.")
