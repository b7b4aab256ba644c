"""Batched sampling from any causal language model, with a draw of its own for every row.

The loop is short on purpose: with a small model the Python between two forward passes is most of the time.
Prompts are padded on the left, what they all begin with is read once, keys and values go into buffers that are
allocated once, rows that have finished leave the batch, and a row's random numbers come from its own seed, so that
its reply does not depend on who shares the batch (up to floating point).

Shape letters: N prompts, B rows of one batch, T padded prompt length, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from persona.errors import DataError, ShapeError
from persona.policy.batches import batch_tokens, forward_options, pad_left, positions_of, rows_at_once
from persona.policy.kept_states import BufferedLayer

KEEP_SHARE = 0.8
"""Rows that have finished leave the batch when at most this share of it is still running."""

LEAST_SHARED = 16
"""Tokens that a batch's prompts must begin with alike to be read once for all: fewer are not worth a pass."""

RowCallback: TypeAlias = Callable[[Tensor], None]
"""Told which prompts (int64 indexes into `prompts`) form the batch, whenever that changes."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        max_new_tokens: Most tokens in a reply, at least 1.
        temperature: Logits are divided by it; 0 takes the most likely token.
        top_p: Share of probability kept, in (0, 1]; 1 keeps everything (Holtzman et al. 2020).
    """

    max_new_tokens: int = 48
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.max_new_tokens < 1 or not self.temperature >= 0 or not 0 < self.top_p <= 1:
            raise DataError(
                "`max_new_tokens` must be at least 1, `temperature` at least 0 and `top_p` in (0, 1]; got "
                f"{self.max_new_tokens}, {self.temperature} and {self.top_p}. Use temperature=0 for the most "
                "likely reply."
            )


def draw_tokens(logits: Tensor, uniform: Tensor | None, temperature: float, top_p: float) -> Tensor:
    """One token a row by inversion of the cumulative distribution.

    Args:
        logits: Shape (B, V); -inf bans a token.
        uniform: One number in [0, 1) a row, shape (B,), float32; None takes the most likely token.
        temperature: Positive; not read when `uniform` is None.
        top_p: Keep the smallest set of most likely tokens that holds this share of probability.

    Returns:
        Token ids, shape (B,), int64.
    """
    if uniform is None:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.float() / temperature, -1)
    order = None
    if top_p < 1:
        probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= top_p, 0)
    cumulative = probabilities.cumsum(-1)
    # uniform < 1 in float32, so the target stays below the total and a token of probability zero is never
    # met.
    target = uniform[:, None] * cumulative[:, -1:]
    token = torch.searchsorted(cumulative, target, right=True)
    return (token if order is None else order.gather(-1, token))[:, 0]


def sample_tokens(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    seeds: Sequence[int],
    stop_tokens: Sequence[int],
    banned: Sequence[Sequence[int]] | None = None,
    groups: Sequence[int] | None = None,
    on_rows: RowCallback | None = None,
    batch_size: int | None = None,
    keep_stop: bool = False,
) -> list[list[int]]:
    """Continue every prompt until a stop token or the length limit.

    Args:
        model: A causal language model of transformers, in evaluation mode.
        prompts: N non-empty lists of token ids.
        sampling: Length, temperature and nucleus.
        seeds: One seed a prompt; the same prompt and seed give the same reply in any batch, up to floating
            point.
        stop_tokens: Ids that end a reply; left out of the result.
        banned: For each prompt, ids that must not be produced.
        groups: A number for each prompt; prompts with the same number must be equal, also in what `on_rows`
            sets for them, and are read once. None reads every prompt by itself.
        on_rows: Called with the batch's prompt indexes before its first forward pass and after every change,
            so that state held a row (such as a gate) can follow.
        batch_size: Most prompts decoded side by side; prompts of like length share a batch. None takes as many as
            `rows_at_once` allows for the longest prompt.
        keep_stop: Whether a reply that ended keeps the stop token that ended it.

    Returns:
        New token ids of each prompt, in the given order.

    Raises:
        ShapeError: `seeds`, `banned` or `groups` has not one entry a prompt.
        DataError: A prompt is empty.
    """
    given = {"seeds": seeds, "banned": banned, "groups": groups}
    if wrong := {name: len(x) for name, x in given.items() if x is not None and len(x) != len(prompts)}:
        raise ShapeError(
            f"`seeds`, `banned` and `groups` must have one entry for each of the {len(prompts)} prompts; got "
            f"{wrong}. "
            "Pass one seed a row."
        )
    if empty := [row for row, prompt in enumerate(prompts) if not prompt][:3]:
        raise DataError(
            f"Every prompt must hold at least one token; got empty ones in rows {empty}. Leave them out."
        )
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    if batch_size is None:
        batch_size = rows_at_once(model, max(map(len, prompts), default=0) + sampling.max_new_tokens)
    replies: list[list[int]] = [[] for _ in prompts]
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = _Batch(
                rows=torch.tensor(rows),
                uniform=_uniforms([seeds[row] for row in rows], sampling),
                banned=[banned[row] for row in rows] if banned is not None else [],
                on_rows=on_rows,
            )
            same = [groups[row] for row in rows] if groups is not None else rows
            found = _decode(model, [prompts[row] for row in rows], batch, sampling, stop_tokens, same=same)
            for row, (reply, ended) in zip(rows, found, strict=True):
                replies[row] = reply if keep_stop or not ended else reply[:-1]
    return replies


