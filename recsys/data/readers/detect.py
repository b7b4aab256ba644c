"""One way in: find out which format a path holds, and read it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from recsys.data.dataset import Dataset, FeatureKind
from recsys.data.readers.adjacency import read_adjacency
from recsys.data.readers.ali_ccp import read_ali_ccp
from recsys.data.readers.aliexpress import read_aliexpress
from recsys.data.readers.kuairand import read_kuairand
from recsys.data.readers.levels import ContradictionPolicy
from recsys.data.readers.lines import TextLayout
from recsys.data.readers.movielens import read_movielens
from recsys.data.readers.open_bandit import CONTEXT, read_open_bandit
from recsys.data.readers.recbole import read_recbole
from recsys.data.readers.retailrocket import read_retailrocket
from recsys.data.readers.table import SUFFIXES, read_table
from recsys.data.readers.text import column_names
from recsys.errors import DataFileError, OrdinalError

Steps = Sequence[str] | None
Reader = Callable[[Path, Steps, ContradictionPolicy], Dataset]


class Detector(NamedTuple):
    """A format that is a folder.

    name: What people call it.
    files: Patterns that must all match something in the folder.
    read: Reads the folder.
    header: Columns that the file of the first pattern must have, where its name alone says too little.
    """

    name: str
    files: tuple[str, ...]
    read: Reader
    header: tuple[str, ...] = ()

    def fits(self, folder: Path) -> bool:
        """Whether the folder is of this format."""
        found = [min(folder.glob(pattern), default=None) for pattern in self.files]
        if found[0] is None or None in found:
            return False
        return not self.header or set(self.header) <= set(column_names(found[0], TextLayout()))


# Tried in this order; the first whose files are all there reads the folder.
DETECTORS = (
    Detector("MovieLens 100K", ("u.data",), lambda path, levels, _: read_movielens(path, levels=levels)),
    Detector(
        "MovieLens 1M or 10M", ("ratings.dat",), lambda path, levels, _: read_movielens(path, levels=levels)
    ),
    Detector(
        "MovieLens 20M or later",
        ("ratings.csv", "movies.csv"),
        lambda path, levels, _: read_movielens(path, levels=levels),
        ("userId", "movieId"),
    ),
    Detector("RecBole atomic files", ("*.inter",), lambda path, levels, _: read_recbole(path, levels=levels)),
    Detector(
        "KuaiRand",
        ("log_standard_*.csv",),
        lambda path, levels, policy: read_kuairand(path, levels=levels, contradictions=policy),
    ),
    Detector(
        "KuaiRand",
        ("data/log_standard_*.csv",),
        lambda path, levels, policy: read_kuairand(path, levels=levels, contradictions=policy),
    ),
    Detector(
        "RetailRocket",
        ("events.csv",),
        lambda path, levels, _: read_retailrocket(path, levels=levels),
        ("visitorid",),
    ),
    Detector(
        "Ali-CCP",
        ("sample_skeleton_train.csv", "common_features_train.csv"),
        lambda path, levels, policy: read_ali_ccp(path, levels=levels, contradictions=policy),
    ),
    Detector("Open Bandit", (CONTEXT,), lambda path, levels, _: read_open_bandit(path, levels=levels)),
    Detector(
        "AliExpress Search",
        ("train.csv", "test.csv"),
        lambda path, levels, policy: read_aliexpress(path, levels=levels, contradictions=policy),
        ("search_id",),
    ),
    Detector(
        "lists of neighbours",
        ("train.txt",),
        lambda path, levels, _: _read_neighbours(path / "train.txt", _test(path), levels),
    ),
)


def read_dataset(
    path: Path,
    *,
    levels: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    contradictions: ContradictionPolicy = ContradictionPolicy.DEEPEST,
    users: Path | None = None,
    items: Path | None = None,
    kinds: Mapping[str, FeatureKind] | None = None,
) -> Dataset:
    """Read a data set in whatever known format it has.

    Args:
        path: A folder of one of `DETECTORS`, or a file: a table (see `read_table`), an `.inter` file, the log of a
            campaign of Open Bandit, or a list of neighbours (.txt).
        levels: What the levels are, from shallow to deep: steps, or cut-points of ratings; see the format's reader.
        columns: For tables and atomic files: their names of our columns.
        contradictions: What becomes of a row that went deep without a shallower step; only for formats with one flag a
            step.
        users: For tables: a table of what is known of users.
        items: For tables: a table of what is known of items.
        kinds: For tables: how to read feature columns.

    Raises:
        DataFileError: No format fits, an argument does not go with the format, or a file does not hold what it should.
        OrdinalError: `levels` do not fit.
    """
    if not path.exists():
        raise DataFileError(f"{path} must be a file or a folder; there is none. Check the path.")
    is_atomic = path.suffix == ".inter" or (path.is_dir() and any(path.glob("*.inter")))
    is_table = path.is_file() and not is_atomic and path.suffix != ".txt"
    given = {"users": users, "items": items, "kinds": kinds, "columns": None if is_atomic else columns}
    strange = [name for name, value in given.items() if value is not None]
    if strange and not is_table:
        raise DataFileError(
            f"`{'`, `'.join(strange)}` must go with a table in one file; got {path}. Drop the argument, or name a file."
        )
    if is_atomic:
        return read_recbole(path, levels=levels, columns=columns)
    if path.suffix == ".txt":
        return _read_neighbours(path, None, levels)
    if is_table:
        if columns is None and _is_campaign(path):
            return read_open_bandit(path, levels=levels)
        return read_table(
            path,
            columns=columns,
            levels=levels,
            contradictions=contradictions,
            users=users,
            items=items,
            kinds=kinds,
        )
    return _detect(path).read(path, levels, contradictions)


def read_split(
    train: Path,
    test: Path,
    *,
    levels: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    contradictions: ContradictionPolicy = ContradictionPolicy.DEEPEST,
    users: Path | None = None,
    items: Path | None = None,
    kinds: Mapping[str, FeatureKind] | None = None,
) -> Dataset:
    """Read a log that its source has already split, as one data set with shared ids.

    Args:
        train: The training part: a table, or a list of neighbours (.txt).
        test: The test part, in the same format.
        levels: As for `read_dataset`.
        columns: As for `read_dataset`.
        contradictions: As for `read_dataset`.
        users: As for `read_dataset`.
        items: As for `read_dataset`.
        kinds: As for `read_dataset`.

    Returns:
        A data set whose log has a boolean column `is_test`.

    Raises:
        DataFileError: A file does not hold what it should.
        OrdinalError: `levels` do not fit.
    """
    if train.suffix == ".txt":
        return _read_neighbours(train, test, levels)
    return read_table(
        train,
        columns=columns,
        levels=levels,
        contradictions=contradictions,
        test=test,
        users=users,
        items=items,
        kinds=kinds,
    )


def _detect(folder: Path) -> Detector:
    for detector in DETECTORS:
        if detector.fits(folder):
            return detector
    looked = "; ".join(f"{' and '.join(one.files)} ({one.name})" for one in DETECTORS)
    found = sorted(entry.name for entry in folder.iterdir())[:8]
    raise DataFileError(
        f"{folder} must hold the files of a known format; looked for {looked}; got {found}. Name a table "
        f"({', '.join(SUFFIXES)}) itself, with `columns`."
    )


def _is_campaign(path: Path) -> bool:
    """Whether a CSV file is a log of Open Bandit."""
    if not path.name.endswith((".csv", ".csv.gz")):
        return False
    return {"propensity_score", "item_id", "click"} <= set(column_names(path, TextLayout()))


def _read_neighbours(train: Path, test: Path | None, levels: Steps) -> Dataset:
    if levels is not None:
        raise OrdinalError(
            f"`levels` must be left out for lists of neighbours, which only say what was met; got {list(levels)} for "
            f"{train}. Drop the argument."
        )
    return read_adjacency(train, test)


def _test(folder: Path) -> Path | None:
    return folder / "test.txt" if (folder / "test.txt").is_file() else None
