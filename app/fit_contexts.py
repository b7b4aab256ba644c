"""The method that is told by which criterion each comparison was judged, from the data's column `context`."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from app.errors import ConfigError
from app.profile_methods import Contexts, Material, Method
from persona.data.comparisons import ComparisonTable
from persona.features import Featurizer, parse_features
from persona.profiles import Profile
from persona.recipes.context_aware import ContextAwareConfig, fit_criteria_profile, train_context_aware

MOST_CRITERIA = 64
"""Candidates that a user is looked for among: the criteria that most comparisons were judged by."""
_COMPONENTS = 16
_WORD = re.compile(r"\w+")


def number_contexts(
    contexts: Sequence[str], names: Sequence[str], *, cache: Path | None = None, device: str = "auto"
) -> Contexts | None:
    """The criteria of all comparisons with features of their texts; None where fewer than two are named.

    Args:
        contexts: Criterion of each comparison, empty where none is named. Shape (M,).
        names: Features that were asked for; a criterion is read by the encoder among them, else by its words.
        cache: Folder for states of models.
        device: Where models run.
    """
    texts = sorted({text for text in contexts if text})
    if len(texts) < 2:
        return None
    place = {text: row for row, text in enumerate(texts)}
    rows = np.array([place.get(text, -1) for text in contexts], dtype=np.int64)
    blocks = parse_features(names, cache=cache, device=device).of_prompts(texts)
    encoded = {name: block for name, block in blocks.items() if name.startswith("encoder")}
    blocks = encoded or {"words": torch.from_numpy(_bag_of_words(texts))}
    wide = {name: min(_COMPONENTS, len(texts) - 1) for name in blocks}
    return Contexts(tuple(texts), rows, Featurizer.fit(blocks, components=wide).transform(blocks))


def fit_context_aware(material: Material) -> Profile:
    """A reward that obeys criteria, and users found among those that the training comparisons name.

    Raises:
        ConfigError: The data name no criteria.
    """
    contexts = material.contexts
    if contexts is None:
        raise ConfigError(
            "The method `context-aware` must be told by which criterion comparisons were judged; got fewer than two in "
            "a column `context`. Add the column, or leave the method out."
        )
    known = contexts.rows >= 0
    table = material.table
    judged = ComparisonTable(
        contexts.rows[known], table.prompts[known], table.chosen[known], table.rejected[known]
    )
    criteria = contexts.features.to(material.features.device)
    reward = train_context_aware(
        judged, material.features, criteria, ContextAwareConfig(), seed=material.seed
    )
    candidates = _most_common(judged.users)
    return fit_criteria_profile(reward, criteria[candidates], table, material.features, seed=material.seed)


CONTEXT_METHODS: Mapping[str, Method] = {
    "context-aware": Method("a reward told its criterion", fit_context_aware, "Pitis et al. 2024"),
}
"""Methods that need more of the data than comparisons, so that runs, which have no such column, cannot use them."""


def _most_common(rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[int]:
    return sorted(row for row, _ in Counter(rows.tolist()).most_common(MOST_CRITERIA))


def _bag_of_words(texts: Sequence[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Whether each text has each word. Shape (Z, W)."""
    words = [set(_WORD.findall(text.lower())) for text in texts]
    known = sorted(set().union(*words)) or [""]
    return np.array([[word in own for word in known] for own in words], dtype=np.float32)
