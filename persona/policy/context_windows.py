"""Texts that a model reads once and many later rows attend to: their keys and values, and how rows see them.

A window is a text read by itself. A prompt sees some windows as if they stood before it, and replies see their
prompt and its windows. A prompt that sees one window, and starts where it ends, reads exactly what it would read if
both were one row. A prompt that sees several sees a set: no window has read another and all end at one position, so
their order cannot matter (Ratner et al., 2023, "Parallel Context Windows for Large Language Models", ACL). Of a window
only the last tokens may be kept, which then have to sum it up (Mu et al., 2023, "Learning to Compress Prompts with
Gist Tokens", NeurIPS).

Shape letters: W windows, L tokens of the longest window, B prompts, K windows of a prompt, C tokens that a prompt's
replies see, N replies, T tokens of the longest row, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from persona.errors import DataError, ModelError
from persona.policy.batches import forward_options
from persona.policy.sampling import Sampling, draw_tokens


class Windows(NamedTuple):
    """Keys and values of W windows in every layer.

    keys: One tensor a layer. Shape (W, heads, L, head size) each.
    values: The same shapes.
    mask: True where a window has a token. Shape (W, L), bool.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor


class Prompt(NamedTuple):
    """A prompt and what it sees before itself.

    ids: Its tokens, at least one; a reply comes next.
    windows: Indexes of the windows that it sees.
    start: Position of its first token.
    """

    ids: Sequence[int]
    windows: tuple[int, ...] = ()
    start: int = 0


