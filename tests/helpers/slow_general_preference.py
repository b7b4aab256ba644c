"""The general preference score one pair at a time, with the rotation written out as a matrix."""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

QUARTER_TURN = np.array([[0.0, -1.0], [1.0, 0.0]])


def published_score(first: Values, second: Values, block_weights: Values) -> float:
    """<R D v_1, v_2>, R with a quarter turn and D with a block's weight for each two of the coordinates."""
    blocks = len(block_weights)
    turn, weight = np.zeros((2 * blocks, 2 * blocks)), np.zeros((2 * blocks, 2 * blocks))
    for b in range(blocks):
        turn[2 * b : 2 * b + 2, 2 * b : 2 * b + 2] = QUARTER_TURN
        weight[2 * b : 2 * b + 2, 2 * b : 2 * b + 2] = block_weights[b] * np.eye(2)
    return float((turn @ weight @ first) @ second)
