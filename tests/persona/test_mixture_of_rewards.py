import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from persona.checks import check_profile
from persona.data import context_pairs
from persona.errors import DataError, ShapeError
from persona.objectives.hedge import hedge_loss, hedge_target
from persona.objectives.mixture_of_rewards import mixture_of_rewards_loss
from persona.profiles.mixture_of_rewards import MixtureOfRewards
from persona.types import Posterior, ReplyPairs
from tests.helpers.preference_world import make_world


def profile_of(prompt_dim: int = 5, n_heads: int = 4) -> MixtureOfRewards:
    """A profile over the 40 columns of the world, with a router that does depend on the prompt."""
    profile = MixtureOfRewards(40, n_heads, prompt_dim=prompt_dim, hidden=8, points=256, seed=1)
    with torch.no_grad():
        profile.router_out.mul_(100.0)
    return profile


def contexts(profile: MixtureOfRewards, k: int = 8) -> ReplyPairs:
    world = make_world(users=10, comparisons=8)
    features = world.features.clone()
    if profile.prompt_dim:  # replies to one prompt share its columns
        features[:, -profile.prompt_dim :] = (
            features[:, -profile.prompt_dim :].unflatten(0, (400, 6))[:, :1].expand(-1, 6, -1).flatten(0, 1)
        )
    return context_pairs(world.table, profile.lift(features), np.arange(10), k)


@pytest.mark.parametrize("prompt_dim", [0, 5])
def test_keeps_the_contract_of_profiles(prompt_dim: int) -> None:
    profile = profile_of(prompt_dim)
    with torch.no_grad():
        check_profile(profile, contexts(profile))


@torch.no_grad()
def test_likelihood_equals_a_sum_over_heads_one_user_at_a_time() -> None:
    profile = profile_of()
    profile.log_spread.fill_(0.4)
    pairs = contexts(profile, k=2)
    margins, log_router = profile.read(pairs)
    got = profile.log_likelihood(pairs)
    for user, pair, point in [(0, 0, 0), (3, 1, 17), (9, 0, 255)]:
        tilt = [math.exp(0.4) * h for h in profile.points[point].tolist()]
        weights = [math.exp(g + h) for g, h in zip(log_router[user, pair].tolist(), tilt, strict=True)]
        wins = [1 / (1 + math.exp(-m)) for m in margins[user, pair].tolist()]
        p = sum(w * q for w, q in zip(weights, wins, strict=True)) / sum(weights)
        assert got[user, pair, point].item() == pytest.approx(math.log(p), abs=1e-4)


@torch.no_grad()
def test_without_pairs_the_router_decides_alone() -> None:
    profile = profile_of()
    asked = contexts(profile)
    posterior = profile.encode(contexts(profile, k=0))
    margins, log_router = profile.read(asked)
    expected = (log_router.exp() * torch.sigmoid(margins)).sum(-1)
    torch.testing.assert_close(profile.predict(posterior, asked), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pairs_that_one_head_alone_foresees_raise_its_weight() -> None:
    profile = MixtureOfRewards(3, 3, hidden=1, points=512, seed=0)
    profile.heads.copy_(4.0 * torch.eye(3))
    pull = torch.tensor([[[1.0, -1.0, -1.0]]]).expand(1, 6, 3)
    pairs = ReplyPairs(
        profile.lift(pull), profile.lift(torch.zeros(1, 6, 3)), torch.ones(1, 6, dtype=torch.bool)
    )
    posterior = profile.encode(pairs)
    assert posterior.weights is not None
    torch.testing.assert_close(posterior.weights.sum(1), torch.ones(1))
    assert posterior.weights[0, 0] > 0.6
    assert posterior.mean[0, 0] > 0 > posterior.mean[0, 1:].max()
    few = profile.encode(ReplyPairs(*(part[:, :2] for part in pairs)))
    assert few.weights is not None
    assert posterior.weights[0, 0] > few.weights[0, 0] > 1 / 3


@torch.no_grad()
def test_spread_is_the_temperature_of_the_update() -> None:
    profile = profile_of()
    pairs = contexts(profile)
    moved = []
    for spread in (1e-3, 0.5, 2.0):
        profile.log_spread.fill_(math.log(spread))
        weights = profile.encode(pairs).weights
        assert weights is not None
        moved.append((weights - 0.25).abs().max().item())
    assert moved[0] < 1e-3 < moved[1] < moved[2]


@torch.no_grad()
def test_log_weights_set_by_hand_tilt_the_router() -> None:
    profile = profile_of()
    asked = contexts(profile)
    by_hand = Posterior(torch.tensor([[50.0, 0.0, 0.0, 0.0]]).expand(10, 4), torch.eye(4).expand(10, 4, 4))
    expected = torch.sigmoid(profile.read(asked)[0][..., 0])
    torch.testing.assert_close(profile.predict(by_hand, asked), expected, atol=1e-5, rtol=1e-5)


def test_gradient_reaches_every_part() -> None:
    profile = profile_of()
    profile.log_likelihood(contexts(profile)).mean().backward()
    for weights in profile.parameters():
        assert weights.grad is not None
        assert (weights.grad != 0).any()


@torch.no_grad()
def test_a_user_takes_milliseconds() -> None:
    profile = profile_of(n_heads=16)
    pairs = ReplyPairs(*(part[:1].repeat_interleave(2, 1) for part in contexts(profile)))
    profile.encode(pairs)
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        profile.encode(pairs)
        spent.append(time.perf_counter() - start)
    assert pairs.mask.sum() == 16
    assert min(spent) < 0.02


def test_saved_profile_is_the_same_to_the_bit(tmp_path: Path) -> None:
    profile = profile_of()
    profile.save(tmp_path)
    again = MixtureOfRewards.load(tmp_path)
    with torch.no_grad():
        pairs = contexts(profile)
        assert torch.equal(contexts(again).chosen, pairs.chosen)
        assert torch.equal(again.encode(pairs).mean, profile.encode(pairs).mean)
    path = tmp_path / "mixture_of_rewards.json"
    path.write_text(path.read_text().replace('"n_heads": 4', '"n_heads": 5'))
    with pytest.raises(DataError, match="a mixture of 5 heads over 40 features"):
        MixtureOfRewards.load(tmp_path)


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ShapeError, match="got 1, 128 and 0 of 7"):
        MixtureOfRewards(7, 1)
    with pytest.raises(ShapeError, match="got 2, 128 and 7 of 7"):
        MixtureOfRewards(7, 2, prompt_dim=7)
    profile = MixtureOfRewards(7, 2, prompt_dim=3)
    with pytest.raises(ShapeError, match=r"7 columns, the last 3 the prompt's; got 6"):
        profile.lift(torch.zeros(2, 6))
    with pytest.raises(ShapeError, match=r"must have 4 columns.*got 7"):
        profile.encode(ReplyPairs.of_differences(torch.zeros(1, 1, 7), torch.ones(1, 1, dtype=torch.bool)))


