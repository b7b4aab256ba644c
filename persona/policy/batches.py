"""How rows of tokens become batches: padded on the left, as many at once as caches and memory take.

Shape letters: B rows of one batch, T padded length.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def pad_left(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, padded on the left with id 0, which the mask hides.

    Returns:
        Ids and mask (1 where real), both of shape (B, T), int64, T being the longest row.
    """
    longest = max(len(row) for row in rows)
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, longest - len(row) :] = row
        mask[index, longest - len(row) :] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def positions_of(mask: Tensor) -> Tensor:
    """Position of every token in its row, 0 for the first real one and where padded; shape as `mask`."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def batch_tokens(device: torch.device) -> int:
    """Padded tokens to put through the model at once: few on a CPU, whose caches are small; many on a GPU."""
    return 2048 if device.type == "cpu" else 32768


def rows_at_once(model: PreTrainedModel, tokens: int) -> int:
    """Rows of so many tokens whose keys and values fit in half a GiB on a CPU and in four on a GPU, at least 1.

    A step costs the same Python for any number of rows, so a small model wants many; a large one would fill the memory.
    A model whose configuration does not tell its heads is taken to keep 8 KiB a token.
    """
    config: Any = model.config.get_text_config()

    def told(name: str) -> int:
        value = getattr(config, name, None)
        return value if isinstance(value, int) else 0

    heads = told("num_attention_heads")
    head_size = told("head_dim") or told("hidden_size") // max(heads, 1)
    kept = 2 * told("num_hidden_layers") * (told("num_key_value_heads") or heads) * head_size * 4 or 8192
    room = 2**29 if model.device.type == "cpu" else 2**32
    return max(1, room // (kept * max(tokens, 1)))


def forward_options(model: nn.Module) -> frozenset[str]:
    """Arguments of this model's forward pass; not all models take `position_ids` or `logits_to_keep`."""
    return frozenset(inspect.signature(model.forward).parameters)
