"""Whether the scores that data bring along may be read as objectives of replies, or are the choices themselves."""

from typing import NamedTuple

import numpy as np

from app.profile_features import ReplyScores
from persona.data.preferences import Preferences


class Objectives(NamedTuple):
    """What methods over attributes may read.

    scores: The data's own; None where there are none, or none that may be read.
    reason: Why scores that are there may not be read; empty otherwise.
    unknown: Replies that lack one of the scores, which count as average.
    """

    scores: ReplyScores | None
    reason: str = ""
    unknown: int = 0


def usable_scores(read: Preferences) -> Objectives:
    """The scores of the replies by objective, unless they give the choices away.

    A rating by the very user who chose says who won: a single score, an objective that bears the name of a user, and
    one that is higher for every chosen reply are such.

    Args:
        read: Preferences without ties.
    """
    names = tuple(read.scores)
    if not names:
        return Objectives(None)
    if len(names) < 2:
        return Objectives(None, f"there is {names[0]} alone, and a direction needs several objectives")
    raters = sorted(set(names) & set(read.comparisons.user_ids))
    if raters:
        return Objectives(
            None, f"users such as {raters[0]} are themselves objectives, so scores tell their choices"
        )
    values = np.stack([read.scores[name] for name in names], axis=1)
    table = read.comparisons.table
    gap = values[table.chosen] - values[table.rejected]
    known = np.isfinite(gap)
    tells = ((gap > 0) | ~known).all(0) & known.any(0)
    if tells.any():
        return Objectives(
            None, f"{names[int(tells.argmax())]} is higher for every chosen reply: it tells the choice"
        )
    return Objectives(ReplyScores(names, values), unknown=int((~np.isfinite(values)).any(1).sum()))
