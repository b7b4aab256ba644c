"""iALS from a config."""

from pydantic import BaseModel, ConfigDict, Field

from recsys.models.als import IAls
from recsys.models.ease import Weighting, level_weights
from recsys.recipes.ease import Report
from recsys.types import Histories


class IAlsConfig(BaseModel):
    """How to factorise; `regularization` and `unobserved` as Rendle et al. (RecSys 2022) write them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Deepest level C of the histories.
    levels: int = Field(default=4, ge=1)
    # Level from which an item counts as wanted, 1..levels.
    relevant_level: int = Field(default=2, ge=1)
    # What an item counts for in a history: 1 from `relevant_level` on ("wanted"), or level / C ("graded").
    weighting: Weighting = "wanted"
    # Width of the factors.
    factors: int = Field(default=64, ge=1)
    # Ridge for each weighted row of a user or an item, above 0; .001 to .1 is usual.
    regularization: float = Field(default=0.01, gt=0)
    # Weight of a pair never seen, a seen one having 1 more; above 0, .01 to 1 is usual.
    unobserved: float = Field(default=0.2, gt=0)
    # Sweeps over users and items.
    iterations: int = Field(default=16, ge=1)


def train(
    histories: Histories,
    *,
    seed: int,
    config: IAlsConfig | None = None,
    times: Histories | None = None,
    report: Report | None = None,
    device: str = "cpu",
) -> IAls:
    """Factorise the training users' histories on the CPU.

    Args:
        histories: Training users. Shape (U, I).
        seed: Of the first factors.
        config: None takes the defaults.
        times: Not used; iALS knows no order.
        report: Not called; `implicit` tells no loss for free.
        device: Where to serve.

    Raises:
        MissingDependency: `implicit` is not installed.
        RecsysError: No history holds an item of weight above 0.
        OrdinalError: A history holds a level above `levels`, or `relevant_level` lies above it.
    """
    del times, report
    settings = IAlsConfig() if config is None else config
    return IAls.fit(
        histories,
        level_weights=level_weights(
            settings.weighting, levels=settings.levels, relevant_level=settings.relevant_level
        ),
        factors=settings.factors,
        regularization=settings.regularization,
        unobserved=settings.unobserved,
        iterations=settings.iterations,
        seed=seed,
        device=device,
    )
