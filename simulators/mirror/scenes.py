"""Choice scenes from interaction logs: what a user had done, what was on offer, and what was chosen, or nothing.

Where a log holds what was really shown, a scene is a slate of it (`slate_scenes`). Where it holds only what was taken,
options that were not are drawn (`sampled_scenes`). Three faults of the sampler published with UserMirrorer
(arXiv 2508.18142) are avoided, each of which lets a model that knows nothing of the user score above chance: the chosen
item's slot is uniform over all slots, the last included; the other options are drawn without a look at the chosen
item or at what the user did later; and the history is strictly before the scene.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from recsys import columns
from simulators.errors import MirrorError
from simulators.mirror.slates import LONGEST_GAP_S, number_slates

Ints = NDArray[np.int64]
NONE = -1


@dataclass(frozen=True, eq=False)
class ChoiceScenes:
    """S scenes of up to O options.

    Attributes:
        users: Row of the user. Shape (S,), int64.
        times: When it happened, in seconds. Shape (S,), int64.
        options: Rows of the items by slot, -1 where there are fewer than O. Shape (S, O), int64.
        positions: 0-based place at which each option was shown, 0 where it was drawn. Shape (S, O), int64.
        chosen: Slot that was chosen, -1 for none. Shape (S,), int64.
        history: 1 where the user had met the item before the scene. Shape (S, I).
    """

    users: Ints
    times: Ints
    options: Ints
    positions: Ints
    chosen: Ints
    history: csr_array

    def __post_init__(self) -> None:
        """Check that shapes agree and that what was chosen was on offer.

        Raises:
            MirrorError: They do not, or it was not.
        """
        count = len(self.users)
        shapes = self.times.shape, self.chosen.shape, self.options.shape[:1], self.history.shape[:1]
        if set(shapes) != {(count,)} or self.options.shape != self.positions.shape:
            raise MirrorError(
                f"All parts of scenes must have one row a scene and one column an option; got {count} users, "
                f"options {self.options.shape}, positions {self.positions.shape}, chosen {self.chosen.shape}."
            )
        inside = (self.chosen >= NONE) & (self.chosen < self.options.shape[1])
        picked = np.take_along_axis(self.options, np.maximum(self.chosen, 0)[:, None], axis=1)[:, 0]
        wrong = ~inside | ((self.chosen >= 0) & (picked < 0))
        if wrong.any():
            raise MirrorError(
                f"`chosen` must be the slot of an option, or -1 for none; got {self.chosen[wrong][:3].tolist()}."
            )

    def __len__(self) -> int:
        """Number of scenes S."""
        return len(self.users)

    def take(self, which: NDArray[np.bool_] | Ints) -> "ChoiceScenes":
        """Some of the scenes."""
        rows = np.flatnonzero(which) if which.dtype == bool else which
        return ChoiceScenes(
            self.users[rows],
            self.times[rows],
            self.options[rows],
            self.positions[rows],
            self.chosen[rows],
            self.history[rows],
        )


def slate_scenes(
    log: pd.DataFrame, *, n_items: int, chosen_level: int = 1, longest_gap_s: int = LONGEST_GAP_S
) -> tuple[ChoiceScenes, int]:
    """The slates of a log of exposures as scenes.

    Slates are those of `simulators.mirror.slates`. What reached deepest is the choice, if it reached `chosen_level`;
    slates where two items share that depth show no single choice and are left out.

    Args:
        log: Columns user_id, item_id, level, timestamp and position; rows in any order.
        n_items: Number of items I.
        chosen_level: Least level that counts as chosen.
        longest_gap_s: Seconds between two rows after which a new slate begins.

    Returns:
        The scenes by user, then time, and how many slates were left out.

    Raises:
        MirrorError: The log has no positions.
    """
    if columns.POSITION not in log.columns:
        raise MirrorError(
            f"A log of slates must have a column `{columns.POSITION}`; got {list(log.columns)}. Use `sampled_scenes`."
        )
    ordered = log.sort_values([columns.USER, columns.TIMESTAMP, columns.POSITION], kind="stable")
    users, items, levels, times, places = (
        ordered[name].to_numpy(np.int64)
        for name in (columns.USER, columns.ITEM, columns.LEVEL, columns.TIMESTAMP, columns.POSITION)
    )
    slate = number_slates(ordered, longest_gap_s=longest_gap_s)
    first = np.flatnonzero(np.diff(slate, prepend=-1))
    slot = np.arange(len(users)) - first[slate]
    shape = len(first), int(slot.max()) + 1
    options, positions, depth = np.full(shape, NONE), np.zeros(shape, np.int64), np.full(shape, -1)
    options[slate, slot], positions[slate, slot], depth[slate, slot] = items, places, levels
    deepest = depth.max(axis=1)
    chosen = np.where(deepest >= chosen_level, depth.argmax(axis=1), NONE)
    is_shared = (deepest >= chosen_level) & ((depth == deepest[:, None]).sum(axis=1) > 1)
    history = _history_before(users, items, times, users[first], times[first], n_items)
    scenes = ChoiceScenes(users[first], times[first], options, positions, chosen, history)
    return scenes.take(~is_shared), int(is_shared.sum())


def sampled_scenes(
    log: pd.DataFrame,
    *,
    n_items: int,
    n_options: int = 5,
    min_history: int = 3,
    weights: ArrayLike | None = None,
    seed: int,
) -> ChoiceScenes:
    """Scenes around each row of a log of what was taken, the other options drawn.

    The others are drawn, all different, from the items that the user had not met before, whatever the chosen one is
    and whatever comes later, so an item that the user takes later may be among them. Rows of an item that the user had
    met before are left out: as none of the others is such an item, the chosen one would give itself away.

    Args:
        log: Columns user_id, item_id and timestamp; one row a choice.
        n_items: Number of items I.
        n_options: Options O of a scene, the chosen one included, at least 2.
        min_history: Scenes of users with fewer earlier rows are left out.
        weights: How likely each item is to be drawn, relative to the others; None for all alike. They must not
            depend on the scenes' own time or later. Shape (I,).
        seed: Of all draws.

    Raises:
        MirrorError: Fewer than two options, weights that are not positive, or a user who has met nearly everything.
    """
    if n_options < 2:
        raise MirrorError(f"`n_options` must be at least 2, or nothing is chosen; got {n_options}.")
    chance = np.ones(n_items) if weights is None else np.asarray(weights, np.float64)
    if chance.shape != (n_items,) or not (chance > 0).all():
        raise MirrorError(
            f"`weights` must be {n_items} positive numbers, one an item; got shape {chance.shape} with "
            f"{int((chance > 0).sum())} positive."
        )
    ordered = log.sort_values([columns.USER, columns.TIMESTAMP], kind="stable")
    users, items, times = (
        ordered[name].to_numpy(np.int64) for name in (columns.USER, columns.ITEM, columns.TIMESTAMP)
    )
    history = _history_before(users, items, times, users, times, n_items)
    enough = np.diff(history.indptr) >= min_history
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(enough & ~_history_holds(history, items))
    options, chosen = _draw_options(items[rows], history[rows], n_options, np.log(chance), rng)
    # Nobody saw these options in an order, so a slot is no place: fitted as one, its noise would tilt every scene.
    return ChoiceScenes(users[rows], times[rows], options, np.zeros_like(options), chosen, history[rows])


def place_uniformly(chosen: Ints, others: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Put the chosen item into a slot drawn evenly from all, the last included.

    Args:
        chosen: Shape (S,).
        others: Shape (S, O - 1).
        rng: Draws the slots.

    Returns:
        Options (S, O), and the slot of the chosen one (S,).
    """
    count, width = others.shape
    slot = rng.integers(0, width + 1, size=count)
    place = np.arange(width + 1)
    source = place - (place > slot[:, None])
    options = np.take_along_axis(others, np.minimum(source, width - 1), axis=1)
    options[np.arange(count), slot] = chosen
    return options, slot


