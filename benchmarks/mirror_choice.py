"""How predictions of levels are judged by user."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.columns import LEVEL, USER
from recsys.metrics.discrimination import auc, grouped_auc
from recsys.significance import bootstrap_interval
from simulators.mirror.selection import log_losses

Values = NDArray[np.float64]

N_BOOT = 300


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
