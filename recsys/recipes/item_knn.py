"""ItemKNN from a config."""

from pydantic import BaseModel, ConfigDict, Field

from recsys.models.ease import Weighting, level_weights
from recsys.models.item_knn import ItemKnn
from recsys.recipes.ease import Report
from recsys.types import Histories


class ItemKnnConfig(BaseModel):
    """How to find neighbours."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Deepest level C of the histories.
    levels: int = Field(default=4, ge=1)
    # Level from which an item counts as wanted, 1..levels.
    relevant_level: int = Field(default=2, ge=1)
    # What an item counts for in a history: 1 from `relevant_level` on ("wanted"), or level / C ("graded").
    weighting: Weighting = "wanted"
    # Most similar items kept for each.
    neighbours: int = Field(default=100, ge=1)
    # Added to the product of two items' norms, so that rare pairs count less.
    shrink: float = Field(default=50.0, ge=0)


def train(
    histories: Histories,
    *,
    seed: int,
    config: ItemKnnConfig | None = None,
    times: Histories | None = None,
    report: Report | None = None,
    device: str = "cpu",
) -> ItemKnn:
    """Find each item's neighbours.

    Args:
        histories: Training users. Shape (U, I).
        seed: Not used; nothing is drawn.
        config: None takes the defaults.
        times: Not used; ItemKNN knows no order.
        report: Not called; there are no steps.
        device: Not used; neighbours stay on the CPU.

    Raises:
        OrdinalError: A history holds a level above `levels`, or `relevant_level` lies above it.
    """
    del seed, times, report, device
    settings = ItemKnnConfig() if config is None else config
    weights = level_weights(
        settings.weighting, levels=settings.levels, relevant_level=settings.relevant_level
    )
    return ItemKnn.fit(
        histories, level_weights=weights, neighbours=settings.neighbours, shrink=settings.shrink
    )
