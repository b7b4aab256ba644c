"""How much better popular items are liked, with their attributes held fixed.

Popularity is what a log shows most readily and what it distorts most: little-known items are met by those who like
them, so that their effects look too large. Slates drawn evenly are free of this, and show all items equally often, so
the effect is told by them alone where the log has some (`exposure.browsed_chances`).
"""

import numpy as np

from simulators.mirror.beliefs import Utilities
from simulators.mirror.effects import Effect
from simulators.mirror.steps import Rows, Values, expected_pull
from simulators.world.choice import NestedChoice

ROUNDS = 20
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
    weights: Values,
) -> Effect:
    """Slope of items' effects on popularity, in logits of the first step for one standard deviation.

    Items' effects are learned anew from weighted rows, about a line in popularity and attributes, by EM as in
    `fitting`; what is believed of users and factors stays as it is.

    Args:
        rows: What was observed.
        believed: Of its utilities.
        choice: How a utility becomes a level.
        effects: Mean of each item's effect in `believed`. Shape (I,).
        doubt: Its variance there. Shape (I,).
        features: Attributes less their means. Shape (I, F).
        popularity: See `item_popularity`. Shape (I,).
        weights: How far each row counts. Shape (N,).

    Returns:
        The slope, its error from the items' scores, as items are the independent units.
    """
    n_items = len(popularity)
    design = np.column_stack([popularity, features, np.ones(n_items)])
    apart = believed.mean - effects[rows.items], np.maximum(believed.variance - doubt[rows.items], 0.0)
    line, spread = np.zeros(n_items), float(effects.var()) + FIRST_VARIANCE
    value = 0.0
    for _ in range(ROUNDS):
        pull = expected_pull(choice, rows, apart[0] + effects[rows.items], apart[1] + doubt[rows.items])
        slope = np.bincount(rows.items, weights=weights * pull.slope, minlength=n_items)
        curvature = np.bincount(rows.items, weights=weights * pull.curvature, minlength=n_items)
        doubt = 1 / (1 / spread + curvature)
        effects = doubt * (line / spread + slope + curvature * effects)
        found = np.linalg.lstsq(design, effects, rcond=None)[0]
        value, line = float(found[0]), design @ found
        spread = float(((effects - line) ** 2 + doubt).mean()) + FLOOR
    own = popularity - design[:, 1:] @ np.linalg.lstsq(design[:, 1:], popularity, rcond=None)[0]
    information = float(((own * (effects - line) / spread) ** 2).sum())
    return Effect(value, 1 / np.sqrt(information) if information > 0 else np.nan)
