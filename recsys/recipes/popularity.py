"""Popularity of all times, or of late, from a config."""

from pydantic import BaseModel, ConfigDict, Field

from recsys.models.ease import Weighting, level_weights
from recsys.models.popularity import Popularity
from recsys.models.recent_popularity import fit_recent_popularity
from recsys.recipes.ease import Report
from recsys.types import Histories


class PopularityConfig(BaseModel):
    """What counts, and how fast it fades."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Deepest level C of the histories.
    levels: int = Field(default=4, ge=1)
    # Level from which an item counts as wanted, 1..levels.
    relevant_level: int = Field(default=2, ge=1)
    # What a row counts for: 1 from `relevant_level` on ("wanted"), or level / C ("graded").
    weighting: Weighting = "wanted"
    # Age in days at which a row counts half, above 0; None counts all ages alike and needs no times.
    half_life_days: float | None = Field(default=None, gt=0)


def train(
    histories: Histories,
    *,
    seed: int,
    config: PopularityConfig | None = None,
    times: Histories | None = None,
    report: Report | None = None,
    device: str = "cpu",
) -> Popularity:
    """Count the training users' rows.

    Args:
        histories: Training users. Shape (U, I).
        seed: Not used; nothing is drawn.
        config: None takes the defaults.
        times: When each entry happened; needed with `half_life_days` only. The same entries, shape (U, I).
        report: Not called; there are no steps.
        device: Not used; counts stay on the CPU.

    Raises:
        InteractionError: `half_life_days` is set and there are no times.
        ShapeError: `times` does not have the entries of `histories`.
        OrdinalError: A history holds a level above `levels`, or `relevant_level` lies above it.
    """
    del seed, report, device
    settings = PopularityConfig() if config is None else config
    weights = level_weights(
        settings.weighting, levels=settings.levels, relevant_level=settings.relevant_level
    )
    if settings.half_life_days is None:
        return Popularity.fit(histories, levels=settings.levels, level_weights=weights)
    return fit_recent_popularity(
        histories,
        times,
        half_life_days=settings.half_life_days,
        levels=settings.levels,
        level_weights=weights,
    )
