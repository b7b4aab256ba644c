"""An estimated coefficient with its standard error."""

from typing import NamedTuple


class Effect(NamedTuple):
    """An estimated coefficient.

    value: In logits of the first step for one unit of the covariate.
    error: Standard error; NaN where the log cannot tell.
    """

    value: float
    error: float

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the 95 % interval."""
        return self.value - 1.96 * self.error, self.value + 1.96 * self.error
