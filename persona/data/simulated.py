"""Made-up users over real replies: each weighs measured attributes in an own way, and chooses by Bradley-Terry.

The replies are real, the truth is known, and how well it can be read from text is as hard as it is. Axis letters:
N replies, A attributes, U users, M comparisons.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from persona.data.comparisons import ComparisonTable, Rows
from persona.errors import DataError, ShapeError

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedUsers:
    """Comparisons for learners, and the truth for judges.

    Attributes:
        table: What the users chose.
        weights: What each user wants; absolute values sum to 1. Shape (U, A).
        values: Standardised attributes of each reply. Shape (N, A).
        temperature: Noise of choices, in standard deviations of an attribute; 0 makes them certain.
    """

    table: ComparisonTable
    weights: Values
    values: Values
    temperature: float

    def advantage(self, table: ComparisonTable) -> Values:
        """Utility of the chosen reply minus that of the other one, for any table over the same ids. Shape (M,)."""
        gain: Values = (
            (self.values[table.chosen] - self.values[table.rejected]) * self.weights[table.users]
        ).sum(1)
        return gain

    def probability(self, table: ComparisonTable) -> Values:
        """Probability that each user prefers the chosen reply. Shape (M,), in 0..1."""
        return _probability(self.advantage(table), self.temperature)


def simulate_users(
    values: ArrayLike,
    reply_prompts: Rows,
    *,
    users: int,
    comparisons: int,
    seed: int,
    concentration: float = 0.3,
    temperature: float = 0.15,
    is_signed: bool = True,
) -> SimulatedUsers:
    """Users with random weights over attributes, asked about random pairs of replies to random prompts.

    P(first) = sigmoid(w_u . (x_1 - x_2) / temperature), x standardised over all replies, w_u from a symmetric
    Dirichlet with random signs.

    Args:
        values: Attributes of each reply, on any scale. Shape (N, A).
        reply_prompts: Prompt that each reply answers. Shape (N,).
        users: Number of users U.
        comparisons: Comparisons of each user.
        seed: Draws everything.
        concentration: Of the Dirichlet; small values make users care for few attributes.
        temperature: Noise of choices, at least 0.
        is_signed: Whether half of the weights are turned round, so that an attribute may be disliked.

    Raises:
        ShapeError: `values` has not one row a reply.
        DataError: An attribute does not vary or is not finite, no prompt has two replies, or a size is too small.
    """
    raw = np.asarray(values, dtype=np.float64)
    if raw.ndim != 2 or reply_prompts.shape != raw.shape[:1]:
        raise ShapeError(
            "`values` must have shape (N, A) and `reply_prompts` (N,); got "
            f"{raw.shape} and {reply_prompts.shape}. Pass one row for each reply."
        )
    if min(users, comparisons) < 1 or temperature < 0 or not concentration > 0:
        raise DataError(
            "`users` and `comparisons` must be at least 1, `temperature` at least 0 and `concentration` positive; got "
            f"{users}, {comparisons}, {temperature} and {concentration}. Correct them."
        )
    standard = _standardise(raw)
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(raw.shape[1], concentration), size=users)
    signs = rng.choice([-1.0, 1.0], size=weights.shape)
    weights = weights * signs if is_signed else weights
    who = np.repeat(np.arange(users), comparisons)
    prompt, first, second = _draw_pairs(reply_prompts, len(who), rng)
    gain = ((standard[first] - standard[second]) * weights[who]).sum(1)
    wins = rng.random(len(who)) < _probability(gain, temperature)
    table = ComparisonTable(who, prompt, np.where(wins, first, second), np.where(wins, second, first))
    return SimulatedUsers(table, weights, standard, temperature)


def _probability(gain: Values, temperature: float) -> Values:
    if temperature == 0:
        return 0.5 * (1.0 + np.sign(gain))
    result: Values = expit(gain / temperature)
    return result


def _standardise(raw: Values) -> Values:
    deviation = raw.std(axis=0)
    bad = np.flatnonzero(~(np.isfinite(deviation) & (deviation > 0)))
    if len(bad):
        raise DataError(
            "Every attribute must be finite and vary among the replies; got otherwise in columns "
            f"{bad[:3].tolist()} of `values`. Leave them out."
        )
    standard: Values = (raw - raw.mean(axis=0)) / deviation
    return standard


def _draw_pairs(reply_prompts: Rows, count: int, rng: np.random.Generator) -> tuple[Rows, Rows, Rows]:
    """Prompts and two different replies to each, prompts with two replies or more being equally likely."""
    order = np.argsort(reply_prompts, kind="stable")
    prompts, start, size = np.unique(reply_prompts[order], return_index=True, return_counts=True)
    usable = np.flatnonzero(size > 1)
    if not len(usable):
        raise DataError(
            f"A prompt must have at least 2 replies; got none among {len(prompts)} prompts. Collect more replies."
        )
    drawn = usable[rng.integers(len(usable), size=count)]
    place = rng.integers(size[drawn])
    other = (place + rng.integers(1, size[drawn])) % size[drawn]
    return prompts[drawn], order[start[drawn] + place], order[start[drawn] + other]
