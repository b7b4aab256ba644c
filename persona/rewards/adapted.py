"""Multi-objective rewards of a language model that was adapted to its task by a LoRA."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from persona.policy.batches import forward_options, pad_left, positions_of
from persona.policy.conditioned import ConditionedPolicy
from persona.policy.language_model import LanguageModel, TokenRow
from persona.policy.scoring import score_by_length
from persona.rewards.multi_objective import MultiObjectiveReward
from persona.types import Conversation


@dataclass(frozen=True, slots=True, eq=False)
class AdaptedReward:
    """Linear heads on the mean last hidden state of a reply's tokens, under a LoRA.

    Attributes:
        encoder: Holder of base model and LoRA; its gate has no inputs, so the LoRA is the same for every row.
        head: Takes hidden states as features.
    """

    encoder: ConditionedPolicy
    head: MultiObjectiveReward

    def score(self, conversations: Sequence[Conversation], replies: Sequence[str]) -> Tensor:
        """Standardised scores of replies, shape (B, A), on the CPU.

        Raises:
            ShapeError: There is not one reply for each conversation.
            ModelError: A conversation does not fit the model's window.
        """
        rows = self.encoder.encode_replies(conversations, replies)
        with torch.no_grad():
            return self.head.score(adapted_states(self.encoder, rows).cpu())

    def rate(self, conversations: Sequence[Conversation], replies: Sequence[str]) -> Tensor:
        """Predicted ratings on the common scale of 0..100, not cut at its ends; shape (B, A), on the CPU."""
        return self.score(conversations, replies) * self.head.label_std + self.head.label_mean

    def save(self, folder: Path) -> None:
        """Write an ordinary PEFT folder and the heads beside it."""
        self.encoder.save(folder)
        self.head.save(folder)

    @classmethod
    def load(cls, folder: Path, language_model: LanguageModel) -> "AdaptedReward":
        """The reward that `save` wrote, on the same base model.

        Raises:
            ModelError: The LoRA is missing or damaged, or belongs to another base model.
            DataError: The heads are missing or damaged.
        """
        return cls(ConditionedPolicy.load(folder, language_model), MultiObjectiveReward.load(folder))


def adapted_states(encoder: ConditionedPolicy, rows: Sequence[TokenRow]) -> Tensor:
    """Mean of the adapted model's last hidden layer over each row's policy tokens, with gradient.

    A LoRA as it starts gives what `ConditionedPolicy.hidden_states` gives.

    Returns:
        Shape (B, width of the model), float32, on the encoder's device.
    """
    body: nn.Module = cast(PreTrainedModel, encoder.peft_model.get_base_model()).base_model
    takes_positions = "position_ids" in forward_options(body)

    def pool(index: list[int]) -> Tensor:
        ids, mask = pad_left([rows[i].ids for i in index], encoder.device)
        policy, _ = pad_left([rows[i].policy for i in index], encoder.device)
        options = {"position_ids": positions_of(mask)} if takes_positions else {}
        hidden = body(input_ids=ids, attention_mask=mask, use_cache=False, **options).last_hidden_state
        weight = policy.float() / policy.sum(1, keepdim=True)
        # A sum and not a product of matrices, which autocast would round to bfloat16.
        mean: Tensor = (weight[..., None] * hidden.float()).sum(1)
        return mean

    with encoder.language_model.precision():
        return score_by_length(rows, pool, encoder.device)
