"""The unfitted persona prompt: what a language model says of a user's interest, from a persona in one prompt.

The persona is read off the user's earlier rows; the model is asked how far the interest in a film goes, and each level
gets the likelihood of its word as the reply, against those of the other words. Nothing is fitted or calibrated: that is
how such users come.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from persona.policy.context_windows import Prompt, read_prompts, read_windows, reply_log_probs
from persona.policy.language_model import LanguageModel
from recsys.columns import ITEM, LEVEL, USER
from simulators.chat.model import Message
from simulators.types import LEVELS, ItemCard
from simulators.users.ailo_prompts import persona_block, shown_lines
from simulators.users.persona_building import personas_from_log
from simulators.users.personas import Persona
from simulators.world import Catalogue

Values = NDArray[np.float64]
PROMPTS_AT_ONCE = 32
LIKE_WORDS = ("disliked", "liked")

_TASK = """You are a person who looks for a film, described below. Say in one word how far your interest in the shown
film goes: {words}."""


def prompted_levels(
    model: LanguageModel,
    early: pd.DataFrame,
    later: pd.DataFrame,
    catalogue: Catalogue,
    words: Sequence[str] = LEVELS,
) -> Values:
    """P(level) of later rows by the likelihood of the levels' words. Shape (N, K), rows sum to 1.

    Args:
        model: Reads the prompts.
        early: What personas are read off; a user without rows is nobody in particular.
        later: Rows to foretell.
        catalogue: The films.
        words: One a level, the lowest first; K of them.
    """
    known = np.intersect1d(later[USER].unique(), early[USER].unique()).tolist()
    # Personas are read off levels 0..4, whatever the scale of the log.
    scaled = early.assign(**{LEVEL: early[LEVEL] * (len(LEVELS) - 1) // (len(words) - 1)})
    personas = {p.user: p for p in personas_from_log(scaled, catalogue, known, seed=0)}
    asked = [
        _prompt(personas.get(user, Persona(user=user)), catalogue.card(item), words)
        for user, item in zip(later[USER].tolist(), later[ITEM].tolist(), strict=True)
    ]
    parts = [
        _score(model, asked[start : start + PROMPTS_AT_ONCE], words)
        for start in range(0, len(asked), PROMPTS_AT_ONCE)
    ]
    return np.concatenate(parts)


def _prompt(persona: Persona, card: ItemCard, words: Sequence[str]) -> list[Message]:
    task = _TASK.format(words=", ".join(words[:-1]) + " or " + words[-1])
    return [
        {"role": "system", "content": f"{task}\n\n{persona_block(persona)}"},
        {"role": "user", "content": "\n".join(shown_lines(card))},
    ]


@torch.inference_mode()
def _score(model: LanguageModel, asked: Sequence[list[Message]], words: Sequence[str]) -> Values:
    rows = [model.encode_reply(asked[0], word) for word in words]
    replies = [[t for t, own in zip(row.ids, row.policy, strict=True) if own] for row in rows]
    owner = np.repeat(np.arange(len(asked)), len(words)).tolist()
    with model.precision():
        prompts = [Prompt(model.encode(conversation)) for conversation in asked]
        contexts = read_prompts(model.model, read_windows(model.model, []), prompts)
        nats = reply_log_probs(model.model, contexts, replies * len(asked), owner)
    return np.asarray(torch.softmax(nats.double().reshape(len(asked), len(words)), dim=1).numpy())
