"""Users learned from a log with the setting that its own held-out rows choose."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from recsys.columns import ITEM, LEVEL, POSITION, USER
from simulators.mirror.fitting import fit_levels
from simulators.mirror.level_model import LevelModel

Values = NDArray[np.float64]

HELD_OUT = 0.1
"""Share of each user's rows, the last ones, that settings are tried on."""


class Setting(NamedTuple):
    """What a log's own held-out rows choose among.

    n_factors: Number of what is learned of an item beyond attributes and effect.
    use_exposure: Whether what a user came across counts as a sign of taste: it does where people looked for what they
        saw, and misleads where it was drawn for them.
    """

    n_factors: int
    use_exposure: bool

    def __str__(self) -> str:
        """In words."""
        return f"{self.n_factors} factors, {'with' if self.use_exposure else 'without'} exposure"


SETTINGS = (Setting(0, False), Setting(0, True), Setting(4, False), Setting(4, True))


class Selected(NamedTuple):
    """What was chosen.

    model: Fitted to the whole log.
    setting: The one chosen.
    tried: NLL on the held-out rows, in nats, by setting; empty where too little is left to try them on.
    """

    model: LevelModel
    setting: Setting
    tried: dict[Setting, float]


def fit_best_levels(
    log: pd.DataFrame,
    features: ArrayLike,
    *,
    n_users: int,
    n_levels: int = 5,
    iterations: int = 40,
    trial_iterations: int | None = None,
    settings: Sequence[Setting] = SETTINGS,
    seed: int,
) -> Selected:
    """Fit to a log with the setting that foretells the last tenth of each user's rows of it best.

    Args:
        log: Training rows, by user, then time; see `fit_levels`.
        features: Attributes of the items. Shape (I, F).
        n_users: Number of users.
        n_levels: Number of levels.
        iterations: Rounds of the final fit.
        trial_iterations: Rounds of a trial; half as many if None.
        settings: What to choose among.
        seed: Of every fit.

    Returns:
        The choice; the first setting where the rows before the held-out ones lack a level.

    Raises:
        MirrorError: The log lacks a level.
    """

    def fit(rows: pd.DataFrame, setting: Setting, rounds: int) -> LevelModel:
        return fit_levels(
            rows,
            features,
            n_users=n_users,
            n_levels=n_levels,
            iterations=rounds,
            seed=seed,
            **setting._asdict(),
        )

    earlier, held_out = split_by_user(log, 1 - HELD_OUT)

    def loss(setting: Setting) -> float:
        trial = fit(earlier, setting, trial_iterations or max(iterations // 2, 1))
        return float(log_losses(level_probabilities(trial, held_out), held_out).mean())

    possible = len(held_out) > 0 and earlier[LEVEL].nunique() == n_levels
    tried = {setting: loss(setting) for setting in settings} if possible else {}
    best = min(tried, key=lambda setting: tried[setting], default=settings[0])
    return Selected(fit(log, best, iterations), best, tried)


def split_by_user(log: pd.DataFrame, share: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The first `share` of each user's rows, which must be in the order of time, and the rest."""
    place = log.groupby(USER).cumcount().to_numpy()
    size = log.groupby(USER)[LEVEL].transform("size").to_numpy()
    early = place < np.floor(share * size)
    return log[early].reset_index(drop=True), log[~early].reset_index(drop=True)


def level_probabilities(model: LevelModel, rows: pd.DataFrame) -> Values:
    """P(level) of the rows of a log, at their positions where it tells them. Shape (N, K)."""
    place = rows[POSITION].to_numpy() if POSITION in rows else 0
    return model.probabilities(rows[USER], rows[ITEM], position=place)


def log_losses(probabilities: Values, rows: pd.DataFrame) -> Values:
    """-log P(level) of each row, in nats. Shape (N,)."""
    return np.asarray(
        -np.log(np.take_along_axis(probabilities, rows[LEVEL].to_numpy()[:, None], axis=1)[:, 0])
    )
