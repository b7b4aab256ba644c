"""The classifier that tells sides apart: chance where they are alike, certainty where they are not."""

import sys

import numpy as np
import pytest

from simulators.errors import FaithfulnessError, MissingDependency
from simulators.faithfulness import two_sample_auc
from simulators.faithfulness.two_sample import Features, drawn_users, text_features


def drawn(side: str, n: int, shift: float, seed: int) -> Features:
    values = np.random.default_rng(seed).normal(size=(n, 3)) + np.array([shift, 0, 0])
    return Features(np.asarray([f"{side}{row}" for row in range(n)]), values)


def test_sides_of_one_population_cannot_be_told_apart() -> None:
    found = two_sample_auc(drawn("a", 80, 0.0, 0), drawn("b", 80, 0.0, 1), seed=0, n_permutations=19)
    assert found.auc.low < 0.5 < found.auc.high and found.p > 0.05 and found.users == 160


def test_a_shift_is_told_with_the_auc_of_two_normals() -> None:
    # The best classifier of normals a unit and a half apart has an AUC of Phi(1.5 / sqrt 2) = 0.856.
    found = two_sample_auc(drawn("a", 300, 1.5, 0), drawn("b", 300, 0.0, 1), seed=0, n_permutations=19)
    assert found.auc.value == pytest.approx(0.856, abs=0.03) and found.p == 1 / 20
    assert found.auc.low < 0.856 < found.auc.high


def test_what_is_learned_of_a_user_is_never_asked() -> None:
    # The column is the user's own number: told apart at once by whoever sees a user on both sides of a fold.
    users = np.asarray([f"u{n}" for n in range(60)])
    values = np.random.default_rng(0).permutation(60)[:, None].astype(float)
    found = two_sample_auc(Features(users, values), Features(users, values), seed=0, n_permutations=9)
    assert found.auc.value == 0.5


def test_users_who_speak_otherwise_are_told_apart_by_words() -> None:
    rng = np.random.default_rng(0)
    words = ["film", "night", "good", "maybe", "later", "thanks"]
    texts = [" ".join(rng.choice(words, 6)) for _ in range(60)]
    names = [f"u{row}" for row in range(60)]
    real = text_features(names, texts)
    same = text_features(
        [f"v{row}" for row in range(60)], [" ".join(rng.choice(words, 6)) for _ in range(60)]
    )
    other = text_features([f"v{row}" for row in range(60)], [f"{text} indeed" for text in texts])
    assert two_sample_auc(other, real, seed=0, n_permutations=9).auc.low > 0.9
    assert two_sample_auc(same, real, seed=0, n_permutations=9).auc.low < 0.6
    np.testing.assert_allclose(np.asarray(real.values.multiply(real.values).sum(1)).ravel(), 1.0)


def test_texts_of_a_user_are_one_row_and_users_are_drawn_evenly() -> None:
    found = text_features(["b", "a", "b"], ["one", "two", "three"])
    assert found.users.tolist() == ["a", "b"] and found.values.shape[0] == 2
    kept = drawn_users(drawn("a", 50, 0.0, 0), 10, seed=0)
    assert len(kept.users) == len(kept.values) == 10 and len(set(kept.users)) == 10


def test_too_few_users_are_refused() -> None:
    with pytest.raises(FaithfulnessError, match=r"at least 5 users.*got 3 simulated and 9 real"):
        two_sample_auc(drawn("a", 3, 0, 0), drawn("b", 9, 0, 1), seed=0)


def test_without_scikit_learn_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(MissingDependency, match=r"`scikit-learn` must be installed.*persona\[baselines\]"):
        text_features(["a"], ["b"])
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingDependency, match="scikit-learn"):
        two_sample_auc(drawn("a", 9, 0, 0), drawn("b", 9, 0, 1), seed=0)
