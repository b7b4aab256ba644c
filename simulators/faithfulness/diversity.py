"""How varied what is said is: distinct n-grams, and how much each text looks like the others (self-BLEU).

Both depend on how many texts there are, so two sides are compared at equal numbers.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

Tokens = Sequence[str]


def distinct_n(texts: Sequence[Tokens], n: int) -> float:
    """Distinct n-grams over all n-grams of the texts; NaN where there is none.

    Args:
        texts: Words of each text.
        n: Length of the n-grams.

    Source: Li et al. (2016), "A Diversity-Promoting Objective Function for Neural Conversation Models".

    Example:
        >>> distinct_n([["a", "b", "a"], ["a", "b"]], 2)  # ab, ba and ab: two of three differ
        0.6666666666666666
    """
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def self_bleu(texts: Sequence[Tokens], *, max_n: int = 4) -> float:
    """Mean BLEU of each text against all others; 1 where all are alike.

    BLEU = brevity * (product over n of p_n)^(1/N), p_n the share of the text's n-grams that some other text has,
    counted at most as often as the other has them. Orders above 1 are smoothed by adding 1 to both counts; orders
    longer than the text are left out. Texts without words count as alike to nothing.

    Exact at a cost linear in the words: of each n-gram, the two texts that have it most often are enough.

    Args:
        texts: Words of each text, two texts or more.
        max_n: Longest n-grams N.

    Returns:
        In 0..1; NaN for fewer than two texts.

    Source: Zhu et al. (2018), "Texygen: A Benchmarking Platform for Text Generation Models"; BLEU as in Papineni et al.
    (2002), smoothed as in Lin and Och (2004).
    """
    if len(texts) < 2:
        return float("nan")
    logs, orders = np.zeros(len(texts)), np.zeros(len(texts))
    for n in range(1, max_n + 1):
        counts = [Counter(_grams(text, n)) for text in texts]
        leaders = _two_most(counts)
        for row, own in enumerate(counts):
            total = sum(own.values())
            if not total:
                continue
            kept = sum(min(count, _most_elsewhere(leaders[gram], row)) for gram, count in own.items())
            smooth = float(n > 1)
            orders[row] += 1
            with np.errstate(divide="ignore"):
                logs[row] += np.log(np.float64(kept + smooth) / (total + smooth))
    known = orders > 0
    scores = np.where(known, np.exp(logs / np.maximum(orders, 1)), 0.0)
    return float((scores * _brevity([len(text) for text in texts])).mean())


def _two_most(counts: Sequence[Counter[Tokens]]) -> dict[Tokens, tuple[int, int, int]]:
    """Of each n-gram: the text that has it most often, how often, and how often any other text has it at most."""
    found: dict[Tokens, tuple[int, int, int]] = {}
    for row, own in enumerate(counts):
        for gram, count in own.items():
            leader, most, second = found.get(gram, (-1, 0, 0))
            found[gram] = (row, count, most) if count > most else (leader, most, max(second, count))
    return found


def _most_elsewhere(leader: tuple[int, int, int], row: int) -> int:
    return leader[2] if leader[0] == row else leader[1]


def _brevity(lengths: Sequence[int]) -> np.ndarray:
    """exp(1 - r / c) where the text's length c is below r, the length of another text nearest to it; else 1."""
    own = np.asarray(lengths, dtype=np.float64)
    order = np.argsort(own, kind="stable")
    ranked = own[order]
    below, above = np.roll(ranked, 1), np.roll(ranked, -1)
    below[0], above[-1] = -np.inf, np.inf
    # The shorter one where two are as near, as BLEU has it.
    nearest = np.where(ranked - below <= above - ranked, below, above)
    penalty = np.ones(len(own))
    is_short = nearest > ranked
    penalty[order[is_short]] = np.exp(1 - nearest[is_short] / np.maximum(ranked[is_short], 1e-9))
    return penalty


def _grams(text: Tokens, n: int) -> list[Tokens]:
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
