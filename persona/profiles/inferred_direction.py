"""The direction profile, inferred: which way a user wants replies to go, from the choices that the user made.

Replies are rated on A named objectives. The ratings are whitened, so that one unit is one standard deviation
between replies to one prompt and objectives that go together are told apart; a user chooses by
P(first over second) = sigmoid(w . (r_first - r_second)) and w is Gaussian among users. The belief about w is
that of hierarchical Bayes over A features; the direction is w / |w|, whose distribution is a Gaussian seen from
its origin. It is summarised as a mean direction, the length of the mean of unit vectors (1 is certain, 0 knows
nothing) and the credible angle around it.

Source: directions over rewards as in Wang et al. (2024), "Arithmetic Control of LLMs for Diverse User Preferences:
Directional Preference Alignment", arXiv 2402.18571, who set them by hand. Mardia & Jupp (2000), "Directional
Statistics", for the summary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from persona.artefacts import load_artefact, save_artefact
from persona.errors import DataError, ShapeError
from persona.profiles.direction import decorrelation, direction_as_text
from persona.profiles.hierarchical_bayes import HierarchicalBayes
from persona.types import Condition, Posterior, ReplyPairs

LogDensity: TypeAlias = Callable[[slice, Tensor], Tensor]

USERS_PER_BLOCK = 512
WIDER = 1.3
"""How many times wider than the Gaussian the places are spread whose true density is looked up."""

LEAST_RESULTANT = 1e-3
"""Shorter means of unit vectors have no direction of their own."""


class DirectionBelief(NamedTuple):
    """What is known about each user's direction.

    direction: Mean direction over whitened objectives, unit length; zeros where nothing is known. Shape (B, A).
    resultant: Length of the mean of unit vectors, 0 (nothing is known) to 1 (certain). Shape (B,).
    angle: The true direction is within this many radians of `direction` with the probability asked for; pi
        where nothing is known. Shape (B,).
    """

    direction: Tensor
    resultant: Tensor
    angle: Tensor

    @property
    def concentration(self) -> Tensor:
        """Kappa of the von Mises-Fisher distribution with the same resultant, at least 0. Shape (B,).

        Source: Banerjee et al. (2005), "Clustering on the Unit Hypersphere using von Mises-Fisher
        Distributions", JMLR 6, eq. 4.4.
        """
        length = self.resultant.clamp_max(1 - 1e-6)
        return length * (self.direction.shape[1] - length.square()) / (1 - length.square())

    def condition(self, *, latent_dim: int, cautious: bool = False) -> Condition:
        """Conditions for the policy.

        Args:
            latent_dim: Z of the policy's conditions.
            cautious: Shorten each direction to its resultant, so that little is asked for where little is
                known.
        """
        length = self.resultant[:, None] if cautious else 1.0
        return Condition.of_direction(self.direction * length, latent_dim=latent_dim)


@dataclass(frozen=True, slots=True, eq=False)
class InferredDirection:
    """A profile whose features are the objective scores of a reply.

    Attributes:
        names: The A objectives.
        whitening: Scores times this are whitened. Shape (A, A), float32.
        population: How weights over whitened scores vary among users.
    """

    names: tuple[str, ...]
    whitening: Tensor
    population: HierarchicalBayes

    def __post_init__(self) -> None:
        """Check that the parts speak of the same objectives.

        Raises:
            ShapeError: They do not.
        """
        count = len(self.names)
        if self.whitening.shape != (count, count) or self.population.latent_dim != count:
            raise ShapeError(
                f"`whitening` must have shape ({count}, {count}) and `population` {count} weights, as there are "
                f"{count} names; got {tuple(self.whitening.shape)} and {self.population.latent_dim}. Fit both on "
                "the same objectives."
            )

    @classmethod
    def without_users(
        cls, scores: Tensor, prompt_of: Tensor, *, names: Sequence[str], spread: float = 1.5
    ) -> "InferredDirection":
        """The profile of somebody who knows no users yet: every direction is as likely as any other.

        Args:
            scores: Objective scores of reference replies. Shape (N, A), float.
            prompt_of: Prompt of each. Shape (N,), int64.
            names: The A objectives.
            spread: Standard deviation of each weight: at 1.5, a user's choices between two replies to one
                prompt agree with the truth about four times in five.

        Raises:
            ShapeError: The shapes do not fit one another.
            DataError: An objective does not vary within prompts.
        """
        matrix = whiten_within_prompts(scores, prompt_of)
        identity = torch.eye(len(matrix)).to(matrix)
        return cls(tuple(names), matrix, HierarchicalBayes(matrix.new_zeros(len(matrix)), spread * identity))

    @property
    def latent_dim(self) -> int:
        """One weight for each objective."""
        return len(self.names)

    def lift(self, features: Tensor) -> Tensor:
        """Whitened scores, from scores of shape (..., A).

        Raises:
            ShapeError: There is another number of scores.
        """
        if features.shape[-1:] != (len(self.names),):
            raise ShapeError(
                f"`features` must be the {len(self.names)} scores {', '.join(self.names)}; got shape "
                f"{tuple(features.shape)}. Score replies on the same objectives."
            )
        return features @ self.whitening

    def encode(self, pairs: ReplyPairs) -> Posterior:
        """Belief about each user's deviation from the average user's weights, (B, A) and (B, A, A)."""
        return self.population.encode(pairs)

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
        """Probability (B, T) that each user prefers the first of two replies."""
        return self.population.predict(posterior, asked)

    def believe(
        self, posterior: Posterior, pairs: ReplyPairs | None = None, *, level: float = 0.9
    ) -> DirectionBelief:
        """What `posterior` says about each user's direction over whitened scores.

        Args:
            posterior: From `encode`.
            pairs: The contexts that it came from, to weight the Gaussian's draws by their true posterior
                density: the Gaussian at the mode is a little too wide in angle, since the true posterior leans
                to stronger preferences. Without them angles are on the safe side.
            level: Probability that the credible angle holds, between 0 and 1.

        Raises:
            DataError: `level` is not between 0 and 1.
        """
        weights = Posterior(self.population.mean + posterior.mean, posterior.covariance)
        if pairs is None:
            return summarise_direction(weights, level=level)
        context = pairs

        def log_density(users: slice, drawn: Tensor) -> Tensor:
            odds = torch.einsum("bsa,bpa->bsp", drawn, context.difference[users])
            likelihood = (logsigmoid(odds) * context.mask[users, None]).sum(-1)
            own = torch.linalg.solve(self.population.factor, (drawn - self.population.mean).mT)
            prior: Tensor = -0.5 * own.square().sum(1)
            return likelihood + prior

        return summarise_direction(weights, log_density, level=level)

    def as_raw(self, direction: Tensor) -> Tensor:
        """The same wishes as unit vectors over the scores as they were given; (B, A) to (B, A)."""
        return _unit(direction @ self.whitening.T)

    def describe(self, belief: DirectionBelief) -> list[str]:
        """One sentence a user: the direction in hundredths, and how well it is known."""
        sentences = []
        for direction, angle in zip(belief.direction, belief.angle.rad2deg().tolist(), strict=True):
            text = direction_as_text(direction, names=self.names)
            rating = "" if text is None else text.partition(" as ")[2].partition(". ")[0]
            sentences.append(
                f"Rates a reply as {rating}, give or take {angle:.0f} degrees."
                if rating
                else "Nothing is known yet about what this user wants."
            )
        return sentences

    def save(self, folder: Path, name: str = "inferred_direction") -> None:
        """Write `name`.safetensors and `name`.json into `folder`."""
        tensors = {
            "whitening": self.whitening,
            "mean": self.population.mean,
            "factor": self.population.factor,
        }
        save_artefact(
            folder, name, kind="inferred direction", tensors=tensors, facts={"names": list(self.names)}
        )

    @classmethod
    def load(cls, folder: Path, name: str = "inferred_direction") -> "InferredDirection":
        """The profile that `save` wrote.

        Raises:
            DataError: The files are missing or damaged.
        """
        tensors, facts = load_artefact(folder, name, kind="inferred direction")
        population = HierarchicalBayes(tensors["mean"], tensors["factor"])
        return cls(tuple(facts["names"]), tensors["whitening"], population)


def summarise_direction(
    weights: Posterior,
    log_density: LogDensity | None = None,
    *,
    level: float = 0.9,
    draws: int = 1024,
    seed: int = 0,
) -> DirectionBelief:
    """Mean direction, resultant and credible angle of w / |w|.

    Integrates over scrambled Sobol points and their mirror images, so that a belief around zero has no
    direction, exactly. Costs O(draws A^2) a user.

    Args:
        weights: Gaussian belief about each user's w, mean (B, A) and covariance (B, A, A).
        log_density: Where w is not quite Gaussian, its log-density up to a constant: from the users (a slice
            of rows) and places (b, S, A) to (b, S). Then the Gaussian, made wider, only says where to look.
        level: Probability that the credible angle holds, between 0 and 1.
        draws: Points, without their mirror images; a power of 2 is best.
        seed: Scrambles the points; all users share them.

    Raises:
        DataError: `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise DataError(f"`level` must lie between 0 and 1; got {level}. Use 0.9.")
    rows, size = weights.mean.shape
    points = torch.quasirandom.SobolEngine(size, scramble=True, seed=seed).draw(draws)
    normal = torch.special.ndtri(points.double().clamp(1e-7, 1 - 1e-7)).to(weights.mean)
    normal = torch.cat([normal, -normal])
    factor = torch.linalg.cholesky(weights.covariance) * (1.0 if log_density is None else WIDER)
    parts = []
    for start in range(0, max(rows, 1), USERS_PER_BLOCK):
        users = slice(start, start + USERS_PER_BLOCK)
        drawn = weights.mean[users, None] + normal @ factor[users].mT
        share = drawn.new_full(drawn.shape[:2], 1.0 / len(normal))
        if log_density is not None:
            share = torch.softmax(log_density(users, drawn) + 0.5 * normal.square().sum(1), dim=1)
        parts.append(_summarise(drawn, share, level))
    return DirectionBelief(*(torch.cat(arrays) for arrays in zip(*parts, strict=True)))


def whiten_within_prompts(scores: Tensor, prompt_of: Tensor) -> Tensor:
    """The matrix W for which `scores @ W` is uncorrelated, with variance 1, among replies to one prompt.

    Only replies to one prompt are ever compared, so what prompts have in common must not count. Scores are
    brought to equal variance first, then turned as little as possible, see `decorrelation`.

    Args:
        scores: Shape (N, A), float.
        prompt_of: Shape (N,), int64.

    Returns:
        Shape (A, A), float32.

    Raises:
        ShapeError: There is not one prompt for each row.
        DataError: An objective does not vary within prompts.
    """
    if scores.ndim != 2 or prompt_of.shape != scores.shape[:1]:
        raise ShapeError(
            "`scores` must have shape (N, A) and `prompt_of` (N,); got "
            f"{tuple(scores.shape)} and {tuple(prompt_of.shape)}. Name the prompt of each reply."
        )
    _, group = prompt_of.unique(return_inverse=True)
    count = torch.bincount(group)
    total = scores.new_zeros(len(count), scores.shape[1]).index_add_(0, group, scores)
    within = scores - (total / count[:, None])[group]
    # Centring takes away one degree of freedom for each prompt.
    freedom = max(len(scores) - len(count), 1)
    deviation = (within.double().square().sum(0) / freedom).sqrt()
    if not bool((deviation > 1e-6).all()):
        still = (deviation <= 1e-6).nonzero()[:3, 0].tolist()
        raise DataError(
            f"Every objective must vary among replies to one prompt; got none in columns {still} over "
            f"{len(count)} prompts. Leave those objectives out, or rate more replies a prompt."
        )
    standard = (within / deviation.to(within)) * (len(scores) / freedom) ** 0.5
    return decorrelation(standard) / deviation.float()[:, None]


def _summarise(drawn: Tensor, share: Tensor, level: float) -> tuple[Tensor, Tensor, Tensor]:
    """Direction, resultant and angle from places (B, S, A) that weigh `share` (B, S)."""
    unit = _unit(drawn)
    centre = torch.einsum("bs,bsa->ba", share, unit)
    resultant = centre.norm(dim=1)
    known = resultant > LEAST_RESULTANT
    direction = torch.where(known[:, None], _unit(centre), 0.0)
    cosine, order = torch.einsum("bsa,ba->bs", unit, direction).sort(dim=1, descending=True)
    within = share.gather(1, order).cumsum(1)
    last = (within < level).sum(1, keepdim=True).clamp_max(share.shape[1] - 1)
    angle = cosine.gather(1, last)[:, 0].clamp(-1, 1).arccos()
    return direction, torch.where(known, resultant, 0.0), torch.where(known, angle, math.pi)


def _unit(vectors: Tensor) -> Tensor:
    length: Tensor = vectors.norm(dim=-1, keepdim=True)
    return vectors / length.clamp_min(torch.finfo(vectors.dtype).tiny)
