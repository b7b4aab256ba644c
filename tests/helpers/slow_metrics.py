"""Every metric written out with loops, one user at a time, as an oracle for the fast ones. No code is shared."""

import math
from collections.abc import Sequence

Lists = Sequence[Sequence[int]]


def ranking(items: Sequence[int], levels: dict[int, int], k: int) -> dict[str, float]:
    """All ranking metrics of one user with relevant items; `levels` holds the level of each relevant item."""
    first = list(items)[:k]
    places = [place for place, item in enumerate(first, start=1) if item != -1 and item in levels]
    n, best = len(levels), min(k, len(levels))
    precisions = [sum(1 for other in places if other <= place) / place for place in places]
    found = {
        "recall": len(places) / n,
        "recall_capped": len(places) / best,
        "precision": len(places) / k,
        "hit_rate": 1.0 if places else 0.0,
        "mrr": 1 / min(places) if places else 0.0,
        "map": sum(precisions) / best,
        "map_full": sum(precisions) / n,
        "ndcg": sum(1 / math.log2(place + 1) for place in places)
        / sum(1 / math.log2(place + 1) for place in range(1, best + 1)),
    }
    deepest = sorted(levels.values(), reverse=True)[:k]
    for name, exponential in (("ndcg_exponential", True), ("ndcg_linear", False)):
        gained = sum(gain(levels[first[place - 1]], exponential) / math.log2(place + 1) for place in places)
        ideal = sum(
            gain(level, exponential) / math.log2(place + 1) for place, level in enumerate(deepest, start=1)
        )
        if ideal > 0:
            found[name] = gained / ideal
    return found


def gain(level: int, exponential: bool) -> float:
    return 2.0**level - 1 if exponential else float(level)


def pair_auc(positives: Sequence[float], negatives: Sequence[float]) -> float | None:
    """Share of pairs in the right order, ties one half; None without a pair."""
    if not positives or not negatives:
        return None
    won = 0.0
    for positive in positives:
        for negative in negatives:
            won += 1.0 if positive > negative else 0.5 if positive == negative else 0.0
    return won / (len(positives) * len(negatives))


def auc_by_user(
    scores: Sequence[float], is_positive: Sequence[bool], users: Sequence[int]
) -> dict[int, tuple[float, int]]:
    """AUC and number of rows of each user that has both classes."""
    found = {}
    for user in sorted(set(users)):
        mine = [(s, p) for s, p, u in zip(scores, is_positive, users, strict=True) if u == user]
        value = pair_auc([s for s, p in mine if p], [s for s, p in mine if not p])
        if value is not None:
            found[user] = (value, len(mine))
    return found


def calibration(probability: Sequence[float], happened: Sequence[bool], bins: int, by_mass: bool) -> float:
    """Expected calibration error; a bin by mass follows from how many rows lie strictly below."""
    members: dict[int, list[int]] = {}
    for row, p in enumerate(probability):
        below = sum(1 for other in probability if other < p)
        place = below * bins // len(probability) if by_mass else min(int(p * bins), bins - 1)
        members.setdefault(place, []).append(row)
    total = 0.0
    for rows in members.values():
        mean = sum(probability[row] for row in rows) / len(rows)
        rate = sum(1 for row in rows if happened[row]) / len(rows)
        total += len(rows) * abs(rate - mean)
    return total / len(probability)


def log_loss(probability: Sequence[float], happened: Sequence[bool]) -> float:
    return sum(-math.log(p if h else 1 - p) for p, h in zip(probability, happened, strict=True)) / len(
        probability
    )


def brier(probability: Sequence[float], happened: Sequence[bool]) -> float:
    return sum((p - (1 if h else 0)) ** 2 for p, h in zip(probability, happened, strict=True)) / len(
        probability
    )


def exact_nll(probabilities: Sequence[Sequence[float]], levels: Sequence[int]) -> float:
    total = 0.0
    for row, level in zip(probabilities, levels, strict=True):
        reached = 1.0 if level == 0 else row[level - 1]
        passed = 0.0 if level == len(row) else row[level]
        total -= math.log(reached - passed)
    return total / len(levels)


def exposure(items: Lists, n_items: int, k: int) -> list[int]:
    counts = [0] * n_items
    for row in items:
        for item in list(row)[:k]:
            if item != -1:
                counts[item] += 1
    return counts


def gini(counts: Sequence[int]) -> float:
    """Mean absolute difference over all ordered pairs, over twice the mean."""
    apart = sum(abs(a - b) for a in counts for b in counts) / len(counts) ** 2
    return apart / (2 * sum(counts) / len(counts))


def entropy(counts: Sequence[int]) -> float:
    total = sum(counts)
    return -sum(count / total * math.log2(count / total) for count in counts if count)


def list_mean(row: Sequence[int], weights: Sequence[float], k: int) -> float | None:
    shown = [weights[item] for item in list(row)[:k] if item != -1]
    return sum(shown) / len(shown) if shown else None


def diversity(row: Sequence[int], vectors: Sequence[Sequence[float]], k: int) -> float | None:
    shown = [vectors[item] for item in list(row)[:k] if item != -1]
    apart = []
    for i, a in enumerate(shown):
        for b in shown[:i]:
            product = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
            apart.append(1 - sum(x * y for x, y in zip(a, b, strict=True)) / product if product else 1.0)
    return sum(apart) / len(apart) if apart else None


def genre_mix(chosen: Sequence[int], genres: Sequence[Sequence[int]]) -> list[float] | None:
    total = [0.0] * len(genres[0])
    for item in chosen:
        for genre, has in enumerate(genres[item]):
            total[genre] += has / sum(genres[item]) if has else 0.0
    whole = sum(total)
    return [part / whole for part in total] if whole else None


def genre_divergence(
    row: Sequence[int], history: Sequence[int], genres: Sequence[Sequence[int]], k: int, smoothing: float
) -> float | None:
    wanted = genre_mix(history, genres)
    offered = genre_mix([item for item in list(row)[:k] if item != -1], genres)
    if wanted is None or offered is None:
        return None
    return sum(
        p * math.log(p / ((1 - smoothing) * q + smoothing * p))
        for p, q in zip(wanted, offered, strict=True)
        if p
    )


def sign_flips(differences: Sequence[float]) -> float:
    """Exact two-sided p of the sign-flip test, every pattern of signs tried."""
    n = len(differences)
    observed = abs(sum(differences))
    as_far = 0
    for pattern in range(2**n):
        total = sum(d if pattern >> i & 1 else -d for i, d in enumerate(differences))
        as_far += abs(total) >= observed - 1e-12
    patterns: int = 2**n
    return as_far / patterns


def holm(p: Sequence[float]) -> list[float]:
    """Smallest level at which the step-down procedure would still reject each."""
    corrected = [0.0] * len(p)
    so_far = 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        so_far = max(so_far, min(1.0, (len(p) - place) * p[index]))
        corrected[index] = so_far
    return corrected
