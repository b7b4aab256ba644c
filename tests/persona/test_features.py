from pathlib import Path

import numpy as np
import pytest
import torch

from persona.errors import DataError, ShapeError
from persona.features import (
    LENGTH_COLUMN,
    LIMIT,
    SURFACE_NAMES,
    TextFeaturizer,
    probe_attributes,
    surface_features,
)
from persona.rewards import measure_attributes

WORDS = "a slow film about the sea because you like it but maybe wonderful evening together friend".split()


def replies(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    ends = (".", "!", "?", ", well.")
    return [" ".join(rng.choice(WORDS, rng.integers(3, 30))) + ends[rng.integers(4)] for _ in range(count)]


def named(reply: str) -> dict[str, float]:
    return dict(zip(SURFACE_NAMES, map(float, surface_features([reply])[0]), strict=True))


def test_counts_of_a_reply_counted_by_hand() -> None:
    counts = named("I'd watch it, but not tonight! Why? Since 1999 you love THE sea.")
    # Words: i'd watch it but not tonight why since you love the sea = 12 in 3 sentences.
    assert counts["words"] == pytest.approx(12**0.5)
    assert counts["sentences"] == pytest.approx(3**0.5)
    ones = ("exclamation_marks", "question_marks", "commas", "contractions", "first_person", "second_person")
    assert [counts[name] for name in ones] == [1.0] * 6
    assert counts["causal_words"] == pytest.approx(2**0.5)
    assert (counts["contrast_words"], counts["negations"], counts["positive_words"]) == (1.0, 1.0, 1.0)
    assert counts["capital_letters"] == pytest.approx(6**0.5)
    assert counts["digits"] == 2.0
    assert counts["letters_per_word"] == pytest.approx((3 + 5 + 2 + 3 + 3 + 7 + 3 + 5 + 3 + 4 + 3 + 3) / 12)
    assert counts["words_per_sentence"] == pytest.approx(12 / 3)
    assert counts["long_words_share"] == pytest.approx(1 / 12)
    assert counts["short_words_share"] == pytest.approx(8 / 12)
    assert counts["different_words_share"] == 1.0
    assert counts["ends_in_question"] == 0.0


def test_slots_are_not_counted() -> None:
    np.testing.assert_array_equal(surface_features(["Try <title> now"]), surface_features(["Try   now"]))


def test_a_curly_apostrophe_counts_as_a_straight_one() -> None:
    assert named("I\u2019m here") == named("I'm here")


def test_an_empty_reply_is_all_zero_and_no_replies_give_no_rows() -> None:
    assert not surface_features([""]).any()
    assert surface_features([]).shape == (0, len(SURFACE_NAMES))


def test_length_column_grows_with_words() -> None:
    short, long = surface_features(["one two", "one two three four"])[:, LENGTH_COLUMN]
    assert long > short
    assert SURFACE_NAMES[LENGTH_COLUMN] == "words"


def test_training_replies_come_out_standardised() -> None:
    texts = replies(300)
    features = TextFeaturizer.fit(texts).transform(texts)
    varies = surface_features(texts).std(0) > 0
    kept = features[:, torch.from_numpy(varies)]
    assert kept.mean(0).abs().max() < 0.05
    assert (kept.std(0) - 1.0).abs().max() < 0.2  # cutting at the limit takes a little away


def test_a_column_constant_in_training_stays_zero() -> None:
    fitted = TextFeaturizer.fit(["a b", "a b c"])
    digits = SURFACE_NAMES.index("digits")
    assert fitted.transform(["a 77777"])[0, digits] == 0.0


def test_outliers_are_cut() -> None:
    fitted = TextFeaturizer.fit(replies(50))
    assert fitted.transform(["word " * 100_000])[0].abs().max() == LIMIT


def test_hidden_states_become_uncorrelated_unit_components() -> None:
    texts, rng = replies(200), torch.Generator().manual_seed(0)
    hidden = torch.randn(200, 3, generator=rng) @ torch.randn(3, 20, generator=rng)
    fitted = TextFeaturizer.fit(texts, hidden, hidden_dim=3)
    components = fitted.transform(texts, hidden)[:, len(SURFACE_NAMES) :]
    assert fitted.dim == len(SURFACE_NAMES) + 3
    torch.testing.assert_close(torch.cov(components.T, correction=0), torch.eye(3), atol=0.02, rtol=0.0)


def test_wide_and_narrow_hidden_states_give_the_same_components() -> None:
    texts = replies(12)
    hidden = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    narrow = TextFeaturizer.fit(texts, hidden, hidden_dim=4).transform(texts, hidden)
    # Zero columns make the matrix wider than long without changing its geometry.
    wide = torch.cat([hidden, torch.zeros(12, 20)], dim=1)
    torch.testing.assert_close(
        TextFeaturizer.fit(texts, wide, hidden_dim=4).transform(texts, wide), narrow, atol=1e-4, rtol=1e-4
    )


def test_saved_featurizer_transforms_to_the_same_bits(tmp_path: Path) -> None:
    texts = replies(40)
    hidden = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    fitted = TextFeaturizer.fit(texts, hidden, hidden_dim=2)
    fitted.save(tmp_path)
    assert torch.equal(
        TextFeaturizer.load(tmp_path).transform(texts, hidden), fitted.transform(texts, hidden)
    )


def test_a_featurizer_of_other_counts_is_refused(tmp_path: Path) -> None:
    TextFeaturizer.fit(replies(5)).save(tmp_path)
    described = (tmp_path / "featurizer.json").read_text()
    (tmp_path / "featurizer.json").write_text(described.replace('"words",', ""))
    with pytest.raises(DataError, match=f"the {len(SURFACE_NAMES)} surface counts"):
        TextFeaturizer.load(tmp_path)


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(DataError, match="at least 2 texts to scale by; got 1"):
        TextFeaturizer.fit(["a"])
    with pytest.raises(ShapeError, match=r"shape \(3, H\).*got \(2, 4\)"):
        TextFeaturizer.fit(["a", "b c", "d"], torch.zeros(2, 4))
    with_hidden = TextFeaturizer.fit(replies(5), torch.randn(5, 4), hidden_dim=2)
    with pytest.raises(ShapeError, match=r"shape \(1, 4\).*got \(0, 0\)"):
        with_hidden.transform(["a"])
    with pytest.raises(ShapeError, match=r"shape \(1, 0\).*got \(1, 4\)"):
        TextFeaturizer.fit(replies(5)).transform(["a"], torch.zeros(1, 4))


def test_probe_reads_a_linear_attribute_and_not_noise() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 5))
    attributes = np.stack([features @ np.arange(5.0), rng.normal(size=600), np.ones(600)], axis=1)
    scores = probe_attributes(
        torch.from_numpy(features), attributes, seed=0, names=("linear", "noise", "flat")
    )
    assert scores["linear"] > 0.99
    assert abs(scores["noise"]) < 0.1
    assert np.isnan(scores["flat"])


def test_surface_features_read_the_named_attributes_of_plain_text() -> None:
    texts = replies(500)
    features = TextFeaturizer.fit(texts).transform(texts)
    scores = probe_attributes(features, measure_attributes(texts), seed=0)
    assert min(scores.values()) > 0.5


def test_probe_needs_matching_rows() -> None:
    with pytest.raises(ShapeError, match=r"shape \(4, 1\).*got \(3, 1\)"):
        probe_attributes(torch.zeros(4, 2), np.zeros((3, 1)), seed=0, names=("one",))
