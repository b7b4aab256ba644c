"""How the users of `persona simulate` foretell what real users did: the files that `persona audit` judges it by.

OUT/predictions.parquet    scenes of one item that was taken among items that were not, with the users' probabilities
OUT/reactions.parquet      what the users do with every item of the held-out rows
OUT/held_out.parquet       the held-out rows: what was really done

Only what the users were not fitted to is held out. Where a kind or a world has no such thing, nothing is written, and
the summary says why.
"""

from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from app.casting import learned_levels
from app.files import write_atomically
from app.pipeline.context import RunContext
from app.pipeline.rounds import known_log
from recsys.columns import ITEM, LEVEL, POSITION, TIMESTAMP, USER
from simulators.faithfulness.foretelling import (
    DRAWS,
    ForetellingUser,
    foretell,
    predictions_frame,
    reactions_frame,
    scenes_of_taken,
)
from simulators.mirror.selection import split_by_user
from simulators.protocols import SimulatedUser
from simulators.types import SUCCESS_LEVEL
from simulators.users.film_viewers import FilmViewers
from simulators.users.mirror import MirrorUsers

PREDICTIONS, REACTIONS, HELD_OUT = "predictions.parquet", "reactions.parquet", "held_out.parquet"
_EARLIER_SHARE = 0.8


class HeldOut(NamedTuple):
    """What real users did that simulated ones were not fitted to.

    met: Rows of a log.
    users: The simulated users.
    draws: Persons a user that their probabilities are averaged over.
    fitted_to: What they know of the real users, in words.
    """

    met: pd.DataFrame
    users: ForetellingUser
    draws: int
    fitted_to: str


def held_out_of(run: RunContext, users: SimulatedUser) -> HeldOut | str:
    """What these users can be held to, or in words why there is nothing.

    In a world of real ratings, their later part, which no users are fitted to. In the film world, users learned from
    the log are learned again from its earlier part.

    Args:
        run: The finished run.
        users: Its simulated users of a kind.
    """
    if not isinstance(users, FilmViewers | MirrorUsers):
        return "users of this kind do not say how likely they are to take an item"
    is_learned = isinstance(users, MirrorUsers)
    if run.world.later is not None:
        draws = DRAWS if is_learned else 1
        return HeldOut(run.world.later, users, draws, "the earlier ratings of the same users")
    if not is_learned:
        return "the film world's viewers made its log with these very probabilities, so it cannot test them"
    earlier, later = split_by_user(known_log(run, 0), _EARLIER_SHARE)
    again = MirrorUsers(learned_levels(run, earlier), run.world.catalogue, run.chat)
    share = f"the first {_EARLIER_SHARE:.0%} of each user's rows; those who talk know the rest too"
    return HeldOut(later, again, DRAWS, share)


def write_predictions(run: RunContext, users: SimulatedUser, out: Path, *, seed: int) -> dict[str, Any]:
    """Write the three files, if there is anything to hold the users to.

    Args:
        run: The finished run.
        users: Its simulated users of a kind.
        out: Folder of the simulation.
        seed: Of the simulation.

    Returns:
        For the summary: the number of scenes, their users and options, of held-out rows, and what the users were
        fitted to; or that there are 0 scenes, and why.

    Raises:
        StoreError: The folder cannot be written.
    """
    found = held_out_of(run, users)
    if isinstance(found, str):
        return {"scenes": 0, "why": found}
    scenes = scenes_of_taken(found.met, accept_level=SUCCESS_LEVEL, seed=seed)
    told = foretell(found.users, found.met, scenes, accept_level=SUCCESS_LEVEL, draws=found.draws, seed=seed)
    table = predictions_frame(found.met, scenes, told.choices)
    known = [name for name in (USER, ITEM, LEVEL, TIMESTAMP, POSITION) if name in found.met]
    _write_table(out / REACTIONS, reactions_frame(found.met, told))
    _write_table(out / HELD_OUT, found.met[known])
    summary = {"scenes": len(scenes.slots), "rows": len(found.met), "fitted_to": found.fitted_to}
    if not len(scenes.slots):
        options = scenes.rows.shape[1]
        return {
            **summary,
            "why": f"no user took one held-out item and met {options - 1} others without taking them",
        }
    _write_table(out / PREDICTIONS, table)
    return {**summary, "users": int(table[USER].nunique()), "options": scenes.rows.shape[1]}


def _write_table(path: Path, table: pd.DataFrame) -> None:
    written = BytesIO()
    table.to_parquet(written, index=False)
    write_atomically(path, written.getvalue())
