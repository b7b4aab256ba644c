"""The slow twin of every index: each query and each item by itself, in plain Python."""

import numpy as np
import torch

from recsys.types import Bools, Histories, TopK


def search_by_force(
    vectors: torch.Tensor,
    queries: torch.Tensor,
    k: int,
    *,
    seen: Histories | None = None,
    allowed: Bools | None = None,
) -> TopK:
    """The k best items of each query, equal ones by ascending item; see `ItemIndex.search`."""
    items = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for row, query in enumerate(queries):
        found = []
        for item, vector in enumerate(vectors):
            mask = None if allowed is None else allowed if allowed.ndim == 1 else allowed[row]
            is_seen = seen is not None and item in seen[[row]].indices
            if not is_seen and (mask is None or mask[item]):
                found.append((-float((query * vector).sum()), item))
        for place, (minus, item) in enumerate(sorted(found)[:k]):
            items[row, place], scores[row, place] = item, -minus
    return TopK(items, scores)
