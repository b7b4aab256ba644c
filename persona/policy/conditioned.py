"""One policy for every user: a frozen language model, one LoRA, and a gate that a row's condition drives.

The base model is never changed: the adapted model is a second tree of modules that shares the base's weights,
so the reference of a preference objective is the base itself. Rows are sorted by length into micro-batches
and returned in the order given.

Shape letters: B rows, T tokens, H turns, Z latent, A named attributes, M adapted modules, r LoRA rank.
"""

import copy
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeAlias, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from persona.errors import ModelError, ShapeError
from persona.policy.batches import forward_options, pad_left, positions_of
from persona.policy.checkpoint import read_gate, write_policy
from persona.policy.gate import GateHooks, RankGate
from persona.policy.language_model import LanguageModel, TokenRow, add_to_system
from persona.policy.sampling import Sampling, sample_tokens
from persona.policy.scoring import next_log_probs, policy_log_probs, policy_mask, score_by_length
from persona.types import Condition, Conversation

TokenLogProbs: TypeAlias = tuple[Tensor, Tensor]


class ConditionedPolicy:
    """Generates and scores replies, with a different user in every row of a batch.

    Build one with `build` or `load`.

    Args:
        language_model: The frozen base.
        peft_model: The same weights with one LoRA named "default".
        gate: Network from conditions to multipliers of the LoRA's ranks.

    Raises:
        ModelError: The gate was made for another number of modules or another rank.
    """

    def __init__(self, language_model: LanguageModel, peft_model: PeftModel, gate: RankGate) -> None:
        """Attach the gate to the LoRA."""
        down = _down_projections(peft_model)
        ranks = {int(module.weight.shape[0]) for module in down.values()}
        if len(down) != gate.modules_gated or ranks != {gate.rank}:
            raise ModelError(
                f"The gate must fit the adapter; got a gate for {gate.modules_gated} modules of rank "
                f"{gate.rank} and an adapter of {len(down)} modules of rank {sorted(ranks)}. Load the gate "
                "saved beside this adapter."
            )
        self.language_model = language_model
        self.peft_model = peft_model.eval()
        self.gate = gate.to(language_model.device)
        self._adapted = cast(PreTrainedModel, peft_model.get_base_model())
        self._hooks = GateHooks(list(down.values()))

    @classmethod
    def build(
        cls,
        language_model: LanguageModel,
        latent_dim: int,
        direction_dim: int,
        rank: int = 8,
        hidden: int = 32,
        *,
        seed: int,
    ) -> "ConditionedPolicy":
        """A new policy that behaves exactly like the base model for every user.

        Args:
            language_model: The frozen base, left as it is.
            latent_dim: Z of the conditions to come.
            direction_dim: A of the conditions to come.
            rank: LoRA rank r, on every linear layer but the output head.
            hidden: Width of the gate's hidden layer.
            seed: Draws the initial weights of LoRA and gate.
        """
        config = LoraConfig(
            task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear"
        )
        with torch.random.fork_rng(
            devices=[]
        ):  # PEFT draws from the global state, whose draws are replaced below
            peft_model = get_peft_model(_sharing_copy(language_model.model), config)
        peft_model.peft_config["default"].base_model_name_or_path = language_model.name
        generator = torch.Generator().manual_seed(seed)
        down = _down_projections(peft_model)
        for module in down.values():
            bound = math.sqrt(
                1 / module.weight.shape[1]
            )  # PEFT's own range: Kaiming uniform with a = sqrt(5)
            drawn = (2 * torch.rand(module.weight.shape, generator=generator) - 1) * bound
            module.weight.data.copy_(drawn)
        gate = RankGate(
            latent_dim, direction_dim, modules=len(down), rank=rank, hidden=hidden, generator=generator
        )
        return cls(language_model, peft_model, gate)

    @classmethod
    def load(cls, folder: str | Path, language_model: LanguageModel) -> "ConditionedPolicy":
        """Read a policy that `save` wrote, onto the same base model.

        Raises:
            ModelError: The folder is missing or damaged, or belongs to another base model.
        """
        gate = read_gate(Path(folder), language_model.model)
        peft_model = PeftModel.from_pretrained(
            _sharing_copy(language_model.model),
            str(folder),
            is_trainable=True,
            torch_device=str(language_model.device),
        )
        return cls(language_model, peft_model, gate)

    def save(self, folder: str | Path) -> None:
        """Write an ordinary PEFT folder, which is the average user, and the gate beside it.

        Files are replaced one by one, each whole; the gate's JSON comes last and holds the hashes of the
        others.
        """
        write_policy(Path(folder), self.peft_model, self.gate, self.language_model.model)

    @property
    def device(self) -> torch.device:
        """Where base, LoRA and gate are."""
        return self.language_model.device

    @property
    def slots(self) -> frozenset[str]:
        """The base model's slot tokens."""
        return self.language_model.slots

    def adapter_parameters(self) -> list[nn.Parameter]:
        """Trainable weights of the LoRA."""
        return [p for name, p in self.peft_model.named_parameters() if "lora_" in name]

    def generate(
        self,
        conversations: Sequence[Conversation],
        condition: Condition | None = None,
        *,
        seeds: Sequence[int],
        max_new_tokens: int = 48,
        temperature: float = 1.0,
        top_p: float = 1.0,
        banned: Sequence[Collection[str]] | None = None,
    ) -> list[str]:
        """One reply to each conversation, in its own user's way.

        Args:
            conversations: B conversations that end with a message to be answered.
            condition: One row a conversation; None is the average user in every row.
            seeds: One seed a conversation, see `sample_tokens`.
            max_new_tokens: Most tokens in a reply.
            temperature: 0 takes the most likely token.
            top_p: Share of probability kept.
            banned: For each conversation, slots that its reply must not contain, such as facts that are not
                known; names that the model has no slot for are left out.

        Returns:
            Raw replies: slots are still to be filled.

        Raises:
            ShapeError: `condition`, `seeds` or `banned` has not one entry a conversation.
            DataError: A sampling parameter is out of range.
            ModelError: A conversation does not fit the model's window.
        """
        rows = self.generate_rows(
            conversations,
            condition,
            seeds=seeds,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            banned=banned,
        )
        return [self.reply_text(row) for row in rows]

    def generate_rows(
        self,
        conversations: Sequence[Conversation],
        condition: Condition | None = None,
        *,
        seeds: Sequence[int],
        max_new_tokens: int = 48,
        temperature: float = 1.0,
        top_p: float = 1.0,
        banned: Sequence[Collection[str]] | None = None,
    ) -> list[TokenRow]:
        """Like `generate`, as the tokens that were read and written, so that nobody has to tokenise them again.

        Returns:
            Token rows; the policy's tokens are those it drew, the stop token among them where it drew one.
        """
        model = self.language_model
        sampling = Sampling(max_new_tokens, temperature, top_p)
        prompts = [
            model.encode(conversation, reserve=max_new_tokens)
            for conversation in self._with_text(conversations, condition)
        ]
        with torch.inference_mode():
            multipliers = self._multipliers(condition)

        def follow(rows: Tensor) -> None:
            self._hooks.set(None if multipliers is None else multipliers[:, rows.to(multipliers.device)])

        with self._hooks.using(None), model.precision():
            replies = sample_tokens(
                self._adapted,
                prompts,
                sampling,
                seeds=seeds,
                stop_tokens=sorted(model.stop_tokens),
                banned=None if banned is None else [model.slot_tokens(list(names)) for names in banned],
                groups=_group_rows(prompts, condition),
                on_rows=follow,
                keep_stop=True,
            )
        return [
            TokenRow((*prompt, *reply), (False,) * len(prompt) + (True,) * len(reply))
            for prompt, reply in zip(prompts, replies, strict=True)
        ]

    def reply_text(self, row: TokenRow) -> str:
        """The raw text of a row that `generate_rows` gave, without the token that ended it."""
        reply = [token for token, chosen in zip(row.ids, row.policy, strict=True) if chosen]
        ended = bool(reply) and reply[-1] in self.language_model.stop_tokens
        return self.language_model.decode(reply[:-1] if ended else reply)

    def encode_replies(
        self,
        conversations: Sequence[Conversation],
        replies: Sequence[str],
        condition: Condition | None = None,
    ) -> list[TokenRow]:
        """Token rows of replies to conversations, text conditions included.

        Raises:
            ShapeError: There is not one reply, or not one condition, for each conversation.
            ModelError: A conversation does not fit the model's window.
        """
        if len(replies) != len(conversations):
            raise ShapeError(
                f"`replies` must have one entry for each of the {len(conversations)} conversations; got "
                f"{len(replies)}. Repeat the conversation to score several replies."
            )
        told = self._with_text(conversations, condition)
        return [self.language_model.encode_reply(c, reply) for c, reply in zip(told, replies, strict=True)]

    def log_probs(
        self,
        conversations: Sequence[Conversation],
        replies: Sequence[str],
        condition: Condition | None = None,
    ) -> Tensor:
        """Log p(reply | conversation, user) in nats, end token included; shape (B,), differentiable.

        Raises:
            ShapeError: There is not one reply, or not one condition, for each conversation.
            ModelError: A conversation does not fit the model's window.
        """
        return self.sequence_log_probs(self.encode_replies(conversations, replies, condition), condition)

    def sequence_log_probs(self, rows: Sequence[TokenRow], condition: Condition | None = None) -> Tensor:
        """Log-probability of each row's policy tokens together, in nats; shape (B,), differentiable."""
        return self.token_log_probs(rows, condition)[0].sum(1)

    def token_log_probs(self, rows: Sequence[TokenRow], condition: Condition | None = None) -> TokenLogProbs:
        """Log-probability of every policy token given all that precedes it.

        Args:
            rows: B rows. The vector parts of `condition` gate them; its texts must already be in the tokens.
            condition: One row a row; None is the average user.

        Returns:
            Nats, zero where not a policy token, and the mask of policy tokens. Both (B, N), N being the
            largest number of policy tokens in a row, which are packed to the left; float32 (differentiable)
            and bool.

        Raises:
            ShapeError: `condition` has not one row for each row.
        """
        multipliers = self._multipliers(condition, len(rows))

        def score(index: list[int]) -> Tensor:
            chosen = None if multipliers is None else multipliers[:, index]
            with self._hooks.using(chosen), self.language_model.precision():
                return policy_log_probs(self._adapted, [rows[i] for i in index])

        return score_by_length(rows, score, self.device), policy_mask(rows, self.device)

    def next_log_probs(
        self,
        prefixes: Sequence[Sequence[int]],
        tokens: Sequence[Sequence[int]],
        condition: Condition | None = None,
    ) -> Tensor:
        """Log-probability of each of some tokens as the one that comes next.

        Args:
            prefixes: B rows of token ids, none empty.
            tokens: Which tokens to look at, C_b ids a row.
            condition: One row a row; None is the average user.

        Returns:
            Nats, zero where a row looks at fewer than C, the largest C_b. Shape (B, C), float32, differentiable.

        Raises:
            ShapeError: `condition` has not one row for each row.
        """
        multipliers = self._multipliers(condition, len(prefixes))
        rows = [TokenRow(tuple(ids), (False,) * len(ids)) for ids in prefixes]

        def score(index: list[int]) -> Tensor:
            chosen = None if multipliers is None else multipliers[:, index]
            with self._hooks.using(chosen), self.language_model.precision():
                return next_log_probs(self._adapted, [rows[i].ids for i in index], [tokens[i] for i in index])

        return score_by_length(rows, score, self.device)

    def reference_log_probs(self, rows: Sequence[TokenRow]) -> Tensor:
        """Like `token_log_probs(...)[0]`, under the frozen base model. Shape (B, N), float32, no gradient."""
        unique = list(dict.fromkeys(rows))  # the reference knows no user, so it reads equal rows once
        place = {row: index for index, row in enumerate(unique)}
        model = self.language_model.model
        with torch.no_grad(), self.language_model.precision():
            scored = score_by_length(
                unique, lambda index: policy_log_probs(model, [unique[i] for i in index]), self.device
            )
        return scored[[place[row] for row in rows]]

    def hidden_states(self, conversations: Sequence[Conversation], replies: Sequence[str]) -> Tensor:
        """Mean of the frozen base's last hidden layer over each reply's tokens, as features of the reply.

        Returns:
            Shape (B, width of the model), float32, on the CPU.

        Raises:
            ShapeError: There is not one reply for each conversation.
            ModelError: A conversation does not fit the model's window.
        """
        rows = self.encode_replies(conversations, replies)
        body: nn.Module = self.language_model.model.base_model

        def pool(index: list[int]) -> Tensor:
            ids, mask = pad_left([rows[i].ids for i in index], self.device)
            policy, _ = pad_left([rows[i].policy for i in index], ids.device)
            options = {"position_ids": positions_of(mask)} if "position_ids" in forward_options(body) else {}
            hidden = body(input_ids=ids, attention_mask=mask, **options).last_hidden_state.float()
            weight = policy.float() / policy.sum(1, keepdim=True)
            # A product of matrices would run in bfloat16 under autocast.
            pooled: Tensor = (weight[..., None] * hidden).sum(1)
            return pooled

        with torch.no_grad(), self.language_model.precision():
            return score_by_length(rows, pool, self.device).cpu()

    def _with_text(
        self, conversations: Sequence[Conversation], condition: Condition | None
    ) -> Sequence[Conversation]:
        if condition is None:
            return conversations
        _check_rows(condition, len(conversations))
        return [add_to_system(c, text) for c, text in zip(conversations, condition.text, strict=True)]

    def _multipliers(self, condition: Condition | None, rows: int | None = None) -> Tensor | None:
        if condition is None:
            return None
        if rows is not None:
            _check_rows(condition, rows)
        place = self.device
        parts = (part.to(place, torch.float32) for part in (condition.latent, condition.direction))
        gates: Tensor = self.gate(*parts)
        return gates