class Contexts(NamedTuple):
    """All that the replies to each of B prompts see, but for the prompt's last token, which is read with them.

    keys: One tensor a layer. Shape (B, heads, C, head size) each.
    values: The same shapes.
    mask: 1 where there is a token. Shape (B, C), int64.
    last: Last token of each prompt. Shape (B,), int64.
    position: Its position. Shape (B,), int64.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    last: Tensor
    position: Tensor


def read_windows(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], *, end: int | None = None, last: int | None = None
) -> Windows:
    """Read each window once, by itself; differentiable.

    Args:
        model: A causal language model whose layers keep all keys and values.
        rows: W lists of token ids, none empty; no list at all is no window.
        end: Position behind the last token of every window; None lets every window begin at position 0.
        last: Tokens kept of each window, counted from its end; None for all.

    Raises:
        ModelError: The model takes no positions, or has layers with a sliding or recurrent memory.
        DataError: A window is empty, or longer than `end`.
    """
    check_keeps_everything(model)
    lengths = [len(row) for row in rows]
    if rows and (min(lengths) < 1 or (end is not None and max(lengths) > end)):
        raise DataError(
            f"Windows must hold 1 to {end or 'any number of'} tokens; got {min(lengths)} to {max(lengths)}. Drop or "
            "shorten them."
        )
    if not rows:
        return Windows((), (), torch.zeros(0, 0, dtype=torch.bool, device=model.device))
    ids, mask = _pad_right(rows, model.device)
    length = mask.sum(1)
    shift = torch.zeros_like(length) if end is None else end - length
    place = torch.arange(ids.shape[1], device=model.device)
    cache = DynamicCache(config=model.config)
    # Padding is on the right, where causal attention never looks.
    model.base_model(
        input_ids=ids, position_ids=shift[:, None] + place, past_key_values=cache, use_cache=True
    )
    keys, values = _keys_and_values(cache)
    if last is None:
        return Windows(keys, values, mask.bool())
    kept = length[:, None] - last + torch.arange(last, device=model.device)
    keys, values = (tuple(_take_tokens(x, kept.clamp(min=0)) for x in part) for part in (keys, values))
    return Windows(keys, values, kept >= 0)


def check_keeps_everything(model: PreTrainedModel) -> None:
    """Raise `ModelError` unless the model takes positions and keeps the keys and values of all tokens."""
    layers = DynamicCache(config=model.config).layers
    if "position_ids" not in forward_options(model) or any(type(x) is not DynamicLayer for x in layers):
        raise ModelError(
            "Reading shots apart needs a model that takes positions and keeps all keys and values; got "
            f"{type(model).__name__}. Use one without sliding or recurrent layers."
        )


def read_prompts(model: PreTrainedModel, windows: Windows, prompts: Sequence[Prompt]) -> Contexts:
    """Read each prompt once, for all replies to it; differentiable."""
    device = model.device
    ids, mask = _pad_right([prompt.ids for prompt in prompts], device)
    length = mask.sum(1)
    last = ids.gather(1, length[:, None] - 1)[:, 0]
    start = torch.tensor([prompt.start for prompt in prompts], device=device)
    cache, seen = _seen_cache(model, windows, prompts)
    mask = mask[:, 1:]  # the last token of each prompt waits for the replies
    if mask.shape[1]:
        model.base_model(
            input_ids=ids[:, :-1],
            attention_mask=torch.cat([seen, mask], 1),
            position_ids=start[:, None] + torch.arange(mask.shape[1], device=device),
            past_key_values=cache,
            use_cache=True,
        )
    return Contexts(
        *_keys_and_values(cache),
        torch.cat([seen, mask], 1),
        last,
        start + length - 1,
    )


def reply_log_probs(
    model: PreTrainedModel, contexts: Contexts, replies: Sequence[Sequence[int]], owner: Sequence[int]
) -> Tensor:
    """Log-probability of replies, end tokens included.

    Args:
        model: The model that read `contexts`.
        contexts: What was read of B prompts.
        replies: N rows of token ids.
        owner: The prompt that each reply answers. N indexes.

    Returns:
        Nats a reply, shape (N,), float32, differentiable.
    """
    index = torch.tensor(list(owner), dtype=torch.long, device=model.device)
    ids, mask = _pad_right(replies, model.device)
    rows = torch.cat([contexts.last[index, None], ids[:, :-1]], 1)
    positions = contexts.position[index, None] + torch.arange(rows.shape[1], device=model.device)
    logits = model(
        input_ids=rows,
        attention_mask=torch.cat([contexts.mask[index], torch.ones_like(mask)], 1),
        position_ids=positions,
        past_key_values=_cache_of(model, contexts, index),
        use_cache=True,
    ).logits
    real = mask.bool()
    nats = functional.cross_entropy(logits[real].float(), ids[real], reduction="none")
    return torch.zeros(len(ids), device=model.device).index_add(0, real.nonzero()[:, 0], -nats)


@torch.inference_mode()
def continue_prompts(
    model: PreTrainedModel,
    contexts: Contexts,
    sampling: Sampling,
    *,
    seeds: Sequence[int],
    stop_tokens: Sequence[int],
    banned: Sequence[Sequence[int]] | None = None,
) -> list[list[int]]:
    """Sample a reply to every prompt, with a draw of its own for each.

    Args:
        model: The model that read `contexts`.
        contexts: What was read of B prompts.
        sampling: Length, temperature and nucleus.
        seeds: One seed a prompt.
        stop_tokens: Ids that end a reply; left out of the result.
        banned: For each prompt, ids that must not be produced.

    Returns:
        New token ids of each prompt. As in `sample_tokens`, up to floating point, where no windows are seen.
    """
    device, steps, rows = model.device, sampling.max_new_tokens, len(contexts.last)
    uniform = None
    if sampling.temperature > 0:
        draws = [np.random.Generator(np.random.PCG64(s)).random(steps, dtype=np.float32) for s in seeds]
        uniform = torch.from_numpy(np.stack(draws)).to(device)
    cache = _cache_of(model, contexts, torch.arange(rows, device=device))
    stops = torch.tensor(sorted(stop_tokens), device=device)
    token, mask = contexts.last, contexts.mask
    running = torch.ones(rows, dtype=torch.bool, device=device)
    produced: list[Tensor] = []
    forbidden: Tensor | None = None
    for step in range(steps):
        mask = torch.cat([mask, mask.new_ones(rows, 1)], 1)
        logits = model(
            input_ids=token[:, None],
            attention_mask=mask,
            position_ids=(contexts.position + step)[:, None],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        if banned is not None:
            forbidden = _banned_mask(banned, logits) if forbidden is None else forbidden
            logits = logits.masked_fill(forbidden, -torch.inf)
        drawn = None if uniform is None else uniform[:, step]
        token = draw_tokens(logits, drawn, sampling.temperature, sampling.top_p)
        running = running & ~torch.isin(token, stops)
        produced.append(torch.where(running, token, -1))
        if not bool(running.any()):
            break
    return [[t for t in row if t >= 0] for row in torch.stack(produced, 1).tolist()]


def _seen_cache(
    model: PreTrainedModel, windows: Windows, prompts: Sequence[Prompt]
) -> tuple[DynamicCache, Tensor]:
    """What each prompt sees, side by side, as a cache to go on from, and its mask (B, K L), int64."""
    count = max((len(prompt.windows) for prompt in prompts), default=0)
    cache = DynamicCache(config=model.config)
    device = model.device
    if not count:
        return cache, torch.zeros(len(prompts), 0, dtype=torch.long, device=device)
    padded = [[*prompt.windows, *[-1] * (count - len(prompt.windows))] for prompt in prompts]
    index = torch.tensor(padded, device=device)
    seen = windows.mask[index] & (index >= 0)[..., None]
    for layer, (keys, values) in enumerate(zip(windows.keys, windows.values, strict=True)):
        side_by_side = [x[index].transpose(1, 2).flatten(2, 3) for x in (keys, values)]
        cache.update(side_by_side[0], side_by_side[1], layer)
    return cache, seen.flatten(1).long()


def _keys_and_values(cache: DynamicCache) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Of every layer; none at all while nothing was read."""
    filled = [layer for layer in cast(list[DynamicLayer], cache.layers) if layer.is_initialized]
    return (
        tuple(cast(Tensor, layer.keys) for layer in filled),
        tuple(cast(Tensor, layer.values) for layer in filled),
    )


def _cache_of(model: PreTrainedModel, contexts: Contexts, index: Tensor) -> DynamicCache:
    cache = DynamicCache(config=model.config)
    for layer, (keys, values) in enumerate(zip(contexts.keys, contexts.values, strict=True)):
        cache.update(keys[index], values[index], layer)
    return cache


def _pad_right(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids, 0 where padded, and mask (1 where real). Shape (B, T) each, int64."""
    longest = max(len(row) for row in rows)
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def _take_tokens(states: Tensor, index: Tensor) -> Tensor:
    """States (W, heads, L, size) at the tokens (W, M) of each window. Shape (W, heads, M, size)."""
    return states.gather(2, index[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3]))


def _banned_mask(banned: Sequence[Sequence[int]], logits: Tensor) -> Tensor:
    mask = torch.zeros(logits.shape, dtype=torch.bool)
    for row, tokens in enumerate(banned):
        mask[row, list(tokens)] = True
    return mask.to(logits.device)
