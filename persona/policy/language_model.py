"""A frozen chat model with its tokenizer: how conversations become tokens, and which are the policy's.

Any causal language model of transformers fits, with or without a chat template. Every message of the
assistant is tokenised by itself and ends with the same end token, so that the tokens of a prompt are a prefix
of the tokens of prompt plus reply, and those of a dialogue a prefix of the dialogue continued.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2.exceptions import TemplateError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from persona.errors import ModelError
from persona.policy.device import default_dtype, has_fast_bfloat16, resolve_device
from persona.types import Conversation, Message

PLAIN_TEMPLATE = (
    "{{ bos_token if bos_token else '' }}{% for message in messages %}"
    "{{ message['role'] | capitalize }}:\n{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:\n{% endif %}"
)
"""Stands in for a missing chat template: role line, content, empty line; a reply ends with the end token."""

DEFAULT_WINDOW = 2048
"""Tokens that a model is taken to read when its configuration does not say."""

_MARK = "\ue000"  # private-use character: stands for a reply while the template is rendered
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


class TokenRow(NamedTuple):
    """One conversation as tokens.

    ids: Token ids, T of them.
    policy: For each token, whether the policy chose it: replies with their end tokens.
    """

    ids: tuple[int, ...]
    policy: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A frozen causal language model and all that is known about its tokens.

    Attributes:
        name: As the caller named it: "nano", an id or a folder.
        model: In evaluation mode, no parameter trainable.
        tokenizer: Its tokenizer.
        template: Chat template to use in place of the tokenizer's own, which it lacks; None otherwise.
        slots: Names such as "<title>" that the model writes where a fact belongs; empty for a model that
            writes facts.
        end_token: Id that ends a reply.
        stop_tokens: Ids at which generation stops, the end token among them.
        window: Most tokens that the model reads.
        folds_system: True if its template refuses system messages, which then open the first user message.
        mixed: Whether forward passes multiply in bfloat16, see `precision`.
    """

    name: str
    model: PreTrainedModel
    tokenizer: Any
    template: str | None
    slots: frozenset[str]
    end_token: int
    stop_tokens: frozenset[int]
    window: int
    folds_system: bool
    _special: re.Pattern[str] = field(repr=False)
    mixed: bool = False

    @classmethod
    def wrap(cls, model: PreTrainedModel, tokenizer: Any, *, name: str) -> "LanguageModel":
        """Freeze `model` and find out how it is to be spoken to.

        Raises:
            ModelError: There is no end token, or a declared slot is not one token of the tokenizer.
        """
        model.eval().requires_grad_(False)
        template = None if tokenizer.chat_template else PLAIN_TEMPLATE
        if tokenizer.eos_token is None:
            raise ModelError(
                f"The tokenizer must name the token that ends a reply; that of {name!r} has no `eos_token`. "
                "Add it to tokenizer_config.json."
            )
        slots = frozenset(getattr(model.config, "persona_slots", None) or ())
        _check_slots(slots, tokenizer, name)
        special = _special_tokens(tokenizer)
        end = _find_end_token(tokenizer, template, special)
        generation = getattr(model, "generation_config", None)
        declared = getattr(generation, "eos_token_id", None)
        more = declared if isinstance(declared, list) else [] if declared is None else [declared]
        return cls(
            name=name,
            model=model,
            tokenizer=tokenizer,
            template=template,
            slots=slots,
            end_token=end,
            stop_tokens=frozenset([end, tokenizer.eos_token_id, *more]),
            window=int(getattr(model.config, "max_position_embeddings", None) or DEFAULT_WINDOW),
            folds_system=not _takes_system(tokenizer, template),
            _special=re.compile("|".join(map(re.escape, [*sorted(special, key=len, reverse=True), _MARK]))),
        )

    def precision(self) -> AbstractContextManager[object]:
        """Number format of forward passes: bfloat16 products if `mixed`, that of the weights otherwise."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def encode(
        self, conversation: Conversation, add_generation_prompt: bool = True, *, reserve: int = 0
    ) -> list[int]:
        """Tokens of a conversation, of its newest part if it is longer than the window.

        Whole messages are left out, the oldest first, system messages after all others, the last one never.
        Special tokens written inside a message are removed from it, so that no message can pretend to be
        another.

        Args:
            conversation: Messages with keys `role` and `content`.
            add_generation_prompt: Whether the assistant is to speak next.
            reserve: Tokens of the window to leave free for a reply.

        Raises:
            ModelError: The last message alone does not fit, or the template cannot render the conversation.
        """
        return list(self._encode_rows(conversation, add_generation_prompt, reserve).ids)

    def encode_reply(self, conversation: Conversation, reply: str) -> TokenRow:
        """Tokens of a conversation and the reply to it; the reply and its end token are the policy's.

        Raises:
            ModelError: As for `encode`.
        """
        answer = [*self._tokenize([self._clean(reply)])[0], self.end_token]
        prompt = self._encode_rows(conversation, True, len(answer)).ids
        return TokenRow((*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer))

    def encode_dialogue(self, conversation: Conversation) -> TokenRow:
        """Tokens up to the last reply, of which every reply and its end token are the policy's.

        Raises:
            ModelError: There is no message of the assistant; or as for `encode`.
        """
        row = self._encode_rows(conversation, False, 0)
        if True not in row.policy:
            raise ModelError(
                "A dialogue must hold a message of the assistant; got roles "
                f"{[m['role'] for m in conversation][:3]}. Leave such dialogues out."
            )
        end = len(row.policy) - row.policy[::-1].index(True)
        return TokenRow(row.ids[:end], row.policy[:end])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of generated tokens, slots kept, special tokens left out."""
        text: str = self.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        if self.template is not None:
            text = text.split("\nUser:", maxsplit=1)[0]  # a base model may go on to write the user's side
        return text.strip()

    def slot_tokens(self, names: Sequence[str]) -> list[int]:
        """Ids of the given slots; names that this model has no slot for are left out."""
        return [self.tokenizer.convert_tokens_to_ids(name) for name in names if name in self.slots]

    def _encode_rows(self, conversation: Conversation, prompt_next: bool, reserve: int) -> TokenRow:
        messages = [{"role": m["role"], "content": self._clean(m["content"])} for m in conversation]
        row = self._encode_messages(messages, prompt_next)
        while len(row.ids) + reserve > self.window:
            if len(messages) == 1:
                raise ModelError(
                    f"The last message and a reply must fit the window of {self.window} tokens; got "
                    f"{len(row.ids)} + {reserve} tokens. Shorten the message or allow fewer new tokens."
                )
            spoken = [i for i, m in enumerate(messages[:-1]) if m["role"] != "system"]
            del messages[spoken[0] if spoken else 0]
            row = self._encode_messages(messages, prompt_next)
        return row

    def _encode_messages(self, messages: list[dict[str, str]], prompt_next: bool) -> TokenRow:
        replies = [m["content"] for m in messages if m["role"] == "assistant"]
        around = self._render(messages, prompt_next).split(_MARK)
        if len(around) != len(replies) + 1:
            raise ModelError(
                f"The chat template must show every reply once; that of {self.name!r} showed "
                f"{len(around) - 1} of {len(replies)}. Use a template without hidden or repeated replies."
            )
        pieces = self._tokenize([*around, *replies])
        texts, spoken = pieces[: len(around)], pieces[len(around) :]
        ids, policy = list(texts[0]), [False] * len(texts[0])
        for reply, after in zip(spoken, texts[1:], strict=True):
            rest = after[1:] if after[:1] == [self.end_token] else after
            ids += [*reply, self.end_token, *rest]
            policy += [True] * (len(reply) + 1) + [False] * len(rest)
        return TokenRow(tuple(ids), tuple(policy))

    def _render(self, messages: list[dict[str, str]], prompt_next: bool) -> str:
        marked: list[Message] = [{**m, "content": _MARK} if m["role"] == "assistant" else m for m in messages]
        if self.folds_system:
            marked = _fold_system(marked)
        try:
            text: str = self.tokenizer.apply_chat_template(
                marked, chat_template=self.template, tokenize=False, add_generation_prompt=prompt_next
            )
        except TemplateError as err:
            raise ModelError(
                f"The chat template of {self.name!r} must accept the conversation; it refused roles "
                f"{[m['role'] for m in messages]} with {str(err)!r}. Let user and assistant take turns."
            ) from err
        return text

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def _clean(self, text: str) -> str:
        return self._special.sub("", text).strip()


