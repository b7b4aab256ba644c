import math
from pathlib import Path

import numpy as np
import pytest
import torch

from persona.checks import check_profile
from persona.data import ComparisonTable, context_pairs
from persona.errors import DataError, ShapeError
from persona.objectives.preferred_scores import preferred_score_loss, preferred_score_target
from persona.objectives.reward_gaps import reward_gap_loss
from persona.profiles.prompt_weights import PromptWeights, describe_weights
from persona.types import Posterior, ReplyPairs
from tests.helpers.orchestrated_world import PROMPT_DIM, make_orchestrated_world


def lively(n_objectives: int = 3, prompt_dim: int = PROMPT_DIM) -> PromptWeights:
    profile = PromptWeights(n_objectives, prompt_dim=prompt_dim, hidden=4, points=512, seed=0)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in (profile.outer, profile.linear, profile.bias):
            weights.copy_(0.5 * torch.randn(weights.shape, generator=rng))
        profile.log_scale.fill_(math.log(3.0))
    return profile


def one_pair(profile: PromptWeights, gaps: list[float], times: int = 1) -> ReplyPairs:
    """The same pair some times over, at a prompt where the adapter gives even weights."""
    even = -math.log(profile.n_objectives) * torch.ones(profile.n_objectives)
    chosen, rejected = torch.cat([torch.tensor(gaps), even]), torch.cat([torch.zeros(len(gaps)), even])
    mask = torch.ones(1, times, dtype=torch.bool)
    return ReplyPairs(chosen.expand(1, times, -1), rejected.expand(1, times, -1), mask)


@pytest.mark.parametrize("prompt_dim", [0, PROMPT_DIM])
def test_keeps_the_contract_of_profiles(prompt_dim: int) -> None:
    world = make_orchestrated_world(users=10, comparisons=8)
    profile = lively(prompt_dim=prompt_dim)
    features = world.features[:, : 3 + prompt_dim]
    with torch.no_grad():
        check_profile(profile, context_pairs(world.table, profile.lift(features), np.arange(10)))


@torch.no_grad()
def test_without_spread_the_weighted_gap_is_the_log_odds() -> None:
    profile = lively()
    profile.log_spread.fill_(-20.0)
    asked = one_pair(profile, [3.0, -1.0, 1.0])
    posterior = profile.encode(asked)
    assert posterior.mean.abs().max() < 1e-6
    exact = Posterior(posterior.mean, torch.zeros_like(posterior.covariance))
    expected = 1 / (1 + math.exp(-3.0 * (3 - 1 + 1) / 3))
    assert profile.predict(exact, asked).item() == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_posterior_has_the_moments_of_a_fine_grid() -> None:
    profile = lively(n_objectives=2, prompt_dim=0)
    pairs = one_pair(profile, [1.0, -1.0], times=3)
    # On the line h = (t, -t), t ~ N(0, 1), the weighted gap is tanh(t).
    t = torch.linspace(-8, 8, 40_001, dtype=torch.float64)
    density = torch.softmax(3 * torch.nn.functional.logsigmoid(3.0 * torch.tanh(t)) - t.square() / 2, 0)
    mean = (density * t).sum()
    variance = (density * (t - mean).square()).sum()
    posterior = profile.encode(pairs)
    torch.testing.assert_close(posterior.mean.double(), torch.stack([mean, -mean])[None], atol=5e-3, rtol=0.0)
    assert posterior.covariance[0, 0, 0].item() == pytest.approx(variance.item(), abs=0.01)
    assert posterior.covariance[0, 0, 1].item() == pytest.approx(-variance.item(), abs=0.01)


@torch.no_grad()
def test_doubt_about_the_user_pulls_predictions_to_one_half() -> None:
    profile = lively()
    asked = one_pair(profile, [2.0, -1.0, 0.0])
    mean = torch.zeros(1, 3)
    sure, unsure = (
        profile.predict(Posterior(mean, width * torch.eye(3)[None]), asked).item() for width in (1e-4, 4.0)
    )
    assert 0.5 < unsure < sure


@torch.no_grad()
def test_scores_are_standardised_and_the_users_weights_add_in_log_space() -> None:
    profile = PromptWeights(2, hidden=0)
    profile.score_mean.copy_(torch.tensor([1.0, 2.0]))
    profile.score_deviation.copy_(torch.tensor([2.0, 4.0]))
    lifted = profile.lift(torch.tensor([[3.0, 10.0]]))
    torch.testing.assert_close(lifted, torch.tensor([[1.0, 2.0, math.log(0.5), math.log(0.5)]]))
    pairs = one_pair(profile, [1.0, 0.0])
    tilted = Posterior(torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2, 2))
    # softmax(log 1/2 + log 3, log 1/2) = (3/4, 1/4)
    assert profile.predict(tilted, pairs).item() == pytest.approx(1 / (1 + math.exp(-0.75)), rel=1e-5)


