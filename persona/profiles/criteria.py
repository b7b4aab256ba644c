"""A user as one of several candidate criteria, each a text that a context-aware reward can judge by.

Where the criterion is unknown it is summed out: P(chosen over rejected) = sum_z p(z) P(chosen over rejected |
z). What a user chose updates p(z) by Bayes' rule. A user's latent is the belief minus the prior, so zero is
the average user.

Source: Pitis et al. (2024), "Improving Context-Aware Preference Modeling for Language Models", NeurIPS, arXiv
2407.14916; the user is ours.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from persona.artefacts import load_artefact, save_artefact
from persona.errors import DataError, ShapeError
from persona.profiles.kinds import VARIANCE_FLOOR, belief_over_kinds
from persona.rewards.context_aware import ContextAwareReward
from persona.types import Posterior, ReplyPairs


class CriteriaProfile(nn.Module):
    """Candidate criteria with a prior over them; lifted features are a reply's rewards by each candidate.

    Args:
        reward: Judges a reply by a criterion.
        criteria: Features of the K candidates' texts, at least 2. Shape (K, C), float.
        prior: How likely each is before any choice, positive, sums to 1. Shape (K,), float; None for even.
        lapse: Share of choices that follow no criterion at all but a coin, 0 to below 1. Keeps a user who does
            not quite follow any candidate from being taken for a certain one.
    """

    criteria: Tensor
    log_prior: Tensor

    def __init__(
        self, reward: ContextAwareReward, criteria: Tensor, *, prior: Tensor | None = None, lapse: float = 0.1
    ) -> None:
        """Check that candidates and prior fit."""
        super().__init__()
        count = len(criteria)
        prior = torch.full((count,), 1.0 / max(count, 1)) if prior is None else prior
        if criteria.ndim != 2 or count < 2 or prior.shape != (count,):
            raise ShapeError(
                "`criteria` must have shape (K, C) with at least 2 rows, and `prior` (K,); got "
                f"{tuple(criteria.shape)} and {tuple(prior.shape)}. Pass one prior for each candidate."
            )
        if not (0.0 <= lapse < 1.0 and bool((prior > 0).all()) and abs(prior.sum().item() - 1.0) < 1e-3):
            raise DataError(
                "`prior` must be positive and sum to 1, and `lapse` lie in 0 to below 1; got a sum of "
                f"{prior.sum().item():.4g}, a least value of {prior.min().item():.4g} and lapse {lapse}. "
                "Normalise the prior."
            )
        self.reward = reward
        self.lapse = lapse
        self.register_buffer("criteria", criteria.detach().float().clone())
        self.register_buffer("log_prior", prior.detach().float().log())

    @property
    def latent_dim(self) -> int:
        """One coordinate for each candidate."""
        return len(self.criteria)

    def lift(self, features: Tensor) -> Tensor:
        """Rewards (..., K) of each reply, given by features (..., D), under each candidate criterion."""
        return self.reward.each(features, self.criteria)

    def probability(self, pairs: ReplyPairs) -> Tensor:
        """Probability (B, P, K) of each choice under each candidate.

        Raises:
            ShapeError: Pairs that were not built from lifted features.
        """
        if pairs.chosen.shape[-1] != self.latent_dim:
            raise ShapeError(
                f"Pairs must have {self.latent_dim} columns, those of lifted features; got "
                f"{pairs.chosen.shape[-1]}. Build them from `profile.lift(features)`."
            )
        return 0.5 * self.lapse + (1.0 - self.lapse) * torch.sigmoid(pairs.difference)

    def log_likelihood(self, pairs: ReplyPairs) -> Tensor:
        """Logarithm of `probability`. Shape (B, P, K)."""
        probability = self.probability(pairs)
        return probability.clamp_min(torch.finfo(probability.dtype).tiny).log()

    def encode(self, pairs: ReplyPairs) -> Posterior:
        """Belief about which candidate each user follows.

        Args:
            pairs: Of B users, with lifted features (B, P, K).

        Returns:
            Mean (B, K), belief minus prior; covariance (B, K, K) of the one-hot candidate; the belief as
            weights (B, K).

        Raises:
            ShapeError: Pairs that were not built from lifted features.
        """
        belief = belief_over_kinds(self.log_likelihood, self.log_prior, pairs)
        floor = VARIANCE_FLOOR * torch.eye(self.latent_dim, device=belief.device)
        covariance = torch.diag_embed(belief) - belief[:, :, None] * belief[:, None] + floor
        return Posterior(belief - self.log_prior.exp(), covariance, belief)

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
        """Probability that each user prefers the first of two replies, with the criterion summed out.

        Args:
            posterior: Of B users; without weights, mean plus prior is the belief.
            asked: T pairs of each user, with lifted features (B, T, K).

        Returns:
            Shape (B, T), in 0..1.

        Raises:
            ShapeError: Pairs that were not built from lifted features.
        """
        belief = posterior.mean + self.log_prior.exp() if posterior.weights is None else posterior.weights
        return (self.probability(asked) * belief[:, None]).sum(-1)

    def save(self, folder: Path, name: str = "criteria_profile") -> None:
        """Write `name`.safetensors and `name`.json into `folder`."""
        facts = {**self.reward.sizes(), "lapse": self.lapse}
        save_artefact(folder, name, kind="criteria profile", tensors=self.state_dict(), facts=facts)

    @classmethod
    def load(cls, folder: Path, name: str = "criteria_profile") -> "CriteriaProfile":
        """The profile that `save` wrote, on the CPU.

        Raises:
            DataError: The files are missing, damaged, or of sizes that do not fit one another.
        """
        tensors, facts = load_artefact(folder, name, kind="criteria profile")
        sizes = {key: facts[key] for key in ("n_features", "criterion_dim", "prompt_dim", "hidden")}
        criteria = tensors["criteria"]
        profile = cls(ContextAwareReward(**sizes), criteria, lapse=facts["lapse"])
        try:
            profile.load_state_dict(tensors)
        except RuntimeError as err:
            raise DataError(
                f"`{folder / name}.safetensors` must hold {len(criteria)} criteria and a reward over "
                f"{sizes['n_features']} features, as {name}.json says; it does not. Train it again."
            ) from err
        return profile
