"""The context-aware reward told in words: unseen sentences, unseen prompts, pairs that turn around."""

import numpy as np
import pytest
import torch

from persona.features import surface_features
from persona.profiles import fit_pooled
from persona.recipes.context_aware import ContextAwareConfig, criterion_margins, train_context_aware
from tests.helpers.criterion_texts import (
    SEEN_PHRASINGS,
    TRAITS,
    hash_sentences,
    judge,
    wishes,
    write_replies,
)


def standardised(
    texts: tuple[str, ...], training: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> torch.Tensor:
    """Surface counts of replies, scaled by those of the training prompts."""
    raw = torch.from_numpy(surface_features(texts))
    mean, deviation = raw[training].mean(0), raw[training].std(0)
    return torch.where(deviation > 1e-5, (raw - mean) / deviation.clamp_min(1e-5), 0.0).clamp(-5.0, 5.0)


def test_replies_show_the_traits_that_they_are_said_to_have() -> None:
    replies = write_replies()
    assert len(set(replies.texts)) > 0.99 * len(replies.texts)
    by_style = {
        tuple(style): text for style, text in zip(replies.traits[:64].tolist(), replies.texts, strict=False)
    }
    plain = by_style[(0,) * len(TRAITS)]
    assert plain.startswith("Ok, so here's what I'd do.")
    assert not any(mark in plain for mark in "!?")
    asking = by_style[(0, 0, 0, 0, 1, 0)]
    assert asking.endswith("?")
    assert len(by_style[(1, 0, 0, 0, 0, 0)]) > len(plain)


def test_unseen_sentences_are_not_seen_ones() -> None:
    seen, unseen = wishes(seen=True).texts, wishes(seen=False).texts
    assert (len(seen), len(unseen)) == (2 * len(TRAITS) * SEEN_PHRASINGS, 2 * len(TRAITS) * 2)
    assert not set(seen) & set(unseen)
    alike = hash_sentences(seen + unseen, seen)
    similar = alike[len(seen) :] @ alike[: len(seen)].T
    assert similar.max() < 0.95


def test_each_reversal_is_judged_both_ways() -> None:
    replies = write_replies()
    wished = wishes(seen=False)
    table = judge(replies, wished, np.arange(4), count=2000, reversals=True)
    assert len(table) > 100
    assert np.array_equal(table.chosen[::2], table.rejected[1::2])
    assert np.array_equal(table.rejected[::2], table.chosen[1::2])
    gain = replies.traits[table.chosen] - replies.traits[table.rejected]
    assert (
        np.take_along_axis(gain, wished.traits[table.users][:, None], 1)[:, 0] * wished.signs[table.users]
        == 1
    ).all()


@pytest.mark.integration
def test_unseen_sentences_on_unseen_prompts_turn_preferences_around() -> None:
    replies = write_replies()
    order = np.random.default_rng(0).permutation(16)
    known, new = order[:10], order[10:]
    features = standardised(replies.texts, np.isin(replies.prompts, known))
    seen, unseen = wishes(seen=True), wishes(seen=False)
    criteria = hash_sentences(seen.texts + unseen.texts, seen.texts)
    train = judge(replies, seen, known, count=8000)
    asked = judge(replies, unseen, new, count=20_000, first_row=len(seen.texts), reversals=True, seed=1)
    reward = train_context_aware(train, features, criteria, ContextAwareConfig(steps=300), seed=0)
    with torch.no_grad():
        told = (criterion_margins(reward, asked, features, criteria) > 0).float().mean().item()
    blind = features @ fit_pooled(train, features, seed=0).weights
    untold = (blind[asked.chosen] > blind[asked.rejected]).mean(dtype=torch.float32).item()
    assert not np.isin(asked.prompts, train.prompts).any()
    assert untold == 0.5  # by construction
    assert told >= 0.9
