"""Hierarchical Bayes: every user has own linear weights, drawn from one Gaussian with full covariance.

w_u ~ N(m, S); P(chosen over rejected | u) = sigmoid(w_u . d) for a feature difference d. The Gaussian is
fitted to the training users by EM; a new user's posterior is closed-form but for one small Newton solve. This
is the baseline that learned profiles have to beat. A user's latent here is the deviation w_u - m, so zero is
the average user.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from persona.artefacts import load_artefact, save_artefact
from persona.data.comparisons import ComparisonTable, context_pairs
from persona.errors import DataError, ShapeError
from persona.profiles.laplace import logistic_posterior, predictive_probability, project_posterior
from persona.profiles.pooled import fit_pooled
from persona.types import Posterior, ReplyPairs

USERS_PER_BLOCK = 512


@dataclass(frozen=True, slots=True, eq=False)
class HierarchicalBayes:
    """A Gaussian population of linear tastes.

    Attributes:
        mean: The average user's weights m. Shape (D,), float32.
        factor: Any square root of the covariance, S = factor factor^T. Shape (D, D), float32.
    """

    mean: Tensor
    factor: Tensor

    @property
    def latent_dim(self) -> int:
        """Size of a user's latent: one weight for each feature."""
        return len(self.mean)

    @property
    def covariance(self) -> Tensor:
        """How weights vary among users. Shape (D, D)."""
        return self.factor @ self.factor.T

    def lift(self, features: Tensor) -> Tensor:
        """The features as they are: this profile learns none of its own."""
        return features

    def encode(self, pairs: ReplyPairs) -> Posterior:
        """Belief about each user's deviation from the average weights.

        Args:
            pairs: Contexts of B users, with D features.

        Returns:
            Mean (B, D), zero without pairs, and covariance (B, D, D).

        Raises:
            ShapeError: The pairs have another number of features.
        """
        difference = pairs.difference
        if difference.shape[-1] != len(self.mean):
            raise ShapeError(
                f"`pairs` must have {len(self.mean)} features, as the model was fitted with; got "
                f"{difference.shape[-1]}. Use the same featurizer."
            )
        white = logistic_posterior(difference @ self.factor, difference @ self.mean, pairs.mask)
        return Posterior(white.mean @ self.factor.T, self.factor @ white.covariance @ self.factor.T)

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
        """Probability that each user prefers the first of two replies.

        Args:
            posterior: Of B users.
            asked: T pairs of each user.

        Returns:
            Shape (B, T), in 0..1.
        """
        return predictive_probability(*self.log_odds(posterior, asked))

    def log_odds(self, posterior: Posterior, asked: ReplyPairs) -> tuple[Tensor, Tensor]:
        """Mean and variance, each (B, T), under the belief, of the log-odds of preferring the first reply."""
        difference = asked.difference
        mean, variance = project_posterior(posterior, difference)
        return difference @ self.mean + mean, variance

    def joint_log_odds(self, posterior: Posterior, asked: ReplyPairs) -> tuple[Tensor, Tensor]:
        """As `log_odds`, with the covariance (B, T, T) between the pairs."""
        difference = asked.difference
        mean = difference @ self.mean + torch.einsum("btd,bd->bt", difference, posterior.mean)
        return mean, difference @ posterior.covariance @ difference.mT

    def save(self, folder: Path, name: str = "hierarchical_bayes") -> None:
        """Write `name`.safetensors and `name`.json into `folder`."""
        tensors = {"mean": self.mean, "factor": self.factor}
        save_artefact(folder, name, kind="hierarchical Bayes", tensors=tensors, facts={})

    @classmethod
    def load(cls, folder: Path, name: str = "hierarchical_bayes") -> "HierarchicalBayes":
        """The model that `save` wrote.

        Raises:
            DataError: The files are missing or damaged.
        """
        return cls(**load_artefact(folder, name, kind="hierarchical Bayes")[0])


