"""What rehearsals with a finished run need beside its agent: who is invited to talk, and what is known of them.

The run is read and never changed.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from app.errors import ConfigError
from app.pipeline.context import Ints, RunContext
from app.pipeline.conversations import unseen_condition
from app.pipeline.rounds import known_log, learner_condition
from persona.types import Condition
from recsys.columns import ITEM, LEVEL, USER
from recsys.types import histories_from_log
from simulators.randomness import keyed_uniforms

_TARGET = 461


class Guests(NamedTuple):
    """Users who are invited to talk.

    users: Their rows in the population, sorted. Shape (N,).
    histories: What the agent knows of their past. Shape (N, I).
    condition: What the policy knows of them, N rows.
    targets: The item that each is after, as its row in the catalogue; None where they are after none. Shape (N,).
    """

    users: Ints
    histories: csr_array
    condition: Condition
    targets: list[int] | None = None


def invite_learners(run: RunContext, count: int, *, seed: int) -> Guests:
    """Some of the users whom the run learned from, at random.

    Raises:
        ConfigError: There are not so many.
    """
    users = _draw(run.groups.learners, count, "learners", np.random.default_rng((seed, 0)))
    histories = histories_from_log(known_log(run, 0), users, len(run.world.catalogue))
    return Guests(users, histories, learner_condition(run, users, 1))


def invite_unseen(run: RunContext, count: int, *, seed: int) -> Guests:
    """Some of the users whom the run never trained on, at random.

    Raises:
        ConfigError: There are not so many.
    """
    users = _draw(run.groups.unseen, count, "unseen users", np.random.default_rng((seed, 1)))
    places = np.searchsorted(run.groups.unseen, users)
    known = unseen_condition(run, run.config.shots).select(places.tolist())
    return Guests(users, run.unseen_histories[0][places], known)


def with_targets(run: RunContext, guests: Guests, *, seed: int) -> Guests:
    """The same guests, each after one item: of those that the user went deepest with, one by chance.

    The item is taken out of what the agent knows of the user, who would otherwise never be offered it again. What is
    kept for measuring, real later ratings, gives no target to learners.

    Args:
        run: The finished run.
        guests: Who is invited.
        seed: Draws among equals.
    """
    logs, later = [run.world.log], run.world.later
    if later is not None:
        logs.append(later[~later[USER].isin(run.groups.learners)])
    log = pd.concat(logs)
    own = log[log[USER].isin(guests.users)]
    luck = keyed_uniforms(seed, own[USER].to_numpy(np.int64), own[ITEM].to_numpy(np.int64), _TARGET)
    deepest = own.assign(luck=luck).sort_values([LEVEL, "luck"]).drop_duplicates(USER, keep="last")
    targets = deepest.sort_values(USER)[ITEM].to_numpy(np.int64)
    known = guests.histories.tocoo()
    rows, items = known.coords
    kept = items != targets[rows]
    histories = csr_array((known.data[kept], (rows[kept], items[kept])), shape=known.shape)
    return guests._replace(histories=histories, targets=targets.tolist())


def _draw(users: Ints, count: int, name: str, rng: np.random.Generator) -> Ints:
    if count > len(users):
        raise ConfigError(
            f"A rehearsal must ask for at most the {len(users)} {name} of the run; got {count}. Lower the number, or "
            "make a run with more."
        )
    return np.sort(rng.permutation(users)[:count])
