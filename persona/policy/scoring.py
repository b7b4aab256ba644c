"""Log-probabilities of the tokens that a policy chose, in micro-batches of rows of like length.

Shape letters: B rows, T tokens, N policy tokens of the row that has most, V vocabulary.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from persona.policy.batches import batch_tokens, forward_options, pad_left, positions_of
from persona.policy.language_model import TokenRow


def policy_mask(rows: Sequence[TokenRow], device: torch.device) -> Tensor:
    """True for each policy token of each row, packed to the left. Shape (B, N), bool."""
    counts = [sum(row.policy) for row in rows]
    width = torch.arange(max(counts, default=0), device=device)
    return width < torch.tensor(counts, dtype=torch.long, device=device)[:, None]


def turn_index(rows: Sequence[TokenRow], device: torch.device) -> Tensor:
    """Turn of each policy token from 0 on, packed as in `policy_mask`; 0 if padded. Shape (B, N), int64."""
    turns = [_turns_of(row.policy) for row in rows]
    width = max((len(turn) for turn in turns), default=0)
    padded = [turn + [0] * (width - len(turn)) for turn in turns]
    return torch.tensor(padded, dtype=torch.long, device=device).view(len(rows), width)


def sum_by_turn(log_probs: Tensor, turns: Tensor, count: int) -> Tensor:
    """Log-probability of every turn.

    Args:
        log_probs: Nats a policy token, zero where padded. Shape (B, N).
        turns: Turn of each, from `turn_index`. Shape (B, N), int64.
        count: H, number of turns to return; a row with fewer has zeros after them.

    Returns:
        Shape (B, H).
    """
    member = turns.unsqueeze(-1) == torch.arange(count, device=turns.device)
    return (log_probs.unsqueeze(1) @ member.to(log_probs.dtype)).squeeze(1)


def _turns_of(policy: Sequence[bool]) -> list[int]:
    turns: list[int] = []
    turn, before = -1, False
    for chosen in policy:
        turn += chosen and not before
        before = chosen
        if chosen:
            turns.append(turn)
    return turns


def policy_log_probs(model: PreTrainedModel, rows: Sequence[TokenRow]) -> Tensor:
    """Log-probabilities of policy tokens, packed to the left and zero elsewhere. Shape (B, N)."""
    device = model.device
    ids, mask = pad_left([row.ids for row in rows], device)
    policy = pad_left([row.policy for row in rows], device)[0].bool()
    known = forward_options(model)
    options: dict[str, Tensor] = {}
    # A token is predicted one position before it. Padding is on the left, so replies end side by side and few
    # positions need the costly projection to the vocabulary.
    needed = policy[:, 1:].any(0).nonzero()[:, 0]
    if "logits_to_keep" in known:
        options["logits_to_keep"] = needed
    if "position_ids" in known:
        options["position_ids"] = positions_of(mask)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **options).logits
    if "logits_to_keep" not in known:
        logits = logits[:, needed]
    scored = policy[:, 1:][:, needed]
    target = torch.where(scored, ids[:, 1:][:, needed], -100)
    loss = functional.cross_entropy(
        logits.float().transpose(1, 2), target, reduction="none", ignore_index=-100
    )
    return pack_left(-loss, scored)


def next_log_probs(
    model: PreTrainedModel, prefixes: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]]
) -> Tensor:
    """Log-probability that each of some tokens comes next, read in one pass.

    Args:
        model: Reads.
        prefixes: B rows of token ids, none empty.
        tokens: Which tokens to look at, C_b ids a row.

    Returns:
        Nats, zero where a row looks at fewer than C, the largest C_b. Shape (B, C), float32.
    """
    ids, mask = pad_left(prefixes, model.device)
    known = forward_options(model)
    options: dict[str, Tensor | int] = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
    if "position_ids" in known:
        options["position_ids"] = positions_of(mask)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **options).logits[:, -1].float()
    width = max(len(row) for row in tokens)
    padded = torch.tensor([[*row, *[-1] * (width - len(row))] for row in tokens], device=logits.device)
    found = functional.log_softmax(logits, dim=-1).gather(1, padded.clamp(min=0))
    return found.masked_fill(padded < 0, 0.0)


def pack_left(values: Tensor, mask: Tensor) -> Tensor:
    """The masked values of each row at its left end, zeros after them; width is the largest count."""
    order = mask.int().argsort(dim=1, descending=True, stable=True)
    width = int(mask.sum(1).max())
    return values.masked_fill(~mask, 0.0).gather(1, order[:, :width])


def score_by_length(
    rows: Sequence[TokenRow], score: Callable[[list[int]], Tensor], device: torch.device
) -> Tensor:
    """Apply `score` to micro-batches of rows of like length; results (B, N) in the given order, zero-padded.

    A micro-batch holds at most `batch_tokens(device)` padded tokens, or one row.
    """
    if not rows:
        return torch.zeros(0, 0, device=device)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    budget = batch_tokens(device)
    parts: list[Tensor] = []
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * len(rows[order[end]].ids) <= budget:
            end += 1
        parts.append(score(order[start:end]))
        start = end
    width = max(part.shape[1] for part in parts)
    joined = torch.cat([functional.pad(part, (0, width - part.shape[1])) for part in parts])
    inverse = torch.tensor(order).argsort()
    return joined[inverse.to(joined.device)]