@dataclass(frozen=True, slots=True, eq=False)
class LengthRule:
    """A per-user rule that looks at the length alone: hierarchical Bayes over one feature.

    Attributes:
        column: Which feature it reads.
        model: The population of tastes for that feature.
    """

    column: int
    model: HierarchicalBayes

    @property
    def latent_dim(self) -> int:
        """Always 1."""
        return 1

    def lift(self, features: Tensor) -> Tensor:
        """The features as they are: this profile learns none of its own."""
        return features

    def encode(self, pairs: ReplyPairs) -> Posterior:
        """Belief about each user's taste for length: mean (B, 1), covariance (B, 1, 1)."""
        return self.model.encode(self._lengths(pairs))

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
        """Probability that each user prefers the first reply. Shape (B, T)."""
        return self.model.predict(posterior, self._lengths(asked))

    def _lengths(self, pairs: ReplyPairs) -> ReplyPairs:
        return ReplyPairs(pairs.chosen[..., [self.column]], pairs.rejected[..., [self.column]], pairs.mask)


def fit_hierarchical_bayes(
    table: ComparisonTable,
    features: Tensor,
    *,
    seed: int,
    iterations: int = 30,
    floor: float = 1e-4,
    report: Callable[[dict[str, float]], None] | None = None,
) -> HierarchicalBayes:
    """Fit the population by EM with Laplace's approximation in the E-step.

    Starts from the pooled reward and an isotropic spread. Each iteration solves all users together, in
    blocks.

    Args:
        table: Comparisons of training users.
        features: Features of every reply. Shape (N, D), float32.
        seed: Draws the users that choose the pooled reward's penalty.
        iterations: EM steps, at least 1.
        floor: Least variance of a weight in any direction; keeps the Gaussian from closing for good.
        report: Gets `iteration`, `change` (of the covariance, relative) after each step.

    Raises:
        DataError: No iteration asked for, or (from the pooled fit) fewer than two users.
    """
    if iterations < 1 or floor <= 0:
        raise DataError(
            f"`iterations` must be at least 1 and `floor` above 0; got {iterations} and {floor}. Use 30 and "
            "1e-4."
        )
    pooled = fit_pooled(table, features, seed=seed)
    users = table.user_ids
    size = features.shape[1]
    # Differences of standardised features have variance 2, so this spreads users' log-odds by a deviation of
    # 2.
    model = HierarchicalBayes(pooled.weights, (2.0 / size) ** 0.5 * torch.eye(size).to(features))
    blocks = [
        context_pairs(table, features, users[start : start + USERS_PER_BLOCK])
        for start in range(0, len(users), USERS_PER_BLOCK)
    ]
    for iteration in range(iterations):
        updated = _em_step(model, blocks, floor)
        if report is not None:
            change = (updated.covariance - model.covariance).norm() / model.covariance.norm()
            report({"iteration": iteration + 1, "change": float(change)})
        model = updated
    return model


def fit_length_rule(table: ComparisonTable, features: Tensor, column: int, *, seed: int) -> LengthRule:
    """The length-only rule, fitted to training users; `features` (N, D), of which it reads `column`.

    Raises:
        ShapeError: There is no such column.
    """
    if not 0 <= column < features.shape[1]:
        raise ShapeError(
            f"`column` must name one of the {features.shape[1]} features, from 0; got {column}. Use the "
            "column that holds the length."
        )
    return LengthRule(column, fit_hierarchical_bayes(table, features[:, [column]], seed=seed))


def _em_step(model: HierarchicalBayes, blocks: list[ReplyPairs], floor: float) -> HierarchicalBayes:
    size, count = len(model.mean), sum(len(block.mask) for block in blocks)
    first, second = model.mean.new_zeros(size), model.mean.new_zeros(size, size)
    for block in blocks:
        difference = block.difference
        white = logistic_posterior(difference @ model.factor, difference @ model.mean, block.mask)
        first += white.mean.sum(0)
        second += white.covariance.sum(0) + white.mean.T @ white.mean
    first, second = first / count, second / count
    spread = model.factor @ (second - torch.outer(first, first)) @ model.factor.T
    values, vectors = torch.linalg.eigh((spread + spread.T).double() / 2)
    factor = (vectors * values.clamp_min(floor).sqrt()).to(model.factor)
    return HierarchicalBayes(model.mean + model.factor @ first, factor)
