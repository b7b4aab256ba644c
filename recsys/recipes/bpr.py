"""BPR from a config."""

from pydantic import BaseModel, ConfigDict, Field

from recsys.models.bpr import Bpr
from recsys.models.ease import level_weights
from recsys.recipes.ease import Report
from recsys.types import Histories


class BprConfig(BaseModel):
    """How to train BPR."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Deepest level C of the histories.
    levels: int = Field(default=4, ge=1)
    # Level from which an item is a positive, 1..levels.
    relevant_level: int = Field(default=2, ge=1)
    # Width of the factors, without the bias.
    factors: int = Field(default=64, ge=1)
    # Step of the stochastic descent; together with `iterations` it decides how far the factors grow.
    learning_rate: float = Field(default=0.01, gt=0)
    # Ridge of a step.
    regularization: float = Field(default=0.01, ge=0)
    # Passes, each of as many draws as there are positives.
    iterations: int = Field(default=50, ge=1)


def train(
    histories: Histories,
    *,
    seed: int,
    config: BprConfig | None = None,
    times: Histories | None = None,
    report: Report | None = None,
    device: str = "cpu",
) -> Bpr:
    """Train BPR on the CPU; row u of `histories` is user u for `search`.

    Args:
        histories: Training users. Shape (U, I).
        seed: Of the first factors and the draws.
        config: None takes the defaults.
        times: Not used; BPR knows no order.
        report: Not called; `implicit` tells no loss.
        device: Where to serve.

    Raises:
        MissingDependency: `implicit` is not installed.
        RecsysError: Training diverged, or no history holds a positive.
        OrdinalError: A history holds a level above `levels`, or `relevant_level` lies above it.
    """
    del times, report
    settings = BprConfig() if config is None else config
    return Bpr.fit(
        histories,
        level_weights=level_weights("wanted", levels=settings.levels, relevant_level=settings.relevant_level),
        factors=settings.factors,
        learning_rate=settings.learning_rate,
        regularization=settings.regularization,
        iterations=settings.iterations,
        seed=seed,
        device=device,
    )
