from pathlib import Path

import numpy as np
import pytest
import torch

from persona.errors import DataError, ShapeError
from persona.features import (
    LENGTH_COLUMN,
    LIMIT,
    RELATION_NAMES,
    SURFACE_NAMES,
    Featurizer,
    TextFeatures,
    parse_features,
    probe_attributes,
    relation_features,
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


def test_layout_and_shares_counted_by_hand() -> None:
    text = "# Plan\n\n1. Go **now**.\n2. Stay.\n- Maybe\n\nSee https://a.b (WOW)"
    counts = named(text)
    # Words: plan go now stay maybe see https a b wow = 10.
    assert counts["words"] == pytest.approx(10**0.5)
    assert counts["list_items"] == pytest.approx(3**0.5)
    assert (counts["headings"], counts["links"], counts["brackets"], counts["capital_words"]) == (
        1.0,
        1.0,
        1.0,
        1.0,
    )
    assert counts["paragraphs"] == pytest.approx(3**0.5)
    assert counts["bold_marks"] == pytest.approx(2**0.5)
    assert counts["hedges_share"] == pytest.approx(1 / 10)


def test_reading_ease_is_flesch_s() -> None:
    # 7 words, 8 syllables (readable: 3 runs, one a silent e at "le": kept), one sentence.
    counts = named("The cat sat on the mat today.")
    assert counts["syllables_per_word"] == pytest.approx(8 / 7)
    assert counts["reading_ease"] == pytest.approx((206.835 - 1.015 * 7 - 84.6 * 8 / 7) / 100)


def test_relation_by_hand() -> None:
    row = dict(
        zip(
            RELATION_NAMES,
            relation_features(["Name three large rivers"], ["Large rivers: Nile"])[0],
            strict=True,
        )
    )
    # Long words asked: name three large rivers; said: large rivers nile.
    assert row["asked_words_used"] == pytest.approx(2 / 4)
    assert row["words_from_prompt"] == pytest.approx(2 / 3)
    assert row["cosine_of_words"] == pytest.approx(2 / (4 * 3) ** 0.5)
    assert row["longer_than_prompt"] == pytest.approx(np.log(4 / 5))
    assert not relation_features([""], [""]).any()
    with pytest.raises(ShapeError, match="each of the 2 replies; got 1"):
        relation_features(["a"], ["a", "b"])


def surface(texts: list[str]) -> dict[str, torch.Tensor]:
    return {"surface": torch.from_numpy(surface_features(texts))}


def test_training_replies_come_out_standardised() -> None:
    raw = surface(replies(300))
    features = Featurizer.fit(raw).transform(raw)
    kept = features[:, raw["surface"].std(0) > 1e-6]
    assert kept.mean(0).abs().max() < 0.05
    assert (kept.std(0) - 1.0).abs().max() < 0.25  # cutting at the limit takes a little away


def test_a_column_constant_in_training_stays_zero() -> None:
    fitted = Featurizer.fit(surface(["a b", "a b c"]))
    digits = SURFACE_NAMES.index("digits")
    assert fitted.transform(surface(["a 77777"]))[0, digits] == 0.0


def test_outliers_are_cut() -> None:
    fitted = Featurizer.fit(surface(replies(50)))
    assert fitted.transform(surface(["word " * 100_000]))[0].abs().max() == LIMIT


def test_states_become_uncorrelated_unit_components() -> None:
    rng = torch.Generator().manual_seed(0)
    raw = {"hidden": torch.randn(200, 3, generator=rng) @ torch.randn(3, 20, generator=rng)}
    fitted = Featurizer.fit(raw, components={"hidden": 3})
    components = fitted.transform(raw)
    assert fitted.dim == 3
    torch.testing.assert_close(torch.cov(components.T, correction=0), torch.eye(3), atol=0.02, rtol=0.0)


def test_wide_and_narrow_states_give_the_same_components() -> None:
    hidden = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    narrow = Featurizer.fit({"h": hidden}, components={"h": 4}).transform({"h": hidden})
    # Zero columns make the matrix wider than long without changing its geometry.
    wide = torch.cat([hidden, torch.zeros(12, 20)], dim=1)
    torch.testing.assert_close(
        Featurizer.fit({"h": wide}, components={"h": 4}).transform({"h": wide}), narrow, atol=1e-4, rtol=1e-4
    )


def test_saved_featurizer_transforms_to_the_same_bits(tmp_path: Path) -> None:
    raw = surface(replies(40)) | {"h": torch.randn(40, 6, generator=torch.Generator().manual_seed(0))}
    fitted = Featurizer.fit(raw, components={"h": 2}, columns={"surface": SURFACE_NAMES})
    fitted.save(tmp_path)
    again = Featurizer.load(tmp_path, columns={"surface": SURFACE_NAMES})
    assert torch.equal(again.transform(raw), fitted.transform(raw))


def test_a_featurizer_of_other_counts_is_refused(tmp_path: Path) -> None:
    Featurizer.fit(surface(replies(5)), columns={"surface": SURFACE_NAMES}).save(tmp_path)
    described = (tmp_path / "featurizer.json").read_text()
    (tmp_path / "featurizer.json").write_text(described.replace('"words",', ""))
    with pytest.raises(
        DataError, match=f"the {len(SURFACE_NAMES)} columns of `surface`.*got {len(SURFACE_NAMES) - 1}"
    ):
        Featurizer.load(tmp_path, columns={"surface": SURFACE_NAMES})


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(DataError, match="at least 2 replies to scale by; got 1 in blocks surface"):
        Featurizer.fit(surface(["a"]))
    with pytest.raises(ShapeError, match=r"Block `h` must have shape \(3, H\).*got \(2, 4\)"):
        Featurizer.fit(surface(["a", "b c", "d"]) | {"h": torch.zeros(2, 4)})
    fitted = Featurizer.fit({"h": torch.randn(5, 4)}, components={"h": 2})
    with pytest.raises(ShapeError, match=r"must have shape \(1, 4\).*got \(1, 3\)"):
        fitted.transform({"h": torch.zeros(1, 3)})
    with pytest.raises(ShapeError, match="the blocks h; got none"):
        fitted.transform({})


def test_names_say_what_to_compute() -> None:
    assert parse_features(["surface", "relation"]) == TextFeatures(("surface", "relation"))
    blocks = parse_features(["relation", "surface"]).compute(["What?"], ["This."])
    assert {name: tuple(block.shape) for name, block in blocks.items()} == {
        "surface": (1, len(SURFACE_NAMES)),
        "relation": (1, len(RELATION_NAMES)),
    }
    with pytest.raises(DataError, match="got `encoder=`"):
        parse_features(["encoder="])
    with pytest.raises(DataError, match="each once; got surface, surface"):
        parse_features(["surface", "surface"])


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
    features = Featurizer.fit(surface(texts)).transform(surface(texts))
    scores = probe_attributes(features, measure_attributes(texts), seed=0)
    assert min(scores.values()) > 0.5


def test_probe_needs_matching_rows() -> None:
    with pytest.raises(ShapeError, match=r"shape \(4, 1\).*got \(3, 1\)"):
        probe_attributes(torch.zeros(4, 2), np.zeros((3, 1)), seed=0, names=("one",))
