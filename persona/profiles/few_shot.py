"""Few-shot preferences (FSPO): a user is a few labelled pairs that the language model itself reads before it answers.

There is no latent: the model's own attention learns who the user is. A shot is put through the chat template as one
exchange, in which the user holds up the reply not wanted and the assistant gives the one that was. The reward of a
reply is how much likelier the trained policy finds it, after the shots, than the reference does.

Departures from Singh et al. (2025) are listed in `persona/recipes/few_shot.py`.
"""

from collections.abc import Collection, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from persona.artefacts import load_artefact, save_artefact
from persona.errors import DataError, ShapeError
from persona.policy.conditioned import ConditionedPolicy
from persona.policy.context_windows import (
    Windows,
    check_keeps_everything,
    continue_prompts,
    read_prompts,
    read_windows,
    reply_log_probs,
)
from persona.policy.language_model import LanguageModel, add_to_system
from persona.policy.sampling import Sampling
from persona.profiles.shots import Layout, Order, Placed, Shot, ShotFormat, lay_out_shots, place_prompt
from persona.profiles.texts import PairGaps
from persona.types import Conversation

KIND = "few-shot profile"
_DESCRIBE = "Describe what this user likes in a reply."


class Reference(StrEnum):
    """What a reward is measured against."""

    SAME_SHOTS = "same shots"
    """The base model after the same shots, as in the paper."""
    NO_SHOTS = "no shots"
    """The base model without shots: cheaper, and the untrained model has a reward too, that of its own context."""
    NOTHING = "nothing"
    """No reference: the likelihood itself."""


class Reading(NamedTuple):
    """Shots of one user after the model has read them: kept, they serve all later prompts of that user.

    layout: Their tokens and orders.
    policy: Keys and values under the policy.
    reference: Under the base model; without windows where the reference reads no shots.
    """

    layout: Layout
    policy: Windows
    reference: Windows