def _draw_options(
    chosen: Ints,
    history: csr_array,
    n_options: int,
    log_weights: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[Ints, Ints]:
    """Draw others for blocks of scenes by the largest perturbed log weights (Gumbel), and place the chosen item.

    One more than needed is drawn without a look at the chosen item; if that is among them it is dropped, else the
    last one is. So the others are what they would be whichever unmet item were chosen, but for not repeating it.
    """
    n_items, block = len(log_weights), max(1, 4_000_000 // len(log_weights))
    least = int(n_items - np.diff(history.indptr).max(initial=0))
    if least < n_options:
        raise MirrorError(
            f"Every user must have at least `n_options` ({n_options}) items not met before a scene; got one with "
            f"{least}. Lower `n_options`, or leave that user out."
        )
    drawn = []
    for start in range(0, len(chosen), block):
        part = slice(start, start + block)
        keys = log_weights + rng.gumbel(size=(len(chosen[part]), n_items))
        met = history[part].tocoo()
        keys[met.row, met.col] = -np.inf
        top = np.argpartition(keys, -n_options, axis=1)[:, -n_options:]
        order = np.argsort(-np.take_along_axis(keys, top, axis=1), axis=1)
        drawn.append(np.take_along_axis(top, order, axis=1))
    if not drawn:
        return np.zeros((0, n_options), np.int64), np.zeros(0, np.int64)
    pool = np.concatenate(drawn)
    repeats = pool == chosen[:, None]
    place = np.arange(n_options - 1)
    dropped = np.where(repeats.any(axis=1), repeats.argmax(axis=1), n_options - 1)
    others = np.take_along_axis(pool, place + (place >= dropped[:, None]), axis=1)
    return place_uniformly(chosen, others, rng)


def _history_holds(history: csr_array, items: Ints) -> NDArray[np.bool_]:
    """Whether each row of the history holds the row's own item."""
    owner = np.repeat(np.arange(len(items)), np.diff(history.indptr))
    found = np.zeros(len(items), bool)
    found[owner[history.indices == items[owner]]] = True
    return found


def _history_before(
    users: Ints, items: Ints, times: Ints, scene_users: Ints, scene_times: Ints, n_items: int
) -> csr_array:
    """Items of each scene's user with an earlier time than the scene's. Rows must be sorted by user, then time."""
    first = np.searchsorted(users, scene_users, side="left")
    # Users and times become one rising key, so one search counts a user's rows before a moment.
    ranks = np.unique(np.concatenate([times, scene_times]), return_inverse=True)[1]
    own, asked = ranks[: len(times)], ranks[len(times) :]
    span = int(ranks.max(initial=0)) + 1
    end = np.searchsorted(users * span + own, scene_users * span + asked, side="left")
    counts = end - first
    indptr = np.concatenate([[0], np.cumsum(counts)])
    flat = np.repeat(first - indptr[:-1], counts) + np.arange(indptr[-1])
    found = csr_array(
        (np.ones(len(flat), np.float32), items[flat], indptr), shape=(len(scene_users), n_items)
    )
    found.sum_duplicates()
    found.data[:] = 1.0
    return found
