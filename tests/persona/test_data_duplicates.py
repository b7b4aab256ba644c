import re
import time

import numpy as np
import pytest

from persona.data.comparisons import ComparisonTable
from persona.data.duplicates import (
    NearDuplicates,
    find_near_duplicates,
    group_duplicates,
    prompt_groups,
    prompt_overlap,
)
from persona.data.splits import PreferenceSplit, split_users_and_prompts
from persona.errors import DataError


def random_texts(count: int, words: int, seed: int = 0) -> list[str]:
    """Texts of few different words, and copies of some with a word changed."""
    rng = np.random.default_rng(seed)
    texts = [
        " ".join(f"w{w}" for w in rng.integers(words, size=rng.integers(0, 12))) for _ in range(count // 2)
    ]
    return texts + [re.sub(r"w\d+", "NEW!", text, count=1) for text in texts]


def slow_pairs(texts: list[str], threshold: float, shingle: int) -> dict[tuple[int, int], float]:
    """Every pair, its sets written out."""
    sets = []
    for text in texts:
        words = re.findall(r"\w+", text.lower()) or [text.strip()]
        ends = max(len(words) - shingle, 0) + 1
        sets.append({tuple(words[i : i + shingle]) for i in range(ends)})
    found = {}
    for j, second in enumerate(sets):
        for i, first in enumerate(sets[:j]):
            cosine = len(first & second) / (len(first) * len(second)) ** 0.5
            if cosine >= threshold - 1e-12:
                found[i, j] = cosine
    return found


class TestNearDuplicates:
    @pytest.mark.parametrize("shingle", [1, 2, 3])
    @pytest.mark.parametrize("threshold", [0.3, 0.7, 1.0])
    def test_matches_every_pair_compared(self, threshold: float, shingle: int) -> None:
        texts = random_texts(120, words=15)
        found = find_near_duplicates(texts, threshold=threshold, shingle=shingle)
        expected = slow_pairs(texts, threshold, shingle)
        assert dict(
            zip(zip(found.first.tolist(), found.second.tolist(), strict=True), found.similarity, strict=True)
        ) == (pytest.approx(expected))
        assert len(expected) > 10

    def test_case_marks_and_one_changed_word_make_a_near_duplicate(self) -> None:
        texts = [
            "Write a short poem about the sea, please, with a rhyme in each line.",
            "write a short poem about the SEA please with a rhyme in each line",
            "Write a short poem about the moon, please, with a rhyme in each line.",
            "What is the capital of France?",
        ]
        found = find_near_duplicates(texts)
        assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2)]
        assert found.similarity[0] == 1.0
        assert found.similarity[1] == pytest.approx(11 / 13)  # two of 13 shingles hold the changed word

    def test_no_texts_and_texts_without_words(self) -> None:
        assert len(find_near_duplicates([]).first) == 0
        found = find_near_duplicates(["?!", "", "?!", "..."])
        assert (found.first.tolist(), found.second.tolist()) == ([0], [2])

    @pytest.mark.integration
    def test_ten_thousand_prompts_take_seconds(self) -> None:
        rng = np.random.default_rng(0)
        ranks = np.minimum(rng.zipf(1.3, size=(10_000, 20)), 30_000)
        texts = [" ".join(map(str, row)) for row in ranks]
        start = time.perf_counter()
        find_near_duplicates(texts)
        assert time.perf_counter() - start < 20

    @pytest.mark.parametrize(("threshold", "shingle"), [(0.0, 2), (1.1, 2), (0.5, 0)])
    def test_ranges_are_checked(self, threshold: float, shingle: int) -> None:
        with pytest.raises(DataError, match=f"got {threshold} and {shingle}"):
            find_near_duplicates(["a"], threshold=threshold, shingle=shingle)


def test_groups_join_what_is_linked_over_others() -> None:
    pairs = NearDuplicates(np.array([0, 2]), np.array([2, 4]), np.ones(2))
    groups = group_duplicates(5, pairs)
    assert groups[0] == groups[2] == groups[4]
    assert len(set(groups.tolist())) == 3


PROMPTS = [
    f"Tell me a {kind} story about number {n // 2} and its friends" for n in range(40) for kind in ("long",)
]
"""Every prompt stands there twice."""


def table() -> ComparisonTable:
    rng = np.random.default_rng(0)
    rows = np.arange(2000)
    return ComparisonTable(rng.integers(20, size=2000), rng.integers(40, size=2000), 2 * rows, 2 * rows + 1)


class TestSplits:
    def test_near_duplicates_across_parts_are_reported(self) -> None:
        asked, seen, shown = (
            table().select(np.isin(table().prompts, part)) for part in ([0, 2, 4], [1, 6, 8], [5, 10])
        )
        overlap = prompt_overlap(PreferenceSplit(seen, shown, asked), PROMPTS, threshold=0.99)
        assert overlap[:3] == (3, 1, 1)
        assert sorted(example[:2] for example in overlap.examples) == [(0, 1), (4, 5)]
        assert [example[2] for example in overlap.examples] == pytest.approx([1.0, 1.0])
        assert str(overlap) == (
            "Of 3 prompts to be predicted, 1 have a near duplicate among training prompts and 1 among prompts of "
            "contexts."
        )

    def test_groups_come_into_one_part(self) -> None:
        groups = prompt_groups(PROMPTS, threshold=0.99)
        assert len(set(groups.tolist())) == 20
        split = split_users_and_prompts(table(), seed=0, prompt_groups=groups)
        assert prompt_overlap(split, PROMPTS, threshold=0.99)[:3] == (10, 0, 0)
        plain = split_users_and_prompts(table(), seed=0)
        assert prompt_overlap(plain, PROMPTS, threshold=0.99).near_training > 0

    def test_groups_of_one_prompt_change_nothing(self) -> None:
        alone = split_users_and_prompts(table(), seed=3, prompt_groups=np.arange(40))
        plain = split_users_and_prompts(table(), seed=3)
        assert all(np.array_equal(a.chosen, b.chosen) for a, b in zip(alone, plain, strict=True))

    def test_a_prompt_without_a_group_is_refused(self) -> None:
        with pytest.raises(DataError, match="an entry for each prompt, up to 39; got 5"):
            split_users_and_prompts(table(), seed=0, prompt_groups=np.arange(5))
