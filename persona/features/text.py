"""Raw features of replies by name: what a user asks for in one word each, computed once and kept.

Names: `surface` (counts), `relation` (overlap with the prompt), `encoder=MODEL` (a sentence encoder: mean of the last
layer, unit length, with the cosine between reply and prompt beside it), `states=MODEL` (a language model that has read
prompt and reply: last token and mean of its middle and last layers). MODEL is a folder or id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.errors import DataError
from persona.features.cache import FeatureCache
from persona.features.relation import RELATION_NAMES, relation_features
from persona.features.states import StateEncoder, StateSettings
from persona.features.surface import SURFACE_NAMES, surface_features

COLUMNS: Mapping[str, Sequence[str]] = {"surface": SURFACE_NAMES, "relation": RELATION_NAMES}
"""Names of the columns of blocks that have them."""

_PLAIN = ("surface", "relation")
_MODELS = ("encoder", "states")


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """Which features to compute.

    Attributes:
        plain: Among "surface" and "relation".
        models: Kind ("encoder" or "states") and model of each further block.
        cache: Folder for states of models; None computes them anew every time.
        device: Where models run.
    """

    plain: tuple[str, ...] = ("surface",)
    models: tuple[tuple[str, str], ...] = ()
    cache: Path | None = None
    device: str = "auto"

    def compute(self, prompts: Sequence[str], replies: Sequence[str]) -> dict[str, Tensor]:
        """Raw blocks of N replies, for `Featurizer.fit` and `Featurizer.transform`.

        Args:
            prompts: What each reply answers, N texts.
            replies: N texts.

        Returns:
            By name of the block, shape (N, H), float32.
        """
        blocks: dict[str, Tensor] = {}
        if "surface" in self.plain:
            blocks["surface"] = torch.from_numpy(surface_features(replies))
        if "relation" in self.plain:
            blocks["relation"] = torch.from_numpy(relation_features(prompts, replies))
        for kind, model in self.models:
            if kind == "encoder":
                said, asked = self._rows(_encoder(model), [list(replies), list(prompts)])
                blocks[f"encoder={model}"] = said
                blocks[f"encoder={model} cosine"] = (said * asked).sum(1, keepdim=True)
            else:
                whole = [f"{prompt}\n\n{reply}" for prompt, reply in zip(prompts, replies, strict=True)]
                settings = StateSettings(model, pooling="last", layers=(-1,), max_tokens=1024)
                blocks[f"states={model} last"] = self._rows(settings, [whole])[0]
                middle = replace(settings, pooling="mean", layers=(-2, -1))
                blocks[f"states={model} mean"] = self._rows(middle, [whole])[0]
        return blocks

    def of_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Raw blocks of the prompts alone, for profiles that weigh by prompt; surface counts stand in for no model."""
        encoders = [model for kind, model in self.models if kind == "encoder"]
        if not encoders:
            return {"surface": torch.from_numpy(surface_features(prompts))}
        return {f"encoder={model}": self._rows(_encoder(model), [list(prompts)])[0] for model in encoders}

    def _rows(self, settings: StateSettings, groups: Sequence[list[str]]) -> list[Tensor]:
        """States of several groups of texts; the model is loaded only if the cache lacks one."""
        encoders: list[StateEncoder] = []

        def compute(texts: list[str]) -> NDArray[np.float32]:
            if not encoders:
                encoders.append(StateEncoder(settings, device=self.device))
            return np.asarray(encoders[0].encode(texts).numpy(), dtype=np.float32)

        if self.cache is None:
            return [torch.from_numpy(compute(texts)) for texts in groups]
        cache = FeatureCache(self.cache)
        return [torch.from_numpy(np.array(cache.rows(settings.kind, texts, compute))) for texts in groups]


def _encoder(model: str) -> StateSettings:
    """Sentence encoders are trained on short texts, and cost grows with length: 256 tokens are read."""
    return StateSettings(model, unit=True, max_tokens=256)


def parse_features(names: Sequence[str], *, cache: Path | None = None, device: str = "auto") -> TextFeatures:
    """Features from their names.

    Raises:
        DataError: No name, a name twice, or one that is not known.

    Example:
        >>> parse_features(["surface", "encoder=my/model"]).models
        (('encoder', 'my/model'),)
    """
    plain, models = [], []
    for name in names:
        kind, _, model = name.partition("=")
        if name in _PLAIN:
            plain.append(name)
        elif kind in _MODELS and model:
            models.append((kind, model))
        else:
            raise DataError(
                f"A feature must be surface, relation, encoder=MODEL or states=MODEL; got `{name}`. Name a "
                "folder or id after the equals sign."
            )
    if not names or len(set(names)) != len(names):
        raise DataError(
            f"Features must be named, each once; got {', '.join(names) or 'none'}. Start with surface."
        )
    return TextFeatures(tuple(plain), tuple(models), cache, device)
