"""From texts to the matrices that profiles read, and to the named attributes that people understand.

The one place of this package that knows how features are made, scaled and kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.artefacts import load_artefact, save_artefact
from persona.errors import DataError
from persona.features import LENGTH_COLUMN, SURFACE_NAMES, Featurizer, parse_features, surface_features
from persona.features.text import COLUMNS
from persona.rewards.attributes import ATTRIBUTES, AttributeScale, measure_attributes

Raw = Mapping[str, Tensor]
Reads = Literal["replies", "replies and prompts", "attributes", "attributes and prompts"]
"""What a method reads: features of replies or their named attributes, and perhaps the prompt's features behind them."""
COMPONENTS = 64
"""Leading directions that are kept of each block of a model's states."""

_PROMPTS = "prompts"
_ATTRIBUTES, _ATTRIBUTES_KIND = "attributes", "attribute scale"
# Named attributes beyond `ATTRIBUTES`, from surface columns: the sum of the first less that of the second.
_FROM_SURFACE: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "lists": (("list_items",), ()),
    "hedging": (("hedges_share",), ()),
    "formality": (("formal_words_share",), ("informal_words_share",)),
}
ATTRIBUTE_NAMES = (*ATTRIBUTES, *_FROM_SURFACE)
"""Every named attribute that is measured here."""


class ReplyScores(NamedTuple):
    """Scores of replies by objective, which the data bring along.

    names: Of the objectives.
    values: NaN where one is unknown. Shape (N, S).
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]


def scores_of_pair(
    scores: ReplyScores | None, first: int, second: int
) -> dict[str, tuple[float | None, float | None]]:
    """Scores of two replies by objective, as JSON can hold them: None where one is unknown."""
    if scores is None:
        return {}
    one, other = (
        [float(value) if np.isfinite(value) else None for value in scores.values[row]]
        for row in (first, second)
    )
    return dict(zip(scores.names, zip(one, other, strict=True), strict=True))


def scores_from_pairs(
    pairs: Sequence[Mapping[str, Sequence[float | None]]], names: Sequence[str]
) -> ReplyScores:
    """Those objectives of the replies of pairs, one pair's two after another's; NaN where a pair lacks one."""
    missing = (None, None)
    rows = [[pair.get(name, missing)[side] for name in names] for pair in pairs for side in (0, 1)]
    return ReplyScores(tuple(names), np.array(rows, dtype=np.float64).reshape(len(rows), len(names)))


class RawFeatures(NamedTuple):
    """Raw features by block.

    replies: Shapes (N, H).
    prompts: Of the prompts alone. Shapes (Q, H).
    attributes: Named attributes of the replies as measured, in the order of `ATTRIBUTE_NAMES`. Shape (N, A).
    scores: The data's own scores, which methods over attributes read instead; None where there are none.
    """

    replies: Raw
    prompts: Raw
    attributes: NDArray[np.float64]
    scores: ReplyScores | None = None

    @property
    def objectives(self) -> ReplyScores:
        """What methods over attributes read: the data's own scores, else the measured attributes."""
        return ReplyScores(ATTRIBUTE_NAMES, self.attributes) if self.scores is None else self.scores


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
    scores: ReplyScores | None = None,
) -> RawFeatures:
    """Raw features of every reply and every prompt.

    Args:
        replies: N texts.
        prompts: Q prompts, texts or lists of messages.
        reply_prompts: Row of the prompt that each reply answers. Shape (N,).
        names: What to compute: surface, relation, encoder=MODEL, states=MODEL.
        cache: Folder for states of models; None computes them anew.
        device: Where models run.
        scores: The data's own scores of the replies.

    Raises:
        DataError: A name is not known.
    """
    spec = parse_features(names, cache=cache, device=device)
    asked = [prompt_text(prompt) for prompt in prompts]
    blocks = spec.compute([asked[row] for row in reply_prompts], replies)
    return RawFeatures(blocks, spec.of_prompts(asked), measure_attribute_values(replies), scores)


def prompt_text(prompt: Any) -> str:
    r"""A prompt as one text: itself, or what its messages say, one after another.

    Example:
        >>> prompt_text([{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}])
        'Hello.\nHi.'
    """
    return prompt if isinstance(prompt, str) else "\n".join(str(message["content"]) for message in prompt)


def measure_attribute_values(replies: Sequence[str]) -> NDArray[np.float64]:
    """The raw value of every named attribute of every reply; larger means more of it. Shape (N, A)."""
    place = {name: column for column, name in enumerate(SURFACE_NAMES)}
    surface = surface_features(replies).astype(np.float64)
    columns = [measure_attributes(replies)]
    for parts in _FROM_SURFACE.values():
        more, less = (surface[:, [place[part] for part in names]].sum(1) for names in parts)
        columns.append((more - less)[:, None])
    return np.concatenate(columns, axis=1)


