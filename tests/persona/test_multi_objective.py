import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from persona.errors import DataError, ShapeError
from persona.objectives.masked_mse import masked_squared_error
from persona.rewards.multi_objective import (
    MultiObjectiveReward,
    explained_variance,
    fit_multi_objective,
    length_multiples,
    rating_to_hundred,
)

NAMES = ("help", "honesty", "verbosity")
MISSING = float("nan")


def rated(rows: int = 400, seed: int = 0, missing: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, labels 0..100 with gaps, prompts, and the true weights."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, 6, generator=generator) + 2.0
    weight = torch.randn(6, 3, generator=generator)
    labels = 50 + 5 * features @ weight + torch.randn(rows, 3, generator=generator)
    gaps = torch.rand(rows, 3, generator=generator) < missing
    return features, labels.masked_fill(gaps, MISSING), torch.arange(rows) // 4, weight


def test_published_scales_become_hundreds() -> None:
    helpsteer = rating_to_hundred(torch.tensor([0.0, 1.0, 4.0, MISSING]), lowest=0, highest=4)
    assert helpsteer[:3].tolist() == [20 * 0 + 10, 20 * 1 + 10, 20 * 4 + 10]
    assert helpsteer[3].isnan()
    assert rating_to_hundred(torch.tensor([1.0, 10.0]), lowest=1, highest=10).tolist() == [5.0, 95.0]
    with pytest.raises(DataError, match=r"got 1\.\.5 and 1 ratings outside, such as \[0\.0\]"):
        rating_to_hundred(torch.tensor([0.0, 3.0]), lowest=1, highest=5)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_heads_recover_the_truth_whatever_is_missing(missing: float) -> None:
    features, labels, prompts, weight = rated(missing=missing)
    reward = fit_multi_objective(features, labels, prompts, names=NAMES, seed=0)
    torch.testing.assert_close(reward.weight * reward.label_std, 5 * weight, atol=0.25, rtol=0.0)
    unseen, truth, _, _ = rated(seed=0)
    r2 = explained_variance(reward.rate(unseen), truth, NAMES)
    assert list(r2) == list(NAMES) and min(r2.values()) > 0.9
    scores = reward.score(features)[~labels.isnan().any(1)]
    assert scores.std(0).min() > 0.8 and scores.std(0).max() < 1.2


def test_one_penalty_is_plain_ridge_on_the_labelled_rows() -> None:
    features, labels, prompts, _ = rated(rows=40, missing=0.3)
    reward = fit_multi_objective(features, labels, prompts, names=NAMES, seed=0, penalties=[7.0])
    for column in range(3):
        rows = ~labels[:, column].isnan()
        x, y = features[rows].double(), labels[rows, column].double()
        y = (y - y.mean()) / y.std(correction=0)
        centred = x - x.mean(0)
        expected = torch.linalg.solve(centred.T @ centred + 7.0 * torch.eye(6), centred.T @ y)
        torch.testing.assert_close(reward.weight[:, column], expected.float(), atol=1e-5, rtol=1e-4)
        assert reward.score(features[rows])[:, column].mean().item() == pytest.approx(0.0, abs=1e-5)


def test_held_out_prompts_choose_a_large_penalty_where_nothing_is_to_be_learned() -> None:
    features, labels, prompts, _ = rated(rows=60)
    noise = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    learned = fit_multi_objective(features, labels, prompts, names=NAMES, seed=0)
    nothing = fit_multi_objective(features, noise, prompts, names=NAMES, seed=0)
    assert nothing.weight.abs().max() < 0.15 < learned.weight.abs().max()


def test_a_row_that_lacks_a_label_teaches_that_objective_nothing() -> None:
    features, labels, prompts, _ = rated(rows=80)
    labels[:40, 1] = MISSING
    far = features.clone()
    far[:40] = 100.0
    for column, same in ((1, True), (0, False)):
        heads = [
            fit_multi_objective(x, labels, prompts, names=NAMES, seed=0, penalties=[1.0]).weight[:, column]
            for x in (features, far)
        ]
        assert bool((heads[0] - heads[1]).abs().max() < 1e-5) is same


def test_scores_freed_from_length_no_longer_follow_it() -> None:
    rng = np.random.default_rng(0)
    length = rng.normal(size=500)
    own = rng.normal(size=(500, 3))
    scores = torch.from_numpy(own + np.array([1.5, -0.7, 0.0]) * length[:, None])
    multiples = length_multiples(scores, torch.from_numpy(length), limit=0.02)
    freed = scores - multiples.double() * torch.from_numpy(length)[:, None]
    before = [spearmanr(scores[:, a], length).statistic for a in range(3)]
    after = [spearmanr(freed[:, a], length).statistic for a in range(3)]
    assert max(map(abs, after)) <= 0.0201
    assert multiples[0].item() == pytest.approx(1.5, abs=0.15) and before[0] > 0.7
    assert multiples[1].item() == pytest.approx(-0.7, abs=0.15) and before[1] < -0.4
    # No more is taken than needed: the correlation ends at the limit, on its own side.
    assert after[0] == pytest.approx(0.02, abs=1e-3) and after[1] == pytest.approx(-0.02, abs=1e-3)


def test_what_hardly_follows_length_is_left_alone() -> None:
    scores = torch.tensor([[1.0], [-1.0], [-1.0], [1.0]])
    assert length_multiples(scores, torch.arange(4.0)).tolist() == [0.0]


def test_heads_less_length_are_heads() -> None:
    features, labels, prompts, _ = rated()
    reward = fit_multi_objective(features, labels, prompts, names=NAMES, seed=0)
    scores = reward.score(features)
    multiples = torch.tensor([0.5, -0.25, 0.0])
    freed = reward.without("verbosity", multiples)
    torch.testing.assert_close(freed.score(features), scores - multiples * scores[:, [2]])
    with pytest.raises(DataError, match="one of help, honesty, verbosity; got `lenght`"):
        reward.without("lenght", multiples)


def test_all_heads_but_the_length_itself_are_freed_from_it() -> None:
    features, labels, prompts, _ = rated()
    reward = fit_multi_objective(features, labels, prompts, names=NAMES, seed=0)
    scores, freed = reward.score(features), reward.freed_from("verbosity", features)
    after = freed.score(features)
    assert torch.equal(after[:, 2], scores[:, 2])
    assert max(abs(spearmanr(scores[:, a], scores[:, 2]).statistic) for a in range(2)) > 0.1
    assert max(abs(spearmanr(after[:, a], scores[:, 2]).statistic) for a in range(2)) <= 0.0301
    with pytest.raises(DataError, match="one of help, honesty, verbosity; got `length`"):
        reward.freed_from("length", features)


def test_explained_variance_is_that_of_the_known_labels() -> None:
    labels = torch.tensor([[1.0, 5.0], [3.0, MISSING], [5.0, 5.0]])
    predicted = torch.tensor([[2.0, 5.0], [3.0, 9.0], [5.0, 5.0]])
    r2 = explained_variance(predicted, labels, ("a", "b"))
    assert r2["a"] == pytest.approx(1 - 1 / 8)
    assert math.isnan(r2["b"])
    with pytest.raises(ShapeError, match=r"shape \(N, 3\); got \(3, 2\) and \(3, 2\)"):
        explained_variance(predicted, labels, NAMES)


def test_missing_labels_give_no_error_and_no_gradient() -> None:
    predicted = torch.tensor([[1.0, 2.0], [4.0, 0.5], [7.0, 7.0]], requires_grad=True)
    label = torch.tensor([[2.0, MISSING], [1.0, 1.5], [MISSING, MISSING]])
    loss = masked_squared_error(predicted, label)
    assert loss.tolist() == [1.0, (9 + 1) / 2, 0.0]
    loss.sum().backward()
    assert predicted.grad is not None
    assert predicted.grad.tolist() == [[-2.0, 0.0], [3.0, -1.0], [0.0, 0.0]]
    with pytest.raises(ShapeError, match=r"got \(3, 2\) and \(3,\)"):
        masked_squared_error(predicted, label[:, 0])


def test_features_of_any_float_type_are_scored_in_float32() -> None:
    features, labels, prompts, _ = rated(rows=40)
    coarse = features.bfloat16()
    reward = fit_multi_objective(coarse, labels, prompts, names=NAMES, seed=0)
    assert torch.equal(reward.score(coarse), reward.score(coarse.float()))


def test_saved_heads_come_back(tmp_path: Path) -> None:
    features, labels, prompts, _ = rated(rows=40)
    reward = fit_multi_objective(features, labels, prompts, names=NAMES, seed=0)
    reward.save(tmp_path)
    again = MultiObjectiveReward.load(tmp_path)
    assert again.names == NAMES
    assert torch.equal(again.rate(features), reward.rate(features))


def test_faults_are_named() -> None:
    features, labels, prompts, _ = rated(rows=40)
    reward = fit_multi_objective(features, labels, prompts, names=NAMES, seed=0)
    with pytest.raises(ShapeError, match=r"6 columns.*got shape \(2, 5\)"):
        reward.score(torch.zeros(2, 5))
    with pytest.raises(ShapeError, match=r"shape \(D, 2\).*got \(6, 3\)"):
        MultiObjectiveReward(NAMES[:2], reward.weight, reward.bias, reward.label_mean, reward.label_std)
    with pytest.raises(ShapeError, match=r"got \(40, 6\), \(40, 3\) and \(39,\)"):
        fit_multi_objective(features, labels, prompts[1:], names=NAMES, seed=0)
    with pytest.raises(DataError, match=r"positive, at least one; got \[0\.0\]"):
        fit_multi_objective(features, labels, prompts, names=NAMES, seed=0, penalties=[0.0])
    with pytest.raises(DataError, match=r"number of prompts \(10\); got 11"):
        fit_multi_objective(features, labels, prompts, names=NAMES, seed=0, folds=11)
    flat = labels.clone()
    flat[:, 1], flat[1:, 2] = 50.0, MISSING
    with pytest.raises(DataError, match="got fewer for honesty, verbosity"):
        fit_multi_objective(features, flat, prompts, names=NAMES, seed=0)
    with pytest.raises(ShapeError, match=r"got \(40, 3\) and \(39,\)"):
        length_multiples(labels, labels[1:, 0])
    with pytest.raises(DataError, match=r"at least 0\.01; got 0\.001"):
        length_multiples(labels, labels[:, 0], limit=0.001)
    with pytest.raises(DataError, match=r"got .* or no variation in columns \[2\]"):
        length_multiples(reward.score(features), reward.score(features)[:, 2])