def add_to_system(conversation: Conversation, text: str | None) -> Conversation:
    """The conversation with `text` ending its system message, or in a new one; None changes nothing."""
    if text is None:
        return conversation
    if conversation and conversation[0]["role"] == "system":
        merged = f"{conversation[0]['content']}\n{text}"
        return [{"role": "system", "content": merged}, *conversation[1:]]
    return [{"role": "system", "content": text}, *conversation]


def _fold_system(messages: list[Message]) -> list[Message]:
    system = "\n".join(m["content"] for m in messages if m["role"] == "system")
    spoken = [m for m in messages if m["role"] != "system"]
    if not system:
        return spoken
    if spoken and spoken[0]["role"] == "user":
        return [{"role": "user", "content": f"{system}\n{spoken[0]['content']}"}, *spoken[1:]]
    return [{"role": "user", "content": system}, *spoken]


def _takes_system(tokenizer: Any, template: str | None) -> bool:
    probe = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    try:
        tokenizer.apply_chat_template(probe, chat_template=template, tokenize=False)
    except TemplateError:
        return False
    return True


def _special_tokens(tokenizer: Any) -> dict[str, int]:
    added = {str(token): index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))


def _find_end_token(tokenizer: Any, template: str | None, special: Mapping[str, int]) -> int:
    """The special token that the template puts after a reply, else the end-of-sequence token."""
    probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
    text = tokenizer.apply_chat_template(probe, chat_template=template, tokenize=False)
    after = tokenizer(text.rpartition(_MARK)[2], add_special_tokens=False)["input_ids"][:1]
    end: int = after[0] if after and after[0] in special.values() else tokenizer.eos_token_id
    return end


