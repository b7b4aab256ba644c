"""Families of made-up users with a known truth, so that any method can be held to its oracle.

Each family breaks one assumption: `linear` none of those of Bradley-Terry with linear rewards, `ideal` the
linear reward, `cyclic` the reward itself (no score of single replies explains the choices), `noisy` the
labels, `tied` the strict choice, `clustered` the single Gaussian of users. Everything is drawn by numpy from
one seed, in whole arrays. Axis letters: M comparisons, N replies, U users, D features, Z true dimensions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit
from torch import Tensor

from persona.data.comparisons import ComparisonTable, Rows
from persona.errors import DataError

Values = NDArray[np.float64]
Margin = Callable[[Rows, Rows, Rows], Values]
"""(users, first replies, second replies) -> log-odds that a user prefers the first, without ties and flips."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is drawn.

    Attributes:
        users: Number of users U, at least 2.
        comparisons: Comparisons of each user, at least 1; M is users times comparisons.
        prompts: Number of prompts, at least 1.
        replies: Replies to each prompt, at least 2; N is prompts times replies.
        dims: True dimensions Z of replies and users, at least 1; an even number for `cyclic`.
        distractors: Columns of pure noise after the true ones; D is dims plus distractors.
    """

    users: int = 300
    comparisons: int = 40
    prompts: int = 300
    replies: int = 4
    dims: int = 6
    distractors: int = 0

    def __post_init__(self) -> None:
        """Check the counts.

        Raises:
            DataError: A count is too small.
        """
        least = {"users": 2, "comparisons": 1, "prompts": 1, "replies": 2, "dims": 1, "distractors": 0}
        small = [name for name, low in least.items() if getattr(self, name) < low]
        if small:
            raise DataError(
                f"`{small[0]}` must be at least {least[small[0]]}; got {getattr(self, small[0])}. Draw more."
            )


USUAL, SOLID, FLAT = Size(), Size(dims=3), Size(dims=2)
"""Sizes that the families take unless told: all dimensions, three for ideal points, one plane for cycles."""


@dataclass(frozen=True, slots=True, eq=False)
class PreferenceFamily:
    """Comparisons and features for learners, and the truth for judges.

    Attributes:
        table: Comparisons of all users; the order of one user's is random.
        features: The true coordinates of each reply, then the distractors. Shape (N, D), float32.
        users: The truth of each user: weights, an ideal point, or weights of planes. Shape (U, Z).
        kinds: The cluster of each user, zero for families without. Shape (U,), int64.
        margin: Log-odds of a choice, from users and replies; see `Margin`.
        flips: Probability with which a choice was noted the wrong way round.
        tie_width: Rao-Kupper's k, at least 1; 1 means that there are no ties.
    """

    table: ComparisonTable
    features: Tensor
    users: Values
    kinds: Rows
    margin: Margin
    flips: float = 0.0
    tie_width: float = 1.0

    def probability(self, table: ComparisonTable) -> Values:
        """Probability that each user calls the chosen reply of each comparison the better one, ties aside.

        With d the margin, strict choices have odds s(d - log k) to s(-d - log k), then flips. It may be asked
        of any table over the same users and replies, such as one part of a split.

        Returns:
            Shape (M,), in 0..1.
        """
        margin = self.margin(table.users, table.chosen, table.rejected)
        ahead, behind = (expit(sign * margin - np.log(self.tie_width)) for sign in (1.0, -1.0))
        clean = ahead / (ahead + behind)
        noted: Values = (1.0 - self.flips) * clean + self.flips * (1.0 - clean)
        return noted

    def tie_probability(self, table: ComparisonTable) -> Values:
        """Probability that each comparison ends in a tie. Shape (M,), in 0..1; 0 for families without ties."""
        margin = self.margin(table.users, table.chosen, table.rejected)
        width = np.log(self.tie_width)
        tied: Values = np.clip(1.0 - expit(margin - width) - expit(-margin - width), 0.0, 1.0)
        return tied

    def advantage(self, table: ComparisonTable) -> Values:
        """The margins of a table, what `persona.evaluation.oracle_accuracy` takes. Shape (M,)."""
        return self.margin(table.users, table.chosen, table.rejected)

    def oracle_log_loss(self, table: ComparisonTable) -> float:
        """Mean of -log(probability) over the strict comparisons of a table, in nats: the least that can be had."""
        return float(-np.log(self.probability(table.without_ties())).mean())


def draw_linear(
    seed: int, size: Size = USUAL, *, scale: float = 3.0, common: float = 0.5
) -> PreferenceFamily:
    """Users weigh the dimensions of replies, and choose by Bradley-Terry: margin = w_u . (x_1 - x_2).

    Args:
        seed: Draws everything.
        size: How much to draw.
        scale: Length of a typical user's weights, in logits; the noise of choices grows as it falls.
        common: Share, in 0..1, of the weights' variance that all users have in common.
    """
    rng = np.random.default_rng(seed)
    replies = rng.normal(size=(size.prompts * size.replies, size.dims))
    users = _weights(rng, size, scale, common)
    return _family(rng, size, replies, users, _linear_margin(users, replies))


def draw_ideal(
    seed: int, size: Size = SOLID, *, scale: float = 4.0, prototypes: int = 4, squared: bool = False
) -> PreferenceFamily:
    """Users prefer the reply nearer to their own ideal point: margin = scale (|x_2 - a_u| - |x_1 - a_u|).

    Ideal points are mixtures of `prototypes` standard normal points, with weights from a flat Dirichlet.

    Args:
        seed: Draws everything.
        size: How much to draw.
        scale: Logits for a unit of distance.
        prototypes: Corners of the hull in which ideal points lie; 0 draws them from the standard normal instead.
        squared: Compare squared distances, which are linear in the replies and their squares.
    """
    rng = np.random.default_rng(seed)
    replies = rng.normal(size=(size.prompts * size.replies, size.dims))
    if prototypes:
        corners = rng.normal(size=(prototypes, size.dims))
        users = rng.dirichlet(np.ones(prototypes), size=size.users) @ corners
    else:
        users = rng.normal(size=(size.users, size.dims))

    def margin(who: Rows, first: Rows, second: Rows) -> Values:
        near, far = (
            np.square(replies[side] - users[who]).sum(1) ** (1.0 if squared else 0.5)
            for side in (first, second)
        )
        result: Values = scale * (far - near)
        return result

    return _family(rng, size, replies, users, margin)


def draw_cyclic(
    seed: int, size: Size = FLAT, *, scale: float = 8.0, reversed_users: float = 0.0
) -> PreferenceFamily:
    """Replies stand on circles, each beats the next one: margin = scale * sum_z w_uz sin(angle_1z - angle_2z).

    The replies to a prompt stand evenly around each of dims/2 circles, from a random start and in one random
    order of circles' senses; features are cosine and sine of each angle. Only neighbours are compared, so with
    one circle and four replies every prompt is a cycle A > B > C > D > A. A reward that is linear in the
    features gets half of these right, and no reward at all gets more than (replies - 1) / replies; with half
    the users reversed, a reward that is the same for all users gets half.

    Args:
        seed: Draws everything.
        size: How much to draw; at least 3 replies and an even number of dims.
        scale: Logits for a quarter turn; the default makes choices all but certain.
        reversed_users: Share of users who go round the other way, in 0..1.

    Raises:
        DataError: Fewer than 3 replies, or an odd number of dims.
    """
    if size.replies < 3 or size.dims % 2:
        raise DataError(
            "A cycle must have at least 3 replies and an even number of `dims`; got "
            f"{size.replies} and {size.dims}. Draw more replies, or use 2 dims."
        )
    rng = np.random.default_rng(seed)
    circles = size.dims // 2
    start = rng.uniform(0.0, 2 * np.pi, size=(size.prompts, 1, circles))
    step = 2 * np.pi / size.replies * np.arange(size.replies)[None, :, None]
    angles = (start - step).reshape(-1, circles)
    replies = np.stack([np.cos(angles), np.sin(angles)], axis=-1).reshape(len(angles), size.dims)
    spread = rng.dirichlet(np.ones(circles), size=size.users)
    turned = rng.permutation(size.users) < round(reversed_users * size.users)
    users = spread * np.where(turned, -1.0, 1.0)[:, None]

    def margin(who: Rows, first: Rows, second: Rows) -> Values:
        result: Values = scale * (users[who] * np.sin(angles[first] - angles[second])).sum(1)
        return result

    return _family(rng, size, replies, users, margin, kinds=turned.astype(np.int64), neighbours=True)


def draw_noisy(
    seed: int, size: Size = USUAL, *, flips: float = 0.25, scale: float = 3.0, common: float = 0.5
) -> PreferenceFamily:
    """The linear family, each choice noted the wrong way round with probability `flips`, in 0..0.5.

    Raises:
        DataError: `flips` is out of range.
    """
    if not 0 <= flips < 0.5:
        raise DataError(
            f"`flips` must lie in 0..0.5, without 0.5; got {flips}. At 0.5 nothing can be learned."
        )
    rng = np.random.default_rng(seed)
    replies = rng.normal(size=(size.prompts * size.replies, size.dims))
    users = _weights(rng, size, scale, common)
    return _family(rng, size, replies, users, _linear_margin(users, replies), flips=flips)


def draw_tied(
    seed: int, size: Size = USUAL, *, ties: float = 0.3, scale: float = 3.0, common: float = 0.5
) -> PreferenceFamily:
    """The linear family where users may call it a tie, by Rao and Kupper's rule; the expected share is `ties`.

    Raises:
        DataError: `ties` is out of 0..1.

    Source: Rao & Kupper (1967), "Ties in Paired-Comparison Experiments", JASA 62(317).
    """
    if not 0 < ties < 1:
        raise DataError(f"`ties` must lie between 0 and 1; got {ties}. Choose a share such as 0.3.")
    rng = np.random.default_rng(seed)
    replies = rng.normal(size=(size.prompts * size.replies, size.dims))
    users = _weights(rng, size, scale, common)
    return _family(rng, size, replies, users, _linear_margin(users, replies), ties=ties)


def draw_clustered(
    seed: int, size: Size = USUAL, *, clusters: int = 3, scale: float = 3.0, spread: float = 0.1
) -> PreferenceFamily:
    """The linear family with `clusters` kinds of users, equally likely, of independent directions of weights.

    Args:
        seed: Draws everything.
        size: How much to draw.
        clusters: Kinds of users.
        scale: Length of a kind's weights, in logits.
        spread: Length of what sets a user apart from the kind, as a share of `scale`.
    """
    rng = np.random.default_rng(seed)
    replies = rng.normal(size=(size.prompts * size.replies, size.dims))
    centres = rng.normal(size=(clusters, size.dims))
    centres *= scale / np.linalg.norm(centres, axis=1, keepdims=True)
    kinds = rng.permutation(np.arange(size.users) % clusters)
    users = centres[kinds] + spread * scale * size.dims**-0.5 * rng.normal(size=(size.users, size.dims))
    return _family(rng, size, replies, users, _linear_margin(users, replies), kinds=kinds)


FAMILIES: Mapping[str, Callable[[int], PreferenceFamily]] = {
    "linear": draw_linear,
    "ideal": draw_ideal,
    "cyclic": draw_cyclic,
    "noisy": draw_noisy,
    "tied": draw_tied,
    "clustered": draw_clustered,
}
"""Every family by name, drawn from a seed with its defaults."""


def _weights(rng: np.random.Generator, size: Size, scale: float, common: float) -> Values:
    shared, own = rng.normal(size=(1, size.dims)), rng.normal(size=(size.users, size.dims))
    shared *= size.dims**0.5 / np.linalg.norm(shared)
    weights: Values = scale * size.dims**-0.5 * (common**0.5 * shared + (1.0 - common) ** 0.5 * own)
    return weights


def _linear_margin(users: Values, replies: Values) -> Margin:
    def margin(who: Rows, first: Rows, second: Rows) -> Values:
        result: Values = ((replies[first] - replies[second]) * users[who]).sum(1)
        return result

    return margin


def _family(
    rng: np.random.Generator,
    size: Size,
    replies: Values,
    users: Values,
    margin: Margin,
    *,
    kinds: Rows | None = None,
    neighbours: bool = False,
    flips: float = 0.0,
    ties: float = 0.0,
) -> PreferenceFamily:
    """Draw who is asked about what, and what they answer."""
    who = np.repeat(np.arange(size.users), size.comparisons)
    prompt = rng.integers(size.prompts, size=len(who))
    place = rng.integers(size.replies, size=len(who))
    if neighbours:
        step = np.where(rng.random(len(who)) < 0.5, 1, size.replies - 1)
    else:
        step = rng.integers(1, size.replies, size=len(who))
    first = prompt * size.replies + place
    second = prompt * size.replies + (place + step) % size.replies
    odds = margin(who, first, second)
    width = _tie_width(odds, ties)
    draw = rng.random(len(who))
    wins, is_tie = draw < expit(odds - np.log(width)), draw >= 1.0 - _tied(odds, width)
    # A flip turns strict choices alone; the coin is drawn for every row, so that it shifts no other draw.
    wins ^= rng.random(len(who)) < flips
    # What a tie calls chosen is the toss of a coin, as the order of the two replies is.
    table = ComparisonTable(
        who,
        prompt,
        np.where(wins, first, second),
        np.where(wins, second, first),
        is_tie if ties else None,
    )
    columns = np.concatenate([replies, rng.normal(size=(len(replies), size.distractors))], axis=1)
    return PreferenceFamily(
        table,
        torch.from_numpy(columns).float(),
        users,
        np.zeros(size.users, dtype=np.int64) if kinds is None else kinds,
        margin,
        flips,
        width,
    )


def _tied(odds: Values, width: float) -> Values:
    tied: Values = 1.0 - expit(odds - np.log(width)) - expit(-odds - np.log(width))
    return tied


def _tie_width(odds: Values, ties: float) -> float:
    """Rao and Kupper's k under which the expected share of ties among these margins is `ties`."""
    if not ties:
        return 1.0
    return float(np.exp(brentq(lambda log_width: _tied(odds, np.exp(log_width)).mean() - ties, 0.0, 50.0)))
