"""From texts to the matrices that profiles read, and to the named attributes that people understand.

The one place of this package that knows how features are made, scaled and kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.features import LENGTH_COLUMN, SURFACE_NAMES, Featurizer, parse_features, surface_features
from persona.features.text import COLUMNS
from persona.rewards.attributes import ATTRIBUTES, measure_attributes

Raw = Mapping[str, Tensor]
COMPONENTS = 64
"""Leading directions that are kept of each block of a model's states."""

_PROMPTS = "prompts"
# Named attributes beyond `ATTRIBUTES`, from surface columns: the sum of the first less that of the second.
_FROM_SURFACE: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "lists": (("list_items",), ()),
    "hedging": (("hedges_share",), ()),
    "formality": (("formal_words_share",), ("informal_words_share",)),
}


class RawFeatures(NamedTuple):
    """Raw features by block.

    replies: Shapes (N, H).
    prompts: Of the prompts alone. Shapes (Q, H).
    """

    replies: Raw
    prompts: Raw


class Named(NamedTuple):
    """Measured attributes with a name that people know.

    names: Attributes that vary among the replies.
    values: In deviations from the replies' mean, cut at 3. Shape (N, A).
    constant: Attributes that do not vary, and are left out.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    constant: tuple[str, ...]


def build_features(
    replies: Sequence[str],
    prompts: Sequence[Any],
    reply_prompts: NDArray[np.int64],
    names: Sequence[str],
    *,
    cache: Path | None = None,
    device: str = "auto",
) -> RawFeatures:
    """Raw features of every reply and every prompt.

    Args:
        replies: N texts.
        prompts: Q prompts, texts or lists of messages.
        reply_prompts: Row of the prompt that each reply answers. Shape (N,).
        names: What to compute: surface, relation, encoder=MODEL, states=MODEL.
        cache: Folder for states of models; None computes them anew.
        device: Where models run.

    Raises:
        DataError: A name is not known.
    """
    spec = parse_features(names, cache=cache, device=device)
    asked = [prompt_text(prompt) for prompt in prompts]
    return RawFeatures(spec.compute([asked[row] for row in reply_prompts], replies), spec.of_prompts(asked))


def prompt_text(prompt: Any) -> str:
    r"""A prompt as one text: itself, or what its messages say, one after another.

    Example:
        >>> prompt_text([{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}])
        'Hello.\nHi.'
    """
    return prompt if isinstance(prompt, str) else "\n".join(str(message["content"]) for message in prompt)


def measure_named(replies: Sequence[str]) -> Named:
    """The named attributes of replies, standardised over them.

    Args:
        replies: N texts, at least two.
    """
    place = {name: column for column, name in enumerate(SURFACE_NAMES)}
    columns = dict(zip(ATTRIBUTES, measure_attributes(replies).T, strict=True))
    surface = surface_features(replies).astype(np.float64)
    for name, (plus, minus) in _FROM_SURFACE.items():
        more, less = (surface[:, [place[part] for part in parts]].sum(1) for parts in (plus, minus))
        columns[name] = more - less
    kept = {name: values for name, values in columns.items() if np.ptp(values) > 0}
    values = np.column_stack([*kept.values(), np.zeros((len(replies), 0))])
    scaled = (values - values.mean(0)) / values.std(0)
    return Named(tuple(kept), np.clip(scaled, -3.0, 3.0), tuple(name for name in columns if name not in kept))


@dataclass(frozen=True, slots=True, eq=False)
class FeatureScale:
    """How raw features become standardised ones; fitted once and kept with the profiles that read them.

    Attributes:
        names: What was computed, as `build_features` takes it.
        replies: Of the blocks of replies.
        prompts: Of the blocks of prompts.
    """

    names: tuple[str, ...]
    replies: Featurizer
    prompts: Featurizer

    @classmethod
    def fit(
        cls,
        raw: RawFeatures,
        names: Sequence[str],
        replies: NDArray[np.int64],
        prompts: NDArray[np.int64],
    ) -> "FeatureScale":
        """Scales from those rows of replies and prompts that training may see.

        Raises:
            DataError: Fewer than two replies or prompts.
        """
        parts = [
            {name: block[torch.from_numpy(rows)] for name, block in blocks.items()}
            for blocks, rows in zip(raw, (replies, prompts), strict=True)
        ]
        fitted = [
            Featurizer.fit(
                part, components=_wide(part), columns={n: COLUMNS[n] for n in part if n in COLUMNS}
            )
            for part in parts
        ]
        return cls(tuple(names), *fitted)

    @property
    def columns(self) -> list[str]:
        """A name for each column of a reply's features."""
        found = []
        for name, block in self.replies.blocks.items():
            known = self.replies.columns.get(name, [str(place) for place in range(block.dim)])
            found += [f"{name}: {column}" for column in known]
        return found

    @property
    def length_column(self) -> int | None:
        """Column that holds the length of a reply; None without surface features."""
        name = f"surface: {SURFACE_NAMES[LENGTH_COLUMN]}"
        return self.columns.index(name) if name in self.columns else None

    def matrix(self, raw: RawFeatures, reply_prompts: NDArray[np.int64] | None = None) -> Tensor:
        """Features of every reply.

        Args:
            raw: What `build_features` found for the same names.
            reply_prompts: Row of each reply's prompt, if the prompt's features are to stand behind the reply's. (N,).

        Returns:
            Shape (N, D), or (N, D + E), float32.
        """
        replies = self.replies.transform(raw.replies)
        if reply_prompts is None:
            return replies
        return torch.cat(
            [replies, self.prompts.transform(raw.prompts)[torch.from_numpy(reply_prompts)]], dim=1
        )

    def save(self, folder: Path) -> None:
        """Write featurizer.safetensors and featurizer.json into `folder`, those of prompts into a folder of theirs."""
        self.replies.save(folder)
        self.prompts.save(folder / _PROMPTS)

    @classmethod
    def load(cls, folder: Path, names: Sequence[str]) -> "FeatureScale":
        """What `save` wrote, for those features.

        Raises:
            DataError: The files are missing or damaged, or count other things than this version does.
        """
        loaded = [Featurizer.load(place, columns=COLUMNS) for place in (folder, folder / _PROMPTS)]
        return cls(tuple(names), *loaded)


def _wide(blocks: Raw) -> dict[str, int]:
    """Blocks of states, which are cut to their leading directions."""
    return {name: COMPONENTS for name, block in blocks.items() if name not in COLUMNS and block.shape[1] > 1}
