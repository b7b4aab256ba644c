"""Fitting EASE, its penalty and level weights chosen on users that it was not fitted to."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator
from scipy.sparse import csr_array

from recsys.errors import InteractionError
from recsys.models.ease import Ease, Weighting, level_weights
from recsys.recipes.evaluate import evaluate_retrievers
from recsys.types import Bools, Histories

Report = Callable[[dict[str, float | str]], None]


class EaseConfig(BaseModel):
    """What to choose EASE among, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Deepest level C of the histories.
    levels: int = Field(default=4, ge=1)
    # Level from which an item counts as wanted, 1..levels.
    relevant_level: int = Field(default=2, ge=1)
    # Ridge penalties to try.
    l2: tuple[float, ...] = Field(default=(100.0, 300.0, 1000.0), min_length=1)
    # Weightings of levels to try: 1 from `relevant_level` on ("wanted"), level / C ("graded").
    weightings: tuple[Weighting, ...] = Field(default=("wanted", "graded"), min_length=1)
    # Share of the users kept for choosing.
    validation_users: float = Field(default=0.1, gt=0, lt=1)
    # Share of each of their items hidden, to be found again.
    hidden: float = Field(default=0.2, gt=0, lt=1)

    @field_validator("l2", "weightings", mode="before")
    @classmethod
    def _one_is_a_choice_of_one(cls, value: object) -> object:
        return (value,) if isinstance(value, float | int | str) else value


class Hidden(NamedTuple):
    """Histories cut in two at random: `known` to search from, `hidden` to be found. Shape (B, I) each."""

    known: Histories
    hidden: Histories


def train(
    histories: Histories,
    *,
    seed: int,
    config: EaseConfig | None = None,
    times: Histories | None = None,
    report: Report | None = None,
    device: str = "cpu",
) -> Ease:
    """EASE with the best NDCG@10 on hidden items of validation users, fitted again on everyone.

    Where the config leaves one penalty and one weighting, there is nothing to choose and it is fitted at once.

    Args:
        histories: Training users. Shape (U, I).
        seed: Draws validation users and what is hidden of them.
        config: None takes the defaults.
        times: Not used; EASE knows no order.
        report: Called for each candidate with weighting, l2 and ndcg@10.
        device: Where to invert.

    Returns:
        The fitted model.

    Raises:
        InteractionError: There are too few users to keep some for choosing.
        OrdinalError: A history holds a level above `levels`, or `relevant_level` lies above it.
        RecsysError: The catalogue is too large for EASE.
    """
    del times
    settings = EaseConfig() if config is None else config
    weights = {
        name: level_weights(name, levels=settings.levels, relevant_level=settings.relevant_level)
        for name in settings.weightings
    }
    candidates = [(name, l2) for name in weights for l2 in settings.l2]
    best = candidates[0]
    if len(candidates) > 1:
        others, cut = _keep_some(histories, settings, np.random.default_rng(seed))
        scores: dict[tuple[Weighting, float], float] = {}
        for name, l2 in candidates:
            model = Ease.fit(others, level_weights=weights[name], l2=l2, device=device)
            found = evaluate_retrievers(
                {"ease": model}, cut.known, cut.hidden, cutoffs=(10,), relevant_level=settings.relevant_level
            )
            per_user = found.values["ease"]["ndcg@10"]
            scores[name, l2] = float(per_user.mean()) if len(per_user) else 0.0
            if report is not None:
                report({"weighting": name, "l2": l2, "ndcg@10": scores[name, l2]})
        best = max(scores, key=lambda candidate: scores[candidate])
    return Ease.fit(histories, level_weights=weights[best[0]], l2=best[1], device=device)


def _keep_some(
    histories: Histories, settings: EaseConfig, rng: np.random.Generator
) -> tuple[Histories, Hidden]:
    """Users to fit candidates on, and others cut in two to choose by."""
    n_validation = int(histories.shape[0] * settings.validation_users)
    if n_validation == 0:
        raise InteractionError(
            f"EASE is chosen on {settings.validation_users:.0%} of the users, which must be at least one; got "
            f"{histories.shape[0]} users. Raise `validation_users`, or leave one `l2` and one of `weightings`."
        )
    order = rng.permutation(histories.shape[0])
    cut = hide_at_random(histories[np.sort(order[:n_validation])], settings.hidden, rng)
    return histories[np.sort(order[n_validation:])], cut


def hide_at_random(histories: Histories, share: float, rng: np.random.Generator) -> Hidden:
    """Each entry hidden with probability `share`, independently."""
    owner = np.repeat(np.arange(histories.shape[0]), np.diff(histories.indptr))
    is_hidden = rng.random(len(owner)) < share

    def keep(chosen: Bools) -> Histories:
        places = (owner[chosen], histories.indices[chosen])
        return csr_array((histories.data[chosen], places), shape=histories.shape)

    return Hidden(keep(~is_hidden), keep(is_hidden))
