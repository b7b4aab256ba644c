"""What a user minds in a reply's wording, where it is not content."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from persona.rewards.attributes import ATTRIBUTES

Complaint: TypeAlias = tuple[str, int] | None
"""The attribute that was most off and the sign of what was heard, or None from a user who is content."""

CONTENT_STARS = 4.0
LEAST_HURT = 0.25


def find_complaints(
    worth: NDArray[np.float64], attributes: NDArray[np.float64], stars: NDArray[np.float64]
) -> list[Complaint]:
    """The attribute that hurt most, where a user is not satisfied and an attribute did hurt.

    Args:
        worth: What each attribute added to the reply's worth. Shape (B, A).
        attributes: Standardised attributes of the replies. Shape (B, A).
        stars: Each user's rating, 1 to 5. Shape (B,).
    """
    rows = np.arange(len(worth))
    worst = worth.argmin(axis=1)
    minded = (stars < CONTENT_STARS) & (worth[rows, worst] < -LEAST_HURT)
    signs = np.sign(attributes[rows, worst]).astype(int)
    return [
        (ATTRIBUTES[attribute], int(sign)) if minds and sign else None
        for attribute, sign, minds in zip(worst.tolist(), signs.tolist(), minded.tolist(), strict=True)
    ]