@dataclass(slots=True)
class _Batch:
    """What is known about each row still being decoded.

    rows: Index of the prompt. Shape (B,), int64.
    uniform: Random numbers for every step, shape (B, steps), float32; None for the most likely token.
    banned: For each row, ids that must not be produced; empty if there are none at all.
    mask: The same, shape (B, V), True where banned; None until the width of the vocabulary is known.
    """

    rows: Tensor
    uniform: Tensor | None
    banned: list[Sequence[int]]
    on_rows: RowCallback | None
    mask: Tensor | None = None

    def announce(self, index: Tensor | slice = slice(None)) -> None:
        if self.on_rows is not None:
            self.on_rows(self.rows[index])

    def keep(self, index: Tensor) -> None:
        self.rows = self.rows[index.cpu()]
        self.uniform = None if self.uniform is None else self.uniform[index]
        self.mask = None if self.mask is None else self.mask[index]
        self.announce()

    def without_banned(self, logits: Tensor) -> Tensor:
        if not any(self.banned):
            return logits
        if self.mask is None:
            mask = torch.zeros(logits.shape, dtype=torch.bool)
            for row, tokens in enumerate(self.banned):
                mask[row, list(tokens)] = True
            self.mask = mask.to(logits.device)
        return logits.masked_fill(self.mask, -torch.inf)


