"""KuaiRand Pure, 1K and 27K (Gao et al., CIKM 2022): videos shown in an app, with every kind of reaction.

`log_standard_*.csv` holds what the app's own policies showed, `log_random_*.csv` what was drawn at random; beside
them `user_features_*.csv` and `video_features_basic_*.csv`. The statistics in `video_features_statistic_*.csv` are
sums over the whole period, future included, so they are never read.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from recsys.data.dataset import Dataset, FeatureKind
from recsys.data.readers.assemble import LogColumns, build_dataset, stack
from recsys.data.readers.features import (
    FeatureTable,
    category_cells,
    feature_table,
    number_cells,
    set_cells,
)
from recsys.data.readers.levels import ContradictionPolicy, check_names, levels_from_flags
from recsys.data.readers.lines import TextLayout
from recsys.data.readers.raw import flag_column, id_column, number_column
from recsys.data.readers.text import column_names, read_raw
from recsys.data.readers.times import time_column
from recsys.errors import DataFileError

STEPS = {
    "click": "is_click",
    "like": "is_like",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
    "hate": "is_hate",
    "long_view": "long_view",
}
DEFAULT_LEVELS = ("click", "like", "follow")
LOGS = {"standard": ("log_standard_",), "random": ("log_random_",), "both": ("log_standard_", "log_random_")}
CATEGORIES = frozenset(
    "user_active_degree is_lowactive_period is_live_streamer is_video_author follow_user_num_range "
    "fans_user_num_range friend_user_num_range register_days_range author_id video_type upload_type visible_status "
    "music_id music_type".split()
) | {f"onehot_feat{place}" for place in range(18)}
NUMBERS = frozenset(
    "follow_user_num fans_user_num friend_user_num register_days video_duration server_width server_height".split()
)


def read_kuairand(
    folder: Path,
    *,
    levels: Sequence[str] | None = None,
    contradictions: ContradictionPolicy = ContradictionPolicy.DEEPEST,
    logs: str = "both",
) -> Dataset:
    """Read a KuaiRand folder.

    The log keeps two columns of its own: `is_random`, whether the video was drawn at random, and `tab`, the place in
    the app.

    Args:
        folder: Holds the files, itself or in `data/`.
        levels: Steps from shallow to deep among `STEPS`; None is click, like, follow.
        contradictions: What becomes of a row that went deep without a shallower step.
        logs: "standard", "random" or "both".

    Raises:
        DataFileError: No log is there, or a file does not hold what it should.
        OrdinalError: `levels` names no such step.
    """
    steps = tuple(levels or DEFAULT_LEVELS)
    check_names(steps, list(STEPS))
    if logs not in LOGS:
        raise DataFileError(f"`logs` must be one of {', '.join(LOGS)}; got {logs!r}. Choose one.")
    home = folder / "data" if (folder / "data").is_dir() else folder
    paths = [path for start in LOGS[logs] for path in sorted(home.glob(f"{start}*.csv"))]
    if not paths:
        wanted = " or ".join(f"{start}*.csv" for start in LOGS[logs])
        raise DataFileError(f"{home} must hold {wanted}; got none. Unpack the data set there.")
    parts = [_read_log(path, steps) for path in paths]
    flags = pd.concat([flags for _, flags, _ in parts], ignore_index=True)
    notes = [f"The log joins {', '.join(path.name for path in paths)}.", parts[0][2]]
    if any(home.glob("video_features_statistic_*.csv")):
        notes.append("video_features_statistic is not read: its sums know the future.")
    return build_dataset(
        folder.resolve().name,
        stack([log for log, _, _ in parts]),
        levels_from_flags(flags, steps, contradictions),
        users=_read_features(home.glob("user_features_*.csv"), "user_id"),
        items=_read_features(home.glob("video_features_basic_*.csv"), "video_id"),
        notes=notes,
    )


def _read_log(path: Path, steps: tuple[str, ...]) -> tuple[LogColumns, pd.DataFrame, str]:
    """One log, the flags of its steps, and how its times were read."""
    numbers = ["time_ms", "tab", *(STEPS[step] for step in steps)]
    raw = read_raw(path, TextLayout(), ids=("user_id", "video_id"), numbers=numbers)
    seconds, note = time_column(raw, "time_ms", unit="milliseconds")
    flags = pd.DataFrame({step: flag_column(raw, STEPS[step]) for step in steps})
    is_random = np.full(raw.cells.num_rows, path.name.startswith("log_random_"))
    others = {"is_random": is_random, "tab": number_column(raw, "tab").astype(np.int64)}
    return LogColumns(id_column(raw, "user_id"), id_column(raw, "video_id"), seconds, others), flags, note


def _read_features(paths: Iterable[Path], id_name: str) -> FeatureTable | None:
    """The first of the files, None where there is none."""
    path = next(iter(sorted(paths)), None)
    if path is None:
        return None
    names = column_names(path, TextLayout())
    numbers = [name for name in names if name in NUMBERS]
    texts = [name for name in names if name in CATEGORIES or name == "tag"]
    raw = read_raw(path, TextLayout(), ids=(id_name,), numbers=numbers, texts=texts)
    table = feature_table(raw, id_name)
    for name in names:
        if name in NUMBERS:
            table.add(name, FeatureKind.DENSE, number_cells(raw.cells[name]))
        elif name in CATEGORIES:
            table.add(name, FeatureKind.CATEGORICAL, category_cells(raw.cells[name]))
        elif name == "tag":
            table.add(name, FeatureKind.MULTI_HOT, set_cells(raw.cells[name], ","))
    if unread := [name for name in names if name not in raw.cells.column_names]:
        table.notes.append(f"Columns {unread} of {path.name} are not read.")
    return table
