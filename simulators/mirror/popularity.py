"""How much better popular items are liked, with their attributes held fixed: one number of a fitted model."""

import numpy as np

from simulators.mirror.beliefs import Utilities
from simulators.mirror.effects import Effect
from simulators.mirror.steps import Rows, Values, expected_pull
from simulators.world.choice import NestedChoice

ROUNDS = 10
FIRST_VARIANCE = 0.1
FLOOR = 1e-5


def item_popularity(rows: Rows, n_items: int) -> Values:
    """log(1 + rows) of each item, standardised over the items; zero where all are alike. Shape (I,)."""
    raw = np.log1p(np.bincount(rows.items, minlength=n_items))
    found: Values = (raw - raw.mean()) / (raw.std() or 1.0)
    return found


def popularity_effect(
    rows: Rows,
    believed: Utilities,
    choice: NestedChoice,
    *,
    effects: Values,
    doubt: Values,
    features: Values,
    popularity: Values,
) -> Effect:
    """Slope of items' effects on popularity, in logits of the first step for one standard deviation.

    Items' effects are learned anew, with Newton steps, about a bent line in popularity and attributes, since about a
    straight one little-known items, of which few rows tell, would be drawn to what holds for others. The slope is that
    of the best straight line through the effects, all items counting alike. What is believed of users and factors stays
    as it is.

    Args:
        rows: What was observed.
        believed: Of its utilities.
        choice: How a utility becomes a level.
        effects: Mean of each item's effect in `believed`. Shape (I,).
        doubt: Its variance there. Shape (I,).
        features: Attributes less their means. Shape (I, F).
        popularity: See `item_popularity`. Shape (I,).

    Returns:
        The slope, and its error from the squares that are left, which need not be alike, with the doubt that is left
        (White 1980, "A heteroskedasticity-consistent covariance matrix estimator"); items are the independent units.
    """
    n_items = len(popularity)
    line_design = np.column_stack([popularity, features, np.ones(n_items)])
    design = np.column_stack([line_design, _bends(popularity)])
    apart = believed.mean - effects[rows.items], np.maximum(believed.variance - doubt[rows.items], 0.0)
    spread = float(effects.var()) + FIRST_VARIANCE
    for _ in range(ROUNDS):
        pull = expected_pull(choice, rows, apart[0] + effects[rows.items], apart[1] + doubt[rows.items])
        slope = np.bincount(rows.items, weights=pull.slope, minlength=n_items)
        curvature = np.bincount(rows.items, weights=pull.curvature, minlength=n_items)
        # What the rows alone say of an item, weighed by how far it may be off the curve.
        told, weight = slope + curvature * effects, curvature / (1 + spread * curvature)
        target = design.T @ (told / (1 + spread * curvature))
        curve = design @ np.linalg.lstsq(design.T @ (design * weight[:, None]), target, rcond=None)[0]
        doubt = 1 / (1 / spread + curvature)
        effects = doubt * (curve / spread + told)
        spread = float(((effects - curve) ** 2 + doubt).mean()) + FLOOR
    found = np.linalg.lstsq(line_design, effects, rcond=None)[0]
    others = line_design[:, 1:]
    own = popularity - others @ np.linalg.lstsq(others, popularity, rcond=None)[0]
    away = (effects - line_design @ found) ** 2 + doubt
    if not own @ own > 0:
        return Effect(float(found[0]), np.nan)
    return Effect(float(found[0]), float(np.sqrt(own**2 @ away) / (own @ own)))


def _bends(popularity: Values) -> Values:
    """Hinges that let a line in popularity bend at its quintiles. Shape (I, 4)."""
    knots = np.quantile(popularity, [0.2, 0.4, 0.6, 0.8])
    found: Values = np.maximum(popularity[:, None] - knots, 0.0)
    return found
