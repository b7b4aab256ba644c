"""Keys and values of tokens that were read, kept for the tokens to come."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer


class BufferedLayer(DynamicLayer):
    """Keys and values of one layer in a buffer of known size: a step copies one token and not the past.

    Args:
        rows: Rows of the whole batch.
        capacity: Most tokens a row.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, rows: int, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows, self.capacity = rows, capacity
        self.first = self.length = 0
        self.window = slice(0, rows)

    def open_window(self, rows: slice, first: int) -> None:
        """Let the next prompts fill these rows, from place `first` on; what lies before is padding to all of them."""
        self.window, self.first, self.length = rows, first, first

    def put(self, keys: Tensor, values: Tensor) -> None:
        """Begin all rows of the window with the same past, (1, heads, length, head size)."""
        if not self.is_initialized:
            self._allocate(keys, values)
        start, self.length = self.length, self.length + keys.shape[-2]
        self.keys[self.window, :, start : self.length] = keys
        self.values[self.window, :, start : self.length] = values

    def open_all(self) -> None:
        """Let the next tokens go to all rows, behind the prompts."""
        self.window, self.first = slice(0, self.rows), 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append tokens to the window's rows; returns all that they hold, (B, heads, length, head size)."""
        if not self.is_initialized:
            self._allocate(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[-2]
        keys, values = self.keys[self.window], self.values[self.window]
        keys[:, :, start : self.length] = key_states
        values[:, :, start : self.length] = value_states
        return keys[:, :, self.first : self.length], values[:, :, self.first : self.length]

    def _allocate(self, key_states: Tensor, value_states: Tensor) -> None:
        self.lazy_initialization(key_states, value_states)
        self.keys, self.values = (
            x.new_zeros(self.rows, x.shape[1], self.capacity, x.shape[3], dtype=_kept_dtype(x))
            for x in (key_states, value_states)
        )

    def get_seq_length(self) -> int:
        """Tokens held in the rows of the window."""
        return self.length - self.first

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order; the window is then the whole batch."""
        self.keys, self.values = self.keys[indices], self.values[indices]
        self.rows = len(indices)
        self.open_all()


def _kept_dtype(states: Tensor) -> torch.dtype:
    """The format in which attention multiplies: kept wider, the whole past would be converted at every step."""
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