def _uniforms(seeds: Sequence[int], sampling: Sampling) -> Tensor | None:
    if sampling.temperature == 0:
        return None
    steps = sampling.max_new_tokens
    draws = [np.random.Generator(np.random.PCG64(seed)).random(steps, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(draws))


def _prefill(
    model: PreTrainedModel, prompts: list[Sequence[int]], batch: _Batch, first: Tensor, steps: int
) -> tuple[Tensor, DynamicCache, Tensor]:
    """Read the prompts, some rows at a time so that activations stay in the processor's caches.

    What all prompts begin with is read once, unless each row has a state of its own.

    Returns:
        Logits of the next token (B, V), the cache of all rows, and the attention mask of the prompts (B, T).
    """
    cache = DynamicCache(config=model.config)
    # A sliding window keeps its own kind of layer.
    buffered = all(type(layer) is DynamicLayer for layer in cache.layers)
    shared = _shared_length(prompts) if buffered and batch.on_rows is None else 0
    begun = _read_shared(model, prompts[0][:shared]) if shared else None
    ids, mask = pad_left([prompt[shared:] for prompt in prompts], model.device)
    rows, longest = ids.shape
    parts = [slice(0, rows)]
    if buffered:
        cache.layers = [BufferedLayer(rows, shared + longest + steps) for _ in cache.layers]
        parts = _parts([len(prompt) - shared for prompt in prompts], batch_tokens(model.device))
    full = torch.cat([mask.new_zeros(rows, shared), mask], 1)
    known = forward_options(model)
    logits: list[Tensor] = []
    for part in parts:
        padding = longest - max(len(prompt) - shared for prompt in prompts[part])
        for number, layer in enumerate(cache.layers):
            if isinstance(layer, BufferedLayer):
                layer.open_window(part, padding)
                if begun is not None:
                    layer.put(*begun[number])
        full[part, padding : padding + shared] = 1
        full[part, padding + shared :] = mask[part, padding:]
        seen = full[part, padding:]
        batch.announce(first[part])
        options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        if "position_ids" in known:
            options["position_ids"] = positions_of(seen)[:, shared:]
        out = model(
            input_ids=ids[part, padding:],
            attention_mask=seen,
            past_key_values=cache,
            use_cache=True,
            **options,
        )
        logits.append(out.logits[:, -1])
    for layer in cache.layers:
        if isinstance(layer, BufferedLayer):
            layer.open_all()
    return torch.cat(logits), cache, full


def _shared_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with alike, one left for each; 0 where that is not worth a pass of its own."""
    low, high = min(map(list, prompts)), max(map(list, prompts))  # what these share, all share
    most = min(len(prompt) for prompt in prompts) - 1
    shared = next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), most)
    return min(shared, most) if len(prompts) > 1 and min(shared, most) >= LEAST_SHARED else 0


def _read_shared(model: PreTrainedModel, tokens: Sequence[int]) -> list[tuple[Any, Any]]:
    """Keys and values of each layer for tokens that all rows begin with, (1, heads, length, head size)."""
    cache: Any = DynamicCache(config=model.config)
    ids = torch.tensor([list(tokens)], device=model.device)
    options = {"logits_to_keep": 1} if "logits_to_keep" in forward_options(model) else {}
    model(input_ids=ids, past_key_values=cache, use_cache=True, **options)
    return [(layer.keys, layer.values) for layer in cache.layers]


def _parts(lengths: list[int], budget: int) -> list[slice]:
    """Rows in order, cut so that each part, padded to its own longest row, holds at most `budget` tokens or one row."""
    parts: list[slice] = []
    start = widest = 0
    for row, length in enumerate(lengths):
        widest = max(widest, length)
        if row > start and (row + 1 - start) * widest > budget:
            parts.append(slice(start, row))
            start, widest = row, length
    return [*parts, slice(start, len(lengths))]


def _decode(
    model: PreTrainedModel,
    prompts: list[Sequence[int]],
    batch: _Batch,
    sampling: Sampling,
    stop_tokens: Sequence[int],
    *,
    same: Sequence[int],
) -> list[tuple[list[int], bool]]:
    """New tokens of each prompt, and whether the last of them is a stop token."""
    device, steps = model.device, sampling.max_new_tokens
    first = {number: row for row, number in reversed(list(enumerate(same)))}
    read = sorted(first.values())
    logits, cache, mask = _prefill(model, [prompts[i] for i in read], batch, torch.tensor(read), steps)
    if len(read) < len(prompts):
        index = torch.tensor([read.index(first[number]) for number in same], device=device)
        cache.batch_select_indices(index)
        logits, mask = logits[index], mask[index]
    batch.announce()
    batch.uniform = None if batch.uniform is None else batch.uniform.to(device)
    rows, longest = mask.shape
    positions = mask.sum(1, keepdim=True)
    mask = torch.cat([mask, mask.new_ones(rows, steps)], 1)
    stops = torch.tensor(sorted(stop_tokens), device=device)
    produced = torch.zeros(rows, steps, dtype=torch.long, device=device)
    lengths = torch.full((rows,), steps, device=device)
    slot = torch.arange(rows, device=device)
    running = torch.ones(rows, dtype=torch.bool, device=device)
    takes_positions = "position_ids" in forward_options(model)
    for step in range(steps):
        uniform = None if batch.uniform is None else batch.uniform[:, step]
        token = draw_tokens(batch.without_banned(logits), uniform, sampling.temperature, sampling.top_p)
        produced[slot, step] = token
        ended = torch.isin(token, stops) & running
        lengths[slot[ended]] = step
        running &= ~ended
        left = int(running.sum())
        if left == 0 or step + 1 == steps:
            break
        if left <= KEEP_SHARE * len(running):
            index = running.nonzero()[:, 0]
            cache.batch_select_indices(index)
            token, positions, mask, slot, running = (
                x[index] for x in (token, positions, mask, slot, running)
            )
            batch.keep(index)
        options = {"position_ids": positions} if takes_positions else {}
        seen = mask[:, : longest + step + 1]
        out = model(
            input_ids=token[:, None], attention_mask=seen, past_key_values=cache, use_cache=True, **options
        )
        logits, positions = out.logits[:, -1], positions + 1
    # A reply that never stopped has no token after its last.
    return [
        (row[: end + 1], end < steps) for row, end in zip(produced.tolist(), lengths.tolist(), strict=True)
    ]
