"""Prompts that are nearly the same: a split that puts one into training and one into testing tests memory."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from persona.data.cleaning import prompt_text
from persona.data.comparisons import Rows
from persona.data.splits import PreferenceSplit
from persona.errors import DataError

THRESHOLD = 0.7
SHINGLE = 2
EXAMPLES = 3
_BLOCK = 512
_WORD = re.compile(r"\w+")


class NearDuplicates(NamedTuple):
    """Pairs of texts that are nearly the same.

    first: Row of the earlier text. Shape (pairs,), int64.
    second: Row of the later one. Shape (pairs,), int64.
    similarity: Cosine of the sets of shingles, from the threshold to 1. Shape (pairs,).
    """

    first: Rows
    second: Rows
    similarity: NDArray[np.float64]


class PromptOverlap(NamedTuple):
    """How many prompts to be predicted have a near duplicate among those that were seen.

    targets: Prompts to be predicted.
    near_training: Of these, how many have a near duplicate among the training prompts.
    near_context: How many have one among the prompts of the contexts.
    examples: Rows of a target prompt and of its near duplicate with their similarity, most similar first.
    """

    targets: int
    near_training: int
    near_context: int
    examples: tuple[tuple[int, int, float], ...]

    def __str__(self) -> str:
        """One sentence to print."""
        return (
            f"Of {self.targets:,} prompts to be predicted, {self.near_training:,} have a near duplicate among training "
            f"prompts and {self.near_context:,} among prompts of contexts."
        )


def find_near_duplicates(
    texts: Sequence[str], *, threshold: float = THRESHOLD, shingle: int = SHINGLE
) -> NearDuplicates:
    """All pairs of texts whose sets of word shingles have a cosine of at least `threshold`.

    Words are compared without case and marks. The cosine of sets is |A and B| / sqrt(|A| |B|). The search is
    exact, not a sketch: two texts that are so similar share one of the rarest shingles of each, so only
    these are joined (prefix filtering). It costs the sum over these shingles of the squared number of texts
    that have them: nearly linear for written prompts, quadratic for texts that are all alike.

    Args:
        texts: N texts.
        threshold: Above 0, at most 1.
        shingle: Words in a row that make a shingle; a text with fewer words is one shingle.

    Raises:
        DataError: `threshold` or `shingle` is out of range.

    Source: Bayardo, Ma & Srikant (2007), "Scaling Up All Pairs Similarity Search", with sets for vectors.
    """
    if not 0 < threshold <= 1 or shingle < 1:
        raise DataError(
            f"`threshold` must lie above 0 and be at most 1, and `shingle` be at least 1; got {threshold} and "
            f"{shingle}. Use {THRESHOLD} and {SHINGLE}."
        )
    row, column = _shingles(texts, shingle)
    size = np.bincount(row, minlength=len(texts))
    shape = (len(texts), int(column.max(initial=-1)) + 1)
    whole = _sets(row, column, shape)
    rare = _rarest(row, column, size, threshold)
    prefix = _sets(row[rare], column[rare], shape)
    turned = prefix.T.tocsr()
    found: list[tuple[Rows, Rows, NDArray[np.float64]]] = []
    for start in range(0, len(texts), _BLOCK):
        joined = (prefix[start : start + _BLOCK] @ turned).tocoo()
        first, second = joined.row.astype(np.int64) + start, joined.col.astype(np.int64)
        # Sets of too different a size cannot be so similar: the cosine is at most the root of their ratio.
        ratio = np.minimum(size[first], size[second]) / np.maximum(size[first], size[second])
        possible = (second > first) & (ratio >= threshold**2 - 1e-12)
        first, second = first[possible], second[possible]
        shared = np.asarray(whole[first].multiply(whole[second]).sum(axis=1), dtype=np.float64).reshape(-1)
        cosine = shared / np.sqrt(size[first] * size[second].astype(np.float64))
        # A little slack, so that rounding does not decide at the threshold itself.
        kept = cosine >= threshold - 1e-12
        found.append((first[kept], second[kept], cosine[kept]))
    parts = [np.concatenate(part) for part in zip(*found, strict=True)] if found else [np.zeros(0)] * 3
    order = np.lexsort((parts[1], parts[0]))
    return NearDuplicates(parts[0][order].astype(np.int64), parts[1][order].astype(np.int64), parts[2][order])


def group_duplicates(count: int, pairs: NearDuplicates) -> Rows:
    """A group for each of `count` texts, such that near duplicates, and their near duplicates, share theirs.

    Returns:
        Groups from 0, what `split_users_and_prompts` takes as `prompt_groups`. Shape (count,), int64.
    """
    links = sparse.coo_matrix((np.ones(len(pairs.first)), (pairs.first, pairs.second)), shape=(count, count))
    groups: Rows = sparse.csgraph.connected_components(links, directed=False)[1].astype(np.int64)
    return groups


def prompt_groups(prompts: Sequence[Any], *, threshold: float = THRESHOLD) -> Rows:
    """The group of near duplicates of each prompt, a text or a list of messages. Shape (prompts,), int64."""
    return group_duplicates(
        len(prompts), find_near_duplicates([prompt_text(prompt) for prompt in prompts], threshold=threshold)
    )


def prompt_overlap(
    split: PreferenceSplit, prompts: Sequence[Any], *, threshold: float = THRESHOLD
) -> PromptOverlap:
    """How much of a split's target prompts was nearly seen before.

    Args:
        split: Parts of a table.
        prompts: Each prompt that the table counts, a text or a list of messages.
        threshold: See `find_near_duplicates`.
    """
    asked, trained, shown = (np.unique(part.prompts) for part in (split.target, split.train, split.context))
    used = np.unique(np.concatenate([asked, trained, shown]))
    pairs = find_near_duplicates([prompt_text(prompts[row]) for row in used], threshold=threshold)
    ends = np.concatenate([used[pairs.first], used[pairs.second]])
    others = np.concatenate([used[pairs.second], used[pairs.first]])
    similarity = np.concatenate([pairs.similarity, pairs.similarity])
    crossing = np.isin(ends, asked) & ~np.isin(others, asked)
    ends, others, similarity = ends[crossing], others[crossing], similarity[crossing]
    best = np.argsort(-similarity, kind="stable")[:EXAMPLES]
    return PromptOverlap(
        len(asked),
        len(np.unique(ends[np.isin(others, trained)])),
        len(np.unique(ends[np.isin(others, shown)])),
        tuple((int(ends[i]), int(others[i]), float(similarity[i])) for i in best),
    )


def _shingles(texts: Sequence[str], shingle: int) -> tuple[Rows, Rows]:
    """Text and number of every different shingle of every text."""
    words = [_WORD.findall(text.lower()) or [text.strip()] for text in texts]
    count = np.fromiter((len(own) for own in words), dtype=np.int64, count=len(words))
    code = pd.factorize(pd.Series([word for own in words for word in own], dtype=object))[0].astype(np.int64)
    owner = np.repeat(np.arange(len(words)), count)
    place = np.arange(len(code)) - np.repeat(np.cumsum(count) - count, count)
    starts = np.flatnonzero(place == 0)
    number = code
    for step in range(1, shingle):
        # Past the end of a text stands nothing, written 0; so a short text is still one shingle.
        following = np.zeros_like(code)
        inside = np.flatnonzero(place + step < np.repeat(count, count))
        following[inside] = code[inside + step] + 1
        number = pd.factorize(number * (int(code.max(initial=0)) + 2) + following)[0].astype(np.int64)
    whole = place + shingle <= np.repeat(count, count)
    whole[starts] = True
    different = int(number.max(initial=0)) + 1
    # A plain sort is several times faster here than `np.unique`, which hashes first.
    key = np.sort(owner[whole] * different + number[whole])
    key = key[np.diff(key, prepend=-1) > 0]
    return key // different, key % different


def _sets(row: Rows, column: Rows, shape: tuple[int, int]) -> Any:
    return sparse.csr_matrix((np.ones(len(row), dtype=np.int32), (row, column)), shape=shape)


def _rarest(row: Rows, column: Rows, size: Rows, threshold: float) -> Rows:
    """The entries with each text's rarest shingles, of which two similar texts must share one.

    A set A shares at least t^2 |A| elements with any set of cosine t, so not all of these can lie beyond its
    |A| - ceil(t^2 |A|) + 1 rarest ones.
    """
    frequency = np.bincount(column)
    order = np.lexsort((column, frequency[column], row))
    place = np.arange(len(row)) - np.repeat(np.cumsum(size) - size, size)
    length = size - np.ceil(threshold**2 * size - 1e-9).astype(np.int64) + 1
    rare: Rows = order[place < np.repeat(length, size)]
    return rare
