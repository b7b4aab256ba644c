import math

import pytest
import torch

from persona.errors import ShapeError
from persona.profiles.kinds import (
    VARIANCE_FLOOR,
    belief_over_kinds,
    gaussian_belief,
    log_evidence,
    log_weight_points,
    marginal_surprise,
    moments_of_kinds,
)
from persona.types import ReplyPairs


def coin_likelihood(pairs: ReplyPairs) -> torch.Tensor:
    """Kind 0 follows the only feature with probability 0.8, kind 1 with 0.3."""
    favour = torch.tensor([0.8, 0.3])
    return torch.where(pairs.difference > 0, favour, 1 - favour).log()


def choices(signs: list[list[float]], mask: list[list[bool]]) -> ReplyPairs:
    return ReplyPairs.of_differences(torch.tensor(signs)[..., None], torch.tensor(mask))


def test_belief_is_bayes_rule() -> None:
    prior = torch.tensor([0.25, 0.75])
    pairs = choices([[1.0, 1.0, -1.0], [1.0, 0.0, 0.0]], [[True] * 3, [True, False, False]])
    first = 0.25 * 0.8 * 0.8 * 0.2
    second = 0.75 * 0.3 * 0.3 * 0.7
    lone = 0.25 * 0.8 / (0.25 * 0.8 + 0.75 * 0.3)
    expected = [[first / (first + second), second / (first + second)], [lone, 1 - lone]]
    torch.testing.assert_close(belief_over_kinds(coin_likelihood, prior.log(), pairs), torch.tensor(expected))


def test_blocks_of_users_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = choices([[1.0], [-1.0], [1.0], [-1.0], [1.0]], [[True]] * 5)
    prior = torch.tensor([0.5, 0.5]).log()
    whole = belief_over_kinds(coin_likelihood, prior, pairs)
    monkeypatch.setattr("persona.profiles.kinds._CELLS", 4)
    assert torch.equal(belief_over_kinds(coin_likelihood, prior, pairs), whole)
    none = ReplyPairs(*(part[:0] for part in pairs))
    assert belief_over_kinds(coin_likelihood, prior, none).shape == (0, 2)


def test_a_lone_pair_and_its_swap_lie_on_two_sides_of_zero() -> None:
    places = torch.tensor([[3.0, -1.0], [-1.0, 1 / 3]])
    prior = torch.tensor([0.25, 0.75])
    assert (prior @ places).abs().max() < 1e-6
    pairs = choices([[1.0]], [[True]])
    ahead = belief_over_kinds(coin_likelihood, prior.log(), pairs) @ places
    behind = belief_over_kinds(coin_likelihood, prior.log(), pairs.swapped) @ places
    assert torch.nn.functional.cosine_similarity(ahead, behind).item() == pytest.approx(-1.0, abs=1e-6)


def test_moments_are_those_of_the_places() -> None:
    belief, places = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 2.0], [-1.0, 2.0]])
    mean, covariance = moments_of_kinds(belief, places)
    torch.testing.assert_close(mean, torch.tensor([[0.0, 2.0]]))
    wanted = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]) + VARIANCE_FLOOR * torch.eye(2)
    torch.testing.assert_close(covariance, wanted)
    assert gaussian_belief(belief, places).weights is None


@pytest.mark.parametrize("size", [2, 5])
def test_points_are_white_opposite_and_sum_to_zero(size: int) -> None:
    points = log_weight_points(size, 256, seed=3)
    assert torch.equal(points[:128], -points[128:])
    assert points.sum(1).abs().max() < 1e-5
    # On the plane of vectors that sum to zero, unit variance a coordinate means a correlation of -1 / (K - 1).
    wanted = torch.full((size, size), -1.0 / (size - 1)).fill_diagonal_(1.0)
    torch.testing.assert_close(points.T @ points / 256, wanted, atol=1e-5, rtol=0.0)
    assert torch.equal(points, log_weight_points(size, 256, seed=3))
    assert not torch.equal(points, log_weight_points(size, 256, seed=4))


def test_points_integrate_like_the_normal_distribution() -> None:
    points = log_weight_points(2, 1024, seed=0)[:, 0]
    assert (1.5 * points).cos().mean().item() == pytest.approx(math.exp(-(1.5**2) / 2), abs=5e-3)


def test_marginal_surprise_averages_joint_probabilities() -> None:
    pairs = choices([[1.0, 1.0], [-1.0, 0.0]], [[True, True], [True, False]])
    both, lone = (0.8**2 + 0.3**2) / 2, (0.2 + 0.7) / 2
    expected = -(math.log(both) + math.log(lone)) / 3
    assert marginal_surprise(coin_likelihood(pairs), pairs.mask).item() == pytest.approx(expected, rel=1e-5)


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ShapeError, match="got 1 and 8"):
        log_weight_points(1, 8, seed=0)
    with pytest.raises(ShapeError, match="got 3 and 10"):
        log_weight_points(3, 10, seed=0)
    with pytest.raises(ShapeError, match="got 2 and 9"):
        log_weight_points(2, 9, seed=0)
    with pytest.raises(ShapeError, match=r"got \(2, 3\) and \(2, 3\)"):
        log_evidence(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool))
