"""Random language models and tokenizers small enough to be built anew in every test."""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from persona.policy.language_model import LanguageModel

SLOTS = ("<title>", "<year>", "<genre>")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WORDS = [
    "You may like this film because it is warm and slow.",
    "What a wonderful story! Do you want more like it?",
    "I would watch something short tonight. yes no",
]


def tiny_tokenizer(
    *, chat_template: str | None = CHAT_TEMPLATE, slots: tuple[str, ...] = SLOTS
) -> PreTrainedTokenizerFast:
    """Byte-level BPE of about 300 tokens, with role tokens and, as ordinary added tokens, slots."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    tokenizer.add_tokens([AddedToken(slot, normalized=False) for slot in slots])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=special[2:],
    )
    fast.chat_template = chat_template
    return fast


def tiny_llama(vocabulary: int, *, seed: int = 0, width: int = 32, layers: int = 2) -> LlamaForCausalLM:
    """A random Llama with grouped key and value heads; the same seed gives the same weights."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    for (
        parameter
    ) in model.parameters():  # livelier than the usual start, so that contexts change what is likely
        if parameter.ndim == 2:
            parameter.data.normal_(0.0, 0.2, generator=generator)
    return model


def tiny_language_model(
    *, seed: int = 0, chat_template: str | None = CHAT_TEMPLATE, slots: tuple[str, ...] = SLOTS
) -> LanguageModel:
    """The two together, as `load_language_model` would return them."""
    tokenizer = tiny_tokenizer(chat_template=chat_template, slots=slots)
    model = tiny_llama(len(tokenizer), seed=seed)
    model.config.persona_slots = list(slots)
    return LanguageModel.wrap(model, tokenizer, name="tiny")


def save_tiny_model(folder: Path) -> None:
    """Write `tiny_language_model` so that `load_language_model` reads it."""
    model = tiny_language_model()
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
