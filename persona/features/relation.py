"""How a reply relates to what was asked, as far as words can tell."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from persona.errors import ShapeError

RELATION_NAMES = ("asked_words_used", "words_from_prompt", "cosine_of_words", "longer_than_prompt")
"""Order of the relation axis."""

_WORD = re.compile(r"[^\W_]{4,}")


def relation_features(prompts: Sequence[str], replies: Sequence[str]) -> NDArray[np.float32]:
    """Overlap of the longer words (four letters and up) of each reply with those of its prompt.

    `asked_words_used` is the share of the prompt's different words that the reply uses, `words_from_prompt` the share
    of the reply's different words that the prompt holds, `cosine_of_words` the cosine of the two counts, and
    `longer_than_prompt` the logarithm of the ratio of (1 + words). Shares are 0 where there are no words.

    Args:
        prompts: What each reply answers, N texts.
        replies: N texts.

    Returns:
        Shape (N, 4), float32, columns in the order of `RELATION_NAMES`.

    Raises:
        ShapeError: There is not one prompt for each reply.
    """
    if len(prompts) != len(replies):
        raise ShapeError(
            f"`prompts` must have one text for each of the {len(replies)} replies; got {len(prompts)}. Repeat the "
            "prompt of replies that share one."
        )
    rows = [_compare(*pair) for pair in zip(prompts, replies, strict=True)]
    return np.asarray(rows, dtype=np.float32).reshape(len(rows), len(RELATION_NAMES))


def _compare(prompt: str, reply: str) -> tuple[float, float, float, float]:
    asked, said = (_WORD.findall(text.lower()) for text in (prompt, reply))
    names = sorted({*asked, *said})
    place = {name: column for column, name in enumerate(names)}
    one, other = np.zeros(len(names)), np.zeros(len(names))
    np.add.at(one, [place[word] for word in asked], 1.0)
    np.add.at(other, [place[word] for word in said], 1.0)
    shared = int(((one > 0) & (other > 0)).sum())
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return (
        shared / max(int((one > 0).sum()), 1),
        shared / max(int((other > 0).sum()), 1),
        float(one @ other) / size if size else 0.0,
        float(np.log1p(len(reply.split())) - np.log1p(len(prompt.split()))),
    )
