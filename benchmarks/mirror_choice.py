"""How the settings of a fitted choice model are chosen, and how predictions of levels are judged by user."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.columns import LEVEL, POSITION, USER
from recsys.metrics.discrimination import auc, grouped_auc
from recsys.significance import bootstrap_interval
from simulators.mirror import LevelModel, fit_levels

Values = NDArray[np.float64]

N_BOOT = 300


class Setting(NamedTuple):
    """What the log's own held-out rows choose among: factors, and whether what was met counts."""

    n_factors: int
    use_exposure: bool


SETTINGS = (Setting(0, False), Setting(0, True), Setting(4, False), Setting(4, True))


def split_by_user(log: pd.DataFrame, share: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The first `share` of each user's rows, which must be in the order of time, and the rest."""
    place = log.groupby(USER).cumcount().to_numpy()
    size = log.groupby(USER)[LEVEL].transform("size").to_numpy()
    early = place < np.floor(share * size)
    return log[early].reset_index(drop=True), log[~early].reset_index(drop=True)


def predict(model: LevelModel, rows: pd.DataFrame) -> Values:
    """P(level) of the rows of a log. Shape (N, K)."""
    place = rows[POSITION].to_numpy() if POSITION in rows else 0
    return model.probabilities(rows[USER], rows["item_id"], position=place)


def log_losses(probabilities: Values, rows: pd.DataFrame) -> Values:
    """-log P(level) of each row, in nats."""
    return np.asarray(
        -np.log(np.take_along_axis(probabilities, rows[LEVEL].to_numpy()[:, None], axis=1)[:, 0])
    )


def fit_best(
    log: pd.DataFrame,
    features: Values,
    *,
    n_users: int,
    n_levels: int = 5,
    iterations: int,
    settings: tuple[Setting, ...] = SETTINGS,
) -> tuple[LevelModel, Setting, dict[str, float]]:
    """Fit to the log with the setting that foretells the last tenth of each user's rows of it best.

    Args:
        log: Training rows, by user, then time.
        features: Attributes of the items. Shape (I, F).
        n_users: Number of users.
        n_levels: Number of levels.
        iterations: Rounds of the final fit; trials get half.
        settings: What to choose among.

    Returns:
        The model, the setting chosen, and every setting's held-out NLL in nats.
    """
    fit, held_out = split_by_user(log, 0.9)
    losses = []
    for setting in settings:
        trial = fit_levels(
            fit,
            features,
            n_users=n_users,
            n_levels=n_levels,
            iterations=max(iterations // 2, 1),
            seed=0,
            **setting._asdict(),
        )
        losses.append(float(log_losses(predict(trial, held_out), held_out).mean()))
    best = settings[int(np.argmin(losses))]
    model = fit_levels(
        log, features, n_users=n_users, n_levels=n_levels, iterations=iterations, seed=0, **best._asdict()
    )
    tried = {
        f"{s.n_factors} factors, {'with' if s.use_exposure else 'without'} exposure": loss
        for s, loss in zip(settings, losses, strict=True)
    }
    return model, best, tried


def by_user(values: Values, rows: pd.DataFrame) -> Values:
    """Mean of a row's value for each user with rows."""
    return np.asarray(pd.Series(values).groupby(rows[USER].to_numpy()).mean(), np.float64)


def versus(model: Values, rule: Values, rows: pd.DataFrame, level: int) -> dict[str, object]:
    """How much better a model foretells levels than a rule, with intervals by user.

    Args:
        model: P(level) of the model. Shape (N, K).
        rule: That of the rule.
        rows: What happened.
        level: Level from which a row is positive for the AUC.

    Returns:
        Means by user of the difference in NLL (negative: the model is better) and in AUC within users (positive), and
        the AUC over all rows.
    """
    loss = by_user(log_losses(model, rows) - log_losses(rule, rows), rows)
    happened, users = rows[LEVEL].to_numpy() >= level, rows[USER].to_numpy(np.int64)
    own, other = (grouped_auc(p[:, level:].sum(axis=1), happened, users) for p in (model, rule))
    return {
        "nll": bootstrap_interval(loss, seed=0).to_report(),
        "auc_within_users": bootstrap_interval(own.values - other.values, seed=0).to_report(),
        "auc": _auc_gain(model[:, level:].sum(axis=1), rule[:, level:].sum(axis=1), happened, users),
    }


def _auc_gain(
    model: Values, rule: Values, happened: NDArray[np.bool_], users: NDArray[np.int64]
) -> dict[str, object]:
    """AUC over all rows of both, and their difference with an interval from users drawn again."""
    rng = np.random.default_rng(0)
    owner = np.unique(users, return_inverse=True)[1]
    order, counts = np.argsort(owner, kind="stable"), np.bincount(owner)
    rows_of = np.split(order, np.cumsum(counts)[:-1])
    gains = []
    for _ in range(N_BOOT):
        drawn = np.concatenate([rows_of[u] for u in rng.integers(len(rows_of), size=len(rows_of))])
        gains.append(auc(model[drawn], happened[drawn]) - auc(rule[drawn], happened[drawn]))
    low, high = np.quantile(gains, [0.025, 0.975])
    own, other = auc(model, happened), auc(rule, happened)
    return {"model": own, "rule": other, "gain": own - other, "ci95": [float(low), float(high)]}
