"""A reward that is told what to judge by: r(x, z, y) with the criterion z given as features of its text.

The criterion (and the prompt, where its features are given) sets the weights of a linear reward over the
reply's features: r = y . (b + L [z, x] + O tanh(I [z, x])). So a criterion that was never trained on gets the
reward that its features ask for, and a pair's margin changes its sign when the replies change places.

Source: Pitis et al. (2024), "Improving Context-Aware Preference Modeling for Language Models", NeurIPS, arXiv
2407.14916.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from persona.artefacts import load_artefact, save_artefact
from persona.errors import DataError, ShapeError


class ContextAwareReward(nn.Module):
    """Weights over reply features as a small network of the criterion and the prompt.

    Args:
        n_features: Columns D of the feature matrix, the prompt's among them.
        criterion_dim: Features C of a criterion's text: a sentence embedding, a hidden state, any vector.
        prompt_dim: How many of the last columns describe the prompt.
        hidden: Units of the hidden layer; 0 leaves the weights linear in criterion and prompt.
        seed: Draws the hidden layer.
    """

    def __init__(
        self, n_features: int, criterion_dim: int, *, prompt_dim: int = 0, hidden: int = 64, seed: int = 0
    ) -> None:
        """Start with no reward at all."""
        super().__init__()
        if criterion_dim < 1 or hidden < 0 or not 0 <= prompt_dim < n_features:
            raise ShapeError(
                "`criterion_dim` must be at least 1, `hidden` at least 0 and `prompt_dim` below `n_features`; "
                f"got {criterion_dim}, {hidden} and {prompt_dim} of {n_features}. Choose sizes in range."
            )
        rng = torch.Generator().manual_seed(seed)
        told, width = criterion_dim + prompt_dim, n_features - prompt_dim
        self.n_features, self.criterion_dim, self.prompt_dim = n_features, criterion_dim, prompt_dim
        self.base = nn.Parameter(torch.zeros(width))
        self.linear = nn.Parameter(torch.zeros(width, told))
        self.inner = nn.Parameter(torch.randn(hidden, told, generator=rng) / told**0.5)
        self.outer = nn.Parameter(torch.zeros(width, hidden))

    def weights(self, criterion: Tensor, prompt: Tensor) -> Tensor:
        """What each reply feature counts.

        Args:
            criterion: Shape (..., C).
            prompt: Shape (..., E), E being `prompt_dim`, maybe 0.

        Returns:
            Shape (..., D - E).
        """
        told = torch.cat([criterion, prompt], dim=-1)
        return self.base + told @ self.linear.T + torch.tanh(told @ self.inner.T) @ self.outer.T

    def forward(self, features: Tensor, criterion: Tensor) -> Tensor:
        """Reward of each reply by its criterion, in logits up to a constant.

        Args:
            features: Reply features, then the prompt's. Shape (..., D), float.
            criterion: Features of the criterion to judge by. Shape (..., C) with the same leading axes.

        Returns:
            Shape (...).

        Raises:
            ShapeError: Other numbers of columns.
        """
        if features.shape[-1] != self.n_features or criterion.shape[-1] != self.criterion_dim:
            raise ShapeError(
                f"`features` must have {self.n_features} columns and `criterion` {self.criterion_dim}; got "
                f"{features.shape[-1]} and {criterion.shape[-1]}. Use the same featurizers."
            )
        width = self.n_features - self.prompt_dim
        weights = self.weights(criterion, features[..., width:])
        return (features[..., :width] * weights).sum(-1)

    def each(self, features: Tensor, criteria: Tensor) -> Tensor:
        """Reward of every reply by every one of K criteria.

        Args:
            features: Shape (..., D).
            criteria: Shape (K, C).

        Returns:
            Shape (..., K).

        Raises:
            ShapeError: Other numbers of columns.
        """
        columns = [self(features, one.expand(*features.shape[:-1], len(one))) for one in criteria]
        return torch.stack(columns, dim=-1)

    def save(self, folder: Path, name: str = "context_aware_reward") -> None:
        """Write `name`.safetensors and `name`.json into `folder`."""
        save_artefact(
            folder, name, kind="context-aware reward", tensors=self.state_dict(), facts=self.sizes()
        )

    @classmethod
    def load(cls, folder: Path, name: str = "context_aware_reward") -> "ContextAwareReward":
        """The reward that `save` wrote, on the CPU.

        Raises:
            DataError: The files are missing, damaged, or of sizes that do not fit one another.
        """
        tensors, facts = load_artefact(folder, name, kind="context-aware reward")
        reward = cls(**{key: facts[key] for key in ("n_features", "criterion_dim", "prompt_dim", "hidden")})
        try:
            reward.load_state_dict(tensors)
        except RuntimeError as err:
            raise DataError(
                f"`{folder / name}.safetensors` must hold a reward over {facts['n_features']} features and "
                f"{facts['criterion_dim']} of the criterion, as {name}.json says; it does not. Train it again."
            ) from err
        return reward

    def sizes(self) -> dict[str, int]:
        """Arguments that make a reward of the same shape."""
        return {
            "n_features": self.n_features,
            "criterion_dim": self.criterion_dim,
            "prompt_dim": self.prompt_dim,
            "hidden": len(self.inner),
        }