def test_loss_is_the_mixture_likelihood_plus_negative_entropy() -> None:
    router = torch.tensor([[0.7, 0.3], [1.0, 0.0]])
    margins = torch.tensor([[2.0, -1.0], [0.5, 40.0]])
    got = mixture_of_rewards_loss(router.log(), margins, balance=0.5)
    win, lose = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))
    first = -math.log(0.7 * win + 0.3 * lose) + 0.5 * (0.7 * math.log(0.7) + 0.3 * math.log(0.3))
    second = math.log(1 + math.exp(-0.5))  # a router that is sure has no entropy, and no NaN
    torch.testing.assert_close(got, torch.tensor([first, second]))


def test_balance_pushes_the_router_to_evenness() -> None:
    logits = torch.tensor([[1.0, 0.0]], requires_grad=True)
    mixture_of_rewards_loss(logits.log_softmax(1), torch.zeros(1, 2), balance=0.5).sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] > 0 > logits.grad[0, 1]  # descent lowers the larger weight


def test_one_head_is_bradley_terry() -> None:
    margins = torch.tensor([[1.3], [-0.2]])
    got = mixture_of_rewards_loss(torch.zeros(2, 1), margins, balance=0.5)
    torch.testing.assert_close(got, torch.nn.functional.softplus(-margins[:, 0]))


def test_hedge_target_is_bayes_at_one_and_a_vote_near_zero() -> None:
    router, margins = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.0, 1.0]])
    win = 1 / (1 + math.exp(-1))
    bayes = 0.1 * win / (0.1 * win + 0.9 * 0.5)
    got = hedge_target(router.log(), margins, temperature=1.0)
    torch.testing.assert_close(got, torch.tensor([[1 - bayes, bayes]]))
    vote = hedge_target(router.log(), margins, temperature=1e-3)
    torch.testing.assert_close(vote, torch.tensor([[0.0, 1.0]]))
    loss = hedge_loss(router.log(), got)
    expected = -(1 - bayes) * math.log(0.9) - bayes * math.log(0.1)
    torch.testing.assert_close(loss, torch.tensor([expected]))


def test_faulty_losses_are_named() -> None:
    with pytest.raises(ShapeError, match=r"got \(1, 2\) and \(1, 3\)"):
        mixture_of_rewards_loss(torch.zeros(1, 2), torch.zeros(1, 3), balance=0.5)
    with pytest.raises(ShapeError, match=r"got \(1, 2\) and \(2, 2\)"):
        hedge_target(torch.zeros(1, 2), torch.zeros(2, 2), temperature=1.0)
    with pytest.raises(DataError, match="positive; got 0"):
        hedge_target(torch.zeros(1, 2), torch.zeros(1, 2), temperature=0.0)
    with pytest.raises(ShapeError, match=r"got \(1, 2\) and \(1, 4\)"):
        hedge_loss(torch.zeros(1, 2), torch.zeros(1, 4))