def test_report_of_weights_by_hand() -> None:
    profile = PromptWeights(2, hidden=0)
    with torch.no_grad():
        profile.bias.copy_(torch.tensor([math.log(9.0), 0.0]))  # weights 0.9 and 0.1 everywhere
    features = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 5.0]])
    one = np.array([0, 0])
    table = ComparisonTable(one, one, np.array([0, 2]), np.array([1, 1]))
    report = describe_weights(profile, table, features)
    torch.testing.assert_close(report.mean_weights, torch.tensor([0.9, 0.1]))
    assert report.entropy == pytest.approx(-(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / math.log(2))
    assert report.sure_share == 0.0
    p = 1 / (1 + math.exp(-0.9))  # the first pair is called right with p, the second wrong with 1 - q
    q = 1 / (1 + math.exp(-0.4))
    assert report.accuracy == 0.5
    assert report.log_loss == pytest.approx(-(math.log(p) + math.log(1 - q)) / 2)
    # p = 0.71 and q = 0.60 fall into different bins of width 0.05.
    assert report.ece == pytest.approx(((1 - p) + q) / 2, rel=1e-5)
    with pytest.raises(DataError, match="at least one comparison; got none"):
        describe_weights(profile, table.select(np.array([], dtype=np.int64)), features)


def test_saved_profile_is_the_same_to_the_bit(tmp_path: Path) -> None:
    profile = lively()
    profile.save(tmp_path)
    again = PromptWeights.load(tmp_path)
    pairs = one_pair(profile, [1.0, -1.0, 0.5], times=2)
    with torch.no_grad():
        assert torch.equal(again.encode(pairs).mean, profile.encode(pairs).mean)
        assert torch.equal(again.lift(torch.ones(2, 11)), profile.lift(torch.ones(2, 11)))
    path = tmp_path / "prompt_weights.json"
    path.write_text(path.read_text().replace('"n_objectives": 3', '"n_objectives": 4'))
    with pytest.raises(DataError, match="weights of 4 objectives"):
        PromptWeights.load(tmp_path)


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ShapeError, match="got 1, 0 and 32"):
        PromptWeights(1)
    with pytest.raises(ShapeError, match="got 2, -1 and 32"):
        PromptWeights(2, prompt_dim=-1)
    profile = PromptWeights(2, prompt_dim=3)
    with pytest.raises(ShapeError, match="2 objective scores and 3 columns of the prompt; got 4"):
        profile.lift(torch.zeros(1, 4))
    with pytest.raises(ShapeError, match=r"must have 4 columns.*got 5"):
        profile.encode(ReplyPairs.of_differences(torch.zeros(1, 1, 5), torch.ones(1, 1, dtype=torch.bool)))


def test_published_target_and_loss_by_arithmetic() -> None:
    scores = torch.tensor([[0.2, 0.0]])
    high = 1 / (1 + math.exp(-2.0))
    torch.testing.assert_close(
        preferred_score_target(scores, temperature=0.1), torch.tensor([[high, 1 - high]])
    )
    weights = torch.tensor([[0.5, 0.5]])
    divergence = high * math.log(high / 0.5) + (1 - high) * math.log((1 - high) / 0.5)
    got = preferred_score_loss(weights.log(), scores, temperature=0.1)
    torch.testing.assert_close(got, torch.tensor([divergence]))


def test_a_level_that_all_replies_share_moves_the_published_target_alone() -> None:
    chosen, rejected = torch.tensor([[0.5, 0.3]]), torch.tensor([[0.0, 0.4]])
    shift = torch.tensor([[0.0, -3.0]])  # a prompt to which every reply scores low on the second
    weights = torch.tensor([[0.4, 0.6]]).log()
    one = torch.ones(())
    plain = reward_gap_loss(weights, chosen - rejected, one, concentration=1.1)
    shifted = reward_gap_loss(weights, (chosen + shift) - (rejected + shift), one, concentration=1.1)
    torch.testing.assert_close(plain, shifted)
    before, after = (preferred_score_target(x, temperature=0.1)[0, 1] for x in (chosen, chosen + shift))
    assert before > 0.1
    assert after < 1e-6


def test_gap_loss_by_arithmetic() -> None:
    weights, gaps = torch.tensor([[0.25, 0.75]]), torch.tensor([[2.0, -1.0]])
    got = reward_gap_loss(weights.log(), gaps, torch.tensor(4.0), concentration=1.5)
    odds = 4.0 * (0.25 * 2.0 - 0.75)
    expected = math.log(1 + math.exp(-odds)) - 0.5 * (math.log(0.25) + math.log(0.75)) / 2
    torch.testing.assert_close(got, torch.tensor([expected]))


def test_faulty_losses_are_named() -> None:
    with pytest.raises(DataError, match="positive; got -1"):
        preferred_score_target(torch.zeros(1, 2), temperature=-1.0)
    with pytest.raises(ShapeError, match=r"got \(1, 2\) and \(1, 3\)"):
        preferred_score_loss(torch.zeros(1, 2), torch.zeros(1, 3), temperature=0.1)
    with pytest.raises(ShapeError, match=r"got \(1, 2\) and \(3, 2\)"):
        reward_gap_loss(torch.zeros(1, 2), torch.zeros(3, 2), torch.ones(()), concentration=1.0)
    with pytest.raises(DataError, match=r"at least 1; got 0\.5"):
        reward_gap_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(()), concentration=0.5)