def _check_rows(condition: Condition, rows: int) -> None:
    if len(condition) != rows:
        raise ShapeError(
            f"`condition` must have one row for each conversation ({rows}); got {len(condition)} rows. Use "
            "`Condition.select` or `Condition.absent` to build matching rows."
        )


def _group_rows(prompts: Sequence[list[int]], condition: Condition | None) -> list[int]:
    """A number for each row, the same for rows of equal prompt and condition."""
    seen: dict[tuple[object, ...], int] = {}
    vectors = [b""] * len(prompts)
    if condition is not None:
        joined = torch.cat([condition.latent, condition.direction], 1).cpu().numpy()
        vectors = [row.tobytes() for row in joined]
    keys = ((tuple(prompt), vector) for prompt, vector in zip(prompts, vectors, strict=True))
    return [seen.setdefault(key, len(seen)) for key in keys]


def _sharing_copy(model: nn.Module) -> nn.Module:
    """A second tree of modules over the same weights, so that adapters leave the first tree as it is."""
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return copy.deepcopy(model, shared)


def _down_projections(peft_model: PeftModel) -> dict[str, nn.Linear]:
    """The LoRA's down-projections by module name, sorted, which is the gate's M axis."""
    found = {n: m for n, m in peft_model.named_modules() if n.endswith("lora_A.default")}
    return {name: found[name] for name in sorted(found)}