def _check_slots(slots: frozenset[str], tokenizer: Any, name: str) -> None:
    vocabulary: Mapping[str, int] = tokenizer.get_vocab() if slots else {}
    special = _special_tokens(tokenizer)
    if bad := sorted(slot for slot in slots if slot not in vocabulary or slot in special)[:3]:
        raise ModelError(
            f"Every entry of `persona_slots` in config.json must be a token that is not special; in {name!r} "
            f"{bad} are not. Add them to the tokenizer as ordinary added tokens."
        )


def load_language_model(
    path_or_id: str | Path, device: str = "auto", dtype: torch.dtype | None = None
) -> LanguageModel:
    """Load a causal language model for use as a frozen base.

    Args:
        path_or_id: "nano" for the embedded model, a folder with config, safetensors weights and tokenizer, or
            an id that the Hugging Face client can resolve.
        device: "auto" takes CUDA where there is a GPU, else the CPU.
        dtype: Format of weights and products; by default bfloat16 on a GPU, and on the CPU float32 weights
            with products in bfloat16 where the processor has instructions for them.

    Raises:
        ModelError: The folder is missing, or lacks its configuration, weights or tokenizer, or cannot be
            read.
    """
    name = str(path_or_id)
    place = resolve_device(device)
    source = str(nano_folder()) if name == "nano" else name
    if Path(source).is_dir():
        _check_folder(Path(source), name)
    elif name == "nano" or not _HUB_ID.fullmatch(name):
        raise ModelError(
            f"`model` must be 'nano', a model id or a folder that exists; got {name!r}. Check the path."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype or default_dtype(place), use_safetensors=True, output_loading_info=True
        )
    except (
        OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, ImportError, SafetensorError
    ) as err:  # fmt: skip
        first_line = str(err).strip().partition("\n")[0].rstrip(".")
        reason = f"{type(err).__name__}: {first_line}."
        raise ModelError(
            f"`model` must be a readable causal language model; loading {name!r} failed with: {reason} Pass "
            "'nano', a complete model folder, or an id that is reachable from here."
        ) from err
    model, report = loaded
    if missing := sorted(report["missing_keys"])[:3]:
        raise ModelError(
            f"The weights of {name!r} must hold every parameter of its configuration; missing are {missing}. "
            "Save the model again or correct config.json."
        )
    wrapped = LanguageModel.wrap(model.to(place), tokenizer, name=name)
    return replace(wrapped, mixed=dtype is None and has_fast_bfloat16(place))


def nano_folder() -> Path:
    """Folder of the embedded language model inside the installed package."""
    return Path(__file__).resolve().parent.parent / "assets" / "nano"


def _check_folder(folder: Path, name: str) -> None:
    wanted = {
        "a configuration (config.json)": ("config.json",),
        "weights (*.safetensors)": ("*.safetensors",),
        "a tokenizer (tokenizer.json)": _TOKENIZER_FILES,
    }
    for what, patterns in wanted.items():
        if not any(any(folder.glob(pattern)) for pattern in patterns):
            raise ModelError(
                f"A model folder must hold {what}; {name!r} has none. Save the model with `save_pretrained`, "
                "weights in safetensors format, and its tokenizer beside it."
            )
