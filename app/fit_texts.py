"""What methods over texts are fitted on: replies and prompts as a language model can read them, cut where too long."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from app.profile_features import prompt_text
from app.quiet import quiet_libraries
from persona.data import IndexedComparisons
from persona.policy.language_model import LanguageModel, load_language_model
from persona.recipes.few_shot_tasks import ReplyTexts
from persona.types import Conversation

MOST_TOKENS = 96
"""Most tokens of a reply, and of a prompt, that methods over texts read; fewer where the model's window is small."""
_PARTS = 6


class Reader(NamedTuple):
    """A language model, and the texts of the comparisons as it reads them.

    language_model: The frozen base.
    texts: By the rows of the table.
    cut: Number of replies of which only the beginning is read.
    """

    language_model: LanguageModel
    texts: ReplyTexts
    cut: int


def open_reader(indexed: IndexedComparisons, model: str, device: str) -> Reader:
    """Load the model and cut the texts.

    Args:
        indexed: The comparisons.
        model: "nano", an id or a folder.
        device: Where it runs.

    Raises:
        ModelError: The model cannot be read.
    """
    language_model = load_base(model, device)
    replies = cut_texts(language_model, indexed.replies)
    prompts = cut_texts(language_model, [prompt_text(prompt) for prompt in indexed.prompts])
    cut = sum(short != whole for short, whole in zip(replies, indexed.replies, strict=True))
    return Reader(language_model, ReplyTexts([as_question(prompt) for prompt in prompts], replies), cut)


@lru_cache(maxsize=1)
def load_base(model: str, device: str) -> LanguageModel:
    """The language model that a method reads with, loaded once."""
    quiet_libraries()
    return load_language_model(model, device=device)


def as_question(prompt: str) -> Conversation:
    """A prompt as the message that is answered."""
    return [{"role": "user", "content": prompt}]


def most_tokens(language_model: LanguageModel) -> int:
    """Most tokens of a text, so that a shot's two replies, a prompt and a reply fit the model's window with room."""
    return min(MOST_TOKENS, language_model.window // _PARTS)


def cut_texts(language_model: LanguageModel, texts: Sequence[str]) -> list[str]:
    """Texts of at most `most_tokens` tokens each, longer ones cut at their end; short ones as they are."""
    most = most_tokens(language_model)
    rows = language_model.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    return [
        text if len(row) <= most else language_model.decode(row[:most]) or text[:most]
        for text, row in zip(texts, rows, strict=True)
    ]
