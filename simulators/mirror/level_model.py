"""The ordinal choice model of a log: how deep each user goes with each item at each place, with honest doubt.

P(level | user, item, position) follows `world.choice.NestedChoice`, whose utility is believed to be Gaussian (see
`beliefs`). Everything is averaged over that belief, so a user of whom little is known gets probabilities near the
average user's, not bold ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from persona.artefacts import load_artefact, save_artefact
from recsys import columns
from simulators.errors import MirrorError
from simulators.mirror.beliefs import Gaussians, Grouped, update_users, utilities
from simulators.mirror.effects import Effect
from simulators.mirror.exposure import Shown, browsed_chances, user_evidence
from simulators.mirror.slates import known_slates
from simulators.mirror.steps import Ints, Rows, Values, expected_probabilities, expected_pull
from simulators.world.choice import NestedChoice

KIND = "level model"
ROWS_AT_ONCE = 100_000
FOLD_IN_STEPS = 12


@dataclass(frozen=True, eq=False)
class LevelModel:
    """A population and a catalogue as a log shows them.

    Attributes:
        features: Known attributes of the items less their means. Shape (I, F), float64.
        popularity: Standardised log(1 + rows in the log) of every item. Shape (I,).
        share: What part of browsed rows each item has. Shape (I,).
        gamma: How strongly taste decides what a user comes across (see `exposure`).
        browsed: What part of slates taste decides; the others are drawn evenly.
        choice: How a utility becomes a level.
        users: Beliefs about weights over [attributes, factors, 1]. Shapes (U, D), (U, D, D).
        items: Beliefs about [factors, effect]. Shapes (I, R + 1), (I, R + 1, R + 1).
        population: What is believed of a user without rows. Shapes (1, D), (1, D, D).
        effects: `position` (a unit is one of -log(1 + place), on the first step) and `popularity` (a unit is one
            standard deviation, on utility, attributes held fixed), with standard errors.
    """

    features: Values
    popularity: Values
    share: Values
    gamma: float
    browsed: float
    choice: NestedChoice
    users: Gaussians
    items: Gaussians
    population: Gaussians
    effects: Mapping[str, Effect]

    @property
    def n_levels(self) -> int:
        """Number of levels K."""
        return len(self.choice.thresholds) + 1

    def utility(self, users: ArrayLike, items: ArrayLike) -> tuple[Values, Values]:
        """Mean and variance of what is believed of each utility, in logits of the first step; shape (B,) each.

        Args:
            users: Rows of the users. Shape (B,).
            items: Rows of the items. Shape (B,).

        Raises:
            MirrorError: A row that the model does not hold, or arrays of different shapes.
        """
        who, what = np.asarray(users, np.int64), np.asarray(items, np.int64)
        check_rows(who, what, n_users=len(self.users.mean), n_items=len(self.features))
        mean, variance = np.zeros(len(who)), np.zeros(len(who))
        for start in range(0, len(who), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            none = np.zeros_like(who[part])
            rows = Rows(who[part], what[part], none, none)
            grouped = Grouped.of(rows.users, self.users.mean.shape[1])
            found = utilities(rows, self.features, self.users, self.items, grouped)
            mean[part], variance[part] = found.mean, found.variance
        return mean, variance

    def probabilities(self, users: ArrayLike, items: ArrayLike, *, position: ArrayLike = 0) -> Values:
        """P(level = k), averaged over what is believed. Shape (B, K), rows sum to 1.

        Args:
            users: Shape (B,).
            items: Shape (B,).
            position: 0-based place in the slate, one for all or shape (B,).
        """
        return expected_probabilities(self.choice, *self.utility(users, items), position=position)

    def for_users(self, log: pd.DataFrame, n_users: int) -> "LevelModel":
        """The same items and population with other users, known by the rows of a log of theirs.

        Args:
            log: Columns user_id (0..n_users-1), item_id, level and, where known, position and timestamp, with rows as
                for `fit_levels`.
            n_users: Number of users; one without rows is the average user, with all the doubt.

        Raises:
            MirrorError: A row speaks of a user, an item or a level that does not exist.
        """
        rows = rows_of_log(log, n_users=n_users, n_items=len(self.features), n_levels=self.n_levels)
        users = Gaussians(
            np.repeat(self.population.mean, n_users, axis=0),
            np.repeat(self.population.covariance, n_users, axis=0),
        )
        grouped = Grouped.of(rows.users, users.mean.shape[1])
        slates = known_slates(log)
        for _ in range(FOLD_IN_STEPS):
            shown = self._shown(rows, slates, users)
            met = user_evidence(shown, self.features, self.items, self.population, self.gamma)
            found = utilities(rows, self.features, users, self.items, grouped)
            pull = expected_pull(self.choice, rows, found.mean, found.variance)
            users = update_users(
                rows,
                self.features,
                users,
                self.items,
                pull,
                by_user=grouped,
                prior=self.population,
                other=met,
            )
        return replace(self, users=users)

    def _shown(self, rows: Rows, slates: Ints | None, users: Gaussians) -> Shown:
        """What users who are believed to be `users` met by browsing."""
        chance, size = np.ones(len(rows.users)), (len(users.mean), len(self.features))
        shown = Shown.of(rows, *size, browsed=chance, share=self.share)
        if slates is None or self.browsed == 1.0:
            return shown
        chance = browsed_chances(
            rows,
            slates,
            shown,
            self.features,
            users,
            self.items,
            self.population,
            gamma=self.gamma,
            share=self.browsed,
        )
        return Shown.of(rows, *size, browsed=chance, share=self.share)

    def save(self, folder: Path, name: str = "level_model") -> None:
        """Write `name`.safetensors and `name`.json into `folder`."""
        arrays = {"features": self.features, "popularity": self.popularity, "share": self.share}
        for part in ("users", "items", "population"):
            held: Gaussians = getattr(self, part)
            arrays |= {f"{part}_mean": held.mean, f"{part}_covariance": held.covariance}
        arrays |= {"thresholds": self.choice.thresholds, "slopes": self.choice.slopes}
        facts = {
            "position_effect": self.choice.position_effect,
            "gamma": self.gamma,
            "browsed": self.browsed,
            # JSON has no NaN.
            "effects": {
                name: [e.value, e.error if np.isfinite(e.error) else None] for name, e in self.effects.items()
            },
        }
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        save_artefact(folder, name, kind=KIND, tensors=tensors, facts=facts)

    @classmethod
    def load(cls, folder: Path, name: str = "level_model") -> "LevelModel":
        """The model that `save` wrote.

        Raises:
            DataError: The files are missing or damaged.
        """
        tensors, facts = load_artefact(folder, name, kind=KIND)
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
        parts = {
            part: Gaussians(arrays[f"{part}_mean"], arrays[f"{part}_covariance"])
            for part in ("users", "items", "population")
        }
        choice = NestedChoice(arrays["thresholds"], arrays["slopes"], facts["position_effect"])
        effects = {
            name: Effect(value, np.nan if error is None else error)
            for name, (value, error) in facts["effects"].items()
        }
        return cls(
            arrays["features"],
            arrays["popularity"],
            arrays["share"],
            facts["gamma"],
            facts["browsed"],
            choice,
            **parts,
            effects=effects,
        )


def rows_of_log(log: pd.DataFrame, *, n_users: int, n_items: int, n_levels: int) -> Rows:
    """The rows of a log as arrays; positions are 0 where the log has none.

    Args:
        log: Columns user_id, item_id, level and perhaps position.
        n_users: Number of users U.
        n_items: Number of items I.
        n_levels: Number of levels K.

    Raises:
        MirrorError: A value outside its range.
    """
    who, what, level = (log[c].to_numpy(np.int64) for c in (columns.USER, columns.ITEM, columns.LEVEL))
    _check_range("user_id", who, n_users)
    _check_range("item_id", what, n_items)
    _check_range("level", level, n_levels)
    place = (
        log[columns.POSITION].to_numpy(np.int64) if columns.POSITION in log.columns else np.zeros_like(who)
    )
    if len(place) and place.min() < 0:
        raise MirrorError(f"`position` must be at least 0; got {place.min()}. Count places from 0.")
    return Rows(who, what, level, place)


def check_rows(users: NDArray[np.int64], items: NDArray[np.int64], *, n_users: int, n_items: int) -> None:
    """Refuse pairs that a model does not hold.

    Args:
        users: Shape (B,).
        items: Shape (B,).
        n_users: Number of users U.
        n_items: Number of items I.

    Raises:
        MirrorError: A row outside its range, or arrays of different shapes.
    """
    if users.ndim != 1 or users.shape != items.shape:
        raise MirrorError(
            f"`users` and `items` must both have shape (B,); got {users.shape} and {items.shape}. Give one of "
            "each a pair."
        )
    _check_range("users", users, n_users)
    _check_range("items", items, n_items)


def _check_range(name: str, values: NDArray[np.int64], size: int) -> None:
    wrong = values[(values < 0) | (values >= size)]
    if len(wrong):
        raise MirrorError(
            f"`{name}` must lie in 0..{size - 1}; got {wrong[:3].tolist()}. Number them by the model's own rows."
        )