def standardise_attributes(raw: NDArray[np.float64]) -> Named:
    """Named attributes of replies, standardised over them.

    Args:
        raw: As measured. Shape (N, A), N at least 2.
    """
    varies = np.ptp(raw, axis=0) > 0
    names = np.asarray(ATTRIBUTE_NAMES)
    kept = raw[:, varies]
    scaled = AttributeScale(kept.mean(0), kept.std(0))(kept)
    return Named(tuple(names[varies].tolist()), scaled, tuple(names[~varies].tolist()))


@dataclass(frozen=True, slots=True, eq=False)
class FeatureScale:
    """How raw features become standardised ones; fitted once and kept with the profiles that read them.

    Attributes:
        names: What was computed, as `build_features` takes it.
        replies: Of the blocks of replies.
        prompts: Of the blocks of prompts.
        objectives: Named attributes, or scores of the data, that vary among the training replies.
        attributes: Of those.
        is_scored: Whether they are scores of the data.
    """

    names: tuple[str, ...]
    replies: Featurizer
    prompts: Featurizer
    objectives: tuple[str, ...]
    attributes: AttributeScale
    is_scored: bool = False

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
            for blocks, rows in zip((raw.replies, raw.prompts), (replies, prompts), strict=True)
        ]
        fitted = [
            Featurizer.fit(
                part, components=_wide(part), columns={n: COLUMNS[n] for n in part if n in COLUMNS}
            )
            for part in parts
        ]
        known, seen = raw.objectives.names, raw.objectives.values[replies]
        varies = np.array([len(np.unique(column[np.isfinite(column)])) > 1 for column in seen.T])
        objectives = tuple(name for name, kept in zip(known, varies, strict=True) if kept)
        scale = AttributeScale(np.nanmean(seen[:, varies], axis=0), np.nanstd(seen[:, varies], axis=0))
        return cls(tuple(names), fitted[0], fitted[1], objectives, scale, raw.scores is not None)

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

    def matrix(self, raw: RawFeatures, reply_prompts: NDArray[np.int64], reads: Reads = "replies") -> Tensor:
        """What a method reads of every reply.

        Args:
            raw: What `build_features` found for the same names.
            reply_prompts: Row of each reply's prompt. Shape (N,).
            reads: Features of the replies, or their named attributes; and the prompt's features behind them.

        Returns:
            Shape (N, D) or (N, D + E), float32.

        Raises:
            DataError: The scores that are read are not there.
        """
        if reads.startswith("attributes"):
            own = torch.from_numpy(self._objectives(raw)).float()
        else:
            own = self.replies.transform(raw.replies)
        if not reads.endswith("prompts"):
            return own
        return torch.cat([own, self.prompts.transform(raw.prompts)[torch.from_numpy(reply_prompts)]], dim=1)

    def _objectives(self, raw: RawFeatures) -> NDArray[np.float64]:
        """Attributes or scores, standardised; an unknown score counts as the average. Shape (N, A)."""
        found = raw.objectives
        missing = [name for name in self.objectives if name not in found.names]
        if missing or self.is_scored == (raw.scores is None):
            raise DataError(
                f"Replies must bring the scores {', '.join(self.objectives)} along, to which the method was fitted; "
                f"got {', '.join(found.names if raw.scores else ()) or 'none'}. Add them in a column `scores`."
            )
        values = found.values[:, [found.names.index(name) for name in self.objectives]]
        return np.asarray(self.attributes(np.where(np.isfinite(values), values, self.attributes.mean)))

    def save(self, folder: Path) -> None:
        """Write the scales into `folder`, those of prompts into a folder of theirs."""
        self.replies.save(folder)
        self.prompts.save(folder / _PROMPTS)
        tensors = {
            "mean": torch.from_numpy(self.attributes.mean),
            "std": torch.from_numpy(self.attributes.std),
        }
        facts = {"names": list(self.objectives), "is_scored": self.is_scored}
        save_artefact(folder, _ATTRIBUTES, kind=_ATTRIBUTES_KIND, tensors=tensors, facts=facts)

    @classmethod
    def load(cls, folder: Path, names: Sequence[str]) -> "FeatureScale":
        """What `save` wrote, for those features.

        Raises:
            DataError: The files are missing or damaged, or count other things than this version does.
        """
        replies, prompts = (Featurizer.load(place, columns=COLUMNS) for place in (folder, folder / _PROMPTS))
        tensors, facts = load_artefact(folder, _ATTRIBUTES, kind=_ATTRIBUTES_KIND)
        unknown = [name for name in facts["names"] if name not in ATTRIBUTE_NAMES]
        if unknown and not facts.get("is_scored"):
            raise DataError(
                f"`{folder}` must hold attributes that this version measures; got {', '.join(unknown[:3])}. Fit the "
                "profiles again."
            )
        scale = AttributeScale(tensors["mean"].numpy(), tensors["std"].numpy())
        return cls(tuple(names), replies, prompts, tuple(facts["names"]), scale, bool(facts.get("is_scored")))


def _wide(blocks: Raw) -> dict[str, int]:
    """Blocks of states, which are cut to their leading directions."""
    return {name: COMPONENTS for name, block in blocks.items() if name not in COLUMNS and block.shape[1] > 1}