class FewShotProfile:
    """Scores and writes replies for users who are known by a few choices.

    Args:
        policy: The trained policy on its base model; a new one is the in-context prompt of the untrained model.
        shot_format: How shots become tokens.
        reference: What rewards are measured against.
        scale: Log-odds of a preference for each nat of reward, positive.
        orders: Orders of the shots that a score is averaged over, where they are one text.
    """

    def __init__(
        self,
        policy: ConditionedPolicy,
        shot_format: ShotFormat,
        *,
        reference: Reference = Reference.SAME_SHOTS,
        scale: float = 0.1,
        orders: int = 1,
    ) -> None:
        """Check that the model can read shots apart.

        Raises:
            ModelError: It cannot.
            DataError: `scale` is not positive, or `orders` less than 1.
        """
        if not scale > 0 or orders < 1:
            raise DataError(
                f"`scale` must be positive and `orders` at least 1; got {scale} and {orders}. Fit the scale on "
                "held-out users."
            )
        check_keeps_everything(policy.language_model.model)
        self.policy = policy
        self.shot_format = shot_format
        self.reference = reference
        self.scale = scale
        self.orders = orders

    @property
    def adapted(self) -> PreTrainedModel:
        """The base model with the trained LoRA."""
        return cast(PreTrainedModel, self.policy.peft_model.get_base_model())

    @property
    def base(self) -> PreTrainedModel:
        """The frozen base model."""
        return self.policy.language_model.model

    @torch.no_grad()
    def read(self, shots: Sequence[Shot], *, system: str | None = None) -> Reading:
        """Read a user's shots once, oldest first; no shots are the average user.

        Args:
            shots: The user's choices.
            system: System message of the prompts to come; matters only where shots and prompt are one text.
        """
        model = self.policy.language_model
        layout = lay_out_shots(model, shots, self.shot_format, orders=self.orders, system=system)
        with model.precision():
            same = layout.rows if self.reference is Reference.SAME_SHOTS else ()
            return Reading(layout, self.read_rows(self.adapted, layout.rows), self.read_rows(self.base, same))

    def read_rows(self, model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Windows:
        """Token rows of windows, read as the format says; differentiable."""
        if self.shot_format.in_order:
            return read_windows(model, rows)
        return read_windows(model, rows, end=self.shot_format.room, last=self.shot_format.last_tokens)

    @torch.no_grad()
    def rewards(
        self, reading: Reading, conversations: Sequence[Conversation], replies: Sequence[Sequence[str]]
    ) -> Tensor:
        """Reward of every reply, in nats.

        Args:
            reading: What `read` gave for this user.
            conversations: T conversations that end with a message to be answered.
            replies: For each of them, R replies.

        Returns:
            Shape (T, R), float32, on the CPU.

        Raises:
            ShapeError: There are not as many replies to each conversation.
            ModelError: A conversation and its reply do not fit the model's window.
        """
        sizes = {len(options) for options in replies}
        if len(replies) != len(conversations) or len(sizes) > 1:
            raise ShapeError(
                f"`replies` must hold equally many replies to each of the {len(conversations)} conversations; got "
                f"{len(replies)} entries of {sorted(sizes)} replies. Score them in several calls."
            )
        if not conversations or not sizes - {0}:
            return torch.zeros(len(conversations), max(sizes, default=0))
        policy, reference = self._both(reading, conversations, replies)
        return policy - reference

    def gaps(
        self,
        reading: Reading,
        conversations: Sequence[Conversation],
        first: Sequence[str],
        second: Sequence[str],
    ) -> PairGaps:
        """How much likelier the first reply to each of T conversations is, under the policy and the reference."""
        with torch.no_grad():
            parts = self._both(reading, conversations, list(zip(first, second, strict=True)))
        return PairGaps(*(part[:, 0] - part[:, 1] for part in parts))

    def score(
        self, shots: Sequence[Shot] | Reading, conversation: Conversation, first: str, second: str
    ) -> float:
        """Probability that a user who made these choices prefers the first of two replies."""
        return float(self.scores(shots, [conversation], [first], [second])[0])

    def scores(
        self,
        shots: Sequence[Shot] | Reading,
        conversations: Sequence[Conversation],
        first: Sequence[str],
        second: Sequence[str],
    ) -> Tensor:
        """The same for T conversations of one user, whose shots are read once. Shape (T,), float32."""
        reading = self._reading(shots, conversations)
        reward = self.rewards(reading, conversations, list(zip(first, second, strict=True)))
        return torch.sigmoid(self.scale * (reward[:, 0] - reward[:, 1])) if len(reward) else torch.zeros(0)

    @torch.no_grad()
    def generate(
        self,
        shots: Sequence[Shot] | Reading,
        conversations: Sequence[Conversation],
        *,
        seeds: Sequence[int],
        sampling: Sampling | None = None,
        banned: Sequence[Collection[str]] | None = None,
    ) -> list[str]:
        """A reply to each of one user's conversations, written after the user's shots in their given order.

        Args:
            shots: The user's choices, or what `read` gave for them.
            conversations: Conversations that end with a message to be answered.
            seeds: One seed a conversation.
            sampling: Length, temperature and nucleus.
            banned: For each conversation, slots that its reply must not contain.

        Raises:
            ModelError: A conversation does not fit the model's window.
        """
        reading = self._reading(shots, conversations)
        model, sampling = self.policy.language_model, sampling or Sampling()
        first = reading.layout.orders[0]
        prompts = [
            place_prompt(model, reading.layout, first, c, reserve=sampling.max_new_tokens).prompt
            for c in conversations
        ]
        with model.precision():
            replies = continue_prompts(
                self.adapted,
                read_prompts(self.adapted, reading.policy, prompts),
                sampling,
                seeds=seeds,
                stop_tokens=sorted(model.stop_tokens),
                banned=None if banned is None else [model.slot_tokens(list(names)) for names in banned],
            )
        return [model.decode(reply) for reply in replies]

    def describe(
        self, shots: Sequence[Shot] | Reading, *, seed: int, sampling: Sampling | None = None
    ) -> str:
        """The user in the model's own words, to be shown as `described` before it answers (RAT)."""
        return self.generate(shots, [description_request()], seeds=[seed], sampling=sampling)[0]

    def save(self, folder: Path) -> None:
        """Write the policy and, beside it, how it is to be used."""
        self.policy.save(folder)
        facts = {
            "shot_format": self.shot_format.model_dump(),
            "reference": str(self.reference),
            "scale": self.scale,
            "orders": self.orders,
        }
        save_artefact(folder, "few_shot", kind=KIND, tensors={}, facts=facts)

    @classmethod
    def load(cls, folder: Path, language_model: LanguageModel) -> "FewShotProfile":
        """Read a profile that `save` wrote, onto the same base model.

        Raises:
            DataError: The folder holds no few-shot profile.
            ModelError: The policy is damaged, or belongs to another base model.
        """
        _, facts = load_artefact(folder, "few_shot", kind=KIND)
        return cls(
            ConditionedPolicy.load(folder, language_model),
            ShotFormat.model_validate(facts["shot_format"]),
            reference=Reference(facts["reference"]),
            scale=facts["scale"],
            orders=facts["orders"],
        )

    def _both(
        self, reading: Reading, conversations: Sequence[Conversation], replies: Sequence[Sequence[str]]
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of every reply under policy and reference, averaged over orders. Shapes (T, R)."""
        policy = torch.zeros(len(conversations), len(replies[0]))
        reference = torch.zeros_like(policy)
        for order in reading.layout.orders:
            placed = [
                place_prompt(self.policy.language_model, reading.layout, order, conversation, options)
                for conversation, options in zip(conversations, replies, strict=True)
            ]
            policy += self._log_probs(self.adapted, reading.policy, placed)
            if self.reference is Reference.SAME_SHOTS:
                reference += self._log_probs(self.base, reading.reference, placed)
        policy /= len(reading.layout.orders)
        reference /= len(reading.layout.orders)
        if self.reference is Reference.NO_SHOTS:
            plain = [
                place_prompt(self.policy.language_model, reading.layout, Order(), conversation, options)
                for conversation, options in zip(conversations, replies, strict=True)
            ]
            reference = self._log_probs(self.base, reading.policy, plain)
        return policy, reference

    def _reading(self, shots: Sequence[Shot] | Reading, conversations: Sequence[Conversation]) -> Reading:
        if isinstance(shots, Reading):
            return shots
        first = conversations[0][0] if conversations else {"role": "user"}
        return self.read(shots, system=first["content"] if first["role"] == "system" else None)

    def _log_probs(self, model: PreTrainedModel, windows: Windows, placed: Sequence[Placed]) -> Tensor:
        owner = np.repeat(np.arange(len(placed)), len(placed[0].replies)).tolist()
        replies = [reply for one in placed for reply in one.replies]
        with self.policy.language_model.precision():
            contexts = read_prompts(model, windows, [one.prompt for one in placed])
            return reply_log_probs(model, contexts, replies, owner).view(len(placed), -1).cpu()


def described(conversation: Conversation, description: str | None) -> Conversation:
    """The conversation with a description of its user in the system message; None changes nothing."""
    return add_to_system(conversation, None if description is None else f"The user: {description}")


def description_request() -> Conversation:
    """What the model is asked for a description of the user whose shots it sees."""
    return [{"role": "user", "content": _DESCRIBE}]
