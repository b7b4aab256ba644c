"""Log-probabilities behind soft tokens: vectors that stand before the embeddings of a row's own tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from persona.policy.batches import forward_options, pad_left, positions_of
from persona.policy.language_model import TokenRow
from persona.policy.scoring import pack_left


def prefixed_log_probs(model: Any, rows: Sequence[TokenRow], prefix: Tensor) -> Tensor:
    """Log-probabilities of policy tokens, packed to the left and zero elsewhere.

    Rows are padded between the prefix and their tokens; the padding is masked and takes no position, so a row has the
    same figures alone and in any batch.

    Args:
        model: A causal language model that takes `inputs_embeds`.
        rows: B rows.
        prefix: Each row's vectors. Shape (B, S, W).

    Returns:
        Nats. Shape (B, N), N being the largest number of policy tokens in a row; differentiable in `prefix`.
    """
    ids, mask = pad_left([row.ids for row in rows], prefix.device)
    policy = pad_left([row.policy for row in rows], prefix.device)[0].bool()
    embedded = model.get_input_embeddings()(ids)
    size = prefix.shape[1]
    inputs = torch.cat([prefix.to(embedded.dtype), embedded], dim=1)
    attended = torch.cat([mask.new_ones(len(rows), size), mask], dim=1)
    # The token at place t is predicted at the place before it, which the prefix moves by its own length.
    needed = policy.any(0).nonzero()[:, 0]
    known = forward_options(model)
    options: dict[str, Tensor] = {}
    if "position_ids" in known:
        options["position_ids"] = positions_of(attended)
    if "logits_to_keep" in known:
        options["logits_to_keep"] = needed + size - 1
    logits = model(inputs_embeds=inputs, attention_mask=attended, use_cache=False, **options).logits
    if "logits_to_keep" not in known:
        logits = logits[:, needed + size - 1]
    scored = policy[:, needed]
    target = torch.where(scored, ids[:, needed], -100)
    loss = functional.cross_entropy(
        logits.float().transpose(1, 2), target, reduction="none", ignore_index=-100
    )
    return pack_left(-loss, scored)
