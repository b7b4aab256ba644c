"""The one object that knows the truth: it gives users' reactions as feedback, and utilities for measuring.

Learners get logs, choices and words, never an oracle. Every random reaction takes uniforms that the caller
drew, so that two replies can be compared under common random numbers; a better one never gets a worse
reaction.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from persona.rewards.attributes import ATTRIBUTES
from simulators.errors import CatalogueError, UnknownUserError, WorldError
from simulators.world.catalogue import Catalogue
from simulators.world.choice import NestedChoice
from simulators.world.population import Truth
from simulators.world.wishes import draw_wishes

REPLY_SHIFT = 0.5
"""Logits that one unit of reply utility adds to each step of interest."""

FAME_WEIGHT, SEARCH_WEIGHT = 0.7, 0.8
"""How much fame (in logits) and own taste (logits a unit of utility) decide what a browsing user comes across."""

SATISFACTION = (1.9, 0.5, 0.8, 0.35)
"""Stars at average utilities, stars a unit of item and of reply utility, scale of the logistic noise."""


class Oracle:
    """True utilities and reactions of a population, users and items by row.

    Utilities of items have mean 0 and standard deviation 1 over all user-film pairs; those of replies have
    about unit scale over users and standardised attributes. Arguments of every method: `users` and `items` of
    shape (B,), int; `uniforms` of shape (B,), independent draws from U(0, 1), one a row. A user or item that
    does not exist raises `UnknownUserError` or `CatalogueError`; arrays of different lengths raise
    `WorldError`.

    Args:
        truth: The hidden parameters.
        catalogue: The films they speak of.
        choice: How a standardised utility becomes a level.
    """

    def __init__(self, truth: Truth, catalogue: Catalogue, choice: NestedChoice) -> None:
        """Check that truth and catalogue fit, and find the scale of utility.

        Raises:
            WorldError: The truth speaks of another number of films or attributes.
        """
        films, width = truth.item_vectors.shape
        if films != len(catalogue) or width < catalogue.features.shape[1]:
            raise WorldError(
                f"The truth must speak of the catalogue's {len(catalogue)} films and "
                f"{catalogue.features.shape[1]} features; got {films} films and {width} weights. Draw the "
                "truth for this catalogue."
            )
        self._truth = truth
        self._catalogue = catalogue
        self._choice = choice
        self._mean, self._deviation = truth.utility_scale()

    @property
    def n_users(self) -> int:
        """Number of users U."""
        return len(self._truth.taste)

    @property
    def n_levels(self) -> int:
        """Number of levels K."""
        return len(self._choice.thresholds) + 1

    def item_utility(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.float64]:
        """True utility of each item for its user, standardised. Shape (B,)."""
        u, i = self._rows(users, items)
        liking = np.einsum("bg,bg->b", self._truth.taste[u], self._truth.item_vectors[i])
        raw = (liking + self._truth.item_quality[i]).astype(np.float64)
        return np.asarray((raw - self._mean) / self._deviation)

    def reply_utility(self, users: ArrayLike, attributes: ArrayLike) -> NDArray[np.float64]:
        """True utility of each reply's wording for its user. Shape (B,).

        Args:
            users: Shape (B,).
            attributes: Standardised attributes of the replies, columns as in `ATTRIBUTES`. Shape (B, A).

        Raises:
            WorldError: `attributes` has another shape.
        """
        return np.asarray(self.reply_contributions(users, attributes).sum(axis=1))

    def reply_contributions(self, users: ArrayLike, attributes: ArrayLike) -> NDArray[np.float64]:
        """What each attribute adds to `reply_utility`, which has the same arguments. Shape (B, A)."""
        u = self._users(users)
        measured = np.asarray(attributes, np.float64)
        if measured.shape != (len(u), len(ATTRIBUTES)):
            raise WorldError(
                f"`attributes` must have one row a user and one column for each of {', '.join(ATTRIBUTES)}, "
                f"{(len(u), len(ATTRIBUTES))}; got {measured.shape}."
            )
        contributions: NDArray[np.float64] = self._truth.style[u].astype(np.float64) * measured
        return contributions

    def choose(
        self, users: ArrayLike, attributes_a: ArrayLike, attributes_b: ArrayLike, uniforms: ArrayLike
    ) -> NDArray[np.bool_]:
        """Whether each user chose reply a over reply b, with that user's noise. Shape (B,), bool.

        P(a) = sigmoid((utility(a) - utility(b)) / noise): Bradley & Terry (1952), Biometrika 39.
        """
        u = self._users(users)
        gain = self.reply_utility(u, attributes_a) - self.reply_utility(u, attributes_b)
        draws = self._uniforms(uniforms, len(u))
        # u < sigmoid(x) exactly where logit(u) < x, which does not overflow for decided users.
        return np.asarray(_logit(draws) < gain / self._truth.noise[u])

    def level_probabilities(
        self, users: ArrayLike, items: ArrayLike, *, position: ArrayLike = 0, reply: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """P(level = k), shape (B, K). Arguments as in `levels`."""
        utility = self.item_utility(users, items)
        return self._choice.probabilities(utility, position=position, shift=_shift(reply))

    def levels(
        self,
        users: ArrayLike,
        items: ArrayLike,
        uniforms: ArrayLike,
        *,
        position: ArrayLike = 0,
        reply: ArrayLike | None = None,
    ) -> NDArray[np.int64]:
        """Level of interest that each user shows in an item, 0..K-1. Shape (B,), int64.

        Args:
            users: Shape (B,).
            items: Shape (B,).
            uniforms: Shape (B,).
            position: 0-based place in the slate, one for all or shape (B,).
            reply: Reply utility of the words that presented the item, shape (B,); None for none.
        """
        utility = self.item_utility(users, items)
        draws = self._uniforms(uniforms, len(utility))
        return self._choice.sample(utility, draws, position=position, shift=_shift(reply))

    def satisfaction(
        self, users: ArrayLike, items: ArrayLike, attributes: ArrayLike, uniforms: ArrayLike
    ) -> NDArray[np.float64]:
        """Each user's rating of a turn in whole stars, 1 (worst) to 5. Shape (B,), float64.

        Linear in the utility of the item and of the reply, plus logistic noise, rounded.

        Args:
            users: Shape (B,).
            items: Item shown. Shape (B,).
            attributes: Standardised attributes of the reply, shape (B, A).
            uniforms: Shape (B,).
        """
        base, per_item, per_reply, noise = SATISFACTION
        draws = self._uniforms(uniforms, len(self._users(users)))
        pleasure = per_item * self.item_utility(users, items) + per_reply * self.reply_utility(
            users, attributes
        )
        return np.clip(np.round(base + pleasure + noise * _logit(draws)), 1.0, 5.0)

    def patience(self, users: ArrayLike) -> NDArray[np.int64]:
        """Unsatisfying turns that each user puts up with before leaving. Shape (B,), int64."""
        return self._truth.patience[self._users(users)]

    def wish(self, users: ArrayLike, uniforms: ArrayLike) -> list[dict[str, str]]:
        """What each user says they want: {"genre": ..., "mood": ...}, drawn from their true taste.

        A genre is the likelier the more the user likes it and, less than in proportion, the more films have
        it; the mood is drawn in the same way among films of that genre. Parts that the catalogue does not
        know are left out.
        """
        u = self._users(users)
        draws = self._uniforms(uniforms, len(u))
        return draw_wishes(self._catalogue, self._truth.taste[u], self._truth.taste, draws)

    def browsing_logits(self, users: ArrayLike) -> NDArray[np.float32]:
        """How much likelier than another each film is to come before each user's eyes when browsing. Shape (B, I).

        Fame brings a film to everyone; what users search and click brings the films of their taste.
        """
        u = self._users(users)
        utility = self._truth.taste[u] @ self._truth.item_vectors.T + self._truth.item_quality
        utility = (utility - np.float32(self._mean)) / np.float32(self._deviation)
        fame = np.log(self._truth.popularity).astype(np.float32)
        return np.asarray(FAME_WEIGHT * fame + SEARCH_WEIGHT * utility, np.float32)

    def _users(self, users: ArrayLike) -> NDArray[np.int64]:
        rows = np.asarray(users, np.int64)
        wrong = rows[(rows < 0) | (rows >= self.n_users)]
        if len(wrong):
            raise UnknownUserError(
                f"`users` must be rows of the population, 0..{self.n_users - 1}; got {wrong[:3].tolist()}."
            )
        return rows

    def _rows(self, users: ArrayLike, items: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        u, i = self._users(users), np.asarray(items, np.int64)
        if u.shape != i.shape:
            raise WorldError(f"`users` and `items` must have the same shape; got {u.shape} and {i.shape}.")
        wrong = i[(i < 0) | (i >= len(self._catalogue))]
        if len(wrong):
            raise CatalogueError(
                f"`items` must be rows of the catalogue, 0..{len(self._catalogue) - 1}; got "
                f"{wrong[:3].tolist()}."
            )
        return u, i

    def _uniforms(self, uniforms: ArrayLike, rows: int) -> NDArray[np.float64]:
        draws = np.asarray(uniforms, np.float64)
        if draws.shape != (rows,) or not ((draws >= 0) & (draws <= 1)).all():
            raise WorldError(
                f"`uniforms` must be {rows} numbers in [0, 1], one a row; got shape {draws.shape}. "
                "Draw them with `rng.random(rows)`."
            )
        return draws


def _shift(reply: ArrayLike | None) -> ArrayLike:
    return 0.0 if reply is None else REPLY_SHIFT * np.asarray(reply, np.float64)


def _logit(uniforms: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(uniforms, 1e-12, 1 - 1e-12)
    logits: NDArray[np.float64] = np.log(inside) - np.log1p(-inside)
    return logits
