"""Soft user tokens (P-RLHF): a user is a few learned vectors that the language model reads before the prompt.

Every user's tokens are the generic user's plus an own offset, which is free, or a mixture of a few clusters' offsets. A
zero offset is the generic user, so strangers are served from the first prompt; a few choices then move the offset,
with all other weights frozen. Training lives in `persona/recipes/user_tokens.py`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from persona.artefacts import load_artefact, save_artefact
from persona.errors import DataError, ShapeError
from persona.policy.conditioned import ConditionedPolicy
from persona.policy.language_model import LanguageModel, TokenRow
from persona.policy.prefix import prefixed_log_probs
from persona.policy.scoring import score_by_length
from persona.profiles.shots import Shot
from persona.profiles.texts import PairGaps
from persona.types import Conversation

KIND = "soft user tokens"
GENERIC = -1
"""Stands for the generic user where users are numbered."""


class UserTokens(nn.Module):
    """What the model reads of each user: S vectors of the width W of its embeddings.

    Args:
        users: Number of training users U.
        tokens: Vectors a user S.
        width: W.
        clusters: Offsets are softmax mixtures of so many; 0 gives every user an own offset.
        start: Generic vectors to start from, such as embeddings of words. Shape (S, W); small noise if None.
        seed: Draws clusters and noise.

    Raises:
        ShapeError: A size out of range, or `start` of another shape.
    """

    def __init__(
        self,
        users: int,
        tokens: int,
        width: int,
        *,
        clusters: int = 0,
        start: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        """Everybody starts as the generic user, or, with clusters, close to their middle."""
        super().__init__()
        if (
            min(users, tokens, width) < 1
            or clusters < 0
            or (start is not None and start.shape != (tokens, width))
        ):
            raise ShapeError(
                "`users`, `tokens` and `width` must be at least 1, `clusters` at least 0 and `start` of shape (tokens, "
                f"width); got {users}, {tokens}, {width}, {clusters} and "
                f"{None if start is None else tuple(start.shape)}. Choose sizes of at least that."
            )
        rng = torch.Generator().manual_seed(seed)
        noise = 0.02 * torch.randn(tokens, width, generator=rng)
        self.generic = nn.Parameter(noise if start is None else start.detach().float().clone())
        self.place = nn.Parameter(torch.zeros(users, clusters or tokens * width))
        self.centres = nn.Parameter(0.02 * torch.randn(clusters, tokens * width, generator=rng))

    @property
    def shape(self) -> tuple[int, int]:
        """S and W."""
        return self.generic.shape[0], self.generic.shape[1]

    @property
    def clusters(self) -> int:
        """Number of clusters; 0 for free offsets."""
        return self.centres.shape[0]

    def of_places(self, place: Tensor) -> Tensor:
        """Vectors of users by where they are: cluster logits (B, K), or offsets (B, S W). Shape (B, S, W).

        Mixtures are taken relative to equal weights, so a place of zeros is the generic user either way.
        """
        offset = place
        if self.clusters:
            offset = (torch.softmax(place, dim=-1) - 1.0 / self.clusters) @ self.centres
        vectors: Tensor = self.generic + offset.unflatten(-1, self.shape)
        return vectors

    def forward(self, users: Tensor) -> Tensor:
        """Vectors of training users, `GENERIC` for the generic one; `users` has shape (B,). Shape (B, S, W)."""
        known = (users != GENERIC)[:, None]
        return self.of_places(torch.where(known, self.place[users.clamp_min(0)], 0.0))


def embedding_table(language_model: LanguageModel) -> Tensor:
    """The vectors that stand for tokens. Shape (V, W)."""
    return cast(Tensor, language_model.model.get_input_embeddings().weight)


class UserTokenPolicy:
    """A policy that reads soft user tokens.

    Args:
        policy: Base model with a LoRA, without conditions.
        tokens: The users.
        scale: Log-odds of a preference for each nat of reward, positive.
        adapt_steps: Steps in which `read` places a new user.
    """

    def __init__(
        self, policy: ConditionedPolicy, tokens: UserTokens, *, scale: float = 0.5, adapt_steps: int = 20
    ) -> None:
        """Bring the tokens to the policy's device.

        Raises:
            ShapeError: The tokens have another width than the model's embeddings.
            DataError: `scale` is not positive.
        """
        width = embedding_table(policy.language_model).shape[1]
        if tokens.shape[1] != width:
            raise ShapeError(
                f"`tokens` must have the width {width} of the model's embeddings; got {tokens.shape[1]}. Build "
                "them for this model."
            )
        if not scale > 0:
            raise DataError(f"`scale` must be positive; got {scale}. Use the beta of training.")
        self.policy = policy
        self.tokens = tokens.to(policy.device)
        self.scale = scale
        self.adapt_steps = adapt_steps

    def log_probs(self, rows: Sequence[TokenRow], prefix: Tensor) -> Tensor:
        """Log-probability of each row's policy tokens behind its user's vectors, in nats.

        Args:
            rows: B rows.
            prefix: Shape (B, S, W).

        Returns:
            Shape (B,), differentiable in the prefix and the LoRA.
        """
        model = self.policy.peft_model.get_base_model()

        def score(index: list[int]) -> Tensor:
            with self.policy.language_model.precision():
                return prefixed_log_probs(model, [rows[i] for i in index], prefix[index])

        return score_by_length(rows, score, self.policy.device).sum(1)

    @torch.no_grad()
    def scores(
        self,
        place: Tensor | None,
        conversations: Sequence[Conversation],
        first: Sequence[str],
        second: Sequence[str],
    ) -> Tensor:
        """Probability that one user prefers the first reply to each of T conversations. Shape (T,), on the CPU.

        Args:
            place: What `adapt_user` gave, or a row of `tokens.place`; None is the generic user. Shape (K,) or (S W,).
            conversations: T conversations.
            first: A reply to each.
            second: Another reply to each.
        """
        if not conversations:
            return torch.zeros(0)
        return torch.sigmoid(self.gaps(place, conversations, first, second).log_odds(self.scale))

    @torch.no_grad()
    def gaps(
        self,
        reading: Tensor | None,
        conversations: Sequence[Conversation],
        first: Sequence[str],
        second: Sequence[str],
    ) -> PairGaps:
        """How much likelier the first reply to each of T conversations is; `reading` is a place, as in `scores`."""
        rows = [
            *self.policy.encode_replies(conversations, first),
            *self.policy.encode_replies(conversations, second),
        ]
        where = self.tokens.place.new_zeros(self.tokens.place.shape[1]) if reading is None else reading
        prefix = self.tokens.of_places(where[None]).expand(len(rows), -1, -1)
        parts = self.log_probs(rows, prefix).cpu(), self.policy.reference_log_probs(rows).sum(1).cpu()
        return PairGaps(*(part[: len(first)] - part[len(first) :] for part in parts))

    def read(self, shots: Sequence[Shot]) -> Tensor:
        """Where a user who made these choices is, by `adapt_steps` steps of `adapt_user`. Shape (K,) or (S W,)."""
        talks = [shot.conversation for shot in shots]
        return self.adapt_user(
            self.policy.encode_replies(talks, [shot.chosen for shot in shots]),
            self.policy.encode_replies(talks, [shot.rejected for shot in shots]),
            steps=self.adapt_steps,
        )

    def adapt_user(
        self,
        chosen: Sequence[TokenRow],
        rejected: Sequence[TokenRow],
        *,
        steps: int = 20,
        learning_rate: float = 0.1,
        ridge: float = 1e-2,
    ) -> Tensor:
        """Where a new user is, from a few choices; nothing else is changed.

        Args:
            chosen: Preferred replies as tokens.
            rejected: The others.
            steps: Adam steps from the generic user.
            learning_rate: Of the place.
            ridge: Penalty on its squares, in nats a choice.

        Returns:
            Shape (K,) with clusters, else (S W,); zeros without choices.
        """
        place = torch.zeros_like(self.tokens.place[0]).requires_grad_()
        rows = [*chosen, *rejected]
        if not chosen:
            return place.detach()
        reference = self.policy.reference_log_probs(rows).sum(1)
        optimiser = torch.optim.Adam([place], lr=learning_rate)
        for _ in range(steps):
            prefix = self.tokens.of_places(place[None]).expand(len(rows), -1, -1)
            reward = self.log_probs(rows, prefix) - reference
            gain = reward[: len(chosen)] - reward[len(chosen) :]
            loss = -functional.logsigmoid(self.scale * gain).mean() + ridge * place.square().sum()
            (place.grad,) = torch.autograd.grad(loss, [place])
            optimiser.step()
        return place.detach()

    def save(self, folder: Path) -> None:
        """Write the LoRA, and the users beside it."""
        self.policy.save(folder)
        facts = {"scale": self.scale, "clusters": self.tokens.clusters, "adapt_steps": self.adapt_steps}
        save_artefact(folder, "user_tokens", kind=KIND, tensors=self.tokens.state_dict(), facts=facts)

    @classmethod
    def load(cls, folder: Path, language_model: LanguageModel) -> "UserTokenPolicy":
        """The policy that `save` wrote, onto the same base model.

        Raises:
            DataError: The folder holds no such policy.
            ModelError: The LoRA is damaged, or belongs to another base model.
        """
        tensors, facts = load_artefact(folder, "user_tokens", kind=KIND)
        size, width = tensors["generic"].shape
        tokens = UserTokens(len(tensors["place"]), size, width, clusters=facts["clusters"])
        tokens.load_state_dict(tensors)
        policy = ConditionedPolicy.load(folder, language_model)
        return cls(policy, tokens, scale=facts["scale"], adapt_steps=facts["adapt_steps"])
