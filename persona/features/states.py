"""Hidden states of any Hugging Face model as features of a text: encoders of sentences and language models alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from persona.errors import DataError, ModelError
from persona.policy.device import default_dtype, has_fast_bfloat16, resolve_device

Pooling = Literal["mean", "last", "first"]

TOKENS_PER_BATCH = 16_384


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Which states of which model.

    Attributes:
        model: Folder or id of any model of transformers.
        pooling: Over a text's tokens: their mean, the last one, or the first one (BERT's [CLS]).
        layers: Which hidden states, side by side: 0 the embeddings, -1 the last layer.
        unit: Scale each row to length 1, as sentence encoders are used.
        max_tokens: Longer texts lose their end, or their beginning where the last token is read.
    """

    model: str
    pooling: Pooling = "mean"
    layers: tuple[int, ...] = (-1,)
    unit: bool = False
    max_tokens: int = 512

    @property
    def kind(self) -> str:
        """What a row depends on besides its text, for a cache; a folder counts with its weights' size and time."""
        folder = Path(self.model)
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        stamp = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return repr((self.model, self.pooling, self.layers, self.unit, self.max_tokens, stamp))


class StateEncoder:
    """A frozen model that turns texts into rows of states.

    Args:
        settings: Model, pooling and layers.
        device: Where it runs: "auto", "cpu", "cuda" ...

    Raises:
        ModelError: The model cannot be loaded, or lacks a layer that is asked for.
    """

    def __init__(self, settings: StateSettings, *, device: str = "auto") -> None:
        from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415 - takes seconds, and surface features need none

        self.settings = settings
        self._device = resolve_device(device)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(settings.model)
            model: Any = AutoModel.from_pretrained(settings.model, dtype=default_dtype(self._device))
        except (OSError, ValueError, KeyError) as err:
            raise ModelError(
                f"`{settings.model}` must be the folder or id of a model of transformers; it cannot be loaded: "
                f"{str(err).splitlines()[0] if str(err) else type(err).__name__}. Check the path."
            ) from err
        self._model = model.to(self._device).eval().requires_grad_(False)
        depth = int(self._model.config.num_hidden_layers)
        if bad := [layer for layer in settings.layers if not -depth - 1 <= layer <= depth]:
            raise ModelError(
                f"`layers` must lie between {-depth - 1} and {depth} for `{settings.model}`; got {bad}. Choose among "
                f"its {depth} layers."
            )
        self._tokenizer.truncation_side = "left" if settings.pooling == "last" else "right"
        self._tokenizer.padding_side = "right"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """One row for each text, computed in batches of texts of like length.

        Returns:
            Shape (N, layers x width), float32, on the CPU.

        Raises:
            DataError: A text without a token.
        """
        window = min(self.settings.max_tokens, _window(self._tokenizer, self._model))
        ids = (
            self._tokenizer(list(texts), truncation=True, max_length=window)["input_ids"]
            if len(texts)
            else []
        )
        if empty := [row for row, tokens in enumerate(ids) if not tokens]:
            raise DataError(
                f"Texts must hold at least one token; got none in rows {empty[:3]}. Leave them out."
            )
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        found: list[Tensor] = []
        start = 0
        while start < len(order):
            longest = len(ids[order[min(start + 255, len(order) - 1)]])
            part = order[start : start + max(1, min(256, TOKENS_PER_BATCH // longest))]
            found.append(self._encode_batch([ids[row] for row in part]))
            start += len(part)
        if not found:
            return torch.zeros(0, len(self.settings.layers) * int(self._model.config.hidden_size))
        rows = torch.cat(found)
        return rows[torch.argsort(torch.tensor(order))]

    def _encode_batch(self, ids: list[list[int]]) -> Tensor:
        batch = self._tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self._device)
        # On a CPU with the instructions for it, products in bfloat16 take a third of the time.
        with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bfloat16(self._device)):
            states = self._model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                output_hidden_states=True,
            ).hidden_states
        mask = batch["attention_mask"]
        pooled = torch.cat([self._pool(states[layer].float(), mask) for layer in self.settings.layers], dim=1)
        if self.settings.unit:
            pooled = torch.nn.functional.normalize(pooled, dim=1)
        return pooled.cpu()

    def _pool(self, states: Tensor, mask: Tensor) -> Tensor:
        if self.settings.pooling == "first":
            return states[:, 0]
        if self.settings.pooling == "last":
            return states[torch.arange(len(states)), mask.sum(1) - 1]
        weight = mask.float() / mask.sum(1, keepdim=True)
        return torch.einsum("bt,bth->bh", weight, states)


def _window(tokenizer: Any, model: Any) -> int:
    """Tokens that the model reads; some tokenizers say a number without meaning where they do not know."""
    sizes = (tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None))
    return min([int(size) for size in sizes if size and size < 1e6] or [512])
