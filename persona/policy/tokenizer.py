"""Trains the tokenizer of a small chat model: byte-level BPE, role tokens, slot tokens, a chat template."""

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, END, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Each message closes with the end token, so a prompt's tokens are always a prefix of prompt and reply."""


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, slots: Sequence[str]
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer for chat, fitted to `texts`.

    Args:
        texts: Plain texts without role tokens.
        vocab_size: Number of tokens in all, role and slot tokens included.
        slots: Tokens such as `<title>` that are kept whole and kept when decoding.

    Returns:
        A tokenizer whose end-of-sequence token closes each message.
    """
    special = [PAD, END, SYSTEM, USER, ASSISTANT]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(slots),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(slot, special=False, normalized=False) for slot in slots])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
